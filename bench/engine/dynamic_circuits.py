"""Small dynamic circuits with hundreds of branches, compared with Aer.

Random circuits of 2, 3 and 6 qubits contain loops over rotations, entangling gates, mid-circuit
measurements, resets and conditional gates, so that nearly every history of outcomes leads to a
state of its own. They run with 1,000 shots. Ours is a worker's task: packed Program in, packed
counts out, the structure seen for the first time. Aer runs each shot on its own with one thread;
its circuit is built before the clock starts. The two take turns; times are medians of the rounds.
The slowest circuit is judged.

    python -m bench run dynamic_circuits [--rounds 5] [--circuits 5] [--files FOLDER] [--cpu]

`--files`: also measure the circuits in this folder. `--cpu`: CPU seconds instead of wall time.
"""

from __future__ import annotations

import os
import statistics
from argparse import Namespace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from bench.harness import CPU, SEED, Option, Report, clock_of, installed, repeated_s, rounds
from bench.harness.comparison import rounds_of
from bench.peers import aer as aer_peer
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load
from simenv.errors import ProgramError

SHOTS = 1_000
WIDTHS = (2, 3, 6)
PASSES, GATES = 4, 6
OPTIONS = (
    rounds(5, quick=2),
    Option("--circuits", type=int, default=5, quick=2),
    Option("--files", type=Path),
    CPU,
    SEED,
)


def run(options: Namespace) -> Report:
    clock = clock_of(cpu=options.cpu)
    worker_task = WorkerTask(1, shots=SHOTS, all_kernels=True)
    label = f"dynamic circuits with many branches: {SHOTS} shots, seed {options.seed}, ms"
    report = Report("dynamic_circuits", label)
    worker_task.run(load(random_circuit(2, options.seed - 1)).packed)  # load the kernels
    aer = aer_peer.simulator() if installed("qiskit_aer") else None
    for width in WIDTHS:
        times, peer_times, branches = [], [], []
        for number in range(options.circuits):
            circuit = random_circuit(width, options.seed + 100 * width + number)
            packed = load(circuit).packed
            calls = {"ours": lambda packed=packed: worker_task.run(packed)}
            if aer is not None:
                run_aer = lambda job=circuit: aer.run(job, shots=SHOTS).result().get_counts(0)  # noqa: E731
                calls["aer"] = run_aer
            took = rounds_of(calls, options.rounds, clock=clock)
            times.append(statistics.median(took["ours"]))
            peer_times.append(statistics.median(took.get("aer", [float("nan")])))
            branches.append(worker_task.branches())
        print(f"{width} qubits, branches {branches}: {_ms_text(times)}; Aer {_ms_text(peer_times)}")
        report.at_most("circuit_ms", 1e3 * max(times), f"{width} qubits, slowest circuit")
    for path in sorted(options.files.iterdir()) if options.files else ():
        try:
            packed = load(path).packed
        except ProgramError as error:
            print(f"left out: {path.name}: {error}")
            continue
        results = repeated_s(lambda p=packed: worker_task.run(p), options.rounds, clock)
        label = f"{path.name}, {worker_task.branches()} branches"
        report.at_most("circuit_ms", 1e3 * statistics.median(results), label)
    return report


def random_circuit(num_qubits: int, seed: int) -> QuantumCircuit:
    """Return a random circuit with loops, measurements, resets and conditional gates."""
    random = np.random.default_rng(seed)
    bits = ClassicalRegister(num_qubits, "c")
    circuit = QuantumCircuit(QuantumRegister(num_qubits, "q"), bits)
    for qubit in range(num_qubits):
        circuit.ry(random.uniform(0.3, 2.8), qubit)
    with circuit.for_loop(range(PASSES)):
        for _ in range(GATES):
            a, b = random.choice(num_qubits, 2, replace=False).tolist()
            circuit.u(*random.uniform(-3, 3, 3).tolist(), a)
            circuit.cx(a, b)
        a, b = random.choice(num_qubits, 2, replace=False).tolist()
        circuit.measure(a, bits[a])
        with circuit.if_test((bits[a], 1)):
            circuit.ry(random.uniform(0.3, 2.8), b)
            circuit.cz(a, b)
        circuit.u(*random.uniform(-3, 3, 3).tolist(), a)
        circuit.measure(b, bits[b])
        if num_qubits > 2:
            circuit.u(*random.uniform(-3, 3, 3).tolist(), b)
            circuit.reset(a)
    for qubit in range(num_qubits):
        circuit.ry(random.uniform(0.3, 2.8), qubit)
        circuit.measure(qubit, bits[qubit])
    return circuit


def _ms_text(seconds: list[float]) -> str:
    return "/".join(f"{1e3 * each:.1f}" for each in seconds)
