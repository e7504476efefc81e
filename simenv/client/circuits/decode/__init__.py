"""Programs of the wire format as Qiskit circuits."""
