"""Counters of the service, and the store of their samples."""
