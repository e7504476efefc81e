"""Many shots of a large state: sampling takes no second sweep.

One run of the engine: all passes of a circuit, then 10^6 shots of the final state, to counts. The
clock is read after the last pass; a sweep is what the passes took, by how often they went through
the whole state. Beside it, in the same rounds and by as many threads: all amplitudes read once, and
read and written once, which is what a sweep that computes nothing cannot do without.

One thread is measured by its CPU time: others may be at work.

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

from simulators.compiler import warmup
from simulators.control import Control
from simulators.engine import Request, RunOptions
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.planning.planner import Stretch
from simulators.statevector.planning.report import sweeps
from simulators.statevector.program import schedule

SEED = 7
Clock = Callable[[], float]


class Watched(Control):
    """Remembers when a pass was done last."""

    __slots__ = ("_clock", "last_s")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.last_s = 0.0

    def passed(self, passes: int = 1) -> None:
        super().passed(passes)
        self.last_s = self._clock()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qubits", type=int, default=26)
    parser.add_argument("--shots", type=int, default=10**6)
    parser.add_argument("--circuit", default="ansatz")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("double", "single"), default="double")
    parser.add_argument("--rounds", type=int, default=3)
    told = parser.parse_args()
    warmup.prepare(Path(sys.prefix) / "var" / "simenv-kernels")
    report = Report("shots", f"shots: {told.shots:,} of {told.qubits} qubits, {told.precision}")
    times: dict[str, list[float]] = {"simulation": [], "sampling": [], "read": [], "written": []}
    outcomes = 0
    clock = time.process_time if told.threads == 1 else time.perf_counter
    run = Runs(told, clock)
    run(1)
    for _ in range(told.rounds):
        simulated_s, sampled_s, outcomes = run(told.shots)
        times["simulation"].append(simulated_s)
        times["sampling"].append(sampled_s)
        read_s, written_s = _memory(told, clock)
        times["read"].append(read_s)
        times["written"].append(written_s)
    found = {name: statistics.median(each) for name, each in times.items()}
    size = (16 if told.precision == "double" else 8) << told.qubits
    sweep_s = found["simulation"] / run.sweeps
    print(f"{told.circuit}, {told.threads} threads")
    print(f"simulation {found['simulation']:.2f} s, {run.sweeps:.1f} sweeps")
    print(f"sampling {found['sampling']:.3f} s, {outcomes:,} different outcomes")
    print(f"all amplitudes read once: {found['read']:.3f} s, {size / found['read'] / 1e9:.1f} GB/s")
    print(f"read and written once: {found['written']:.3f} s\n")
    report.verdict("of_sweep", found["sampling"] / sweep_s, "sampling, in sweeps of this run")
    return report.close()


class Runs:
    """Of one circuit. `sweeps`: how often its passes go through the whole state."""

    def __init__(self, told: argparse.Namespace, clock: Clock) -> None:
        self._circuit = circuit_of(told.circuit, told.qubits, SEED)
        self._options = RunOptions(precision=told.precision, threads=told.threads)
        self._clock = clock
        self._engine = StatevectorEngine()
        self._plan = self._engine.plan(self._circuit, None, self._options)
        planned = schedule(self._circuit, keep=False, precision=told.precision)
        stretches = [each for each in planned.stretches if isinstance(each, Stretch)]
        self.sweeps = sum(sweeps(stretch.sweeps) for stretch in stretches)

    def __call__(self, shots: int) -> tuple[float, float, int]:
        """Seconds of the passes, of what comes after them, and outcomes found."""
        control, request = Watched(self._clock), Request(shots, SEED)
        begin_s = self._clock()
        found = self._engine.run(self._plan, self._circuit, request, self._options, control)
        end_s = self._clock()
        assert control.passes[0] == control.passes[1] > 0
        return control.last_s - begin_s, end_s - control.last_s, len(found.counts) // 4


def _memory(told: argparse.Namespace, clock: Clock) -> tuple[float, float]:
    """Seconds to read so many amplitudes once, and to read and write them, by so many threads."""
    numbers = np.ones(2 << told.qubits, np.float64 if told.precision == "double" else np.float32)
    parts = np.array_split(numbers, told.threads)

    def together(work: Callable[[np.ndarray], object]) -> float:
        running = [threading.Thread(target=work, args=(part,)) for part in parts]
        begin_s = clock()
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return clock() - begin_s

    return together(np.max), together(lambda part: np.negative(part, out=part))


if __name__ == "__main__":
    sys.exit(main())
