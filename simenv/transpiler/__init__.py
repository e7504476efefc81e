"""Circuits of Qiskit in files and on devices: QPY, Targets, the pass manager that compiles."""
