"""Pulse sequences in a worker: samples by pulser-core, and the engine `rydberg`."""
