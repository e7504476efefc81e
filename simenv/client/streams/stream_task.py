"""One circuit of a stream, and the types of its completion."""

from __future__ import annotations

from time import monotonic
from typing import Any

from simenv.client.streams.stages import SplitCircuit
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskState

FAILED = "failed"  # the type of a completion without a result; others have types by outputs


class StreamTask:
    """One circuit of a stream: one task of the environment, or several where a stage split it.

    `number`: in the stream, from 0. `target`: the device or pool that it was placed on, "" for the
    environment's own choice; of a split circuit that of its first part.
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
        """Have all its tasks ended?"""
        return all(task.done() for task in self.tasks)

    @property
    def types(self) -> frozenset[str]:
        """Types of its completion: the outputs of its tasks, or FAILED. No result is read for it;
        none before its end."""
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
        """Wait for the result: a `Result`, or what the stage that split the circuit makes of them.
        Raises as `Task.result`."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        results = []
        for task in self.tasks:
            left_s = None if deadline is None else max(0.0, deadline - monotonic())
            results.append(task.result(left_s))
        return self._split.combine(results)

    def exception(self, timeout_s: float | None = None) -> SimenvError | None:
        """Wait like `result`; why there is no result, or None."""
        entries = [task.exception(timeout_s) for task in self.tasks]
        return next((error for error in entries if error is not None), None)

    def cancel(self) -> bool:
        """Ask for its end; False when it had ended before."""
        return sum(task.cancel() for task in self.tasks) > 0  # all are asked

    def part_ended(self) -> bool:
        """Called by the stream, once for each of its tasks: was that the last?"""
        self._open -= 1
        return self._open == 0

    def __repr__(self) -> str:
        names = ", ".join(task.id for task in self.tasks[:3])
        return f"<StreamTask {self.number}: {names}{', ...' if len(self.tasks) > 3 else ''}>"
