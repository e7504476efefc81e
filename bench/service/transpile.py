"""Transpilation of 200 circuits for a device of 127 qubits: two workers compared with one process.

The circuits are different ones of 8 to 16 qubits. `qiskit` is `qiskit.transpile` in one process at
its default level; `workers` is `Client.transpile` at the same level by two workers, including QPY
in both directions. Rounds alternate; figures are medians of the rounds' ratios, of wall time and of
CPU time. The CPU time is that of the client plus that of the busiest worker, as if they did not
overlap: on a busy machine it says more. Circuits must be equal, layouts included.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np
import psutil
from qiskit import QuantumCircuit, transpile

import simenv
from bench.harness import Report, Times, rounds
from bench.harness.environments import cpu_s
from simenv.transpiler.qiskit_runtime import SEED
from simenv.transpiler.transpiler import target_of

CIRCUITS, DEVICE, LEVEL = 200, "sherbrooke", 2
OPTIONS = (rounds(5, quick=2),)


def run(options: Namespace) -> Report:
    report = Report("transpile", f"transpile: {CIRCUITS} circuits for {DEVICE}, level {LEVEL}")
    circuits = [layered(number) for number in range(CIRCUITS)]
    walls: Times = defaultdict(list)
    cpus: Times = defaultdict(list)
    with simenv.local(workers=2, durability="accepted") as client:
        target = target_of(client.device(DEVICE))
        settings = {"optimization_level": LEVEL, "seed_transpiler": SEED, "num_processes": 1}
        methods = {
            "qiskit": partial(transpile, circuits, target=target, **settings),
            "workers": partial(client.transpile, circuits, DEVICE, level=LEVEL),
        }
        for _ in range(2):  # the first call of each worker loads Qiskit
            client.transpile(circuits[:32], DEVICE, level=LEVEL)
        workers = [psutil.Process(each.pid) for each in client.workers()]
        for _ in range(options.rounds):
            entries = {}
            for name, call in methods.items():
                own, before_s = time.process_time(), [cpu_s(each) for each in workers]
                begin = time.perf_counter()
                entries[name] = call()
                walls[name].append(time.perf_counter() - begin)
                busiest = max(np.subtract([cpu_s(each) for each in workers], before_s))
                cpus[name].append(time.process_time() - own + float(busiest))
            assert equal_results(entries["qiskit"], entries["workers"]), "circuits differ"
    for name in methods:
        wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
        print(f"{name:18}{wall:8.3f} s wall{cpu:8.3f} s CPU")
    report.at_least("identical", 1, "all circuits and layouts equal to those of one process")
    for key, label, times in (("wall_share", "wall time", walls), ("cpu_share", "CPU time", cpus)):
        # The median ratio over rounds: a slow machine slows both times of a round.
        ratios = np.divide(times["workers"], times["qiskit"])
        report.at_most(key, float(np.median(ratios)), label)
    return report


def layered(number: int) -> QuantumCircuit:
    """Return rotations and controlled gates on random pairs, measured; the number is the seed."""
    rng = np.random.default_rng([5, number])
    width = int(rng.integers(8, 17))
    circuit = QuantumCircuit(width, width, name=f"layered{number}")
    for _ in range(6):
        for qubit in range(width):
            circuit.u(*rng.uniform(0, 2 * np.pi, 3), qubit)
        pairs = rng.permutation(width)
        for first, second in zip(pairs[0::2].tolist(), pairs[1::2].tolist(), strict=False):
            circuit.cx(first, second)
    circuit.measure(range(width), range(width))
    return circuit


def equal_results(first: list[Any], second: list[Any]) -> bool:
    """Return whether the circuits and their layouts are equal."""
    return len(first) == len(second) and all(
        left == right
        and left.layout.final_index_layout() == right.layout.final_index_layout()
        and left.layout.initial_index_layout() == right.layout.initial_index_layout()
        for left, right in zip(first, second, strict=True)
    )
