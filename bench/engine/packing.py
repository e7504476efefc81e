"""Packing a QuantumCircuit into a task's bytes: the compiled walk and the Python walk.

Every circuit is new. Each packer packs it once in a round, since the machine's speed drifts. The
figures are CPU seconds of this thread in `load`, from the QuantumCircuit to the packed Program. The
time until the compiled walk is ready is measured in fresh processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable

from qiskit import QuantumCircuit

from bench.circuits import measured
from bench.harness import Report, medians, rounds
from bench.harness.comparison import rounds_of
from bench.small_circuits import gates
from simenv.client.circuits import load, native

SIZES = ((4, 30, 400), (8, 100, 150), (20, 10_000, 2))  # qubits, gates, circuits
STARTS = 7
START = """
import time
from qiskit import QuantumCircuit
from simenv.client.circuits import load, native
load(QuantumCircuit(1))
begin = time.thread_time()
assert native.CHOICE.prepare(), native.CHOICE.build_error
print(time.thread_time() - begin)
"""
OPTIONS = (rounds(30, quick=5),)


def run(options: Namespace) -> Report:
    report = Report("packing", "pack: from a QuantumCircuit to a task's bytes, us an operation")
    compiled, walked = native.EncoderSelector(), native.EncoderSelector()
    if not compiled.prepare():
        report.not_measured("compiled_34_us", "compiled", compiled.build_error)
        return report
    walked.build_error = "this one is to walk"

    def packer(
        choice: native.EncoderSelector, sources: list[QuantumCircuit]
    ) -> Callable[[], list[bytes]]:
        def pack() -> list[bytes]:
            native.CHOICE = choice
            return [load(source).packed for source in sources]

        return pack

    figures: dict[tuple[str, int], float] = {}
    for qubits, number, count in SIZES:
        circuits = [measured(qubits, gates(qubits, number, seed)) for seed in range(count)]
        calls = {"compiled": packer(compiled, circuits), "walked": packer(walked, circuits)}
        assert calls["compiled"]() == calls["walked"]()
        times = rounds_of(calls, options.rounds, clock=time.thread_time)
        for name, seconds in medians(times).items():
            us = seconds / count * 1e6
            figures[name, number] = us / (number + qubits)
            print(f"{number + qubits} operations, {name}: {us:.0f} us, {figures[name, number]:.3f}")
    print()
    (_, small, _), _, (_, large, _) = SIZES
    report.at_most("compiled_34_us", figures["compiled", small], "compiled, 34 operations, us each")
    report.at_most("compiled_10020_us", figures["compiled", large], "compiled, 10,020 operations")
    walk = max(figures["walked", small], figures["walked", large])
    report.at_most("walked_us", walk, "walked, us each")
    report.at_most("ready_ms", _ready_s() * 1e3, "until the compiled walk is there, ms")
    return report


def _ready_s() -> float:
    """Return the median time in seconds, over fresh processes, until the compiled walk is ready."""
    command = [sys.executable, "-c", START]
    runs = [subprocess.run(command, capture_output=True, check=True) for _ in range(STARTS)]
    return statistics.median([float(run.stdout) for run in runs])
