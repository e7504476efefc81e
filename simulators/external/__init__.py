"""Simulators that are programs of their own: one process a circuit."""
