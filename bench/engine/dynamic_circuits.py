"""Small dynamic circuits with hundreds of branches.

Random circuits of 2, 3 and 6 qubits contain loops over rotations, entangling gates, mid-circuit
measurements, resets and conditional gates, so that nearly every history of outcomes leads to a
state of its own. They run with 1,000 shots as a worker's task: packed Program in, packed counts
out, the structure seen for the first time. Times are medians of the rounds. The slowest circuit is
judged.
"""

from __future__ import annotations

import os
import statistics
from argparse import Namespace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister

from bench.harness import CPU, SEED, Option, Report, clock_of, repeated_s, rounds
from bench.peers.simenv_engine import WorkerTask
from simenv.client.circuits import load

SHOTS = 1_000
WIDTHS = (2, 3, 6)
PASSES, GATES = 4, 6
OPTIONS = (rounds(5, quick=2), Option("--circuits", default=5, quick=2), CPU, SEED)


def run(options: Namespace) -> Report:
    clock = clock_of(cpu=options.cpu)
    worker_task = WorkerTask(1, shots=SHOTS, all_kernels=True)
    label = f"dynamic circuits with many branches: {SHOTS} shots, seed {options.seed}, ms"
    report = Report("dynamic_circuits", label)
    worker_task.run(load(random_circuit(2, options.seed - 1)).packed)  # load the kernels
    for width in WIDTHS:
        times, branches = [], []
        for number in range(options.circuits):
            packed = load(random_circuit(width, options.seed + 100 * width + number)).packed
            seconds = repeated_s(lambda job=packed: worker_task.run(job), options.rounds, clock)
            times.append(statistics.median(seconds))
            branches.append(worker_task.branches())
        text = "/".join(f"{1e3 * each:.1f}" for each in times)
        print(f"{width} qubits, branches {branches}: {text}")
        report.at_most("circuit_ms", 1e3 * max(times), f"{width} qubits, slowest circuit")
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
