"""Sending of prepared tasks in messages of bounded size; a call is accepted or refused as a whole.

`post` returns tasks that are not accepted yet. Invariant: at most MAX_UNANSWERED of them wait for
their answer at once; the next `post` waits for the oldest one, which limits the rate of the caller.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import msgspec

from simenv.client.connection.requests import PendingRequest
from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import Submission, TaskHandle
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.tasks.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskSpec
from simenv.wire import refusals
from simenv.wire.messages.client import CLIENT_MESSAGE_BYTES, CLIENT_MESSAGE_TASKS, Refusal

if TYPE_CHECKING:
    from simenv.client.connection.requests import PendingRequest
    from simenv.client.connection.session import ServiceSession
    from simenv.errors import SimenvError

MAX_UNANSWERED = 512


class PostedTask(Task):
    """A Task that may not be accepted yet.

    Methods that need the acceptance (id, state, result) wait for it, and raise the refusal if there
    is one. In a forked child, and after the service was lost, the submission is repeated with the
    same idempotency key.
    """

    __slots__ = ("_refusal", "_request", "_session")

    def __init__(self, session: ServiceSession, request: PendingRequest) -> None:
        super().__init__(None)
        self._session = session
        self._request = request
        self._refusal: SimenvError | None = None

    @property
    def session(self) -> ServiceSession:
        return self._session

    @property
    def handle(self) -> TaskHandle:
        handle = self.settled()
        if handle is None:
            assert self._refusal is not None
            raise self._refusal
        return handle

    def is_answered(self) -> bool:
        """Return whether the acceptance or the refusal has arrived; never waits."""
        return self._request.is_answered()

    def done(self) -> bool:
        """Return whether the end or the refusal is known; never waits."""
        if self._handle is None and self._refusal is None and not self._request.is_answered():
            self._session.poll_submit(self._request)
            if not self._request.is_answered():
                return False
        return self.settled() is None or super().done()

    def exception(
        self, timeout: float | None = None, *, timeout_s: float | None = None
    ) -> SimenvError | None:
        """Wait like `result`; return the refusal, or the error of the task, or None."""
        begun = monotonic()
        timeout_s = timeout if timeout_s is None else timeout_s
        if self.settled(timeout_s) is None:
            return self._refusal
        return super().exception(timeout_s=time_left(timeout_s, begun))

    def _ended(self, timeout_s: float | None) -> TaskHandle:
        begun = monotonic()
        if self.settled(timeout_s) is None and self._refusal is not None:
            raise self._refusal
        return super()._ended(time_left(timeout_s, begun))

    def settled(self, timeout_s: float | None = None) -> TaskHandle | None:
        """Wait for the answer; None if the task was refused. Raises TimedOutError."""
        if self._handle is None and self._refusal is None:
            result = self._session.await_acceptance(self._request, timeout_s)[0]
            if isinstance(result, Refusal):
                refusal = refusals.error_at(result, 0)
                refusal.index = -1
                self._refusal = refusal
            else:
                self._handle = result
        return self._handle

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Task) or self.settled() is None or other.settled() is None:
            return False
        return super().__eq__(other)

    def __hash__(self) -> int:
        return object.__hash__(self) if self.settled() is None else super().__hash__()

    def __repr__(self) -> str:
        if self._request.is_answered():
            self.settled()  # does not wait
        if self._handle is None:
            return f"<Task {'refused' if self._refusal is not None else 'not accepted yet'}>"
        return super().__repr__()


def time_left(timeout_s: float | None, begun: float) -> float | None:
    return None if timeout_s is None else max(0.0, timeout_s - (monotonic() - begun))


class InflightWindow:
    """The posted tasks of a client that may be unanswered. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: deque[PostedTask] = deque()

    def add(self, task: PostedTask) -> None:
        """Add a task; wait for the oldest one if MAX_UNANSWERED are exceeded."""
        oldest = None
        with self._lock:
            while self._open and self._open[0].is_answered():
                self._open.popleft()
            self._open.append(task)
            if len(self._open) > MAX_UNANSWERED:
                oldest = self._open.popleft()
        if oldest is not None:
            oldest.settled()


UNANSWERED = 8  # messages without answer at once
SPEC_BYTES = 32  # of a TaskSpec without its program and bindings


def post(
    session: ServiceSession, order: PreparedSubmit, key: str | None, window: InflightWindow
) -> PostedTask:
    """Send a single task without waiting for its acceptance; see `PostedTask`."""
    submission = _submission(order)
    request = session.send_submit(key, 0, order.terms, order.specs, submission, awaits_result=True)
    task = PostedTask(session, request)
    window.add(task)
    return task


