"""Benchmarks of a running environment: client, service and workers."""
