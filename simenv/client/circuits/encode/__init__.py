"""Qiskit circuits as programs of the wire format."""
