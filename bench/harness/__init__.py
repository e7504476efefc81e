"""Reports, options and clocks that all benchmarks share."""
