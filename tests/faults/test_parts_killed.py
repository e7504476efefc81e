"""Workers die between the parts of a circuit and in the middle of one: the parts run again on
another worker, to the same outcomes and counts."""

import os
import signal

import pytest
from live import PATIENCE_S, environment
from qiskit import QuantumCircuit
from waiting import busy_worker

from simenv.client.client import Client

pytestmark = pytest.mark.usefixtures("no_leaks")

WIDTH = 20


def layers(depth: int, seed: int) -> QuantumCircuit:
    circuit = QuantumCircuit(WIDTH, WIDTH)
    for layer in range(depth):
        for qubit in range(WIDTH):
            circuit.u(0.3 + qubit + seed, 0.7 * layer, 1.1, qubit)
        for qubit in range(layer % 2, WIDTH - 1, 2):
            circuit.cx(qubit, qubit + 1)
    return circuit


def part_circuit() -> QuantumCircuit:
    circuit = layers(20, 1)
    circuit.measure(range(4), range(4))
    return circuit


def rest(measured: str, depth: int = 20) -> QuantumCircuit:
    """What the program makes of four bits, for all qubits."""
    circuit = layers(depth, int(measured[-4:], 2))
    circuit.measure(range(4, WIDTH), range(4, WIDTH))
    return circuit


def pid_of(env: Client, worker: str) -> int:
    return next(each.pid for each in env.workers() if each.name == worker)


@pytest.mark.timeout(600)
def test_worker_killed_between_parts_loses_nothing() -> None:
    with environment() as live, live.client() as env:
        part = env.submit_part(part_circuit(), seed=7)
        measured = part.measured["c"]
        oracle = part.run(rest(measured), shots=300)
        assert oracle.remark == "1 of 1 parts from the state kept"
        os.kill(pid_of(env, part.result().worker), signal.SIGKILL)
        task = part.submit(rest(measured), shots=300)
        result = task.result(PATIENCE_S)
        assert (result.remark, result.counts) == ("0 of 1 parts from the state kept", oracle.counts)


@pytest.mark.timeout(600)
def test_worker_killed_in_the_second_part_is_replaced_by_one_that_runs_both() -> None:
    with environment() as live, live.client() as env:
        part = env.submit_part(part_circuit(), seed=8)
        slow = rest(part.measured["c"], depth=400)
        oracle = part.run(slow, shots=300)
        task = part.submit(slow, shots=300)
        busy = busy_worker(env, task)
        assert busy.name == part.result().worker
        os.kill(busy.pid, signal.SIGKILL)
        result = task.result(PATIENCE_S)
        assert result.attempts == 2
        assert result.worker != part.result().worker
        assert (result.remark, result.counts) == ("0 of 1 parts from the state kept", oracle.counts)
