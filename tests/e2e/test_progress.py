"""A long run is seen with what it has done: by the client, on the command line, in a Qiskit job."""

import io
import sys
import time
from contextlib import suppress

import pytest
from busy_circuits import ENDLESS, busy
from qiskit import qasm2

from simenv.cli.observe import _runs
from simenv.client.client import Client
from simenv.client.tasks.progress import TaskProgress
from simenv.client.tasks.task import Task
from simenv.errors import TimedOutError
from simenv.frontends.qiskit.backend import SimenvBackend

WAIT_S = 60.0


def watched(task: Task, values: int) -> list[TaskProgress]:
    """So many different values of a task's progress, as they come."""
    deadline, seen = time.monotonic() + WAIT_S, list[TaskProgress]()
    while len(seen) < values:
        assert time.monotonic() < deadline, seen
        with suppress(TimedOutError):
            pytest.fail(f"it was too short: {task.wait(timeout_s=0.1)}")
        progress = task.progress()
        if progress.unit and (not seen or progress.fraction != seen[-1].fraction):
            seen.append(progress)
    return seen


def test_progress_of_a_run_grows_with_a_forecast_of_the_rest(env: Client) -> None:
    job = SimenvBackend(env=env).run(qasm2.loads(ENDLESS), shots=10)
    (task,) = job.tasks
    try:
        seen = watched(task, 3)
        fractions = [each.fraction for each in seen]
        assert fractions == sorted(fractions)
        assert {(each.unit, each.total) for each in seen} == {("passes", seen[0].total)}
        assert all(each.left_s is not None and each.left_s > 0.0 for each in seen)
        assert job.progress().fraction >= fractions[-1]
        (info,) = env.tasks([task])
        assert f" of {seen[0].total} passes, " in _runs(info)
        assert " left" in _runs(info)
    finally:
        job.cancel()
        task.wait(timeout_s=WAIT_S)
    assert task.progress() == TaskProgress(0.0, 0, 1, "tasks", 0.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_wait_shows_bar_of_one_task_and_many(env: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    env.submit(busy(300), shots=10).wait(progress=True, timeout_s=WAIT_S)
    assert "RUNNING on " in stream.getvalue()
    jobs = SimenvBackend(env=env).run([qasm2.loads(busy(40, 16))] * 3, shots=10)
    jobs.wait_for_final_state(WAIT_S)
    assert jobs.progress()[:4] == (1.0, 3, 3, "tasks")
