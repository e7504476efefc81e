"""Conversion of programs of the wire format to Qiskit circuits."""
