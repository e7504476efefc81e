"""Waiting for what nobody is notified of, see `testbed.waiting`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from testbed.waiting import until as until

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task
    from simenv.model import WorkerInfo


def busy_worker(env: Client, task: Task) -> WorkerInfo:
    """The worker that runs a task, once it does."""

    def look() -> list[WorkerInfo]:
        assert not task.done(), "it ended before it was seen"
        return [worker for worker in env.workers() if worker.task == task.id]

    def state() -> str:
        return f"{env.tasks([task.id])} is run by none of {env.workers()}"

    return until(look, look_s=0.002, message=state)[0]
