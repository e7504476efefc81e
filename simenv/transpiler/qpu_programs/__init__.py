"""Programs of several QPUs that exchange bits and qubits."""
