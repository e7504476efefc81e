"""Transpilation of 200 circuits for a device of 127 qubits: two workers compared with one process.

The circuits are different ones of 8 to 16 qubits. `qiskit` is `qiskit.transpile` in one process at
its default level; `processes` is half of the circuits in each of two processes of one thread, made
and left there: what two cores of this machine give at best; `workers` is `Client.transpile` at the
same level by two workers, including QPY in both directions. `submit, here` and `submit, workers`
are the same by the rules of `submit`, without a goal: they compile faster, and QPY weighs more.
Rounds alternate; figures are medians of the rounds' ratios, of wall time and of CPU time. The CPU
time is that of the client plus that of the busiest worker or process, as if they did not overlap:
on a busy machine it says more. Circuits must be equal, layouts included.

    python -m bench run transpile [--rounds 5]
"""

from __future__ import annotations

import os
import statistics
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import psutil

import simenv
from bench.harness import Report, Times, rounds
from bench.harness.environments import cpu_s

CIRCUITS, DEVICE, LEVEL = 200, "sherbrooke", 2
_targets: list[Any] = []  # the target of this process
OPTIONS = (rounds(5, quick=2),)
Methods = dict[str, Callable[[list[Any]], list[Any]]]


def run(options: Namespace) -> Report:
    report = Report("transpile", f"transpile: {CIRCUITS} circuits for {DEVICE}, level {LEVEL}")
    circuits = [layered(number) for number in range(CIRCUITS)]
    walls: Times = defaultdict(list)
    cpus: Times = defaultdict(list)
    with (
        simenv.local(workers=2, durability="accepted") as client,
        ProcessPoolExecutor(
            2, get_context("spawn"), _start_process, (client.device(DEVICE),)
        ) as processes,
    ):
        methods = _methods(client, processes)
        for _ in range(2):  # the first call of each worker and process loads Qiskit
            client.transpile(circuits[:32], DEVICE, level=LEVEL)
            methods["processes"](circuits)
        workers = [psutil.Process(each.pid) for each in client.workers()]
        workers += psutil.Process().children()
        for _ in range(options.rounds):
            entries = {}
            for name, call in methods.items():
                own, before_s = time.process_time(), [cpu_s(each) for each in workers]
                begin = time.perf_counter()
                entries[name] = call(circuits)
                walls[name].append(time.perf_counter() - begin)
                busiest = max(np.subtract([cpu_s(each) for each in workers], before_s))
                cpus[name].append(time.process_time() - own + float(busiest))
            for first, second in (("qiskit", "workers"), ("submit, here", "submit, workers")):
                assert equal_results(entries[first], entries[second]), "circuits differ"
    for name in methods:
        wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
        print(f"{name:18}{wall:8.3f} s wall{cpu:8.3f} s CPU")
    print()
    processes_share = _share(walls, "processes", "qiskit")
    print(f"two processes, relative to one: {processes_share:.3f} of the wall time\n")
    report.at_least("identical", 1, "all circuits and layouts equal to those of one process")
    report.at_most("wall_share", _share(walls, "workers", "qiskit"), "wall time")
    report.at_most("cpu_share", _share(cpus, "workers", "qiskit"), "CPU time")
    return report


def _methods(client: simenv.Client, processes: ProcessPoolExecutor) -> Methods:
    from simenv.transpiler.transpiler import Transpiler

    info = client.device(DEVICE)
    local = Transpiler(info)
    _load_target(info)

    return {
        "qiskit": _transpile,
        "processes": lambda _: list(processes.map(_transpile_half, range(2))),
        "workers": lambda circuits: client.transpile(circuits, DEVICE, level=LEVEL),
        "submit, here": lambda circuits: [local.transpiled(each) for each in circuits],
        "submit, workers": lambda circuits: client.transpile(circuits, DEVICE),
    }


def _start_process(info: Any) -> None:
    """Load the target; each process has one core, so that it needs one thread."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    _load_target(info)


def _load_target(info: Any) -> None:
    from simenv.transpiler.transpiler import target_of

    _targets.append(target_of(info))


def _transpile_half(half: int) -> None:
    _transpile([layered(number) for number in range(half, CIRCUITS, 2)])


def _transpile(circuits: list[Any]) -> Any:
    """Return the circuits for the target of this process."""
    from qiskit import transpile

    from simenv.transpiler.qiskit_runtime import SEED

    return transpile(
        circuits,
        target=_targets[-1],
        optimization_level=LEVEL,
        seed_transpiler=SEED,
        num_processes=1,
    )


def _share(times: Times, first: str, second: str) -> float:
    """Return the median ratio over rounds: a slow machine slows both times of a round."""
    return float(np.median(np.divide(times[first], times[second])))


def layered(number: int) -> Any:
    """Return rotations and controlled gates on random pairs, measured; the number is the seed."""
    from qiskit import QuantumCircuit

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
