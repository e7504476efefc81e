"""Fits of a device's noise to measured counts."""
