"""`simenv qpm diff`: would an application that moves from one pool to another notice?

The same circuits and the same mistakes go through a QPM to both pools (`probes`, `observe`); what
came back is reduced to what a caller can hold on to (`shapes`, `values`) and compared (`distances`,
`compare`) without any I/O; `show` writes it down.
"""
