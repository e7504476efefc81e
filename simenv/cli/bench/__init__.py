"""Measurements of `simenv bench`; the benchmarks of the repository take their circuits from
here."""
