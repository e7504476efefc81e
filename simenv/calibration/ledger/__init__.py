"""Which components, qubits and gates of a device cost a circuit its fidelity."""
