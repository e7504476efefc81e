"""Characterization experiments as circuits in a device's native gates, and their counts."""
