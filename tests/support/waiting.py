"""Waiting for what nobody is notified of."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.client.tasks.task import Task
    from simenv.model import WorkerInfo

PATIENCE_S = 120.0
LOOK_S = 0.01
T = TypeVar("T")


def until(
    condition: Callable[[], T],
    timeout_s: float = PATIENCE_S,
    *,
    message: str | Callable[[], object] = "it never comes",
    look_s: float = LOOK_S,
) -> T:
    """Return the first true value of a condition."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, message() if callable(message) else message
        time.sleep(look_s)
    return result


def busy_worker(env: Client, task: Task) -> WorkerInfo:
    """The worker that runs a task, once it does."""

    def look() -> list[WorkerInfo]:
        assert not task.done(), "it ended before it was seen"
        return [worker for worker in env.workers() if worker.task == task.id]

    def state() -> str:
        return f"{env.tasks([task.id])} is run by none of {env.workers()}"

    return until(look, look_s=0.002, message=state)[0]
