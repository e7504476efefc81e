"""What `simenv bench` measures; the benchmarks of the repository take their circuits from here."""
