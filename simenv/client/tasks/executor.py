"""What executors over an environment share: the tasks they gave out, and their end."""

from __future__ import annotations

import time
import weakref
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

from simenv.client.tasks.task import Task

SomeTask = TypeVar("SomeTask", bound=Task)


class TaskExecutor(Executor, Generic[SomeTask]):
    """Remembers tasks as long as somebody holds them. Thread-safe."""

    def __init__(self) -> None:
        self._closed = False
        self._tasks: weakref.WeakSet[SomeTask] = weakref.WeakSet()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. `wait`: until all tasks that somebody still holds have ended;
        `cancel_futures`: ask for their end first. Tasks go on in the environment without it."""
        self._closed = True
        tasks = [task for task in self._tasks if not task.done()]
        if cancel_futures and tasks:
            self._cancel(tasks)
        if wait:
            for task in tasks:
                task.wait()

    @abstractmethod
    def _cancel(self, tasks: Sequence[SomeTask]) -> object:
        """Ask for the end of tasks, in one message."""

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")


def deadline_of(timeout_s: float | None) -> float | None:
    """In `time.monotonic`; None: never."""
    return None if timeout_s is None else time.monotonic() + timeout_s


def results_in_order(tasks: list[SomeTask], deadline: float | None) -> Iterator[Any]:
    """Results of the tasks, each dropped when it was given; those that are left at an early end
    are cancelled. Raises TimedOutError at the deadline, and what a task ended with."""
    try:
        while tasks:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            yield tasks[0].result(left_s)
            del tasks[0]
    finally:
        for task in tasks:
            task.cancel()
