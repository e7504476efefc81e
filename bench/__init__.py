"""Benchmarks: goals, peers and the command `python -m bench`; see docs/benchmarks.md."""
