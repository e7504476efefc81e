"""Many shots of a large state, in units of one sweep through the state.

One run of the engine executes all passes of an ansatz on 26 qubits, then draws 10^6 shots of the
final state as counts, by two threads in double precision. The clock is read after the last pass;
the time of a sweep is the time of the passes divided by the number of sweeps through the whole
state.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace

from bench.engine.distributed_rank import circuit_of
from bench.harness import Option, Report, rounds
from bench.harness.kernels import load_kernels
from simulators.engine import Request, RunControl, RunOptions
from simulators.statevector.engine import StatevectorEngine
from simulators.statevector.planning.planner import SegmentPlan, describe_sweeps
from simulators.statevector.program import build_program

SEED, SHOTS = 7, 10**6


class Watched(RunControl):
    """Run control that records the time of the last pass."""

    __slots__ = ("last_s",)

    def advance(self, unit: str, done: float = 1, *, before: bool = False) -> None:
        super().advance(unit, done, before=before)
        self.last_s = time.perf_counter()


OPTIONS = (Option("--qubits", default=26, quick=22), rounds(3, quick=1))


def run(options: Namespace) -> Report:
    load_kernels()
    report = Report("sampling", f"shots: {SHOTS:,} of {options.qubits} qubits, double")
    circuit = circuit_of("ansatz", options.qubits, SEED)
    settings = RunOptions(threads=2)
    engine = StatevectorEngine()
    plan = engine.plan(circuit, None, settings)
    stretches = build_program(circuit, keep=False, precision="double").stretches
    segments = [each for each in stretches if isinstance(each, SegmentPlan)]
    passes = [each for segment in segments for each in describe_sweeps(segment.sweeps)]
    number = sum(each.amplitudes for each in passes) / 2.0**options.qubits
    times = []
    for turn in range(options.rounds + 1):
        control = Watched()
        begin_s = time.perf_counter()
        # The first run, of one shot, loads kernels.
        result = engine.run(plan, circuit, Request(SHOTS if turn else 1, SEED), settings, control)
        end_s = time.perf_counter()
        assert control.progress.fraction == 1.0
        times.append((control.last_s - begin_s, end_s - control.last_s))
    passes_s, sampling_s = map(statistics.median, zip(*times[1:], strict=True))
    print(f"simulation {passes_s:.2f} s, {number:.1f} sweeps")
    print(f"sampling {sampling_s:.3f} s, {len(result.counts) // 4:,} different outcomes\n")
    report.at_most("of_sweep", sampling_s / (passes_s / number), "sampling, in sweeps of this run")
    return report
