"""Tasks that come after others: Python, command line, kill -9 of the service and of a worker."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from circuits import bell, faulty
from failing import fails
from live import environment, resurrected
from qiskit import QuantumCircuit, qasm2
from shell import shell_of
from waiting import until

from simenv.client.client import Client
from simenv.errors import NotFoundError, OptionError, TaskFailedError
from simenv.model import TaskState
from simulators.fault import engine as fault

FAULTY = {"name": "main", "engine": "fault", "min": 1, "max": 1}
RUN: Any = {"shots": 10, "engine": "fault"}
PATIENCE_S = 120.0

pytestmark = pytest.mark.usefixtures("no_leaks")


def slow(seconds: float) -> QuantumCircuit:
    """A circuit that waits before it runs; see simulators.fault.engine."""
    circuit = QuantumCircuit(1, 1)
    circuit.rx(fault.FAULT_BASE + fault.SLOW, 0)
    circuit.rx(seconds, 0)
    circuit.h(0)
    circuit.measure(0, 0)
    return circuit


def wait_running(env: Client, task: str) -> None:
    until(
        lambda: env.tasks([task])[0].state is TaskState.RUNNING,
        message=lambda: f"{task} does not run",
    )


def test_children_wait_through_kills_of_the_service_and_of_a_worker() -> None:
    with environment(pools=[FAULTY]) as live, resurrected(live) as deaths, live.client() as env:
        parent = env.submit(slow(4.0), **RUN, name="parent")
        doomed = env.submit(faulty(fault.RAISE), **RUN)
        children = env.submit_many([bell(), bell()], **RUN, after=[parent])
        last = env.post(bell(), **RUN, after=[*children, parent.id])
        orphan = env.submit(bell(), **RUN, after=doomed)
        wait_running(env, parent.id)
        reasons = {info.id: info.reason for info in env.queue()[1]}
        assert reasons[children[0].id] == f"waits for {parent.id} (RUNNING)"
        assert reasons[last.id] == f"waits for {children[0].id} (QUEUED) and 2 more"
        live.kill_service()
        assert last.result(PATIENCE_S).counts
        assert all(task.result().shots == 10 for task in (parent, *children))
        assert deaths, "the service was not killed"
        failed = fails(TaskFailedError, "", orphan.result, PATIENCE_S)
        assert failed.reason == "dependency"
        assert f"task {doomed.id}, which it comes after, ended as FAILED: " in str(failed)
        again = env.submit(slow(1.0), **RUN)
        child = env.submit(bell(), **RUN, after=again)
        wait_running(env, again.id)
        os.kill(env.workers()[0].pid, signal.SIGKILL)
        assert child.result(PATIENCE_S).counts
        assert again.state is TaskState.DONE


def test_refusals_and_the_command_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SIMENV_SERVICE", "")
    with environment(pools=[FAULTY]) as live, live.client() as env:
        failed = env.submit(faulty(fault.RAISE), **RUN)
        failed.wait()
        with pytest.raises(OptionError, match=f"task {failed.id} has ended as FAILED: .*"):
            env.submit(bell(), **RUN, after=[failed])
        with pytest.raises(NotFoundError, match="there is no task t-zzz of yours"):
            env.run(bell(), **RUN, after="t-zzz")
        fails(OptionError, "ended as FAILED", env.post(bell(), **RUN, after=failed).result)
        done = env.submit(bell(), **RUN)
        assert env.run(bell(), **RUN, after=f"{done.id}.0").shots == 10
        file = tmp_path / "bell.qasm"
        file.write_text(qasm2.dumps(bell()))
        shell = shell_of(live.name, capfd)
        parents = [env.submit(slow(1.0), **RUN).id for _ in range(2)]
        after = [word for parent in parents for word in ("--after", parent)]
        child = shell("submit", str(file), "--engine", "fault", *after).out.strip()
        assert env.task(child).result(PATIENCE_S).counts
        assert {info.state for info in env.tasks(parents)} == {TaskState.DONE}
        endless = env.submit(slow(600.0), **RUN)
        child = env.submit(bell(), **RUN, after=endless)
        wait_running(env, endless.id)
        reason = f"waits for {endless.id} (RUNNING)"
        assert reason in shell("queue").out
        assert reason in shell("queue", "--json").out
        assert reason in shell("history", "--json").out
        endless.cancel()
        with pytest.raises(TaskFailedError, match=f"task {endless.id}, which .* as CANCELLED: "):
            child.result(PATIENCE_S)
        answer = shell("submit", str(file), "--engine", "fault", "--after", failed.id)
        assert (answer.code, f"task {failed.id} has ended as FAILED" in answer.err) == (2, True)
        answer = shell("submit", str(file), "--engine", "fault", "--after", "t-zzz")
        assert (answer.code, "there is no task t-zzz" in answer.err) == (4, True)
