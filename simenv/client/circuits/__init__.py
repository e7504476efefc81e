"""Conversion of user circuits to the wire format and back: text, files and objects of Qiskit.

Invariant: circuits are parsed only here, in the user's process; this import loads neither qiskit
nor numpy.
"""

from __future__ import annotations

from simenv.client.circuits.decoder import to_qiskit
from simenv.client.circuits.encoder import ChannelNames
from simenv.client.circuits.load import load, load_many
from simenv.client.circuits.observables import load_observables
from simenv.client.circuits.parameters import PackedCircuit

__all__ = ["ChannelNames", "PackedCircuit", "load", "load_many", "load_observables", "to_qiskit"]
