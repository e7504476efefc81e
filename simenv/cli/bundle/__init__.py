"""Bundle: a folder or .zip with all that is needed to run a task again, here or elsewhere.

`bundle.json` has the request and its outcome; `program.bin` is the program in the wire format, so
that a rerun runs the same bytes; `program.qasm` or `program.qpy` is the same program for readers
and other tools.
"""
