"""What a QPM promises to its host: names, shapes, states and errors; no I/O.

A QPM (quantum platform manager) is what a host such as QFw drives hardware or simulators through.
Two revisions of the contract live side by side: revision 1 is one class whose methods return plain
records and raise; revision 2 divides the same work into bindings whose methods return envelopes.
`simenv.client.qpm.provider` implements both over a Client.
"""

from __future__ import annotations
