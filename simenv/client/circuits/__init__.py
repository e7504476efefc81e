"""Circuits between what users have and what travels: every text and every object of Qiskit.

Invariant: parsing happens here, in the user's process, and nowhere else; importing this imports
neither qiskit nor numpy.
"""

from __future__ import annotations

from simenv.client.circuits.common.parameters import PackedCircuit
from simenv.client.circuits.decode.to_qiskit import to_qiskit
from simenv.client.circuits.load import load
from simenv.client.circuits.observables import load_observables

__all__ = ["PackedCircuit", "load", "load_observables", "to_qiskit"]
