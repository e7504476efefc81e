"""Base class of the executors over an environment: the tasks that they created, and shutdown."""

from __future__ import annotations

import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Generic, TypeVar

from simenv.client.tasks.task import Task

TaskT = TypeVar("TaskT", bound=Task)


class TaskExecutor(Executor, Generic[TaskT]):
    """Executor that holds weak references to its tasks. Thread-safe."""

    def __init__(self) -> None:
        self._closed = False
        self._tasks: weakref.WeakSet[TaskT] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards `_tasks`

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more work. `wait`: wait until all tasks that are still referenced have ended;
        `cancel_futures`: cancel them first. Tasks go on in the environment otherwise."""
        self._closed = True
        tasks = self._unfinished()
        if cancel_futures and tasks:
            self._cancel(tasks)
        if wait:
            for task in tasks:
                task.wait()

    @abstractmethod
    def _cancel(self, tasks: Sequence[TaskT]) -> object:
        """Cancel tasks, in one message."""

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _remember(self, tasks: Iterable[TaskT]) -> None:
        with self._lock:
            self._tasks.update(tasks)

    def _unfinished(self) -> list[TaskT]:
        with self._lock:
            return [task for task in self._tasks if not task.done()]

    def _in_order(self, tasks: list[TaskT], deadline: float | None) -> Iterator[Any]:
        """Iterate over the results of the tasks; each task is dropped after its result. Tasks that
        are left when the iteration ends early are cancelled. Raises TimedOutError at the deadline,
        and the error of a task."""
        try:
            while tasks:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                yield tasks[0].result(left_s)
                del tasks[0]
        finally:
            if tasks:
                self._cancel(tasks)


def deadline_of(timeout_s: float | None) -> float | None:
    """Return the deadline in `time.monotonic`; None: no deadline."""
    return None if timeout_s is None else time.monotonic() + timeout_s
