"""A state that fills the machine: 30 qubits in double precision, 16 GiB, over 4 ranks.

The Fourier transform and one layer of an ansatz run to their end and are sampled. What counts is
the most memory that all ranks together ever held. It is not begun where memory is short.

    python bench/memory.py [--qubits 30] [--ranks 4]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rank_scaling import started
from report import Report

RUNS = (("qft", 0), ("ansatz", 1))
SPARE_BYTES = 5 * 2**29  # beside the state: buffers, libraries, and the rest of the machine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qubits", type=int, default=30)
    parser.add_argument("--ranks", type=int, default=4)
    told = parser.parse_args()
    report = Report("memory", f"memory: {told.qubits} qubits over {told.ranks} ranks")
    state = 16 << told.qubits
    free = _available()
    if free < state + SPARE_BYTES:
        print(f"{free / 2**30:.1f} GiB are free: too few for {state / 2**30:.0f} GiB, not begun")
        return 1
    for name, layers in RUNS:
        words = ("--layers", str(layers)) if layers else ()
        _, one = started(name, told.qubits, told.ranks, 0, *words)
        print(
            f"{name}: {one.wall_s:.1f} s, {one.passes} passes, {one.exchanges} exchanges,"
            f" {one.sent_bytes / 1e9:.1f} GB sent, peak {one.peak_bytes / 2**30:.2f} GiB",
            flush=True,
        )
        gib = one.peak_bytes / 2**30 * (16 / (state / 2**30))
        report.verdict("peak_gib", gib, f"{name}: peak of all ranks, for 16 GiB of amplitudes")
    return report.close()


def _available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
