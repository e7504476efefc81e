"""Completions of an environment in their order.

For readers that must not miss one. They are numbered from 1. A named cursor stores the last
acknowledged number (`Client.ack`), so that a reader continues there after a restart. Delivery is
at least once: a completion that is not acknowledged is delivered again. Failed tasks are
completions too; the iteration itself never raises their errors.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from simenv.client.connection.session import ServiceSession
from simenv.client.connection.task_handle import ResultOrigin, Submission, TaskHandle
from simenv.client.tasks.task import Task
from simenv.errors import OptionError, SimenvError
from simenv.model import TaskState
from simenv.wire.messages import client as m

if TYPE_CHECKING:
    from simenv.client.result import Result


PAGE = 1_000
POLL_S = 0.02  # first pause between two polls; doubled up to MAX_POLL_S
MAX_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Completion:
    """The end of one task, successful or not; `seq` is its number, for `Client.ack`."""

    seq: int
    task: Task

    @property
    def state(self) -> TaskState:
        """The final state: DONE, FAILED, CANCELLED or EXPIRED."""
        return self.task.handle.final_state

    @property
    def error(self) -> SimenvError | None:
        """The reason why the task has no result: TaskFailedError, TaskCancelledError or
        TaskExpiredError; None if it is DONE."""
        return self.task.exception(0.0)

    def result(self) -> Result:
        """Return the result like `Task.result`, without waiting. Raises `error` if there is one."""
        return self.task.result(0.0)

    def results(self) -> list[Result]:
        """Return one result for each binding like `Task.results`, without waiting. Raises `error`
        if there is one."""
        return self.task.results(0.0)


class CompletionIterator:
    """Synchronous and asynchronous iterator over completions; see `Client.completions`."""

    def __init__(self, session: ServiceSession, since: int, follow: bool) -> None:
        self._session = session
        self._since = since
        self._follow = follow

    def __iter__(self) -> Iterator[Completion]:
        pause_s = POLL_S
        while True:
            page = self._page()
            if page:
                pause_s = POLL_S
                yield from self._yield_page(page)
            elif self._is_over():
                return
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_POLL_S)

    async def __aiter__(self) -> AsyncIterator[Completion]:
        import asyncio

        pause_s = POLL_S
        while True:
            page = await asyncio.to_thread(self._page)
            if page:
                pause_s = POLL_S
                for completion in self._yield_page(page):
                    yield completion
            elif await asyncio.to_thread(self._is_over):
                return
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, MAX_POLL_S)

    def _yield_page(self, page: list[Completion]) -> Iterator[Completion]:
        for completion in page:
            self._since = completion.seq
            yield completion

    def _page(self) -> list[Completion]:
        groups = self._session.request(m.GetCompletions(0, self._since, PAGE)).groups
        return [entry for group in groups for entry in self._unpack(group)]

    def _unpack(self, group: m.Completed) -> Iterator[Completion]:
        ending = ResultOrigin(group.origin, group.engine, group.route, perf_counter())
        for seq, completion in enumerate(group.results, group.first_seq):
            if seq > self._since:
                handle = TaskHandle(self._session, completion.task, Submission())
                handle.end(completion, ending)
                yield Completion(seq, Task(handle))

    def _is_over(self) -> bool:
        """Return whether no visible task waits or runs, and none ended between the two requests."""
        if self._follow:
            return False
        queue = self._session.request(m.GetQueue(0, limit=0))
        return not queue.total and not self._page()


def checked_cursor(cursor: object) -> str:
    """Check the name of a cursor. Raises OptionError."""
    if not isinstance(cursor, str) or not 0 < len(cursor) <= 64:
        raise OptionError(f"cursor={cursor!r:.80}", hint="a name of 1 to 64 characters")
    return cursor
