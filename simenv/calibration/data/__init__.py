"""Measured counts with their circuits: the file format, and readers of other sources."""
