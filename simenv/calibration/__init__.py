"""Calibration of devices: experiments, certificates, and noise models from measured counts."""
