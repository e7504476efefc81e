"""What executors over an environment share: the tasks they gave out, and their end."""

from __future__ import annotations

import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

from simenv.client.tasks.task import Task

SomeTask = TypeVar("SomeTask", bound=Task)


class TaskExecutor(Executor, Generic[SomeTask]):
    """Remembers tasks as long as somebody holds them. Thread-safe."""

    def __init__(self) -> None:
        self._closed = False
        self._tasks: weakref.WeakSet[SomeTask] = weakref.WeakSet()
        self._lock = threading.Lock()  # of `_tasks`

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work. `wait`: until all tasks that somebody still holds have ended;
        `cancel_futures`: ask for their end first. Tasks go on in the environment without it."""
        self._closed = True
        tasks = self._unfinished()
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

    def _remember(self, tasks: Iterable[SomeTask]) -> None:
        with self._lock:
            self._tasks.update(tasks)

    def _unfinished(self) -> list[SomeTask]:
        with self._lock:
            return [task for task in self._tasks if not task.done()]

    def _in_order(self, tasks: list[SomeTask], deadline: float | None) -> Iterator[Any]:
        """Results of the tasks, each dropped when it was given; those that are left at an early end
        are cancelled. Raises TimedOutError at the deadline, and what a task ended with."""
        try:
            while tasks:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                yield tasks[0].result(left_s)
                del tasks[0]
        finally:
            if tasks:
                self._cancel(tasks)


def deadline_of(timeout_s: float | None) -> float | None:
    """In `time.monotonic`; None: never."""
    return None if timeout_s is None else time.monotonic() + timeout_s
