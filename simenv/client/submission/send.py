"""Sending of prepared tasks: one call, batches, and tasks that are compiled again.

Messages have a bounded size; a call is accepted or refused as a whole. `post` returns tasks that
are not accepted yet. Invariant: at most MAX_UNANSWERED of them wait for their answer at once; the
next `post` waits for the oldest one, which limits the rate of the caller.

Circuits of a batch have options and parameter values of their own, and are submitted in few
messages. A message has one set of options for all of its tasks. Items with equal options are sent
together, whatever their circuits, parameter values, shots and seeds are.

Tasks are compiled again when the calibration of their device has changed. With `compile="fresh"` a
task whose calibration is no longer in force at its start fails with the reason `calibration_stale`,
and nothing is run. The client then compiles the circuit for the present calibration and submits it
again: in its own thread when it receives the failure, or earlier in a thread that asks for the
task's end.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from itertools import accumulate
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.circuits import load
from simenv.client.connection.session import ServiceSession
from simenv.client.connection.submits import unanswered_submit
from simenv.client.connection.task_handle import PendingRequest, Submission, TaskHandle
from simenv.client.submission.devices import SubmitDevices
from simenv.client.submission.prepare import PreparedSubmit, prepare_many, prepare_one
from simenv.client.tasks.task import Task
from simenv.errors import (
    BatchRefusedError,
    LimitExceededError,
    SimenvError,
    TaskCancelledError,
    TaskFailedError,
    TimedOutError,
)
from simenv.model import TaskOptions, TaskSpec, TaskState
from simenv.model.options import BatchOptions
from simenv.model.task_rules import MAX_KEY_CHARS, checked_timeout
from simenv.wire import codec
from simenv.wire.messages.client import CLIENT_MESSAGE_BYTES, CLIENT_MESSAGE_TASKS, Refusal

if TYPE_CHECKING:
    from simenv.client.result import Result
    from simenv.model.options import SubmitOptions

MAX_UNANSWERED = 512


class PostedTask(Task):
    """A Task that may not be accepted yet. Methods that need the acceptance (id, state, result)
    wait for it, and raise the refusal if there is one. In a forked child, and after the service was
    lost, the submission is repeated with the same idempotency key."""

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

    def withdraw(self) -> None:
        """Cancel the task; never waits. One that is not accepted yet is not sent again, and is
        cancelled should the service accept it; its result is a TaskCancelledError."""
        self._session.submits.withdraw([self._request])
        if self._handle is None and not self._request.is_answered():
            self._refusal = TaskCancelledError("the task was cancelled before its acceptance")

    def cancel(self) -> bool:
        """Cancel the task; False if it had ended before, or was refused. It never waits for the
        acceptance, see `withdraw`."""
        if self._handle is None and self._refusal is None and not self._request.is_answered():
            self.withdraw()
        return self.cancelled() or (self.settled() is not None and super().cancel())

    def cancelled(self) -> bool:
        return isinstance(self._refusal, TaskCancelledError) or super().cancelled()

    def is_answered(self) -> bool:
        """Return whether the acceptance or the refusal has arrived; never waits."""
        return self._request.is_answered()

    def done(self) -> bool:
        """Return whether the end or the refusal is known; never waits."""
        if self._handle is None and self._refusal is None and not self._request.is_answered():
            self._session.submits.poll(self._request)
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
            try:
                result = self._session.submits.await_acceptance(self._request, timeout_s)[0]
            except TimedOutError as error:
                error.hint = "the task may be accepted later: wait again, or task.cancel()"
                raise
            if isinstance(result, Refusal):
                refusal = codec.error_at(result, 0)
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
    timeout_s = checked_timeout(timeout_s)
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
    request = session.submits.send(key, 0, order.terms, order.specs, submission, awaits_result=True)
    task = PostedTask(session, request)
    window.add(task)
    return task


def _submission(order: PreparedSubmit) -> Submission:
    return Submission(order.terms.name, perf_counter(), outputs=order.terms.outputs)


def send(session: ServiceSession, order: PreparedSubmit, key: str | None) -> list[Task]:
    """Send tasks; return them when all are accepted, in order. After a refusal the accepted ones
    are cancelled, and the error is raised. An error with `maybe_accepted`: some of them may run;
    without a `key`, with which the caller can repeat the call, they are cancelled when the service
    answers."""
    if len(order.specs) <= 1:
        return _send_one(session, order, key) if order.specs else []
    sent: list[PendingRequest] = []
    window: deque[tuple[int, PendingRequest]] = deque()
    received = SubmitAnswers([], [], [])
    start = 0
    try:
        for part in chunks(order.specs):
            submission = _submission(order)
            try:
                request = session.submits.send(key, start, order.terms, part, submission)
            except LimitExceededError as error:
                received.errors.append(error)
                break
            sent.append(request)
            window.append((start, request))
            start += len(part)
            while len(window) >= UNANSWERED:
                received.add(session, *window.popleft())
            if received.errors:
                break
        while window:
            received.add(session, *window.popleft())
    except SimenvError as error:
        if not sent:
            raise
        if key is None:
            session.submits.withdraw(sent)
        raise unanswered_submit(error, key) from error
    except BaseException:  # an interrupt: nobody has the tasks
        if key is None:
            session.submits.withdraw(sent)
        raise
    finally:
        for _, request in window:
            session.submits.abandon(request)
    if received.errors:
        raise _refused(session, received, order, key)
    return _tasks(received.handles, order.specs)


def _send_one(session: ServiceSession, order: PreparedSubmit, key: str | None) -> list[Task]:
    """Send one message without a window: the fast path of single tasks."""
    submission = _submission(order)
    request = session.submits.send(key, 0, order.terms, order.specs, submission)
    try:
        answer = session.submits.await_acceptance(request)
    except BaseException:  # also an interrupt: nobody has the task
        if key is None:
            session.submits.withdraw([request])
        raise
    if request.handles:
        return _tasks(request.handles, order.specs)
    errors = [codec.error_at(result) for result in answer if isinstance(result, Refusal)]
    raise _refused(session, SubmitAnswers([], [], errors), order, key)


class SubmitAnswers(msgspec.Struct, frozen=True):
    """Answers so far; `fresh`: the tasks that this call created."""

    handles: list[TaskHandle]
    fresh: list[TaskHandle]
    errors: list[SimenvError]

    def add(self, session: ServiceSession, start: int, request: PendingRequest) -> None:
        for result in session.submits.await_acceptance(request):
            if isinstance(result, Refusal):
                self.errors.append(codec.error_at(result, start))
        self.handles.extend(request.handles)
        if not request.repeated:
            self.fresh.extend(request.handles)


def _tasks(handles: Sequence[TaskHandle], specs: Sequence[TaskSpec]) -> list[Task]:
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
    error = codec.error_of_batch(received.errors, count, refused)
    if received.fresh:
        try:
            session.cancel([handle.number for handle in received.fresh])
        except SimenvError as lost:  # what was accepted runs
            return unanswered_submit(lost, key)
        if key is not None:
            note = f"the key {key!r} now stands for cancelled tasks: take another"
            error.hint = f"{error.hint}; {note}" if error.hint else note
    return error


class BatchItem(msgspec.Struct, frozen=True):
    """One circuit with its options. `values`: float64 [K, parameters]; None: no parameters."""

    circuit: Any
    options: BatchOptions
    values: Any = None


def submit_batch(
    session: ServiceSession,
    devices: SubmitDevices,
    items: Sequence[BatchItem],
    key: str | None = None,
) -> list[list[Task]]:
    """Submit all items or none; return the tasks of each item, one for each binding. `key`: the
    idempotency key of the call, whose repeat returns the same tasks. Raises the SimenvError of the
    first refused item, with `index` naming the item."""
    groups: dict[TaskOptions, list[tuple[int, list[TaskSpec]]]] = {}
    for index, item in enumerate(items):
        work = [item.circuit] if item.values is None else (item.circuit, item.values)
        try:
            prepared = prepare_many(work, item.options, devices)
        except SimenvError as error:
            raise _of_item(error, index) from error
        groups.setdefault(prepared.terms, []).append((index, prepared.specs))
    results: list[list[Task]] = [[] for _ in items]
    sent: list[Task] = []
    try:
        for number, (terms, members) in enumerate(groups.items()):
            own = key if key is None or not number else f"{key}/{number}"
            specs = [spec for _, each in members for spec in each]
            try:
                tasks = send(session, PreparedSubmit(terms, specs), own)
            except SimenvError as error:
                raise _of_group(error, members) from error
            sent += tasks
            rest = iter(tasks)
            for index, each in members:
                count = sum(spec.count for spec in each)
                results[index] = [next(rest) for _ in range(count)]
    except BaseException:
        if sent:
            session.cancel(sorted({task.handle.number for task in sent}))
        raise
    return results


def _of_item(error: SimenvError, index: int) -> SimenvError:
    if isinstance(error, BatchRefusedError):
        error = error.errors[0]
    error.index = index
    return error


def _of_group(error: SimenvError, members: Sequence[tuple[int, list[TaskSpec]]]) -> SimenvError:
    """Convert the error's index, which counts bindings, to the index of its item."""
    first = error.errors[0] if isinstance(error, BatchRefusedError) else error
    left = first.index
    if left < 0:
        return first
    for index, specs in members:
        left -= sum(spec.count for spec in specs)
        if left < 0:
            return _of_item(first, index)
    return first


