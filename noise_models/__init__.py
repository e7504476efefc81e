"""Noise of devices: calibration snapshots, channels and noise models.

Gates are identified by name and qubits by number; no module here imports the circuit
representation. All functions are pure.
"""
