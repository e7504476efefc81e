"""Benchmarks of the engines alone, without a service."""
