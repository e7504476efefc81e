"""Devices: the protocol, CuPy, compilation of the kernels, and detection of GPUs."""
