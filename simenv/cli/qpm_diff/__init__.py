"""`simenv qpm diff`: differences that an application sees when it moves from one pool to another.

The same circuits and the same invalid requests go through a QPM to both pools (`probes`,
`observe`). The answers are reduced to names and types (`values`) and compared (`distances`,
`compare`) without any I/O; `command` prints the comparison.
"""
