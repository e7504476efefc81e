"""Logical qubits of a calibrated chip: codes, experiments on a pool, and the snapshot they give."""
