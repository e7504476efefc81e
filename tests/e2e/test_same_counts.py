"""Program, seed and options decide the counts; who runs them, how many and how often does not."""

import os
import signal
from collections.abc import Sequence

import numpy as np
import pytest
from circuits import layered
from live import environment
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from waiting import until

import simenv
from simenv.client.client import Client

pytestmark = pytest.mark.usefixtures("no_leaks")

SHOTS = 500
Counts = list[dict[str, int]]


def dynamic(seed: int) -> QuantumCircuit:
    """Measurements in the middle and gates that depend on them."""
    angles = np.random.default_rng(seed).uniform(0, 3, 4)
    circuit = QuantumCircuit(4, 4)
    for qubit, angle in enumerate(angles):
        circuit.ry(angle, qubit)
        circuit.cx(qubit, (qubit + 1) % 4)
    circuit.measure(0, 0)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(1)
    circuit.reset(0)
    circuit.measure(range(4), range(4))
    return circuit


def sweep() -> tuple[QuantumCircuit, np.ndarray]:
    angles = ParameterVector("a", 8)
    circuit = QuantumCircuit(4)
    for k, angle in enumerate(angles):
        circuit.rx(angle, k % 4)
        circuit.cx(k % 4, (k + 1) % 4)
    circuit.measure_all()
    return circuit, np.random.default_rng(9).uniform(-3, 3, (300, 8))


CIRCUITS = [
    *(layered(width, 5, seed) for seed, width in enumerate((2, 4, 7, 11, 13, 15))),
    *(dynamic(seed) for seed in range(4)),
]


def answers(env: Client) -> Counts:
    """Of different circuits, a sweep, and one circuit alone."""
    tasks = env.submit_many(CIRCUITS, shots=SHOTS, seed=17)
    tasks += env.submit_many(sweep(), shots=SHOTS, seed=18)
    tasks += [env.submit(CIRCUITS[3], shots=SHOTS, seed=19)]
    return [task.result(120).counts for task in tasks]


@pytest.fixture(scope="module")
def expected() -> Counts:
    with simenv.local(workers=1, slots=1) as env:
        return answers(env)


@pytest.mark.parametrize(("workers", "slots"), [(2, 2), (4, 4), (1, 3)])
def test_counts_ignore_workers_and_slots(expected: Counts, workers: int, slots: int) -> None:
    with simenv.local(workers=workers, slots=slots) as env:
        assert answers(env) == expected


def test_killed_worker_does_not_change_counts() -> None:
    circuits = [layered(18, 60, seed) for seed in range(15)]  # seconds of work
    with simenv.local(workers=1) as env:
        undisturbed = counts_of(env, circuits)
    with environment() as live, live.client() as env:
        tasks = env.submit_many(circuits, shots=SHOTS, seed=20)
        busy = until(
            lambda: [worker for worker in env.workers() if worker.task],
            message="no worker is ever busy",
        )
        os.kill(busy[0].pid, signal.SIGKILL)
        assert [task.result(120).counts for task in tasks] == undisturbed
        assert any(task.result().attempts > 1 for task in tasks)


def counts_of(env: Client, circuits: Sequence[QuantumCircuit]) -> Counts:
    return [t.result(120).counts for t in env.submit_many(circuits, shots=SHOTS, seed=20)]
