"""Contract between a QPM and its host: names, shapes, states and errors; no I/O.

A QPM (quantum platform manager) is the interface through which a host such as QFw drives hardware
or simulators. The contract has two revisions: revision 1 is one class whose methods return plain
records and raise; revision 2 divides the same work into bindings whose methods return envelopes.
`simenv.client.qpm.provider` implements both over a Client.
"""

from __future__ import annotations
