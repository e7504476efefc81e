"""Conversion of Qiskit circuits to programs of the wire format."""
