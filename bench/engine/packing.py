"""Packing a QuantumCircuit into a task's bytes: the compiled walk and the Python walk.

Every circuit is new. Each packer packs it once in a round, since the machine's speed drifts. The
figures are CPU seconds of this thread in `load`, from the QuantumCircuit to the packed Program.
Qiskit's QPY runs in the same rounds. The time until the compiled walk is ready is measured in fresh
processes.

    python -m bench run packing [--rounds 30]
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from qiskit import QuantumCircuit, qpy

from bench.harness import Report, medians, rounds
from bench.harness.comparison import rounds_of
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

    def packed(choice: native.EncoderSelector) -> Callable[[QuantumCircuit], Any]:
        def run(source: QuantumCircuit) -> Any:
            native.CHOICE = choice
            return load(source).packed

        return run

    contenders = {"compiled": packed(compiled), "walked": packed(walked), "qpy": _qpy}
    figures: dict[tuple[str, int], float] = {}
    print(f"{'operations':>10s}{'':4s}" + "".join(f"{name:>16s}" for name in contenders))
    for qubits, gates, count in SIZES:
        circuits = [circuit(qubits, gates, seed) for seed in range(count)]
        operations = gates + qubits
        assert all(contenders["compiled"](c) == contenders["walked"](c) for c in circuits)
        calls = {name: partial(_each, call, circuits) for name, call in contenders.items()}
        times = rounds_of(calls, options.rounds, clock=time.thread_time)
        cells = ""
        for name, seconds in medians(times).items():
            us = seconds / count * 1e6
            figures[name, operations] = us / operations
            cells += f"{us:8.0f} {us / operations:6.3f}".rjust(16)
        print(f"{operations:10d}    {cells}")
    print("(us a circuit, us an operation)\n")
    small, _, large = (gates + qubits for qubits, gates, _ in SIZES)
    report.at_most("compiled_34_us", figures["compiled", small], "compiled, 34 operations, us each")
    report.at_most("compiled_10020_us", figures["compiled", large], "compiled, 10,020 operations")
    walk = max(figures["walked", small], figures["walked", large])
    report.at_most("walked_us", walk, "walked, us each")
    report.at_most("ready_ms", _ready_s() * 1e3, "until the compiled walk is there, ms")
    return report


def _each(call: Callable[[QuantumCircuit], Any], circuits: list[QuantumCircuit]) -> None:
    for each in circuits:
        call(each)


def circuit(qubits: int, gates: int, seed: int) -> QuantumCircuit:
    """Return a measured circuit of rotations and entangling gates."""
    rng = np.random.default_rng(seed)
    built = QuantumCircuit(qubits, qubits)
    for gate in range(gates):
        qubit = gate % qubits
        if gate // qubits % 3 == 2:
            built.cx(qubit, (qubit + 1) % qubits)
        elif gate // qubits % 3:
            built.rz(rng.uniform(0, 6), qubit)
        else:
            built.ry(rng.uniform(0, 6), qubit)
    built.measure(range(qubits), range(qubits))
    return built


def _qpy(source: QuantumCircuit) -> None:
    qpy.dump(source, io.BytesIO())


def _ready_s() -> float:
    """Return the median time in seconds, over fresh processes, until the compiled walk is ready."""
    command = [sys.executable, "-c", START]
    runs = [subprocess.run(command, capture_output=True, check=True) for _ in range(STARTS)]
    return statistics.median([float(run.stdout) for run in runs])
