"""Many shots of a large state, in units of one sweep through the state.

One run of the engine executes all passes of a circuit, then draws 10^6 shots of the final state as
counts. The clock is read after the last pass; the time of a sweep is the time of the passes divided
by the number of sweeps through the whole state. For comparison, all amplitudes are read once, and
read and written once, in the same rounds by as many threads; no sweep can be faster.

One thread is measured by its CPU time, since other processes may be running.

    python -m bench run sampling [--qubits 26] [--shots 1000000] [--circuit ansatz] [--rounds 3]
"""

from __future__ import annotations

from argparse import Namespace

import numpy as np

from bench.engine.distributed_rank import circuit_of
from bench.harness import Clock, Option, Report, Times, clock_of, medians, rounds, timed_s
from bench.harness.kernels import load_kernels
from bench.harness.timing import in_threads
from simulators.engine import Request, RunControl, RunOptions
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.planning.planner import SegmentPlan, describe_sweeps
from simulators.statevector.program import build_program

SEED = 7


class Watched(RunControl):
    """Run control that records the time of the last pass."""

    __slots__ = ("_clock", "last_s")

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.last_s = 0.0

    def sweeps_done(self, passes: int = 1) -> None:
        super().sweeps_done(passes)
        self.last_s = self._clock()


OPTIONS = (
    Option("--qubits", type=int, default=26, quick=22),
    Option("--shots", type=int, default=10**6),
    Option("--circuit", default="ansatz"),
    Option("--threads", type=int, default=2),
    Option("--precision", choices=("double", "single"), default="double"),
    rounds(3, quick=1),
)


def run(options: Namespace) -> Report:
    load_kernels()
    what = f"{options.shots:,} of {options.qubits} qubits, {options.precision}"
    report = Report("sampling", f"shots: {what}")
    times: Times = {"simulation": [], "sampling": [], "read": [], "written": []}
    outcomes = 0
    clock = clock_of(cpu=options.threads == 1)
    run = Runs(options, clock)
    run(1)
    for _ in range(options.rounds):
        *seconds, outcomes = run(options.shots)
        for entry, each in zip(times.values(), (*seconds, *_memory(options, clock)), strict=True):
            entry.append(each)
    entries = medians(times)
    size = (16 if options.precision == "double" else 8) << options.qubits
    sweep_s = entries["simulation"] / run.sweeps
    print(f"{options.circuit}, {options.threads} threads")
    print(f"simulation {entries['simulation']:.2f} s, {run.sweeps:.1f} sweeps")
    print(f"sampling {entries['sampling']:.3f} s, {outcomes:,} different outcomes")
    rate = size / entries["read"] / 1e9
    print(f"all amplitudes read once: {entries['read']:.3f} s, {rate:.1f} GB/s")
    print(f"read and written once: {entries['written']:.3f} s\n")
    report.at_most("of_sweep", entries["sampling"] / sweep_s, "sampling, in sweeps of this run")
    return report


class Runs:
    """Runs of one circuit. `sweeps`: number of sweeps through the whole state in its passes."""

    def __init__(self, options: Namespace, clock: Clock) -> None:
        self._circuit = circuit_of(options.circuit, options.qubits, SEED)
        self._options = RunOptions(precision=options.precision, threads=options.threads)
        self._clock = clock
        self._engine = StatevectorEngine()
        self._plan = self._engine.plan(self._circuit, None, self._options)
        planned = build_program(self._circuit, keep=False, precision=options.precision)
        stretches = [each for each in planned.stretches if isinstance(each, SegmentPlan)]
        passes = [each for stretch in stretches for each in describe_sweeps(stretch.sweeps)]
        self.sweeps = sum(each.amplitudes for each in passes) / 2.0**options.qubits

    def __call__(self, shots: int) -> tuple[float, float, int]:
        """Return the seconds of the passes and of sampling, and the number of different
        outcomes."""
        control, request = Watched(self._clock), Request(shots, SEED)
        begin_s = self._clock()
        result = self._engine.run(self._plan, self._circuit, request, self._options, control)
        end_s = self._clock()
        assert control.passes[0] == control.passes[1] > 0
        return control.last_s - begin_s, end_s - control.last_s, len(result.counts) // 4


def _memory(options: Namespace, clock: Clock) -> tuple[float, float]:
    """Return the seconds in which the threads read all amplitudes once, and read and write them
    once."""
    dtype = np.float64 if options.precision == "double" else np.float32
    parts = np.array_split(np.ones(2 << options.qubits, dtype), options.threads)
    read_s = timed_s(lambda: in_threads(np.max, parts), clock)
    return read_s, timed_s(lambda: in_threads(lambda part: np.negative(part, part), parts), clock)
