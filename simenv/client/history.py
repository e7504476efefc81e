"""Queries of the journal of an environment.

It is read page by page: tasks, submissions, events by time. Invariant: one page is in memory at a
time, whatever the length of the history.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import send
from simenv.client.tasks.task import Task, number_of, row_of
from simenv.errors import NotFoundError, OptionError
from simenv.model import Event, TaskState, task_name, task_number
from simenv.model.calls import is_call, is_pulse_call
from simenv.model.views import check_window
from simenv.wire.messages import client as m
from simenv.wire.messages.history import (
    NEWEST,
    GetApp,
    GetHistory,
    GetSpec,
    History,
    LogRow,
    Submitted,
)
from simenv.wire.messages.metrics import GetSeries, Series

PAGE_ROWS = 1_000
EVENTS_PAGE = 1_000
PAGE_REQUESTS = 10  # to the service, for one page of tasks that a filter leaves


class _Chosen(msgspec.Struct, frozen=True):
    """Filter of rows that the service does not apply."""

    owner: str | None  # "": the environment's own user
    pool: str
    until_s: float
    ended_until_s: float | None = None  # None: also tasks that have not ended

    @property
    def narrows(self) -> bool:
        """Return whether rows of the service may be left out."""
        return self.owner is not None or bool(self.pool) or self.until_s < math.inf

    def __call__(self, row: LogRow) -> bool:
        return (
            self.owner in (None, row.owner)
            and self.pool in ("", row.pool)
            and row.submitted_s < self.until_s
            and (self.ended_until_s is None or 0.0 < row.ended_s < self.ended_until_s)
        )


class TaskHistory:
    """Tasks and events in the journal of an environment, earlier starts of the service included."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def tasks(
        self,
        since_s: float = 0.0,
        run_name: str = "",
        states: Collection[TaskState] = (),
        structure: bool = False,
        *,
        owner: str | None = None,
        pool: str = "",
        until_s: float = math.inf,
        ended_between: tuple[float, float] | None = None,
    ) -> Iterator[LogRow]:
        """Iterate over all tasks, in the order of their submission.

        `since_s`: only tasks submitted at this time (seconds since 1970) or later; `until_s`: only
        those before this time; `run_name`: only those of this run of an application (SIMENV_APP);
        `states`: only those in these states; `owner`: only those of this key, "" for the
        environment's own user; `pool`: only those of this pool; `ended_between`: only those that
        ended at the first of these times or later, and before the second; `structure`: rows
        identify the circuit structure, which programs share that differ only in their angles.

        Raises OptionError for times in the wrong order, and for a `since_s` in the future.
        """
        check_window(since_s, until_s, time.time())
        ended_since_s, ended_until_s = ended_between or (0.0, math.inf)
        check_window(ended_since_s, ended_until_s, time.time())
        until_s = min(until_s, ended_until_s)  # a task ends after its submission
        after, chosen = 0, _Chosen(owner, pool, until_s, ended_until_s if ended_between else None)
        rows_of = partial(
            GetHistory,
            app=run_name,
            structure=structure,
            states=tuple(states),
            ended_since_s=ended_since_s,
        )
        while True:
            page = self._session.request(rows_of(0, after, PAGE_ROWS, since_s))
            yield from filter(chosen, page.rows)
            if page.complete or (page.rows and page.rows[-1].submitted_s >= until_s):
                return
            after, since_s = page.last, 0.0

    def newest(
        self,
        limit: int,
        since_s: float = 0.0,
        run_name: str = "",
        states: Collection[TaskState] = (),
        structure: bool = False,
        *,
        owner: str | None = None,
        pool: str = "",
        until_s: float = math.inf,
    ) -> list[LogRow]:
        """Return the last `limit` rows of `tasks`, in the same order. The service reads from the
        newest task backwards, no further than needed."""
        check_window(since_s, until_s, time.time())
        rows: list[LogRow] = []
        before, complete = NEWEST, False
        chosen = _Chosen(owner, pool, until_s)
        rows_of = partial(GetHistory, app=run_name, structure=structure, states=tuple(states))
        while len(rows) < limit and not complete:
            size = PAGE_ROWS if chosen.narrows else min(PAGE_ROWS, limit - len(rows))
            page = self._session.request(rows_of(0, limit=size, since_s=since_s, before=before))
            rows += filter(chosen, page.rows)
            before, complete = page.last, page.complete
        return rows[:limit][::-1]

    def page(
        self,
        limit: int,
        before: int = NEWEST,
        since_s: float = 0.0,
        run_name: str = "",
        states: Collection[TaskState] = (),
        *,
        owner: str | None = None,
        pool: str = "",
        until_s: float = math.inf,
    ) -> tuple[list[LogRow], int]:
        """Return up to `limit` rows of `tasks` numbered below `before`, newest first, and the
        `before` of the next page; 0: this is the last. A page may be short, or empty, and not the
        last: no more than PAGE_REQUESTS x PAGE_ROWS tasks are examined for it."""
        check_window(since_s, until_s, time.time())
        rows: list[LogRow] = []
        chosen = _Chosen(owner, pool, until_s)
        rows_of = partial(GetHistory, app=run_name, states=tuple(states))
        for _ in range(PAGE_REQUESTS):
            size = PAGE_ROWS if chosen.narrows else limit - len(rows)
            page = self._session.request(rows_of(0, limit=size, since_s=since_s, before=before))
            for row in filter(chosen, page.rows):
                rows.append(row)
                if len(rows) == limit:
                    is_last = page.complete and row is page.rows[-1]
                    return rows, 0 if is_last else number_of(row.id)
            before = page.last
            if page.complete:
                return rows, 0
        return rows, before

    def task(self, task: Task | str | int, *, structure: bool = True) -> LogRow:
        """Return the row of one task. Raises NotFoundError if it is unknown or was removed. A
        binding such as `t-8k2f.17` has no row of its own; the row of its task is returned."""
        question = {**row_question(task), "structure": structure}
        return row_in(self._session.request(GetHistory(0, **question)), task)

    def submitted(self, task: Task | str | int) -> Submitted:
        """Return the submission of this task: program and options; `terms.engine` is the chosen
        engine."""
        return self._session.request(GetSpec(0, number_of(task)))

    def resubmit(self, asked: Submitted) -> list[Task]:
        """Submit the same task again, bit for bit, under a new id; return one Task for each
        binding.

        It runs at once: `after` is removed. Raises OptionError for a call that is no pulse
        sequence: `asked` may come from a file of another user, and a function has all rights of
        this user.
        """
        if is_call(asked.terms) and not is_pulse_call(asked.terms):
            message = f"a call of engine {asked.terms.engine} is not submitted again"
            raise OptionError(message, hint="call the function, or transpile the circuits, again")
        terms = msgspec.structs.replace(asked.terms, after=())
        return send(self._session, PreparedSubmit(terms, [asked.spec], single=True), None)

    def last_run_name(self) -> str:
        """Return the run of an application (SIMENV_APP) that submitted last; "" if there was
        none."""
        return self._session.request(GetApp(0)).app

    def series(
        self, name: str, since_s: float = 0.0, until_s: float = 0.0, step_s: float = 0.0
    ) -> Series:
        """Return a stored series of the environment, such as `queue` or `pool/main/wait`; see
        `series_names`.

        `since_s`, `until_s`: seconds since 1970, 0: no bound; `step_s`: distance of the points, 0:
        up to about 1,000 points. Samples are kept for a day, means of minutes for 30 days and means
        of hours for two years, figures of devices (`device/POOL/t1_us`) for ever. Raises
        NotFoundError, OptionError.
        """
        check_window(since_s, until_s, time.time())
        return self._session.request(GetSeries(0, name, since_s, until_s, step_s))

    def series_names(self) -> list[str]:
        """Return the names of all stored series."""
        return self._session.request(GetSeries(0)).names

    def events(self, since: int = 0, kinds: Sequence[str] | None = None) -> Iterator[Event]:
        """Iterate over events numbered above `since`, up to the newest at the first request;
        `kinds`: patterns."""
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
        """Return the number of the newest event, for `since`; 0 if there is none."""
        return self._events(0, 0).newest

    def latest(self, kinds: Sequence[str], among: int = 300) -> list[Event]:
        """Return the events of these kinds among the last `among` events, oldest first."""
        newest = self._events(0, 0).newest
        result = self._events(max(0, newest - among), among).events
        return [event for event in result if event.is_of(kinds)]

    def events_before(self, time_s: float) -> int:
        """Return the number of the last event before a time (seconds since 1970), for `since`; 0 if
        there is none."""
        low, high = 0, self._events(0, 0).newest
        while low < high:
            middle = (low + high) // 2
            result = self._events(middle, 1).events
            if result and result[0].time_s < time_s:
                low = result[0].seq
            else:
                high = middle
        return low

    def lost_attempts(self, row: LogRow) -> list[Event]:
        """Return the events of a task's attempts that ended without a message from their worker."""
        if row.attempts < 2:
            return []
        since = self.events_before(row.submitted_s)
        return [each for each in self.events(since, ["task.*"]) if each.subject == row.id]

    def _events(self, since: int, limit: int) -> m.Events:
        return self._session.request(m.GetEvents(0, since=since, limit=limit))


def row_question(task: Task | str | int) -> dict[str, Any]:
    """Return the fields of a GetHistory for one task, whose answer `row_in` reads. Raises
    NotFoundError for a text that is no task id."""
    number = number_of(task)
    if not number:
        raise _unknown(number)
    return {"after": number - 1, "limit": 1}


def row_in(answer: History, task: Task | str | int) -> LogRow:
    """Return the row of a task from the answer to its question. Raises NotFoundError if the task is
    unknown or was removed."""
    number, rows = number_of(task), answer.rows
    if not rows or task_number(rows[0].id) != number:
        raise _unknown(number)
    row, binding = rows[0], task.row if isinstance(task, Task) else row_of(task)
    if binding is not None and binding >= row.bindings:
        message = f"task {row.id} carries {row.bindings} bindings; there is no number {binding}"
        raise NotFoundError(message, hint=f"the first is {row.id}.0")
    return row


def _unknown(number: int) -> NotFoundError:
    return NotFoundError(f"no task {task_name(number)} here", hint="simenv history lists them")
