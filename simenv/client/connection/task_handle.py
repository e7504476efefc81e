"""State of one task in this process, shared by all its `Task` objects.

Invariant: the end of a task is set once, by the thread that reads the socket, under the session's
lock. Its result is decoded once for all its bindings; a damaged one is fetched again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from simenv.client.results.damaged_results import (
    ResultChecker,
    damaged,
    fetch_again,
    is_intact,
)
from simenv.client.results.decoded import DecodedResult, Provenance, Stages
from simenv.client.results.large_arrays import LargeArrays, ResultSource
from simenv.errors import (
    SimenvError,
    TaskCancelledError,
    TaskExpiredError,
    TaskFailedError,
)
from simenv.model import Origin, ResultFile, TaskInfo, TaskState, task_name
from simenv.model.calls import CALL_ENGINES
from simenv.wire import codec
from simenv.wire.messages.client import STATES

if TYPE_CHECKING:
    import asyncio

    from simenv.wire.messages.client import Completion
    from simenv.wire.messages.queries import Submitted

_DONE = STATES.index(TaskState.DONE)


class CancelledTaskError(TaskCancelledError, CancelledError):
    """A TaskCancelledError that is also a CancelledError of `concurrent.futures`."""


class Submission(msgspec.Struct):
    """Data that the tasks of one message share. `sent_s`: perf_counter at the submission; 0.0:
    another process submitted them, and `outputs` are unknown."""

    name: str = ""
    sent_s: float = 0.0
    accepted_s: float = 0.0
    outputs: tuple[str, ...] = ()


class ResultOrigin(msgspec.Struct, frozen=True):
    """Data that the completions of one message share; `read_s`: perf_counter when it was read."""

    origin: Origin
    engine: str
    route: str
    read_s: float


class TaskSource(ResultSource, ResultChecker, Protocol):
    """The connection of tasks and their handles; `ServiceSession` implements it."""

    def task_infos(self, task_numbers: Sequence[int]) -> list[TaskInfo]: ...
    def try_task_infos(self, number: int) -> list[TaskInfo]: ...
    def submitted(self, number: int, timeout_s: float | None = None) -> Submitted: ...
    def cancel(self, task_numbers: Sequence[int]) -> list[str]: ...
    def wait_ended(self, handle: TaskHandle, timeout_s: float | None) -> bool: ...
    def poll(self, handle: TaskHandle) -> None: ...
    def gather(
        self, handles: Collection[TaskHandle], ended_tasks: EndedTasks | None = None
    ) -> EndedTasks: ...
    def wait_any(
        self, waiting: Iterable[TaskHandle], ended_tasks: EndedTasks, timeout_s: float | None
    ) -> bool: ...
    def future(self, handle: TaskHandle) -> asyncio.Future[None]: ...
    def call(self, handle: TaskHandle, callback: Callable[[], object]) -> None: ...
    def count_result(self, late_s: float) -> None: ...


class TaskHandle(msgspec.Struct, eq=False, weakref=True):
    """State of one task. `over` is set last; until then the session's lock guards all fields."""

    session: TaskSource
    number: int
    submission: Submission
    over: bool = False
    requested_s: float = 0.0  # monotonic time of the first wait, or of the last result request
    decoded: DecodedResult | None = None  # the result after the first `decode`
    _completion: Completion | None = None
    _ending: ResultOrigin | None = None
    _error: SimenvError | None = None
    _provenance: Provenance | None = None
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

    def lose(self, error: SimenvError) -> None:
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

    # --- after the end ------------------------------------------------------------------------

    @property
    def final_state(self) -> TaskState:
        if self._completion is None:
            return TaskState.FAILED
        return STATES[self._completion.state]

    def error(self) -> SimenvError | None:
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
            self.session.count_result(perf_counter() - self.submission.sent_s - 1e-6 * inside_us)
        if decoded.data.file is not None:
            decoded.bulk = LargeArrays(
                self.session, self.number, decoded.data.file, self._file_again
            )
        return decoded

    def _verified_completion(self) -> Completion:
        """Return the completion with a verified checksum; the task runs again if it is damaged."""
        completion = self._completion
        if completion is None:
            raise SimenvError(f"task {self.id} has not ended")
        return completion if is_intact(completion) else self._again("its checksum does not fit")

    def _again(self, reason: str) -> Completion:
        """Fetch the result again. Raises NotFoundError, StoreError."""
        renewed = TaskHandle(self.session, self.number, self.submission)

        def receive() -> Completion | None:
            self.session.wait_ended(renewed, None)
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

    def _origin(self) -> Provenance:
        completion, ending, submission = self._completion, self._ending, self.submission
        if completion is None or ending is None:
            raise SimenvError(f"task {self.id} has not ended")
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

    def _failure(self, completion: Completion) -> SimenvError | None:
        if completion.state == _DONE:
            return None
        state = STATES[completion.state]
        failure = codec.failure(completion.payload)
        text = f": {failure.message}" if failure.message else ""
        if state is TaskState.CANCELLED:
            return CancelledTaskError(f"task {self.id} was cancelled", hint=failure.hint)
        if state is TaskState.EXPIRED:
            return TaskExpiredError(f"task {self.id} expired{text}", hint=failure.hint)
        hints = [failure.hint] if failure.hint else []
        if self._ending is None or self._ending.engine not in CALL_ENGINES:
            hints.append(
                f"all that is needed to run it again: simenv result {self.id} --bundle DIR"
            )
        return TaskFailedError(
            f"task {self.id} failed{text}",
            hint="\n".join(hints),
            reason=failure.reason,
            host=failure.host,
            log=failure.log,
        )


@dataclass(slots=True, eq=False)
class EndedTasks:
    """Ended tasks that the caller has not taken yet; `requested_s`: monotonic time of the last
    request for their results."""

    ended: deque[TaskHandle]
    requested_s: float
