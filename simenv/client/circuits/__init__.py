"""Conversion of user circuits to the wire format and back: text, files and objects of Qiskit.

Invariant: circuits are parsed only here, in the user's process; this import loads neither qiskit
nor numpy.
"""

from __future__ import annotations

from simenv.client.circuits.common.parameters import PackedCircuit
from simenv.client.circuits.decode.to_qiskit import to_qiskit
from simenv.client.circuits.load import load
from simenv.client.circuits.observables import load_observables

__all__ = ["PackedCircuit", "load", "load_observables", "to_qiskit"]
