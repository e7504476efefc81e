"""What the journal keeps, asked page by page: tasks, and events after a time of day.

Invariant: one page is held at a time, so a history of millions needs no memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import TYPE_CHECKING

from simenv.model import Event, TaskState, task_number
from simenv.wire import messages as m
from simenv.wire.history import GetHistory, GetSpec, History, LogRow, Submitted

if TYPE_CHECKING:
    from simenv.client.link import Link

PAGE_ROWS = 1_000
EVENTS_PAGE = 1_000


def rows(
    link: Link,
    since_s: float = 0.0,
    app: str = "",
    states: Collection[TaskState] = (),
    structure: bool = False,
    after: int = 0,
) -> Iterator[LogRow]:
    """Tasks in the order of their submission; see `Client.history`."""
    while True:
        ask = partial(
            GetHistory, after=after, limit=PAGE_ROWS, since_s=since_s, app=app, structure=structure
        )
        page = link.ask(History, ask)
        for row in page.rows:
            if not states or row.state in states:
                yield row
        if page.complete:
            return
        after, since_s = page.last, 0.0


def row_of(link: Link, number: int) -> LogRow | None:
    """One task; None if it is not known or no longer kept."""
    ask = partial(GetHistory, after=number - 1, limit=1, structure=True)
    found = link.ask(History, ask).rows if number else []
    return found[0] if found and task_number(found[0].id) == number else None


def submitted(link: Link, number: int) -> Submitted:
    """What was submitted as this task; NotFound if there is none."""
    return link.ask(Submitted, partial(GetSpec, task=number))


def events(link: Link, since: int) -> Iterator[Event]:
    """Events numbered above `since`, up to those there are now."""
    newest = -1
    while newest < 0 or since < newest:
        page = _events(link, since, EVENTS_PAGE)
        newest = page.newest if newest < 0 else newest
        if not page.events:
            return
        for event in page.events:
            since = event.seq
            yield event


def last_event_before(link: Link, time_s: float) -> int:
    """The number of the last event before a time of day, by bisection; 0 if there is none."""
    low, high = 0, _events(link, 0, 0).newest
    while low < high:
        middle = (low + high) // 2
        found = _events(link, middle, 1).events
        if found and found[0].time_s < time_s:
            low = found[0].seq
        else:
            high = middle
    return low


def _events(link: Link, since: int, limit: int) -> m.Events:
    return link.ask(m.Events, partial(m.GetEvents, since=since, limit=limit))
