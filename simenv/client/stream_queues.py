"""Queues of a stream, and the tasks that it delivers.

A stream delivers completions by type, and events of the environment.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from simenv.client.stream_stages import SplitCircuit
from simenv.client.tasks.task import Task, deadline_of, left_s
from simenv.errors import OptionError, SimenvError, TimedOutError
from simenv.model import Event, TaskState
from simenv.model.task_rules import OUTPUTS

FAILED = "failed"  # type of a completion without a result; other types are outputs


class StreamTask:
    """One circuit of a stream: one task of the environment, or several if a stage split it.
    `number`: in the stream, from 0. `target`: its device or pool, "" if the environment chose; of a
    split circuit the target of its first part."""

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
        """Types of its completion: the outputs of its tasks, or FAILED; empty before its end. No
        result is read for it."""
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
        deadline = deadline_of(timeout_s)
        return self._split.combine([task.result(left_s(deadline)) for task in self.tasks])

    def exception(self, timeout_s: float | None = None) -> SimenvError | None:
        """Wait like `result`; return the reason why there is no result, or None."""
        deadline = deadline_of(timeout_s)
        entries = [task.exception(left_s(deadline)) for task in self.tasks]
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


TYPES = (*OUTPUTS, FAILED)
EVENT_KINDS = {
    "calibration-update": ("calibration-update",),
    "noise-fluctuation": ("noise-fluctuation",),
    "outage": ("outage",),
    "failure": ("worker.lost", "node.lost", "dvm.lost", "pool.quarantined", "task.failed"),
}
MAX_UNREAD_EVENTS = 10_000  # of a queue: events of tasks of others count, too
Item = TypeVar("Item")


class Source(Protocol):
    """A producer of a queue; a `Stream` is one."""

    @property
    def finished(self) -> bool:
        """True if it will deliver nothing more."""

    def resume(self) -> None:
        """Continue after a `SimenvError` that a reader has received."""


class _StreamQueue(Generic[Item]):
    """A queue that several streams may fill. Thread-safe. Completions are unbounded: references to
    tasks that the owner of the streams submitted."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._sources: list[Source] = []
        self._error: SimenvError | None = None

    def __len__(self) -> int:
        return len(self._items)

    def get(self, timeout_s: float | None = None) -> Item:
        """Wait for the next item and remove it. Raises TimedOutError after `timeout_s` seconds;
        EOFError when all streams that fill the queue are closed and have delivered everything;
        ServiceLostError when the service is lost: the next call waits again."""
        deadline = deadline_of(timeout_s)
        with self._changed:
            while not self._items and self._error is None:
                if self._sources and all(source.finished for source in self._sources):
                    raise EOFError("the streams of this queue have ended")
                wait_s = left_s(deadline)
                if wait_s == 0.0:
                    message = f"no item was delivered into the queue within {timeout_s:g} s"
                    raise TimedOutError(message)
                self._changed.wait(wait_s)
            if self._items:
                return self._items.popleft()
            error, self._error = self._error, None
            assert error is not None
        for source in self._sources:  # without the lock: they put into this queue
            source.resume()
        raise error

    def __iter__(self) -> Iterator[Item]:
        """Iterate until all streams of the queue are closed and have delivered everything."""
        while True:
            try:
                item = self.get()
            except EOFError:
                return
            yield item

    def attach(self, source: Source) -> None:
        """Add a stream that will fill this queue."""
        with self._changed:
            self._sources.append(source)

    def put(self, item: Item) -> None:
        """Add an item, delivered by a stream."""
        with self._changed:
            self._items.append(item)
            self._changed.notify()

    def fail(self, error: SimenvError) -> None:
        """Raise an error in the next reader."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def wake(self) -> None:
        """Wake the readers, because a source may have finished."""
        with self._changed:
            self._changed.notify_all()


class StreamCompletions(_StreamQueue[StreamTask]):
    """Queue of the completions of some types: outputs of a task such as "counts", and "failed" for
    every task that ended without a result. Without types: all. A task with several outputs is put
    once into every bound queue that takes one of them."""

    def __init__(self, *types: str) -> None:
        for name in types:
            if name not in TYPES:
                raise OptionError(f"a queue of {name!r:.80}", hint=f"types are {', '.join(TYPES)}")
        super().__init__()
        self.types = frozenset(types or TYPES)


class StreamEvents(_StreamQueue[Event]):
    """Queue of the events of the environment after it was bound: "calibration-update",
    "noise-fluctuation", "outage" of devices, and "failure" of workers, nodes and DVMs. Without
    kinds: all of these. A stream puts no more into a queue with MAX_UNREAD_EVENTS until some were
    read."""

    def __init__(self, *kinds: str) -> None:
        for name in kinds:
            if name not in EVENT_KINDS:
                hint = f"kinds are {', '.join(EVENT_KINDS)}"
                raise OptionError(f"a queue of events {name!r:.80}", hint=hint)
        super().__init__()
        self.kinds = kinds or tuple(EVENT_KINDS)

    @property
    def is_full(self) -> bool:
        """True if as many events are unread as it may have."""
        return len(self) >= MAX_UNREAD_EVENTS

    @property
    def patterns(self) -> tuple[str, ...]:
        """Kinds of events as `Client.events` accepts them."""
        return tuple(pattern for kind in self.kinds for pattern in EVENT_KINDS[kind])
