"""What all benchmarks share: their options, reports, clocks and rounds."""

from bench.harness.benchmark import SEED, THREADS, benchmark
from bench.harness.report import INSTALL_COMMAND, Report, installed
from bench.harness.timing import (
    Times,
    in_rounds,
    medians,
    print_times,
    probed,
    repeated_s,
    rounds_of,
    timed,
    timed_s,
)

__all__ = [
    "INSTALL_COMMAND", "SEED", "THREADS", "Report", "Times", "benchmark", "in_rounds",
    "installed", "medians", "print_times", "probed", "repeated_s", "rounds_of", "timed", "timed_s",
]  # fmt: skip
