"""One circuit of a stream, and the types of its completion."""

from __future__ import annotations

from time import monotonic
from typing import Any

from simenv.client.streams.stages import SplitCircuit
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskState

FAILED = "failed"  # type of a completion without a result; other types are outputs


class StreamTask:
    """One circuit of a stream: one task of the environment, or several if a stage split it.

    `number`: in the stream, from 0. `target`: its device or pool, "" if the environment chose; of a
    split circuit the target of its first part.
    """

    __slots__ = ("_open", "_split", "number", "target", "tasks")

    def __init__(
        self, number: int, target: str, split: SplitCircuit, tasks: tuple[Task, ...]
    ) -> None:
        self.number = number
        self.target = target
        self.tasks = tasks
        self._split = split
        self._open = len(tasks)

    def done(self) -> bool:
        """Return whether all its tasks have ended."""
        return all(task.done() for task in self.tasks)

    @property
    def types(self) -> frozenset[str]:
        """Types of its completion: the outputs of its tasks, or FAILED; empty before its end.

        No result is read for it.
        """
        if not self.done():
            return frozenset()
        entries: set[str] = set()
        for task in self.tasks:
            handle = task.settled()
            if handle is None or handle.final_state is not TaskState.DONE:
                return frozenset((FAILED,))
            entries.update(handle.submission.outputs)
        return frozenset(entries)

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the result: a `Result`, or the combined result of the stage that split the
        circuit. Raises like `Task.result`."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        results = []
        for task in self.tasks:
            left_s = None if deadline is None else max(0.0, deadline - monotonic())
            results.append(task.result(left_s))
        return self._split.combine(results)

    def exception(self, timeout_s: float | None = None) -> SimenvError | None:
        """Wait like `result`; return the reason why there is no result, or None."""
        entries = [task.exception(timeout_s) for task in self.tasks]
        return next((error for error in entries if error is not None), None)

    def cancel(self) -> bool:
        """Cancel all tasks; return False if all had ended before."""
        return sum(task.cancel() for task in self.tasks) > 0  # `sum`, not `any`: cancel each task

    def part_ended(self) -> bool:
        """Record the end of one of its tasks, by the stream; return whether it was the last."""
        self._open -= 1
        return self._open == 0

    def __repr__(self) -> str:
        names = ", ".join(task.id for task in self.tasks[:3])
        return f"<StreamTask {self.number}: {names}{', ...' if len(self.tasks) > 3 else ''}>"
