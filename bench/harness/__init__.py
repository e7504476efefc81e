"""Reports, options and clocks that all benchmarks share."""

from bench.harness.options import CPU, SEED, THREADS, Option, rounds
from bench.harness.report import INSTALL_COMMAND, Report, installed
from bench.harness.timing import Times, clock_of, medians, probed, repeated_s, timed, timed_s

__all__ = [
    "CPU", "INSTALL_COMMAND", "SEED", "THREADS", "Option", "Report", "Times",
    "clock_of", "installed", "medians", "probed", "repeated_s", "rounds", "timed", "timed_s",
]  # fmt: skip
