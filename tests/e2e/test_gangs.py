"""A program too big for one rank, on one node, with the launcher that is here."""

import pytest
from circuits import bell
from live import Live
from qiskit import QuantumCircuit

import simenv

pytestmark = pytest.mark.usefixtures("no_leaks")

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
    live = Live(slots=4, memory_per_slot=PER_SLOT)
    live.up()
    try:
        with live.client() as env:
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
            again = env.run(wide(), shots=500, seed=4, engine="statevector")
            assert again.counts == result.counts
            assert {worker.restarts for worker in env.workers()} == {0}
    finally:
        live.down()
    with simenv.local(workers=1, launcher={"use": "local"}) as env:
        alone = env.run(wide(), shots=500, seed=4, engine="statevector")
        assert (alone.ranks, alone.counts) == (1, result.counts)
