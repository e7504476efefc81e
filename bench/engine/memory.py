"""Peak memory of a state that fills the machine: 30 qubits, 16 GiB, over 4 ranks.

The Fourier transform and one layer of an ansatz run to their end and are sampled. The figure is the
sum of the peak memory of all ranks. The run does not start where memory is short.
"""

from __future__ import annotations

from argparse import Namespace

import psutil

from bench.engine.distributed import started
from bench.harness import Option, Report

RANKS = 4
SPARE_BYTES = 5 * 2**29  # for buffers, libraries and other processes
OPTIONS = (Option("--qubits", default=30, quick=24),)


def run(options: Namespace) -> Report:
    report = Report("memory", f"memory: {options.qubits} qubits over {RANKS} ranks")
    state = 16 << options.qubits
    free = psutil.virtual_memory().available
    if free < state + SPARE_BYTES:
        print(f"{free / 2**30:.1f} GiB are free: too few for {state / 2**30:.0f} GiB, not begun")
        report.not_measured("peak_gib", "peak of all ranks", "too little memory is free")
        return report
    for name, layers in (("qft", 0), ("ansatz", 1)):
        _, median = started(name, options.qubits, RANKS, 0, layers=layers)
        gib = median.peak_bytes / 2**30 * (16 / (state / 2**30))
        report.at_most("peak_gib", gib, f"{name}: peak of all ranks, for 16 GiB of amplitudes")
    return report
