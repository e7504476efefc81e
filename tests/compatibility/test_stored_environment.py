"""An environment that a service of this format wrote, and was killed in, goes on.

tests/golden/environments/formatN.tar.xz was made by a service whose journal has format N:
tests/support/make_stored_environment.py says how, and what it holds.
"""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live import PATIENCE_S, Live
from qiskit import QuantumCircuit

from simenv.cli.app import run
from simenv.client.client import Client
from simenv.client.tasks.task import number_of
from simenv.model import TaskState
from simenv.service.journal import database
from simenv.service.journal.marks import IdMark

ARCHIVES = sorted((Path(__file__).parents[1] / "golden" / "environments").glob("*.tar.xz"))
NAME = "stored"


@dataclass(frozen=True)
class Resumed:
    """What was there when its service was killed, and a client of the service that goes on."""

    before: dict[str, Any]
    client: Client
    next_task: int  # by the mark: a bound where another start of a machine wrote it

    def task(self, name: str) -> Any:
        return self.client.task(self.before["tasks"][name])


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.partition(".")[0])
def resumed(request: pytest.FixtureRequest) -> Iterator[Resumed]:
    live = Live()
    live.name = NAME
    live.home.mkdir(parents=True, mode=0o700)
    with tarfile.open(request.param) as archive:
        archive.extractall(live.home, filter="data")
    for path in live.home.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = json.loads((live.home / "expected.json").read_text())
    mark = IdMark(live.home / "numbers.mark", read_only=True)
    try:
        assert run(["up", "--name", NAME, "--restore"]) == 0
        with live.client() as client:
            yield Resumed(before, client, mark.floors["task"])
    finally:
        live.down()


def test_the_format_of_the_journal_has_a_stored_environment(tmp_path: Path) -> None:
    formats = set()
    for number, path in enumerate(ARCHIVES):
        with tarfile.open(path) as archive:
            archive.extractall(tmp_path / str(number), filter="data")
        with closing(sqlite3.connect(tmp_path / str(number) / "journal.db")) as db:
            formats.add(db.execute("pragma user_version").fetchone()[0])
    assert formats == {database.FORMAT}


def ghz(qubits: int) -> QuantumCircuit:
    circuit = QuantumCircuit(qubits)
    circuit.h(0)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    circuit.measure_all()
    return circuit


@pytest.mark.parametrize("name", ["finished", "reserved", "keyed"])
def test_counts_of_ended_tasks_are_read(resumed: Resumed, name: str) -> None:
    assert resumed.task(name).result(timeout_s=PATIENCE_S).counts == resumed.before["counts"][name]


def test_amplitudes_of_an_ended_task_are_read(resumed: Resumed) -> None:
    statevector = resumed.task("amplitudes").result(timeout_s=PATIENCE_S).statevector
    expected = np.zeros(8)
    expected[[0, 7]] = np.sqrt(0.5)
    np.testing.assert_allclose(np.asarray(statevector), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "state"), [("failed", TaskState.FAILED), ("cancelled", TaskState.CANCELLED)]
)
def test_failed_and_cancelled_tasks_keep_their_state(
    resumed: Resumed, name: str, state: TaskState
) -> None:
    assert resumed.task(name).wait(timeout_s=PATIENCE_S) == state


@pytest.mark.parametrize(
    ("name", "twin"), [("waiting", "finished"), ("waiting, reserved", "reserved")]
)
def test_queued_tasks_run_with_their_stored_seeds(resumed: Resumed, name: str, twin: str) -> None:
    assert resumed.task(name).result(timeout_s=PATIENCE_S).counts == resumed.before["counts"][twin]


def test_ids_and_numbers_of_events_continue(resumed: Resumed) -> None:
    task = resumed.client.submit(ghz(2), shots=10)
    last = max(map(number_of, resumed.before["tasks"].values()))
    assert number_of(task.id) == resumed.next_task > last
    task.result(timeout_s=PATIENCE_S)
    kinds = [event.kind for event in resumed.client.history.events()]
    events = resumed.before["events"]
    assert kinds[: len(events)] == events
    assert kinds[len(events)] == "service.started"


def test_idempotency_key_returns_existing_task(resumed: Resumed) -> None:
    again = resumed.client.submit(ghz(2), shots=100, seed=9, idempotency_key="once")
    assert str(again.id) == resumed.before["tasks"]["keyed"]


def test_history_has_row_for_each_task(resumed: Resumed) -> None:
    names = [row.id for row in resumed.client.history.tasks()]
    assert names[: len(resumed.before["tasks"])] == list(resumed.before["tasks"].values())


def test_cursor_continues_after_last_acknowledged_completion(resumed: Resumed) -> None:
    result = islice(resumed.client.completions(cursor="reader"), 1)
    assert [each.seq for each in result] == [4]


def test_reservation_credits_and_pool_policies_are_restored(resumed: Resumed) -> None:
    resumed.task("waiting, reserved").wait(timeout_s=PATIENCE_S)
    (reservation,) = resumed.client.reservations()
    assert (reservation.state, reservation.credits_reserved) == ("active", 8)
    assert (reservation.credits_consumed, reservation.credits_held) == (2, 0)
    policies = resumed.client.policies.of("main")
    assert (policies.queue, policies.max_inflight) == ("fifo", 1)
    assert (policies.admission, policies.credits) == ("credit", 40)


def test_keys_and_pool_sizes_are_restored(resumed: Resumed) -> None:
    assert [(key.name, key.role) for key in resumed.client.keys.listed()] == [("ana", "client")]
    pool = resumed.client.pools()["faulty"]
    assert (pool.least, pool.most) == (0, 2)
