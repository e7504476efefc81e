"""Tasks that have not ended, by number, and the queue of results to be requested again.

Invariant: a handle leaves `PendingTasks` when its end is known. At most one WatchResults message is
unanswered: the service drops results that a slow reader does not read, so a long list is requested
in parts. When one requested result had been lost, all outstanding results are requested. Both
classes are guarded by the session's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from simenv.client.connection.requests import REPEAT_S
from simenv.client.connection.task_handle import ResultOrigin, Submission, TaskHandle, TaskSource
from simenv.errors import NotFoundError
from simenv.model import task_name

if TYPE_CHECKING:
    from simenv.wire.messages.client import Accepted, Completed, Completion

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
        pop = self.tasks.pop
        for completion in message.results:
            handle = pop(completion.task, None)
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
            handle.lose(NotFoundError(message, hint=hint))

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
