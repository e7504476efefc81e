"""Results in files, through a real service and worker: read where they lie, fetched, broken."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from failing import fails
from states_in_files import HEAD, files, state_of

import simenv
from simenv.client.client import Client
from simenv.client.connection.address import FileAddress
from simenv.errors import NotFoundError


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    with simenv.local(workers=1) as client:
        yield client


def test_pickled_result_contains_arrays_of_its_file(env: Client) -> None:
    task, vector = state_of(env)
    again = pickle.loads(pickle.dumps(task.result()))  # noqa: S301 our own
    np.testing.assert_array_equal(again.statevector, vector)
    assert again.task == task.id


@pytest.mark.parametrize("how", ["first byte", "an amplitude", "last byte", "cut", "missing"])
def test_damaged_result_file_is_detected_and_task_is_run_again(env: Client, how: str) -> None:
    task, vector = state_of(env)
    path = max(files(env), key=lambda each: each.stat().st_mtime_ns)
    content = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:100_000])
    else:
        place = {"first byte": 0, "an amplitude": 500_000, "last byte": -1}[how]
        content[place] ^= 8
        path.write_bytes(content)
    again = env.task(task.id).result()
    np.testing.assert_array_equal(again.statevector, vector)
    if how in ("first byte", "last byte"):
        assert again.attempts == 1, "HDF5's own bytes: the amplitudes were whole"
        return
    assert [event.kind for event in env.events() if event.subject == task.id] == ["result.damaged"]
    assert env.task(task.id).result().attempts == 2
    assert [done.task.id for done in env.completions(since=0)].count(task.id) == 1


def test_result_file_is_readable_with_h5py(env: Client) -> None:
    _, vector = state_of(env)
    path = max(files(env), key=lambda each: each.stat().st_mtime_ns)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["statevector"][0], vector)
        assert file.attrs["num_qubits"] == 17


def test_client_without_access_to_file_fetches_same_arrays(env: Client, tmp_path: Path) -> None:
    task, vector = state_of(env)
    connection = files(env)[0].parents[2] / "connection.json"
    with Client(FileAddress(connection)) as far:
        far._session.channel.service.results = None
        result = far.task(task.id).result()
        np.testing.assert_array_equal(result.statevector, vector)
        result.save(tmp_path / "far.h5")
    with h5py.File(tmp_path / "far.h5") as file:
        np.testing.assert_array_equal(file["statevector"][()], vector)


def test_counts_with_many_outcomes_are_read_from_file(env: Client) -> None:
    gates = " ".join(f"h q[{k}];" for k in range(20))
    text = f"{HEAD}qreg q[20]; creg c[20]; {gates} measure q -> c;"
    result = env.submit(text, shots=400_000, seed=7).result(timeout_s=60)
    assert result.outcomes.dtype == np.uint32
    assert int(result.outcome_counts.sum()) == 400_000
    assert not result.outcomes.flags.owndata
    assert len(result.counts) == len(result.outcomes) > 200_000


def test_removed_result_is_reported_as_no_longer_retained(env: Client) -> None:
    task, _ = state_of(env)
    env.prune(older_than_s=0.0)
    fails(NotFoundError, "no longer kept", env.task, task.id)
    fails(NotFoundError, "does not know", env.task, 10**9)
    assert files(env) == []
