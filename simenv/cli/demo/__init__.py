"""Circuits and plots of `simenv demo`."""
