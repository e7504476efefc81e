"""A task in a folder or a .zip: all that is needed to run it again, here or elsewhere.

`bundle.json` says what was asked and how it ended; `program.bin` is the program as it travels, so a
rerun runs the same bytes; `program.qasm` or `program.qpy` is the same for people and other tools.
"""
