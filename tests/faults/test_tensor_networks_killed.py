"""Workers die in the middle of tensor network runs: the tasks run again, to the same counts."""

from __future__ import annotations

import os
import signal
import time

import pytest
from engines import present
from live import PATIENCE_S, environment
from qiskit import QuantumCircuit

from simenv.client.client import Client
from simenv.client.tasks.task import Task

pytestmark = pytest.mark.usefixtures("no_leaks")


def chain(num_qubits: int, depth: int) -> QuantumCircuit:
    """Brickwork: bonds of 2**(depth / 2)."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for layer in range(depth):
        for qubit in range(num_qubits):
            circuit.u(0.3 + qubit, 0.7 * layer, 1.1, qubit)
        for qubit in range(layer % 2, num_qubits - 1, 2):
            circuit.cz(qubit, qubit + 1)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def histories(num_qubits: int) -> QuantumCircuit:
    """Outcomes on the way turn other qubits: each shot has a history of its own."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(1.0 + 0.1 * qubit, qubit)
        circuit.cx(qubit, (qubit + 1) % num_qubits)
        circuit.measure(qubit, qubit)
        with circuit.if_test((circuit.clbits[qubit], 1)):
            circuit.rx(0.4 + qubit, qubit)
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


def graph(num_qubits: int) -> QuantumCircuit:
    """Layers on a graph of degree 3: a ring, and its halves joined."""
    circuit = QuantumCircuit(num_qubits, num_qubits)
    circuit.h(range(num_qubits))
    half = num_qubits // 2
    for angle in (0.6, 0.4):
        for qubit in range(num_qubits):
            circuit.rzz(angle, qubit, (qubit + 1) % num_qubits)
        for qubit in range(half):
            circuit.rzz(angle, qubit, (5 * qubit) % half + half)
        circuit.rx(0.8, range(num_qubits))
    circuit.measure(range(num_qubits), range(num_qubits))
    return circuit


CASES = {
    "mps": ("mps", chain(40, 16), 2_000),
    "mps-dynamic": ("mps", histories(30), 300),
    "contraction": ("contraction", graph(30), 1_000),
}


def victim(env: Client, task: Task) -> int:
    """Pid of the worker that runs a task, once it does."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        busy = [worker for worker in env.workers() if worker.task]
        if busy:
            return busy[0].pid
        assert not task.done(), "it ended before it was seen"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CASES)
def test_task_of_killed_worker_runs_again_to_the_same_counts(case: str) -> None:
    engine, circuit, shots = CASES[case]
    if not present(engine):
        pytest.skip(f"what engine {engine!r} needs is not installed")
    with environment() as live, live.client() as env:
        oracle = env.submit(circuit, shots=shots, seed=11, engine=engine).result(PATIENCE_S)
        task = env.submit(circuit, shots=shots, seed=11, engine=engine)
        os.kill(victim(env, task), signal.SIGKILL)
        result = task.result(timeout_s=PATIENCE_S)
        assert result.attempts == 2
        assert result.engine == engine
        assert result.counts == oracle.counts
