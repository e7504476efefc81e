"""State of tasks in this process: handles, requests and pending tasks.

A `TaskHandle` is the state of one task, shared by all its `Task` objects. Invariant: the end of a
task is set once, by the thread that reads the socket, under the session's lock. Its result is
decoded once for all its bindings; a damaged one is fetched again.

`ClientTimings` are sent with the next submission, for `simenv profile`. They are updated without a
lock: a value that is lost between two threads changes a statistic only.

`PendingTasks` holds the tasks that have not ended, by number, and `WatchQueue` the results to be
requested again. Invariant: a handle leaves `PendingTasks` when its end is known. At most one
WatchResults message is unanswered: the service drops results that a slow reader does not read, so a
long list is requested in parts. When one requested result had been lost, all outstanding results
are requested. Both classes are guarded by the session's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Protocol
from weakref import ref

import msgspec

from simenv import errors
from simenv.client.result import damaged, fetch_again, is_intact
from simenv.client.result_data import DecodedResult, LargeArrays, Provenance, ResultSource, Stages
from simenv.model import Origin, ResultFile, TaskInfo, TaskState, task_name
from simenv.model.calls import CALL_ENGINES
from simenv.wire import codec
from simenv.wire.messages import base, client as messages
from simenv.wire.messages.accounting import GetReceipts
from simenv.wire.messages.history import Spent

if TYPE_CHECKING:
    import asyncio

    from opentelemetry.trace import Span

    from simenv.model.accounts import Receipt, Waits
    from simenv.wire.messages.client import Accepted, Completed, Completion

_DONE = messages.STATES.index(TaskState.DONE)


class CancelledTaskError(errors.TaskCancelledError, CancelledError):
    """A TaskCancelledError that is also a CancelledError of `concurrent.futures`."""


class Submission(msgspec.Struct):
    """Data that the tasks of one message share. `sent_s`: perf_counter at the submission; 0.0:
    another process submitted them, and `outputs` are unknown."""

    name: str = ""
    sent_s: float = 0.0
    accepted_s: float = 0.0
    outputs: tuple[str, ...] = ()
    span: Span | None = None  # of OpenTelemetry, until the answer; None: not traced


class ResultOrigin(msgspec.Struct, frozen=True):
    """Data that the completions of one message share; `read_s`: perf_counter when it was read."""

    origin: Origin
    engine: str
    route: str
    read_s: float


class TaskEnds(Protocol):
    """Waiting for the ends of tasks; `TaskSubscriptions` implements it."""

    def wait(self, handle: TaskHandle, timeout_s: float | None) -> bool: ...
    def poll(self, handle: TaskHandle) -> None: ...
    def gather(
        self, handles: Collection[TaskHandle], ended_tasks: EndedTasks | None = None
    ) -> EndedTasks: ...
    def wait_any(
        self, waiting: Iterable[TaskHandle], ended_tasks: EndedTasks, timeout_s: float | None
    ) -> bool: ...


class TaskCallbacks(Protocol):
    """Awaits and callbacks at the ends of tasks; `AsyncioBridge` implements it."""

    def future(self, handle: TaskHandle) -> asyncio.Future[None]: ...
    def call(self, handle: TaskHandle, callback: Callable[[], object]) -> None: ...


class TaskSource(ResultSource, Protocol):
    """The connection of tasks and their handles; `ServiceSession` implements it."""

    @property
    def tasks(self) -> TaskEnds: ...
    @property
    def bridge(self) -> TaskCallbacks: ...
    @property
    def timings(self) -> ClientTimings: ...
    def task_infos(self, task_numbers: Sequence[int]) -> list[TaskInfo]: ...
    def try_task_infos(self, number: int) -> list[TaskInfo]: ...
    def cancel(self, task_numbers: Sequence[int]) -> list[str]: ...
    def cancel_unwanted(self, task_numbers: Sequence[int]) -> None: ...


class TaskHandle(msgspec.Struct, eq=False, weakref=True):
    """State of one task. `over` is set last; until then the session's lock guards all fields."""

    session: TaskSource
    number: int
    submission: Submission
    over: bool = False
    requested_s: float = 0.0  # monotonic time of the first wait, or of the last result request
    decoded: DecodedResult | None = None  # the result after the first `decode`
    has_warned: bool = False  # the warnings of the result were emitted
    _completion: Completion | None = None
    _ending: ResultOrigin | None = None
    _error: errors.SimenvError | None = None
    _provenance: Provenance | None = None
    _receipt: Receipt | None = None
    _hooks: list[Callable[[], None]] | None = None

    @property
    def id(self) -> str:
        return task_name(self.number)

    def __str__(self) -> str:
        return self.id

    def has_ended(self) -> bool:
        return self.over

    def end(self, completion: Completion, ending: ResultOrigin) -> None:
        """Record the completion of the task."""
        if not self.over:
            self._completion, self._ending = completion, ending
            self.over = True
            if self._hooks is not None:
                self._run_hooks()

    def lose(self, error: errors.SimenvError) -> None:
        """Record that the service does not know the task, so that it never ends."""
        if not self.over:
            self._error = error
            self.over = True
            self._run_hooks()

    def follow(self, other: TaskHandle) -> None:
        """Copy the end of another handle of the same task."""
        if other._completion is not None and other._ending is not None:
            self.end(other._completion, other._ending)
        elif other._error is not None:
            self.lose(other._error)

    def on_end(self, hook: Callable[[], None]) -> None:
        """Call `hook` (short, under the session's lock) at the end; at once if it has passed."""
        if self.over:
            hook()
        elif self._hooks is None:
            self._hooks = [hook]
        else:
            self._hooks.append(hook)

    def _run_hooks(self) -> None:
        hooks, self._hooks = self._hooks, None
        for hook in hooks or ():
            hook()

    @property
    def completion(self) -> Completion | None:
        """The completion as it was received; None before the end, or if the service is lost."""
        return self._completion

    @property
    def ending(self) -> ResultOrigin | None:
        return self._ending

    @property
    def final_state(self) -> TaskState:
        if self._completion is None:
            return TaskState.FAILED
        return messages.STATES[self._completion.state]

    def error(self) -> errors.SimenvError | None:
        """Return the reason why there is no result; None if there is one."""
        if self.decoded is not None:  # decoded after a check of the checksum
            return None
        if self._error is None and self._completion is not None:
            self._error = self._failure(self._verified_completion())
        return self._error

    def decode(self) -> DecodedResult:
        """Return the decoded result of all bindings. Raises the error with which the task ended."""
        decoded = self.decoded
        if decoded is None:
            if self._error is not None:
                raise self._error
            completion = self._verified_completion()
            error = self._error = self._failure(completion)
            if error is not None:
                raise error
            decoded = self.decoded = self._open_result(completion)
        return decoded

    def _open_result(self, completion: Completion) -> DecodedResult:
        decoded = DecodedResult.read(completion.payload, self)
        if self.submission.sent_s:
            timing = completion.timing
            inside_us = timing.queued_us + timing.sent_us + timing.run_us + timing.returned_us
            inside_us += timing.compile_us
            late_s = perf_counter() - self.submission.sent_s - 1e-6 * inside_us
            self.session.timings.count_result(late_s)
        if decoded.data.file is not None:
            renew = partial(_file_again, ref(self), self.id)  # `self` would close a cycle
            decoded.bulk = LargeArrays(self.session, self.number, decoded.data.file, renew)
        return decoded

    def _verified_completion(self) -> Completion:
        """Return the completion with a verified checksum; the task runs again if it is damaged."""
        completion = self._completion
        if completion is None:
            raise errors.SimenvError(f"task {self.id} has not ended")
        return completion if is_intact(completion) else self._again("its checksum does not fit")

    def _again(self, reason: str) -> Completion:
        """Fetch the result again. Raises NotFoundError, StoreError."""
        renewed = TaskHandle(self.session, self.number, self.submission)

        def receive() -> Completion | None:
            self.session.tasks.wait(renewed, None)
            if renewed._error is not None:
                raise renewed._error
            return renewed._completion

        completion = fetch_again(self.session, self.number, receive, reason)
        self._completion, self._ending, self._provenance = completion, renewed._ending, None
        return completion

    def _file_again(self, reason: str) -> ResultFile:
        completion = self._again(reason)
        error = self._failure(completion)
        if error is not None:
            raise error
        file = codec.result_data(completion.payload).file
        if file is None:
            raise damaged(self.id, reason)
        return file

    def provenance(self) -> Provenance:
        """Return engine, worker, attempts and timings of the result."""
        if self._provenance is None:
            self._provenance = self._origin()
        return self._provenance

    def receipt(self) -> Receipt | None:
        """Return the receipt of the task; the service is asked until it has answered with one."""
        if self._receipt is None:
            receipts = self.session.request(GetReceipts(0, [self.number])).receipts
            self._receipt = next(iter(receipts), None)
        return self._receipt

    def _origin(self) -> Provenance:
        completion, ending, submission = self._completion, self._ending, self.submission
        if completion is None or ending is None:
            raise errors.SimenvError(f"task {self.id} has not ended")
        timing = completion.timing
        compile_s = 1e-6 * timing.compile_us
        inside_s = 1e-6 * (timing.queued_us + timing.sent_us + timing.run_us) + compile_s
        total_s = ending.read_s - submission.sent_s if submission.sent_s else inside_s
        stages = Stages(
            accepted_s=submission.accepted_s,
            queued_s=1e-6 * timing.queued_us,
            sent_s=1e-6 * timing.sent_us,
            run_s=1e-6 * timing.run_us,
            returned_s=max(0.0, total_s - inside_s),
            total_s=total_s,
            compile_s=compile_s,
            device_s=1e-9 * timing.device_ns,
            begun_s=1e-9 * timing.begun_ns,
        )
        return Provenance(
            task=self.id,
            name=submission.name,
            engine=ending.engine,
            route=ending.route,
            origin=ending.origin,
            slots=completion.slots,
            attempts=completion.attempts,
            timing=stages,
        )

    def _failure(self, completion: Completion) -> errors.SimenvError | None:
        if completion.state == _DONE:
            return None
        state = messages.STATES[completion.state]
        failure = codec.failure(completion.payload)
        text = f": {failure.message}" if failure.message else ""
        if state is TaskState.CANCELLED:
            text = text.removeprefix(": cancelled")  # "cancelled before it had a result"
            return CancelledTaskError(f"task {self.id} was cancelled{text}", hint=failure.hint)
        if state is TaskState.EXPIRED:
            return errors.TaskExpiredError(f"task {self.id} expired{text}", hint=failure.hint)
        hints = [failure.hint] if failure.hint else []
        if self._ending is None or self._ending.engine not in CALL_ENGINES:
            hints.append(
                "all that is needed to run it again, and the worker's log:"
                f" simenv result {self.id} --bundle DIR"
            )
        return errors.TaskFailedError(
            f"task {self.id} failed{text}",
            hint="\n".join(hints),
            reason=failure.reason,
            host=failure.host,
            log=failure.log,
        )


