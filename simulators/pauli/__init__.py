"""Expectation values of wide circuits, with noise and without, by Pauli propagation."""
