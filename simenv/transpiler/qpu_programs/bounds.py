"""Limits of programs of several QPUs that exchange bits and qubits."""

MAX_NAME = 64  # characters of the name of a program
MAX_PROGRAMS = 1_000  # that are joined