FRESH = "fresh"
STALE = "calibration_stale"  # failure reason of a stale task
MAX_ATTEMPTS = 8


class FreshTask(Task):
    """A Task for a sequence of attempts; its id is that of the last one. All attempts have one
    seed. If an attempt cannot be submitted, its error becomes the task's error. Methods that ask
    for the end (`done`, `result`, `await`) may take the time of a submission."""

    __slots__ = ("_again", "_left", "_lock")

    def __init__(self, handle: TaskHandle, resubmit: Callable[[TaskHandle], TaskHandle]) -> None:
        """`resubmit`: submits the next attempt of a stale task; raises SimenvError."""
        super().__init__(handle)
        self._resubmit = resubmit
        self._left = MAX_ATTEMPTS - 1
        self._lock = threading.Lock()
        self.session.bridge.call(handle, self.done)

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

    def withdraw(self) -> None:
        """Cancel the task; it is not submitted again. Never waits."""
        self._left = 0
        super().withdraw()

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
            self.session.bridge.call(handle, partial(self._on_attempt_end, handle, fn))

    def _on_attempt_end(self, handle: TaskHandle, fn: Callable[[Any], object]) -> None:
        """Handle the end of an attempt, or the loss of the service."""
        if self.done() or self.handle is handle:
            fn(self)
        else:
            self.add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, Result]:
        while not self.done():
            yield from self.session.bridge.future(self.handle).__await__()
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
        self.session.bridge.call(self.handle, self.done)
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
