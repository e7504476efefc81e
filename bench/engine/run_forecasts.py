"""Forecasts of sampled tensor networks: the time and memory of circuits that look easier than they
are.

The circuits have 30 to 48 qubits and more bonds than a matrix product state carries, and the tensor
network of one amplitude is narrow, but samples take a network for each gate that splits basis
states. Each circuit is submitted to a service of one worker with engine="auto", in a pool of its
own whose worker is fresh: it is refused with the reason, or runs. Time is that of the run relative
to the forecast of `explain`, memory the growth of the worker's peak relative to the memory that is
forecast. The first circuit is the one from which the cost model was made, the others are not.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit

import simenv
from bench.harness import SEED, Option, Report
from simenv.errors import SimenvError

SHOTS = 10
OPTIONS = (SEED, Option("--most-s", default=300.0, quick=60.0))


def strides(num_qubits: int, layers: int, stride: int, shift: int) -> QuantumCircuit:
    """Layers of rotations and of CNOT from each qubit q to stride * q + shift."""
    circuit = QuantumCircuit(num_qubits)
    circuit.h(range(num_qubits))
    for q in range(num_qubits - 1):
        circuit.rzz(0.3, q, q + 1)
    circuit.rx(0.4, range(num_qubits))
    for _ in range(layers):
        circuit.rx(0.4, range(num_qubits))
        for q in range(num_qubits):
            other = (stride * q + shift) % num_qubits
            if other != q:
                circuit.cx(q, other)
    circuit.measure_all()
    return circuit


def scattered(num_qubits: int, gates: int, seed: int) -> QuantumCircuit:
    """Gates on random pairs, with rotations of both qubits between them."""
    random = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    circuit.h(range(num_qubits))
    for _ in range(gates):
        one, two = (int(q) for q in random.choice(num_qubits, 2, replace=False))
        circuit.cz(one, two)
        circuit.ry(random.uniform(0, 3), one)
        circuit.rx(random.uniform(0, 3), two)
    circuit.measure_all()
    return circuit


def star(num_qubits: int, layers: int) -> QuantumCircuit:
    """Phases of one qubit with all others, and rotations."""
    circuit = QuantumCircuit(num_qubits)
    for layer in range(layers):
        circuit.ry(0.3 + 0.1 * layer, range(num_qubits))
        for q in range(1, num_qubits):
            circuit.cp(0.2 * q, 0, q)
        for q in range(3, num_qubits, 3):
            other = (11 * q + layer) % (num_qubits - 1) + 1
            if other != q:
                circuit.cx(q, other)
    circuit.measure_all()
    return circuit


CIRCUITS: dict[str, Callable[[int], QuantumCircuit]] = {
    "strides 36 x 20": lambda _seed: strides(36, 20, 7, 3),
    "strides 30 x 12": lambda _seed: strides(30, 12, 11, 5),
    "strides 42 x 6": lambda _seed: strides(42, 6, 5, 2),
    "scattered 40, 70": lambda seed: scattered(40, 70, seed),
    "scattered 48, 60": lambda seed: scattered(48, 60, seed + 1),
    "star 36 x 4": lambda _seed: star(36, 4),
}


def run(options: Namespace) -> Report:
    report = Report("run_forecasts", f"sampled tensor networks, {SHOTS} shots, one worker")
    slowest = largest = refused_s = 0.0
    print(f"{'circuit':20}{'engine':14}{'forecast s':>11}{'s':>8}{'x':>6}{'MiB':>8}{'used':>8}")
    for name, make in CIRCUITS.items():
        circuit = make(options.seed)
        with simenv.local(workers=1) as env:
            worker = next(iter(env.workers()))
            before = _bytes(worker.pid, "VmRSS")
            began = time.perf_counter()
            try:
                choice = next(iter(env.explain(circuit, shots=SHOTS).engines))
                task = env.submit(circuit, shots=SHOTS, seed=options.seed)
            except SimenvError as error:
                refused_s = max(refused_s, time.perf_counter() - began)
                print(f"{name:20}refused: {error}")
                continue
            result = task.result(timeout=options.most_s)
            used = _bytes(worker.pid, "VmHWM") - before
            run_s = result.timing.run_s
            times, memory = run_s / choice.seconds, used / choice.memory_bytes
            slowest, largest = max(slowest, times), max(largest, memory)
            print(
                f"{name:20}{result.engine:14}{choice.seconds:11.2f}{run_s:8.2f}{times:6.2f}"
                f"{choice.memory_bytes / 2**20:8.0f}{used / 2**20:8.0f}",
                flush=True,
            )
    report.at_most("of_forecast", slowest, "longest run relative to its forecast")
    report.at_most("of_memory", largest, "largest growth of a worker relative to the forecast")
    report.at_most("refused_s", refused_s, "longest time of a refusal, s")
    return report


def _bytes(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])
