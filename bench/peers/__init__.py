"""Adapters of the libraries that benchmarks compare simenv with, and of simenv's own engine."""
