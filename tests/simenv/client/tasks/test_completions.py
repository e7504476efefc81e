"""Completions and cursors of a real service: failed tasks, several readers of one owner."""

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from circuits import bell, faulty
from failing import fails
from qiskit import QuantumCircuit
from shell import Terminal

import simenv
from simenv.errors import OptionError, TaskCancelledError, TaskFailedError
from simenv.model import TaskState
from simulators.fault import engine as fault

ROOT = Path(__file__).parents[4]
POOLS = ({"name": "main", "min": 1, "max": 1}, {"name": "broken", "engine": "fault", "max": 1})


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(pools=POOLS) as client:
        yield client


def slow() -> QuantumCircuit:
    """Ten minutes unless it is cancelled."""
    circuit = faulty(fault.SLOW)
    circuit.rx(600.0, 0)
    circuit.measure_all()
    return circuit


def submit_done_failed_cancelled(env: simenv.Client) -> list[simenv.Task]:
    """Three tasks that have ended: DONE, FAILED, CANCELLED."""
    done = env.submit(bell(), shots=10)
    failed = env.submit(faulty(fault.RAISE), engine="fault")
    cancelled = env.submit(slow(), engine="fault")
    cancelled.cancel()
    tasks = [done, failed, cancelled]
    for task in tasks:
        task.wait(timeout_s=60)
    return tasks


def documented_loops(file: str) -> list[str]:
    """The loops over `client.completions(` in a file's Python blocks."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / file).read_text(), re.M | re.S)
    loop = re.compile(r"^for done in client\.completions\(.*(?:\n[ ]{4,}.*)+", re.M)
    return [each for block in blocks for each in loop.findall(block)]


@pytest.mark.parametrize("file", ["docs/guides/circuits.md", "docs/guides/results.md"])
def test_documented_loop_reads_past_failures(file: str, env: simenv.Client) -> None:
    [loop] = documented_loops(file)
    with simenv.connect(service=env.service) as reader:
        tasks = submit_done_failed_cancelled(reader)
        for repetition in range(2):  # the second time there is nothing left to read
            stringio = io.StringIO()
            with contextlib.redirect_stdout(stringio):
                exec(loop, {"client": reader})
            lines = stringio.getvalue().splitlines()
            entries = [any(task.id in line for line in lines) for task in tasks]
            assert entries == [repetition == 0] * 3, stringio.getvalue()


def test_completion_has_state_and_error_of_task(env: simenv.Client) -> None:
    tasks = submit_done_failed_cancelled(env)
    ids = {task.id: k for k, task in enumerate(tasks)}
    table = {ids[each.task.id]: each for each in env.completions() if each.task.id in ids}
    states = [table[k].state for k in range(3)]
    assert states == [TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED]
    assert table[0].error is None
    assert isinstance(table[1].error, TaskFailedError)
    assert isinstance(table[2].error, TaskCancelledError)
    fails(TaskFailedError, "", table[1].results)


def test_unnamed_cursors_of_two_programs_are_independent(env: simenv.Client) -> None:
    with (
        simenv.connect(service=env.service) as client,
        simenv.connect(service=env.service) as other,
    ):
        tasks = {client.submit(bell(), shots=10).id for _ in range(3)}
        for done in client.completions():
            client.ack(done.seq)
        assert list(client.completions()) == []
        assert {done.task.id for done in other.completions()} == tasks
    with simenv.connect(service=env.service) as later:
        assert list(later.completions()) == []


def test_named_cursor_survives_its_client(env: simenv.Client) -> None:
    env.submit(bell(), shots=10).wait(timeout_s=60)
    with simenv.connect(service=env.service) as client:
        newest = max(done.seq for done in client.completions(cursor="durable"))
        assert client.ack(newest, cursor="durable") == newest
    with simenv.connect(service=env.service) as later:
        assert list(later.completions(cursor="durable")) == []


@pytest.mark.parametrize("seq", [-1, 1.5, "3", True, 2**63])
def test_position_of_unnamed_cursor_is_checked(env: simenv.Client, seq: object) -> None:
    fails(OptionError, "seq=", env.ack, seq)


class Screen(Terminal):
    """Shows a line as a terminal does: what is printed over a progress line is glued to it."""

    def lines(self) -> list[str]:
        entries = []
        for line in self.getvalue().split("\n"):
            text = ""
            for part in line.split("\r"):
                text = part if "\x1b[K" in part else part + text[len(part) :]
            entries.append(text.replace("\x1b[K", ""))
        return entries


@pytest.mark.parametrize("progress", [True, "rich"])
def test_progress_of_as_completed_does_not_overwrite_printed_lines(
    env: simenv.Client, monkeypatch: pytest.MonkeyPatch, progress: bool | str
) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    tasks = env.submit_many([bell()] * 5, seed=8)
    printed = []
    for task in simenv.as_completed(tasks, progress=progress):
        printed.append(f"done {task.id}")
        screen.write(printed[-1] + "\n")
    *lines, last, _ = screen.lines()
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip() for line in lines]
    assert [line for line in plain if line.startswith("done")] == printed
    assert progress is not True or lines == printed
    assert last.startswith("5 of 5 tasks ended in ")
