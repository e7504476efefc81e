"""The state of a circuit of two tasks, one of which has ended, is that of the other one."""

from __future__ import annotations

import pytest

from simenv.client.qpm.answers import envelopes
from simenv.client.qpm.runtime.circuit_run import CircuitRun
from simenv.model import TaskInfo, TaskState
from simenv.qpm.states import Lifecycle


def info(state: TaskState, worker: str = "") -> TaskInfo:
    return TaskInfo("t-1", "", "main", state, 1, 0.1, 2, 100, worker, "")


@pytest.mark.parametrize("ended", [TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED])
def test_circuit_of_two_tasks_has_state_of_unfinished_task(ended: TaskState) -> None:
    run = CircuitRun("cid", 7, 100, 1.0)
    for infos in ([info(ended), info(TaskState.QUEUED)], [info(TaskState.QUEUED), info(ended)]):
        assert envelopes.current_status(run, infos).lifecycle_state is Lifecycle.QUEUED
    result = envelopes.current_status(run, [info(ended), info(TaskState.RUNNING, "main-0")])
    assert result.lifecycle_state is Lifecycle.SUBMITTED
    assert result.provider_handle == "main-0"
