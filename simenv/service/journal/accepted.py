"""Accepted submissions in the journal, each verified by its checksum. Damaged ones are passed over:
a start ends their tasks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import msgspec

from simenv.service.journal.rows import JournalRows
from simenv.service.journal.schema import ACCEPTED

log = logging.getLogger("simenv.service")
APP_MESSAGES = 20_000  # searched for the last run of an application: some milliseconds


class AcceptedRow(msgspec.Struct, frozen=True):
    """One stored Submit, with the columns of its table in their order. `routes` and `body` are
    packed."""

    first: int
    count: int
    at: float
    key: str
    offset: int
    digest: bytes
    routes: bytes
    body: bytes
    owner: str = ""
    app: str = ""  # the run of an application that it belongs to


class AcceptedRecords:
    """Queries about accepted submissions."""

    def __init__(self, journal: JournalRows) -> None:
        self._journal = journal

    def all(self) -> Iterator[AcceptedRow]:
        query = "select * from accepted where first > ? order by first limit ?"
        found = map(self._verified, self._journal.pages(query, 0))
        return (row for row in found if row is not None)

    def count(self) -> int:
        return self._journal.scalar("select count(*) from accepted") or 0

    def of(self, task: int) -> AcceptedRow | None:
        """Return the Submit that contains a task; None if there is none, or it is damaged."""
        query = "select * from accepted where first <= ? order by first desc limit 1"
        row = self._journal.row(query, task)
        return self._verified(row) if row is not None and task < row[0] + row[1] else None

    def owner_of(self, task: int) -> str | None:
        """Return the owner of a task; None if no stored Submit contains it."""
        query = "select first + count, owner from accepted where first <= ? order by first desc"
        result = self._journal.row(f"{query} limit 1", task)
        return result[1] if result is not None and task < result[0] else None

    def after(self, task: int, app: str) -> AcceptedRow | None:
        """Return the first Submit with a task numbered above `task`; `app`: of that run only."""
        inside = "select coalesce(max(first), 0) from accepted where first <= ?"
        of_app, values = ("app = ? and ", (app,)) if app else ("", ())
        query = (
            f"select * from accepted where {of_app}first + count > ? + 1 and first >= ({inside})"
            " order by first limit 1"
        )
        row = self._journal.row(query, *values, task, task)
        while row is not None and (found := self._verified(row)) is None:
            following = f"select * from accepted where {of_app}first > ? order by first limit 1"
            row = self._journal.row(following, *values, row[0])
        return None if row is None else found

    def before(self, task: int, app: str) -> AcceptedRow | None:
        """Return the last Submit with a task numbered below `task`; `app`: of that run only."""
        # `app <> ''` is redundant, but lets SQLite use the partial index `accepted_app`.
        of_app, values = ("app = ? and app <> '' and ", (app,)) if app else ("", ())
        query = f"select * from accepted where {of_app}first < ? order by first desc limit 1"
        row = self._journal.row(query, *values, task)
        return None if row is None else self._verified(row) or self.before(row[0], app)

    def at(self, task: int) -> tuple[int, float] | None:
        """Return the first task and the time of day of the first Submit that begins at `task` or
        above; None if there is none."""
        query = "select first, at from accepted where first >= ? order by first limit 1"
        results: tuple[int, float] | None = self._journal.row(query, task)
        return results

    def last_app(self, scope: str = "") -> str:
        """Return the run of an application that submitted last, among the newest APP_MESSAGES
        Submits; "" if none of them belongs to a run."""
        query = (
            "select app from (select app, owner from accepted order by first desc limit ?)"
            " as newest where app <> '' and ? in ('', owner) limit 1"
        )
        row = self._journal.row(query, APP_MESSAGES, scope)
        return "" if row is None else row[0]

    def by_key(self, owner: str, key: str, offset: int) -> tuple[int, int, bytes] | None:
        """Return (first id, count, digest) of the Submit with an owner's idempotency key; None if
        there is none."""
        query = (
            "select first, count, digest from accepted"
            " where owner = ? and key = ? and \"offset\" = ? and key not like '~%'"
        )
        results: tuple[int, int, bytes] | None = self._journal.row(query, owner, key, offset)
        return results

    def _verified(self, columns: tuple[Any, ...]) -> AcceptedRow | None:
        if not ACCEPTED.is_intact(columns[:-2], columns[-2]):
            log.warning("%s (submission %s)", self._journal.damaged().message, columns[0])
            return None
        return AcceptedRow(*columns[:-2])