def _file_again(handle: ref[TaskHandle], task: str, reason: str) -> ResultFile:
    """Fetch the file of a result again. Raises StoreError, also if nobody holds its handle."""
    present = handle()
    if present is None:
        raise damaged(task, reason)
    return present._file_again(reason)


@dataclass(slots=True, eq=False)
class EndedTasks:
    """Ended tasks that the caller has not taken yet; `requested_s`: monotonic time of the last
    request for their results."""

    ended: deque[TaskHandle]
    requested_s: float


REPEAT_S = 5.0  # a request without answer is repeated after this time


class PendingRequest(msgspec.Struct, eq=False):
    """A request and its answer; of a Submit also the submission, the number of its tasks and the
    idempotency key of the call, None where the client has chosen one. `put_off`: the refusal of a
    service that ends, if that was its last word; the request waits for the next service."""

    number: int
    body: bytes = b""
    requested_s: float = 0.0
    answer: base.Reply | None = None
    put_off: errors.ShuttingDownError | None = None
    submission: Submission | None = None
    key: str | None = None
    count: int = 0
    handles: Sequence[TaskHandle] = ()
    repeated: bool = False  # the service knew its idempotency key: no task is new
    answered: Callable[[], None] | None = None  # called when the answer has come

    def is_answered(self) -> bool:
        return self.answer is not None


