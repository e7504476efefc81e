"""Sweeps through a real service: tasks of many bindings, seen as one Task a binding."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector

import simenv
from simenv.errors import (
    BatchRefusedError,
    KeyConflictError,
    NotFoundError,
    OptionError,
    SimenvError,
    TaskCancelledError,
)
from simenv.model import TaskState

ANGLES = ParameterVector("a", 6)
VALUES = np.random.default_rng(5).uniform(-3, 3, (200, 6))


def circuit(num_qubits: int = 3, layers: int = 1) -> QuantumCircuit:
    quantum_circuit = QuantumCircuit(num_qubits)
    for _ in range(layers):
        for k, angle in enumerate(ANGLES):
            quantum_circuit.ry(angle, k % num_qubits)
            quantum_circuit.cx(k % num_qubits, (k + 1) % num_qubits)
    quantum_circuit.measure_all()
    return quantum_circuit


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(workers=2) as client:
        yield client


def test_each_binding_has_its_own_id_and_bindings_share_few_service_tasks(
    env: simenv.Client,
) -> None:
    done = env.status().done
    tasks = env.submit_many((circuit(), VALUES), seed=3)
    results = [task.result(60) for task in tasks]
    assert len(tasks) == len({task.id for task in tasks}) == 200
    assert len({task.handle for task in tasks}) == env.status().done - done < 10
    assert [result.binding_index for result in results] == list(range(200))
    assert [result.task for result in results] == [task.id for task in tasks]
    assert all(sum(result.counts.values()) == 1024 for result in results)


def test_binding_of_sweep_equals_its_single_run(env: simenv.Client) -> None:
    results = [task.result(60) for task in env.submit_many((circuit(), VALUES), seed=3)]
    for k in (0, 63, 64, 65, 199):
        alone = env.run(circuit(), parameter_values=VALUES[k], binding_index=k, seed=3)
        assert alone.counts == results[k].counts


def test_as_completed_and_await_return_every_binding(env: simenv.Client) -> None:
    tasks = env.submit_many((circuit(), VALUES), seed=4)
    assert set(simenv.as_completed(tasks, timeout_s=60)) == set(tasks)

    async def gathered() -> list[simenv.Result]:
        return list(await asyncio.gather(*env.submit_many((circuit(), VALUES), seed=4)))

    counts = [result.counts for result in asyncio.run(gathered())]
    assert counts == [task.result().counts for task in tasks]


def test_binding_is_fetched_again_by_its_id(env: simenv.Client) -> None:
    task = env.submit_many((circuit(), VALUES), seed=5)[70]
    counts = task.result(60).counts
    assert "." in task.id
    path = Path(env.service)
    with simenv.connect(service=path) as other:
        assert other.task(task.id).result(60).counts == counts
        result = other.task(task.id.partition(".")[0])
        rows = result.results(60)
        assert rows[int(task.id.partition(".")[2])].counts == counts
        with pytest.raises(OptionError, match="carries"):
            result.result()
        with pytest.raises(NotFoundError, match="there is no number 999"):
            other.task(result.id + ".999").result(60)
        with pytest.raises(NotFoundError):
            other.task(result.id + ".x")


def test_completions_return_results_of_all_bindings_of_task(env: simenv.Client) -> None:
    since = max((c.seq for c in env.completions(follow=False)), default=0)
    tasks = env.submit_many((circuit(), VALUES), seed=6)
    expected = [task.result(60).counts for task in tasks]
    table = {c.task.id: c.results() for c in env.completions(since=since, follow=False)}
    counts = [
        r.counts
        for name in sorted(table, key=lambda n: table[n][0].binding_index)
        for r in table[name]
    ]
    assert counts == expected


def test_repeated_key_gives_same_tasks(env: simenv.Client) -> None:
    tasks = env.submit_many((circuit(), VALUES), seed=7, idempotency_key="sweep")
    assert env.submit_many((circuit(), VALUES), seed=7, idempotency_key="sweep") == tasks
    with pytest.raises(KeyConflictError):
        env.submit_many((circuit(), VALUES + 1), seed=7, idempotency_key="sweep")


def test_exact_outputs_of_every_binding_agree(env: simenv.Client) -> None:
    plain = circuit().remove_final_measurements(inplace=False)
    states = env.submit_many((plain, VALUES[:9]), outputs="statevector")
    sums = env.submit_many((plain, VALUES[:9]), observables=["ZZI", "IXX"], shots=None)
    chances = env.submit_many((circuit(), VALUES[:9]), outputs="probabilities", shots=None)
    z = np.array([1, -1])
    zz = np.kron(np.kron(z, z), [1, 1])
    for state, pair, chance in zip(states, sums, chances, strict=True):
        weights = abs(state.result(60).statevector) ** 2
        assert pair.result(60).expectations[0] == pytest.approx(weights @ zz, abs=1e-12)
        dense = [chance.result(60).probabilities.get(f"{k:03b}", 0.0) for k in range(8)]
        assert dense == pytest.approx(weights, abs=1e-12)


def test_each_binding_may_have_its_own_seed(env: simenv.Client) -> None:
    seeds = list(range(100, 104))
    results = [t.result(60) for t in env.submit_many((circuit(), VALUES[:4]), seed=seeds)]
    assert [result.seed for result in results] == seeds


def test_cancelling_one_binding_ends_its_task(env: simenv.Client) -> None:
    tasks = env.submit_many((circuit(11, 3_000), VALUES), shots=16, seed=1)
    assert tasks[-1].cancel()
    assert tasks[-1].wait(timeout_s=60) is TaskState.CANCELLED
    together = [task for task in tasks if task.handle is tasks[-1].handle]
    for task in together:
        with pytest.raises(TaskCancelledError):
            task.result()
    env.cancel(tasks)


def test_invalid_binding_values_are_refused(env: simenv.Client) -> None:
    for values in (VALUES[:, :5], np.full((3, 6), np.nan), np.zeros((0, 6))):
        with pytest.raises((OptionError, BatchRefusedError)):
            env.submit_many((circuit(), values))
    with pytest.raises(SimenvError):
        env.submit_many((circuit(), VALUES), shots=0)


# --- several sweeps in one call -----------------------------------------------------------------


def test_several_sweeps_have_their_own_shots_and_seeds(env: simenv.Client) -> None:
    wide = circuit(4)
    work = [(circuit(), VALUES[:3]), (wide, VALUES[3:5]), (circuit(), VALUES[5:6])]
    tasks = env.submit_many(work, shots=[100, 200, 300], seed=9)
    results = [task.result(60) for task in tasks]
    assert [result.shots for result in results] == [100] * 3 + [200] * 2 + [300]
    assert [result.binding_index for result in results] == [0, 1, 2, 0, 1, 0]
    assert len({result.seed for result in results}) == 3
    again = env.submit_many((wide, VALUES[3:5]), shots=200, seed=results[3].seed)
    assert [task.result(60).counts for task in again] == [result.counts for result in results[3:5]]


def test_several_sweeps_share_outputs_and_observables(env: simenv.Client) -> None:
    bare = [each.remove_final_measurements(inplace=False) for each in (circuit(), circuit())]
    work = [(bare[0], VALUES[:2]), (bare[1], VALUES[2:4])]
    tasks = env.submit_many(work, shots=None, observables=["ZZI", "XIY"])
    single = env.submit_many((bare[0], VALUES[:4]), shots=None, observables=["ZZI", "XIY"])
    entries = [task.result(60).expectations for task in tasks]
    wanted = [task.result(60).expectations for task in single]
    np.testing.assert_allclose(entries, wanted, atol=1e-12)


def test_bad_sweep_of_several_is_named(env: simenv.Client) -> None:
    with pytest.raises(BatchRefusedError) as caught:
        env.submit_many([(circuit(), VALUES[:2]), (circuit(), VALUES[:2, :4])])
    assert [error.index for error in caught.value.errors] == [1]


@pytest.mark.parametrize(
    ("work", "shots"),
    [
        ([(circuit(), VALUES[:2]), (circuit(), VALUES[:2])], [100]),
        ((circuit(), VALUES[:2]), [100, 200]),
        ([circuit(), circuit()], [100, 200]),
    ],
    ids=["too few", "of one sweep", "of circuits"],
)
def test_shots_are_one_number_or_one_for_each_sweep(
    work: object, shots: list[int], env: simenv.Client
) -> None:
    with pytest.raises(OptionError, match="shots"):
        env.submit_many(work, shots=shots)
