"""Tasks that are compiled again when the calibration of their device has changed.

With `compile="fresh"` a task whose calibration is no longer in force at its start fails with the
reason `calibration_stale`, and nothing is run. The client then compiles the circuit for the present
calibration and submits it again: in its own thread when it receives the failure, or earlier in a
thread that asks for the task's end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from simenv.client.circuits import load
from simenv.client.connection.task_handle import TaskHandle
from simenv.client.submission.prepare import prepare_one
from simenv.client.submission.send import send, time_left
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError, TaskFailedError
from simenv.model import TaskState
from simenv.model.task_rules import MAX_KEY_CHARS

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession
    from simenv.client.devices.choice import SubmitDevices
    from simenv.client.results.result import Result
    from simenv.client.submission.options import SubmitOptions

FRESH = "fresh"
STALE = "calibration_stale"  # failure reason of a stale task
MAX_ATTEMPTS = 8


class FreshTask(Task):
    """A Task for a sequence of attempts; its id is that of the last one.

    All attempts have one seed. If an attempt cannot be submitted, its error becomes the task's
    error. Methods that ask for the end (`done`, `result`, `await`) may take the time of a
    submission.
    """

    __slots__ = ("_again", "_left", "_lock")

    def __init__(self, handle: TaskHandle, resubmit: Callable[[TaskHandle], TaskHandle]) -> None:
        """`resubmit`: submits the next attempt of a stale task; raises SimenvError."""
        super().__init__(handle)
        self._resubmit = resubmit
        self._left = MAX_ATTEMPTS - 1
        self._lock = threading.Lock()
        self.session.call(handle, self.done)

    def done(self) -> bool:
        """Return whether the last attempt is known to have ended; may submit another attempt."""
        while super().done():
            if not self._resubmit_stale(self.handle):
                return True
        return False

    def wait(self, progress: bool | str = False, timeout_s: float | None = None) -> TaskState:
        """Wait for the end of the last attempt; see `Task.wait`."""
        begun = monotonic()
        super().wait(progress, timeout_s)
        while not self.done():
            super().wait(progress, time_left(timeout_s, begun))
        return self.handle.final_state

    def cancel(self) -> bool:
        """Cancel the task; it is not submitted again."""
        with self._lock:
            self._left = 0
        return super().cancel()

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(task)` when the last attempt has ended; see `Task`."""
        handle = self.handle
        if self.done():
            fn(self)
        else:
            self.session.call(handle, partial(self._on_attempt_end, handle, fn))

    def _on_attempt_end(self, handle: TaskHandle, fn: Callable[[Any], object]) -> None:
        """Handle the end of an attempt, or the loss of the service."""
        if self.done() or self.handle is handle:
            fn(self)
        else:
            self.add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, Result]:
        while not self.done():
            yield from self.session.future(self.handle).__await__()
        return self.result(0.0)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return object.__hash__(self)

    def _ended(self, timeout_s: float | None) -> TaskHandle:
        begun = monotonic()
        handle = super()._ended(timeout_s)
        while self._resubmit_stale(handle):
            handle = super()._ended(time_left(timeout_s, begun))
        return handle

    def _resubmit_stale(self, handle: TaskHandle) -> bool:
        """Submit a stale attempt again. Return whether the attempt `handle` has been replaced, by
        this or by another thread; its replacement may be the error of the submission."""
        if handle.final_state is not TaskState.FAILED:
            return False
        with self._lock:
            if self._handle is not handle:
                return True
            error = handle.error()
            stale = isinstance(error, TaskFailedError) and error.reason == STALE
            if not stale or not self._left:
                return False
            self._left -= 1
            try:
                self._handle = self._resubmit(handle)
            except SimenvError as failed:
                self._handle = TaskHandle(handle.session, handle.number, handle.submission)
                self._handle.lose(failed)
                return True
        self.session.call(self.handle, self.done)
        return True


def renewable(
    session: ServiceSession,
    task: Task,
    circuit: Any,
    options: SubmitOptions,
    seed: int,
    devices: SubmitDevices,
) -> Task:
    """Return the task, or a FreshTask for `compile="fresh"`. `seed`: of the first attempt."""
    if options.get("compile") != FRESH:
        return task
    loaded, key = load(circuit), options.get("idempotency_key")

    def resubmit(stale: TaskHandle) -> TaskHandle:
        devices.forget()
        next_key = None if key is None else f"{stale.id}/{key}"[:MAX_KEY_CHARS]
        prepared = prepare_one(loaded, {**options, "seed": seed}, devices)
        return send(session, prepared, next_key)[0].handle

    return FreshTask(task.handle, resubmit)
