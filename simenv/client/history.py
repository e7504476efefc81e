"""What the journal keeps, asked page by page: tasks, what was submitted, events by time.

Invariant: one page is held at a time, so a history of millions needs no memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from functools import partial

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task, number_of, row_of
from simenv.errors import NotFoundError, OptionError
from simenv.model import Event, TaskState, task_name, task_number
from simenv.model.calls import is_call
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import (
    NEWEST,
    App,
    GetApp,
    GetHistory,
    History,
    LogRow,
    Submitted,
)

PAGE_ROWS = 1_000
EVENTS_PAGE = 1_000


class TaskHistory:
    """The past of an environment, as far back as its journal goes, earlier starts included."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def tasks(
        self,
        since_s: float = 0.0,
        run_name: str = "",
        states: Collection[TaskState] = (),
        structure: bool = False,
    ) -> Iterator[LogRow]:
        """All tasks, in the order of their submission.

        `since_s`: submitted at this time of day (seconds since 1970) or later; `run_name`: by this
        run of an application (SIMENV_APP); `states`: only in these; `structure`: tell which
        programs differ in their angles only.
        """
        after = 0
        while True:
            ask = partial(
                GetHistory,
                after=after,
                limit=PAGE_ROWS,
                since_s=since_s,
                app=run_name,
                structure=structure,
                states=tuple(states),
            )
            page = self._session.request(History, ask)
            for row in page.rows:
                if not states or row.state in states:
                    yield row
            if page.complete:
                return
            after, since_s = page.last, 0.0

    def newest(
        self,
        limit: int,
        since_s: float = 0.0,
        run_name: str = "",
        states: Collection[TaskState] = (),
        structure: bool = False,
    ) -> list[LogRow]:
        """The last `limit` of the tasks that `tasks` gives, in the same order. The service reads
        from the newest and no further than needed; an earlier one is asked for all of them."""
        rows: list[LogRow] = []
        before, complete = NEWEST, False
        while len(rows) < limit and not complete:
            ask = partial(
                GetHistory,
                limit=min(PAGE_ROWS, limit - len(rows)),
                since_s=since_s,
                app=run_name,
                structure=structure,
                before=before,
                states=tuple(states),
            )
            page = self._session.request(History, ask)
            if not page.newest_first:
                return list(deque(self.tasks(since_s, run_name, states, structure), maxlen=limit))
            rows += page.rows
            before, complete = page.last, page.complete
        return rows[::-1]

    def task(self, task: Task | str | int) -> LogRow:
        """One task's row; NotFoundError if it is not known or no longer kept.

        `t-8k2f.17`, one of its bindings, has no row of its own.
        """
        number = number_of(task)
        ask = partial(GetHistory, after=number - 1, limit=1, structure=True)
        result = self._session.request(History, ask).rows if number else []
        if not result or task_number(result[0].id) != number:
            raise NotFoundError(
                f"no task {task_name(number)} here", hint="simenv history lists them"
            )
        _check_row(result[0], task.row if isinstance(task, Task) else row_of(task))
        return result[0]

    def submitted(self, task: Task | str | int) -> Submitted:
        """What was submitted as this task; `terms.engine` is the one that was chosen."""
        return self._session.submitted(number_of(task))

    def resubmit(self, asked: Submitted) -> list[Task]:
        """The same again, bit for bit, under a new id: one Task for each of its bindings. It runs
        at once, whatever tasks it came after. OptionError for a call: what is given here may come
        from a file of somebody else, and a function has all rights of this user."""
        if is_call(asked.terms):
            raise OptionError(
                f"a call of engine {asked.terms.engine} is not submitted again",
                hint="call the function, or transpile the circuits, anew",
            )
        terms = msgspec.structs.replace(asked.terms, after=())
        return send(self._session, PreparedSubmit(terms, [asked.spec], single=True), None)

    def last_run_name(self) -> str:
        """The run of an application (SIMENV_APP) that submitted last; "" if there was none."""
        return self._session.request(App, GetApp).app

    def events(self, since: int = 0, kinds: Sequence[str] | None = None) -> Iterator[Event]:
        """Events numbered above `since`, up to those there are now; `kinds`: patterns."""
        newest = -1
        while newest < 0 or since < newest:
            page = self._events(since, EVENTS_PAGE)
            newest = page.newest if newest < 0 else newest
            if not page.events:
                return
            for event in page.events:
                since = event.seq
                if kinds is None or event.is_of(kinds):
                    yield event

    def newest_event(self) -> int:
        """The number of the newest event, for `since`; 0 if there is none."""
        return self._events(0, 0).newest

    def latest(self, kinds: Sequence[str], among: int = 300) -> list[Event]:
        """Of the last `among` events those of these kinds, oldest first."""
        newest = self._events(0, 0).newest
        result = self._events(max(0, newest - among), among).events
        return [event for event in result if event.is_of(kinds)]

    def events_before(self, time_s: float) -> int:
        """The number of the last event before a time of day, for `since`; 0 if there is none."""
        low, high = 0, self._events(0, 0).newest
        while low < high:
            middle = (low + high) // 2
            result = self._events(middle, 1).events
            if result and result[0].time_s < time_s:
                low = result[0].seq
            else:
                high = middle
        return low

    def _events(self, since: int, limit: int) -> m.Events:
        return self._session.request(m.Events, partial(m.GetEvents, since=since, limit=limit))


def _check_row(row: LogRow, k: int | None) -> None:
    if k is not None and k >= row.bindings:
        raise NotFoundError(
            f"task {row.id} carries {row.bindings} bindings; there is no number {k}",
            hint=f"the first is {row.id}.0",
        )
