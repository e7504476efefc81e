"""Error ledgers: the loss of a circuit's fidelity by component, qubit and gate of a device."""
