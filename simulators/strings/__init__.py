"""Pauli strings, and their propagation backwards through circuits."""