def _submission(order: PreparedSubmit) -> Submission:
    return Submission(order.terms.name, perf_counter(), outputs=order.terms.outputs)


def send(session: ServiceSession, order: PreparedSubmit, key: str | None) -> list[Task]:
    """Send tasks; return them when all are accepted, in order. After a refusal the accepted ones
    are cancelled, and the error is raised."""
    if len(order.specs) <= 1:
        return _send_one(session, order, key) if order.specs else []
    window: deque[tuple[int, PendingRequest]] = deque()
    received = SubmitAnswers([], [], [])
    start = 0
    try:
        for part in chunks(order.specs):
            submission = _submission(order)
            request = session.send_submit(key, start, order.terms, part, submission)
            window.append((start, request))
            start += len(part)
            while len(window) >= UNANSWERED:
                received.add(session, *window.popleft())
            if received.errors:
                break
        while window:
            received.add(session, *window.popleft())
    finally:
        for _, request in window:  # after an interrupt
            session.abandon(request)
    if received.errors:
        raise _refused(session, received, order, key)
    return _tasks(received.handles, order.specs)


def _send_one(session: ServiceSession, order: PreparedSubmit, key: str | None) -> list[Task]:
    """Send one message without a window: the fast path of single tasks."""
    submission = _submission(order)
    request = session.send_submit(key, 0, order.terms, order.specs, submission)
    answer = session.await_acceptance(request)
    if request.handles:
        return _tasks(request.handles, order.specs)
    errors = [refusals.error_at(result) for result in answer if isinstance(result, Refusal)]
    raise _refused(session, SubmitAnswers([], [], errors), order, key)


class SubmitAnswers(msgspec.Struct, frozen=True):
    """Answers so far; `fresh`: the tasks that this call created."""

    handles: list[TaskHandle]
    fresh: list[TaskHandle]
    errors: list[SimenvError]

    def add(self, session: ServiceSession, start: int, request: PendingRequest) -> None:
        for result in session.await_acceptance(request):
            if isinstance(result, Refusal):
                self.errors.append(refusals.error_at(result, start))
        self.handles.extend(request.handles)
        if not request.repeated:
            self.fresh.extend(request.handles)


def _tasks(handles: Sequence[TaskHandle], specs: Sequence[TaskSpec]) -> list[Task]:
    """Return one Task for each binding."""
    if sum([spec.count for spec in specs]) == len(specs):
        return [Task(handle) for handle in handles]
    tasks: list[Task] = []
    for handle, spec in zip(handles, specs, strict=True):
        if spec.count == 1:
            tasks.append(Task(handle))
        else:
            tasks += [Task(handle, row) for row in range(spec.count)]
    return tasks


def chunks(specs: list[TaskSpec]) -> Iterator[list[TaskSpec]]:
    """Split the tasks into messages of at most CLIENT_MESSAGE_TASKS and CLIENT_MESSAGE_BYTES; a
    single task may be larger."""
    ends = [*accumulate([len(s.program) + len(s.bindings) + SPEC_BYTES for s in specs], initial=0)]
    first = 0
    while first < len(specs):
        end_byte = ends[first] + CLIENT_MESSAGE_BYTES
        last = min(bisect_right(ends, end_byte) - 1, first + CLIENT_MESSAGE_TASKS)
        last = max(last, first + 1)
        yield specs[first:last]
        first = last


def _refused(
    session: ServiceSession, received: SubmitAnswers, order: PreparedSubmit, key: str | None
) -> SimenvError:
    if order.single:
        received.errors[0].index = -1
    about = [each.index for each in received.errors if each.index >= 0]
    if order.sweep_of:
        items, count = order.sweep_of, order.sweep_of[-1] + 1
        refused = len({items[index] for index in about})
    else:  # the caller counts bindings
        items = (0, *accumulate(spec.count for spec in order.specs))
        count, refused = items[-1], sum(order.specs[index].count for index in about)
    for each in received.errors:
        each.index = items[each.index] if each.index >= 0 else -1
    error = refusals.error_of_batch(received.errors, count, refused)
    if received.fresh:
        session.cancel([handle.number for handle in received.fresh])
        if key is not None:
            note = f"the key {key!r} now stands for cancelled tasks: take another"
            error.hint = f"{error.hint}; {note}" if error.hint else note
    return error