class ClientTimings:
    """Times of the client since its last submission, in seconds."""

    __slots__ = ("accepted_s", "late_s", "packed_s", "results")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.packed_s = 0.0  # packing of circuits and parameter values
        self.accepted_s = 0.0  # waiting for acceptance
        self.late_s = 0.0  # from the end of a task to the reading of its result, summed
        self.results = 0  # number of results that were read

    def count_result(self, late_s: float) -> None:
        """Record that a result was read `late_s` seconds after it was ready."""
        self.late_s += late_s
        self.results += 1

    def take(self) -> Spent:
        """Return the timings as a message, and reset them."""
        times = self.packed_s, self.accepted_s, max(0.0, self.late_s)
        packed_us, accepted_us, late_us = (int(1e6 * each) for each in times)
        spent = Spent(packed_us, accepted_us, late_us, self.results)
        self.reset()
        return spent


MAX_EARLY = 16_384  # results beyond it are dropped, and requested later by WatchResults


class PendingTasks:
    """The tasks of one session that have not ended."""

    def __init__(self) -> None:
        self.tasks: dict[int, TaskHandle] = {}
        self.unanswered = 0  # submits without answer: only then can a result precede its acceptance
        self._early: dict[int, tuple[Completion, ResultOrigin]] = {}

    def accepted(
        self, session: TaskSource, message: Accepted, submission: Submission
    ) -> list[TaskHandle]:
        """Return the handles of one accepted message, in order; existing handles for known ids."""
        self.unanswered -= 1
        task_numbers = range(message.first, message.first + message.count)
        handles = [TaskHandle(session, number, submission) for number in task_numbers]
        if message.repeated:
            handles = [self.tasks.get(handle.number, handle) for handle in handles]
        self.tasks.update(zip(task_numbers, handles, strict=True))
        if self._early:
            for handle in handles:
                early = self._early.pop(handle.number, None)
                if early is not None:
                    del self.tasks[handle.number]
                    handle.end(*early)
            if not self.unanswered:
                self._early.clear()
        return handles

    def refused(self) -> None:
        """Record that a submit was refused or given up."""
        self.unanswered -= 1
        if not self.unanswered:
            self._early.clear()

    def completed(self, message: Completed, read_s: float) -> None:
        """Give each result to its task. A result without a handle is stored while a submit is
        unanswered, else dropped."""
        ending = ResultOrigin(message.origin, message.engine, message.route, read_s)
        pop, share = self.tasks.pop, msgspec.structs.force_setattr
        waits: Waits = ()
        for completion in message.results:
            handle = pop(completion.task, None)
            timing = completion.timing
            if timing.waits == waits:  # a chunk's tasks waited alike: one object, for the collector
                share(timing, "waits", waits)
            else:
                waits = timing.waits
            if handle is not None:
                handle.end(completion, ending)
            elif self.unanswered and len(self._early) < MAX_EARLY:
                self._early[completion.task] = (completion, ending)

    def unknown(self, task_numbers: list[int], pruned: list[int]) -> None:
        """End tasks that the service does not know; it has removed those in `pruned`."""
        for number in task_numbers:
            handle = self.tasks.pop(number, None)
            if handle is None:
                continue
            if number in pruned:
                message = f"what task {task_name(number)} found is no longer kept"
                hint = "submit it again; history.keep_days and results.keep_gib say what is kept"
            else:
                message = f"the service does not know task {task_name(number)}"
                hint = "another environment may: simenv --name NAME result ID"
            handle.lose(errors.NotFoundError(message, hint=hint))

    def expect(self, handle: TaskHandle) -> bool:
        """Register `handle` for the end of its task; return whether to request the result."""
        registered = self.tasks.get(handle.number)
        if registered is None:
            self.tasks[handle.number] = handle
            return True
        if registered is not handle:  # the second handle of a task copies the end of the first
            registered.on_end(lambda: handle.follow(registered))
        return False


