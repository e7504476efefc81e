"""Many shots of a large state: sampling takes no second sweep.

One run of the engine: all passes of a circuit, then 10^6 shots of the final state, to counts. The
run's own clock is read after its last pass. Beside it, in the same rounds and by as many threads:
all amplitudes read once, and read and written once, which is what a sweep cannot do without.

    python bench/shots.py [--qubits 26] [--shots 1000000] [--circuit ansatz] [--rounds 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rank_run import circuit_of
from report import Report

from simulators import warm
from simulators.base import Control, Request, RunOptions
from simulators.statevector.engine import StatevectorEngine

SEED = 7


class Watched(Control):
    """Remembers when a pass was done last."""

    __slots__ = ("last_s",)

    def __init__(self) -> None:
        super().__init__()
        self.last_s = 0.0

    def passed(self, passes: int = 1) -> None:
        super().passed(passes)
        self.last_s = time.perf_counter()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qubits", type=int, default=26)
    parser.add_argument("--shots", type=int, default=10**6)
    parser.add_argument("--circuit", default="ansatz")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("double", "single"), default="double")
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    warm.prepare(Path(sys.prefix) / "var" / "simenv-kernels")
    report = Report("shots", f"shots: {told.shots:,} of {told.qubits} qubits, {told.precision}")
    times: dict[str, list[float]] = {"simulation": [], "sampling": [], "read": [], "sweep": []}
    outcomes = 0
    run = _runner(told)
    run(1)
    for _ in range(told.rounds):
        simulated_s, sampled_s, outcomes = run(told.shots)
        times["simulation"].append(simulated_s)
        times["sampling"].append(sampled_s)
        read_s, swept_s = _memory(told.qubits, told.precision, told.threads)
        times["read"].append(read_s)
        times["sweep"].append(swept_s)
    found = {name: statistics.median(each) for name, each in times.items()}
    size = (16 if told.precision == "double" else 8) << told.qubits
    print(f"{told.circuit}: simulation {found['simulation']:.2f} s, {told.threads} threads")
    print(f"sampling {found['sampling']:.3f} s, {outcomes:,} different outcomes")
    print(f"all amplitudes read once: {found['read']:.3f} s, {size / found['read'] / 1e9:.1f} GB/s")
    print(f"read and written once: {found['sweep']:.3f} s\n")
    report.verdict("of_sweep", found["sampling"] / found["sweep"], "sampling, in sweeps of memory")
    return report.close()


def _runner(told: argparse.Namespace) -> Callable[[int], tuple[float, float, int]]:
    """Of so many shots: seconds of the passes, of what comes after them, and outcomes found."""
    circuit = circuit_of(told.circuit, told.qubits, SEED)
    options = RunOptions(precision=told.precision, threads=told.threads)
    engine = StatevectorEngine()
    plan = engine.plan(circuit, None, options)

    def run(shots: int) -> tuple[float, float, int]:
        control = Watched()
        begin_s = time.perf_counter()
        found = engine.run(plan, circuit, Request(shots, SEED), options, control)
        end_s = time.perf_counter()
        assert control.passes[0] == control.passes[1] > 0
        return control.last_s - begin_s, end_s - control.last_s, len(found.counts) // 4

    return run


def _memory(num_qubits: int, precision: str, threads: int) -> tuple[float, float]:
    """Seconds to read so many amplitudes once, and to read and write them, by so many threads."""
    numbers = np.ones(2 << num_qubits, np.float64 if precision == "double" else np.float32)
    parts = np.array_split(numbers, threads)
    for part in parts:
        np.negative(part, out=part)
    return (
        _together([(lambda part=part: part.max()) for part in parts]),
        _together([(lambda part=part: np.negative(part, out=part)) for part in parts]),
    )


def _together(calls: list[Callable[[], object]]) -> float:
    running = [threading.Thread(target=call) for call in calls]
    begin_s = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.perf_counter() - begin_s


if __name__ == "__main__":
    sys.exit(main())
