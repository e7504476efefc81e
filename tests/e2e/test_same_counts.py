"""Program, seed and options decide the counts; who runs them, how many and how often does not."""

import numpy as np
import pytest
from circuits import bell, layered
from live import environment
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

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


PER_SLOT = 256 * 2**20  # a state of 24 qubits and a rank's own memory are more than this


RESULT_S = 180.0


def wide() -> QuantumCircuit:
    circuit = QuantumCircuit(24, 24)
    for qubit in range(24):
        circuit.ry(0.1 * (qubit + 1), qubit)
    for qubit in range(23):
        circuit.cx(qubit, qubit + 1)
    circuit.measure(range(24), range(24))
    return circuit


def test_circuit_too_large_for_one_rank_runs_on_two_with_same_counts() -> None:
    with environment(slots=4, memory_per_slot=PER_SLOT) as live, live.client() as env:
        if env.status().max_ranks == 1:
            pytest.skip(env.status().launcher)
        task = env.submit(wide(), shots=500, seed=4, engine="statevector")
        assert env.run(bell(), shots=10, seed=1).ranks == 1
        result = task.result(RESULT_S)
        assert (result.ranks, result.worker) == (2, "main.x2-0")
        assert result.node == env.status().node
        assert "over 2 ranks" in result.engine_reason
        gang = env.pools()["main.x2"]
        assert (gang.on_demand, gang.ranks, gang.workers) == (True, 2, 1)
        (node,) = env.status().nodes
        assert node.memory_granted > 0  # kept warm, and its memory with it
        assert env.run(wide(), shots=500, seed=4, engine="statevector").counts == result.counts
        assert {worker.restarts for worker in env.workers()} == {0}
    with simenv.local(workers=1, launcher={"use": "local"}) as env:
        alone = env.run(wide(), shots=500, seed=4, engine="statevector")
        assert (alone.ranks, alone.counts) == (1, result.counts)