WATCH_TASKS = 1_000  # their results must fit into the service's send queue


class WatchQueue:
    """Task numbers whose results must still be requested."""

    def __init__(self, pending: PendingTasks, send: Callable[[list[int]], None]) -> None:
        self._pending = pending
        self._send = send
        self._open: dict[int, None] = {}
        self._in_transit: list[int] = []
        self._missed: set[int] = set()  # overdue: a result that arrives now had been lost before
        self._sent_s = -REPEAT_S

    def add(self, task_numbers: Iterable[int], *, missed: bool = False) -> None:
        """Request the results of these tasks, at once or after the answer to the present request.
        `missed`: the results are overdue."""
        numbers_requested = dict.fromkeys(task_numbers)
        self._open.update(numbers_requested)
        if missed:
            self._missed.update(numbers_requested)
        if monotonic() - self._sent_s >= REPEAT_S:
            self._next()

    def answered(self) -> None:
        """Handle the answer to the last request, which comes after its results."""
        pending = self._pending.tasks
        is_lost = any(n in self._missed and n not in pending for n in self._in_transit)
        self._missed.difference_update(self._in_transit)
        self._sent_s = -REPEAT_S
        if is_lost:
            self._open.update(dict.fromkeys(pending))
        self._next()

    def restart(self) -> None:
        """Request all outstanding results, because the service has restarted."""
        self._missed.clear()
        self._open = dict.fromkeys(self._pending.tasks)
        self._next()

    def _next(self) -> None:
        part: list[int] = []
        while self._open and len(part) < WATCH_TASKS:
            number, _ = self._open.popitem()
            if number in self._pending.tasks:
                part.append(number)
        self._in_transit = part
        if part:
            self._sent_s = monotonic()
            self._send(part)
