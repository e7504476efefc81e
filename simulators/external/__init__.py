"""Simulators that are separate programs: one process a circuit."""
