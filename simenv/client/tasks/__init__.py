"""Submitted tasks: handles, completions, progress."""
