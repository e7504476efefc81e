"""Circuits of Qiskit in files, on devices: QPY, Targets, the pass manager that compiles."""
