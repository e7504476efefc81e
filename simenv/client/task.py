"""A task as its owner holds it: a future, awaitable, and nothing that the service need know.

Invariant: the end of a task is set once, by whoever reads the socket, under the link's lock.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import msgspec

from simenv.client.progress import Line, describe
from simenv.client.result import Provenance, Result, Stages
from simenv.errors import SimenvError, TaskCancelled, TaskExpired, TaskFailed, TimedOut
from simenv.model import Origin, TaskState, task_name
from simenv.wire import codec
from simenv.wire.messages import STATES

if TYPE_CHECKING:
    from simenv.client.ledger import Submission
    from simenv.client.link import Link
    from simenv.wire.messages import Completion

SHOW_EVERY_S = 0.5


class Ending(msgspec.Struct, frozen=True):
    """What the completions of one message share; `read_s`: perf_counter when it was read."""

    origin: Origin
    engine: str
    route: str
    read_s: float


class Task:
    """One accepted task. Thread-safe; `await task` gives its result inside any running loop."""

    __slots__ = (
        "__weakref__", "_completion", "_ending", "_error", "_hooks", "_result", "_submission",
        "asked_s", "link", "number", "over",
    )  # fmt: skip

    def __init__(self, link: Link, number: int, submission: Submission) -> None:
        self.link = link
        self.number = number
        self.over = False  # like `done`, without looking whether something has arrived
        self.asked_s = 0.0  # monotonic: when somebody first waited, or its result was asked for
        self._submission = submission
        self._completion: Completion | None = None
        self._ending: Ending | None = None
        self._error: SimenvError | None = None
        self._result: Result | None = None
        self._hooks: list[Callable[[], None]] | None = None

    @property
    def id(self) -> str:
        """What to give `simenv result`, `Client.task` and the like."""
        return task_name(self.number)

    @property
    def name(self) -> str:
        """The name given at submission, or ""."""
        return self._submission.name

    @property
    def state(self) -> TaskState:
        """Asks the service unless the task is known to have ended."""
        if self.done():
            return self._final_state()
        infos = self.link.infos([self.number])
        return infos[0].state if infos else TaskState.QUEUED

    def done(self) -> bool:
        """True once the end has been heard; never waits."""
        if not self.over:
            self.link.glance(self)
        return self.over

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the result.

        Raises TaskFailed, TaskCancelled or TaskExpired as the task ended, TimedOut after `timeout`
        seconds (the task goes on), ServiceLost when the service falls silent.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        if self._result is None:
            self._result = self._unpack()
        return self._result

    def exception(self, timeout: float | None = None) -> SimenvError | None:
        """Wait like `result`, and return what it would raise of the task's own end."""
        if not self.over and not self.link.finish(self, timeout):
            raise self._late(timeout)
        if self._error is None and self._completion is not None:
            self._error = self._failure(self._completion)
        return self._error

    def wait(self, progress: bool = False, timeout: float | None = None) -> TaskState:
        """Wait for the end, whatever it is.

        `progress`: one line of state and reason on stderr, where that is a terminal.
        """
        if not progress:
            self.exception(timeout)
            return self._final_state()
        deadline = None if timeout is None else time.monotonic() + timeout
        with Line(sys.stderr) as line:
            while not self.link.finish(self, step_s(deadline)):
                if deadline is not None and time.monotonic() >= deadline:
                    raise self._late(timeout)
                line.show(describe(self.link.infos([self.number]), self.id))
        return self._final_state()

    def cancel(self) -> bool:
        """Ask for its end; False when it had ended before."""
        return self.link.cancel([self.number])[0] in ("cancelled", "cancelling")

    def __await__(self) -> Generator[Any, None, Result]:
        if not self.done():
            yield from self.link.pump.future(self).__await__()
        return self.result(0.0)

    def __repr__(self) -> str:
        # Nobody is asked: asyncio and debuggers call this in places where one must not wait.
        return f"<Task {self.id} {self._final_state() if self.over else 'not ended'}>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What a notebook shows: `<Task t-8k2g RUNNING try 2 on sv-1, 0:03>`."""
        if self.done():
            printer.text(repr(self))
        else:
            printer.text(f"<Task {describe(self.link.peek(self.number), self.id)}>")

    # --- called by the link, under its lock --------------------------------------------------

    def has_ended(self) -> bool:
        return self.over

    def end(self, completion: Completion, ending: Ending) -> None:
        """The task has ended."""
        if not self.over:
            self._completion, self._ending = completion, ending
            self.over = True
            if self._hooks is not None:
                self._run_hooks()

    def lose(self, error: SimenvError) -> None:
        """The task will never end: the service does not know it."""
        if not self.over:
            self._error = error
            self.over = True
            self._run_hooks()

    def follow(self, other: Task) -> None:
        """End as another object of the same task did."""
        if other._completion is not None and other._ending is not None:
            self.end(other._completion, other._ending)
        elif other._error is not None:
            self.lose(other._error)

    def on_end(self, hook: Callable[[], None]) -> None:
        """Call `hook` (short, under the link's lock) at the end; at once if it has come."""
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

    # ------------------------------------------------------------------------------------------

    def _final_state(self) -> TaskState:
        if self._completion is None:
            return TaskState.FAILED
        return STATES[self._completion.state]

    def _late(self, timeout: float | None) -> TimedOut:
        return TimedOut(
            f"task {self.id} has no result after {timeout or 0.0:g} s",
            hint="it goes on: ask again, or cancel it",
            task=self.id,
        )

    def _failure(self, completion: Completion) -> SimenvError | None:
        state = STATES[completion.state]
        if state is TaskState.DONE:
            return None
        failure = codec.failure(completion.payload)
        text = f": {failure.message}" if failure.message else ""
        if state is TaskState.CANCELLED:
            return TaskCancelled(f"task {self.id} was cancelled", hint=failure.hint)
        if state is TaskState.EXPIRED:
            return TaskExpired(f"task {self.id} expired{text}", hint=failure.hint)
        return TaskFailed(
            f"task {self.id} failed{text}",
            hint=failure.hint,
            reason=failure.reason,
            host=failure.host,
            log=failure.log,
        )

    def _unpack(self) -> Result:
        completion, ending, submission = self._completion, self._ending, self._submission
        if completion is None or ending is None:
            raise SimenvError(f"task {self.id} has not ended")
        timing = completion.timing
        inside_s = 1e-6 * (timing.queued_us + timing.sent_us + timing.run_us)
        total_s = ending.read_s - submission.sent_s if submission.sent_s else inside_s
        stages = Stages(
            accepted_s=submission.accepted_s,
            queued_s=1e-6 * timing.queued_us,
            sent_s=1e-6 * timing.sent_us,
            run_s=1e-6 * timing.run_us,
            returned_s=max(0.0, total_s - inside_s),
            total_s=total_s,
        )
        provenance = Provenance(
            task=self.id,
            name=submission.name,
            engine=ending.engine,
            route=ending.route,
            origin=ending.origin,
            slots=completion.slots,
            attempts=completion.attempts,
            timing=stages,
        )
        return Result(codec.result_data(completion.payload), provenance)


def step_s(deadline: float | None) -> float:
    """How long to wait before the waiting text is looked at again."""
    if deadline is None:
        return SHOW_EVERY_S
    return min(SHOW_EVERY_S, max(0.0, deadline - time.monotonic()))
