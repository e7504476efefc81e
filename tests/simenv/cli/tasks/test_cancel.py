"""Cancellation of tasks and waiting for them."""

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import Live
from qiskit import QuantumCircuit
from shell import Shell, Terminal
from waiting import until

import simenv
from simenv.cli.tasks import cancel
from simenv.cli.tasks.circuit_input import answer_progress, kernel_progress
from simenv.client.administration.keys import issue_key
from simenv.client.tasks import progress
from simenv.model import TaskState
from simulators.compiler.kernel_time import booked
from simulators.fault import engine as fault

POOLS = [{"name": "main", "engine": "fault", "min": 1, "max": 1}]
OPTIONS = {"listen": "tcp://127.0.0.1:0"}


def slow() -> QuantumCircuit:
    """Ten minutes unless it is cancelled."""
    circuit = QuantumCircuit(1, 1)
    circuit.rx(fault.FAULT_BASE + fault.SLOW, 0)
    circuit.rx(600.0, 0)
    circuit.measure(0, 0)
    return circuit


@pytest.fixture
def env(environment: Live) -> Iterator[simenv.Client]:
    with environment.client() as client:
        yield client
        client.cancel([info.id for info in client.queue()[1]])


def submit(env: simenv.Client, count: int) -> list[str]:
    return [env.submit(slow(), engine="fault").id for _ in range(count)]


def test_cancel_all_ends_every_task(env: simenv.Client, shell: Shell) -> None:
    tasks = submit(env, 4)
    shell("cancel", "--all", code=0)
    for task in tasks:
        assert env.task(task).wait(timeout_s=60) is TaskState.CANCELLED
    assert shell("cancel", "--all").out == "no task matches\n"


def test_cancel_by_state_leaves_running_tasks(env: simenv.Client, shell: Shell) -> None:
    running, *waiting = submit(env, 3)
    while env.task(running).state is not TaskState.RUNNING:
        pass
    result = shell("cancel", "--state", "QUEUED", "--json")
    assert {row["task"] for row in result.objects} == set(waiting)
    assert env.task(running).state is TaskState.RUNNING


def test_cancel_by_app(env: simenv.Client, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    [other] = submit(env, 1)
    monkeypatch.setenv("SIMENV_APP", "sweep")
    task = submit(env, 2)
    result = shell("cancel", "--run-name", "sweep", "--json")
    assert {row["task"] for row in result.objects} == set(task)
    assert env.task(other).state in (TaskState.QUEUED, TaskState.RUNNING)


def test_cancel_by_user_leaves_others(env: simenv.Client, shell: Shell, tmp_path: Path) -> None:
    [value] = submit(env, 1)
    issue_key(env.keys, "ana", "client", tmp_path / "ana.simenv")
    with simenv.connect(service=tmp_path / "ana.simenv") as ana:
        hers = submit(ana, 2)
    result = shell("cancel", "--user", "ana", "--json")
    assert {row["task"] for row in result.objects} == set(hers)
    result = shell("cancel", "--user", "-", "--json")
    assert value in {row["task"] for row in result.objects}


def test_cancel_all_long(env: simenv.Client, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = submit(env, 3)
    monkeypatch.setattr(cancel, "LISTED", 2)
    assert {row["task"] for row in shell("cancel", "--all", "--json").objects} >= set(tasks)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "needs ids of tasks, or one of --all"),
        (("t-1", "--all"), "needs ids of tasks, or one of --all"),
        (("--state", "DONE"), "--state DONE: tasks in it have ended"),
    ],
)
def test_contradictory_cancels_refused(words: tuple[str, ...], message: str, shell: Shell) -> None:
    result = shell("cancel", *words)
    assert (result.code, message in result.err) == (2, True)


LIMIT_S = 30.0


def await_text(stream: io.StringIO, text: str) -> None:
    until(lambda: text in stream.getvalue(), message=stream.getvalue)


def test_compilation_is_shown_while_it_lasts_and_taken_away_afterwards() -> None:
    stream, broken = Terminal(), Terminal()
    with kernel_progress(stream):
        with booked():
            await_text(stream, "compiling kernels, once on this machine, 0:0")
        await_text(stream, "\x1b[K")
    with contextlib.suppress(ValueError), kernel_progress(broken), booked():
        await_text(broken, "compiling kernels")
        raise ValueError
    for each in (stream, broken):
        assert each.getvalue().endswith("\r\x1b[K")


def test_nothing_is_written_where_nobody_sees_it_or_nothing_is_compiled() -> None:
    pipe, idle = io.StringIO(), Terminal()
    with kernel_progress(pipe), booked():
        time.sleep(1.5)
    with kernel_progress(idle):
        time.sleep(0.5)
    assert pipe.getvalue() == idle.getvalue() == ""


def test_log_says_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_S", 0.3)
    pipe = io.StringIO()
    with kernel_progress(pipe), booked():
        await_text(pipe, "compiling kernels, once on this machine, 0:0")
    assert pipe.getvalue().endswith("\n")
    assert "\r" not in pipe.getvalue()


def test_wait_for_the_service_is_shown_from_the_first_second_on() -> None:
    stream = Terminal()
    with answer_progress(stream):
        await_text(stream, "the first of its kind waits for kernels, 0:0")
    assert stream.getvalue().endswith("\r\x1b[K")
    quick = Terminal()
    with answer_progress(quick):
        pass
    assert quick.getvalue() == ""
