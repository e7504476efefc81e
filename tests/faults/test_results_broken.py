"""Results in files: broken, half written, on a full disk, and far from their files."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from failing import fails
from live import Live, environment, resurrected
from states_in_files import files, state_of, turned
from waiting import until

import simenv
from simenv.client import environments
from simenv.client.client import Client
from simenv.errors import ConfigError, InsufficientError, ServiceLostError, TaskFailedError
from simenv.model import task_number
from simenv.service import fault_injection

pytestmark = pytest.mark.usefixtures("no_leaks")
TRIES = 10


def number(task: simenv.Task) -> int:
    return task_number(task.id) or 0


def _await_none(home: Path) -> None:
    until(lambda: not list(home.glob("results/*/.*.new")), 120, message="the half file stays")


def _killed_half_way(home: Path, env: Client) -> tuple[list[Path], simenv.Result, int]:
    """Half a file whose writer was killed over it, its result, and how many files were written."""
    for tries in range(1, TRIES + 1):
        pids = {worker.name: worker.pid for worker in env.workers()}
        task = env.submit(turned(24), shots=None, outputs=("statevector",))
        while not (half := list(home.glob("results/*/.*.new"))) and not task.done():
            pass
        if half:
            os.kill(pids[half[0].name.split(".")[-3]], signal.SIGKILL)
        result = task.result(timeout_s=200)
        if result.attempts > 1:
            return half, result, tries
    raise AssertionError("never killed half way")


def test_partial_result_file_of_killed_worker_is_removed_and_task_runs_again() -> None:
    with environment() as live:
        with live.client() as env:
            half, value, tries = _killed_half_way(live.home, env)
            assert value.attempts == 2
            assert float((abs(value.statevector) ** 2).sum()) == pytest.approx(1.0)
            _await_none(live.home)
        half[0].touch()  # one that its service did not live to remove
        live.crash()
        live.up()
        with live.client() as env:
            _await_none(live.home)
            assert len(files(env)) == tries


def test_unwritable_result_fails_task_with_reason_and_worker_continues() -> None:
    with simenv.local(workers=1) as env:
        root = env._session.channel.service.results
        assert root is not None
        (root / "0").write_bytes(b"in the way of a folder")
        task = env.submit(turned(17), shots=None, outputs=("statevector",))
        caught = fails(TaskFailedError, "results", task.result, timeout_s=200)
        assert caught.reason == "result_store"
        assert caught.hint
        assert env.run(turned(3), shots=None, outputs=("statevector",)).num_qubits == 3


@pytest.mark.parametrize(
    "point", [p for p in fault_injection.POINTS if p.split(".")[0] in ("reopen", "gc")]
)
def test_service_killed_in_reopen_or_gc_loses_and_duplicates_nothing(point: str) -> None:
    with (
        environment(faults=f"{point}:1:kill") as live,
        resurrected(live) as deaths,
        live.client() as env,
    ):
        task, vector = state_of(env)
        if point.startswith("gc"):
            outcome = env.submit(
                turned(3), shots=None, outputs=("statevector",), idempotency_key="kept"
            )
            outcome.wait()
            assert env.prune(older_than_s=0.0).freed.tasks == (2 if point == "gc.before" else 0)
            fresh = env.submit(turned(2), shots=None, outputs=("statevector",))
            assert number(fresh) > number(outcome)
        else:
            for path in files(env):
                path.unlink()
            np.testing.assert_array_equal(env.task(task.id).result().statevector, vector)
            assert [done.task.id for done in env.completions(since=0)] == [task.id]
    assert deaths == live.pids[:1], f"{point} was never hit"


@pytest.mark.parametrize("point", ["copy.before", "copy.after"])
def test_service_killed_around_journal_copy_keeps_results(point: str) -> None:
    with environment(faults=f"{point}:1:kill") as live:
        pid = live.pids[0]
        with live.client() as env:
            task, vector = state_of(env)
            with contextlib.suppress(ServiceLostError):  # killed before its answer was on its way
                env.shutdown()
        live.wait_dead(pid)
        assert not list(live.home.glob("journal.copy.db")) or point == "copy.after"
        live.up(faults="")
        with live.client() as env:
            np.testing.assert_array_equal(env.task(task.id).result().statevector, vector)


# --- another machine: the home goes along, the rest does not ------------------------------------


@pytest.mark.parametrize("is_killed", [False, True])
def test_start_on_other_node_continues_from_journal_copy(tmp_path: Path, is_killed: bool) -> None:
    """Without asking if the service had ended by itself, so that the copy has all."""
    with environment(state_dir=str(tmp_path / "node1")) as live:
        with live.client() as env:
            task, vector = state_of(env)
            local_files = files(env)
            entries = [
                env.submit(turned(4), shots=None, outputs=("statevector",)) for _ in range(5)
            ]
            for each in entries:
                each.wait()
            env.ack(2, cursor="mine")
        environments.down(live.name)
        elsewhere = {**live.options, "state_dir": str(tmp_path / "node2")}
        if is_killed:  # the next start, whose commits may be missing in the copy
            pid = live.up()
            live.kill_service()
            live.wait_dead(pid)
            caught = fails(ConfigError, "no live journal", environments.up, elsewhere)
            assert "--restore" in caught.hint
        environments.up(elsewhere, resume=is_killed)
        with live.client() as env:
            assert env.status().resumed.startswith("from the copy ")
            assert [done.seq for done in env.completions(cursor="mine")] == [3, 4, 5, 6]
            assert files(env) == [], "files of results stay where they are"
            np.testing.assert_array_equal(env.task(task.id).result().statevector, vector)
            assert all(path.exists() for path in local_files)
            fresh = env.submit(turned(4), shots=None, outputs=("statevector",))
            assert number(fresh) > max(number(each) for each in entries)


def test_service_is_refused_while_another_runs_and_force_lock_replaces_it(tmp_path: Path) -> None:
    live = Live(state_dir=str(tmp_path / "node1"))
    pid = live.up()
    connection = live.home / "connection.json"
    text = connection.read_text()
    nodename = os.uname().nodename
    try:
        connection.write_text(text.replace(f'"node":"{nodename}"', '"node":"elsewhere"'))
        assert connection.read_text() != text
        with pytest.raises(InsufficientError, match=rf"up on elsewhere: process {pid}") as caught:
            live.up(state_dir=str(tmp_path / "node2"))
        assert "--force-lock" in caught.value.hint
        other = environments.up(
            {**live.options, "state_dir": str(tmp_path / "node2")}, resume=False, force_lock=True
        )
        live.wait_dead(pid)  # it sees that the file names another, and gives way
        assert environments.read(connection).pid == other.pid
        with live.client() as env:
            assert env.run(turned(2), shots=None, outputs=("statevector",)).num_qubits == 2
    finally:
        live.down()
