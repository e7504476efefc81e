"""Long OpenQASM programs: a wide Clifford circuit and a dynamic circuit.

A random Clifford circuit on 1,000 qubits, 20 layers deep, is written as OpenQASM 2; the clock runs
from that text to the dict of counts, with 10,000 shots through a running environment. The dynamic
program is a search with feed-forward on 18 qubits: `--dynamic FILE` names it (none comes with the
project), else it is left out.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from pathlib import Path

import simenv
from bench.circuits import clifford_text
from bench.harness import Report, installed, timed
from bench.harness.options import Option, rounds
from simenv.client.client import Client

QUBITS, DEPTH, SHOTS = 1_000, 20, 10_000
ONES = ("h", "s", "sdg", "x", "y", "z", "sx", "id")
OPTIONS = (rounds(5, quick=2), Option("--dynamic", type=Path))


def run(options: Namespace) -> Report:
    report = Report("qasm_programs", f"programs: {SHOTS:,} shots, text in, counts out")
    label = f"random Clifford, {QUBITS} qubits, depth {DEPTH}, s"
    with simenv.local(workers=2) as client:
        if installed("stim"):  # a dependency of the stabilizer engine
            times = []
            for seed in range(options.rounds + 1):  # round 0 loads the engine
                text = clifford_text(QUBITS, DEPTH, seed + 10, ONES, ("cx",))
                times.append(_run_s(client, text, seed, "stabilizer"))
            report.at_most("clifford_s", statistics.median(times[1:]), label)
        else:
            report.not_measured("clifford_s", label, "stim is not installed")
        if options.dynamic is not None:
            times = [_run_s(client, options.dynamic, seed) for seed in range(options.rounds)]
            report.at_most("dynamic_s", statistics.median(times), f"{options.dynamic.stem}, s")
    return report


def _run_s(client: Client, program: str | Path, seed: int, engine: str = "") -> float:
    """Return the seconds of a run by this engine, or any."""

    def call() -> str:
        result = client.run(program, shots=SHOTS, seed=seed)
        assert sum(result.counts.values()) == SHOTS
        return result.engine

    seconds, used = timed(call)
    assert engine in ("", used), used
    return seconds
