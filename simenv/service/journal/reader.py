"""Read the journal: accepted messages, completions, events, cursors.

Each record has a checksum, since SQLite verifies its own structure but not the content of rows.
Errors of SQLite are raised as JournalError.
"""

from __future__ import annotations

import sqlite3
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from simenv.errors import JournalError
from simenv.model import (
    Event,
    TaskState,
)
from simenv.scheduler.core.types import Route

_ROUTES = msgspec.msgpack.Decoder(tuple[list[Route], list[int]])


def pack_routes(routes: list[Route]) -> bytes:
    """The routes of a Submit's tasks, each different one written once."""
    table: dict[Route, int] = {}
    index: list[int] = []
    last, place = None, 0
    for route in routes:  # neighbours mostly share theirs
        if route is not last:
            last, place = route, table.setdefault(route, len(table))
        index.append(place)
    return msgspec.msgpack.encode((list(table), index))


def unpack_routes(packed: bytes) -> list[Route]:
    table, index = _ROUTES.decode(packed)
    return [table[k] for k in index]


APP_MESSAGES = 20_000  # looked at for the last run of an application: some milliseconds
# Keys of `meta` that outlive the rows they were counted from.
LAST_SEQ, NEXT_TASK, GONE = "last_seq", "next_task", "gone "
WAY_OUT = "move it away; then simenv up --restore goes on with its copy, if there is one"
AUDIT = "@audit"  # the owner of events of the audit log: no key has that name
UNHAPPY = (TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED)


class DamagedRecord(JournalError):
    """What was found of some ended tasks cannot be read: they have to run again."""

    def __init__(self, message: str, first_seq: int) -> None:
        super().__init__(message, hint="their tasks run again; the disk should be looked at")
        self.first_seq = first_seq


class AcceptedRow(msgspec.Struct, frozen=True):
    """One Submit as it was stored. `routes` and `body` are packed."""

    first: int
    count: int
    at: float
    key: str
    offset: int
    digest: bytes
    routes: bytes
    body: bytes
    owner: str = ""
    app: str = ""  # the run of an application it came from

    def values(self) -> tuple[Any, ...]:
        """Its fields, in the order of the table's columns."""
        return (
            self.first,
            self.count,
            self.at,
            self.key,
            self.offset,
            self.digest,
            self.routes,
            self.body,
            self.owner,
            self.app,
        )


class Records:
    """Reads through the loop's own connection, so it sees what was committed last."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """What a query gives; JournalError if the journal cannot be read."""
        try:
            yield from self._db.execute(query, values)
        except (sqlite3.Error, OverflowError) as error:
            raise JournalError(
                f"the journal {self._path} cannot be read: {error}",
                hint=WAY_OUT,
            ) from error

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        return next(self.rows(query, *values), None)

    def _one(self, query: str, *values: object) -> int | None:
        row = self._row(query, *values)
        return None if row is None else row[0]

    def meta(self, key: str) -> int:
        return self._one("select value from meta where key = ?", key) or 0

    def accepted(self) -> Iterator[AcceptedRow]:
        for row in self.rows("select * from accepted order by first"):
            yield self._accepted_row(row)

    def count_accepted(self) -> int:
        return self._one("select count(*) from accepted") or 0

    def indexed_tasks(self) -> Iterator[int]:
        return (row[0] for row in self.rows("select task from result"))

    def accepted_of(self, task: int) -> AcceptedRow | None:
        """The Submit that brought a task."""
        query = "select * from accepted where first <= ? order by first desc limit 1"
        row = self._row(query, task)
        return self._accepted_row(row) if row is not None and task < row[0] + row[1] else None

    def owner_of(self, task: int) -> str | None:
        """Whose task this is; None if there is none of that number."""
        query = "select first + count, owner from accepted where first <= ? order by first desc"
        result = self._row(f"{query} limit 1", task)
        return result[1] if result is not None and task < result[0] else None

    def accepted_after(self, task: int, app: str) -> AcceptedRow | None:
        """The first Submit that holds a task numbered above `task`; `app`: of that run only."""
        inside = "select coalesce(max(first), 0) from accepted where first <= ?"
        of_app, values = ("app = ? and ", (app,)) if app else ("", ())
        query = (
            f"select * from accepted where {of_app}first + count > ? + 1 and first >= ({inside})"
            " order by first limit 1"
        )
        row = self._row(query, *values, task, task)
        return None if row is None else self._accepted_row(row)

    def accepted_before(self, task: int, app: str) -> AcceptedRow | None:
        """The last Submit that holds a task numbered below `task`; `app`: of that run only."""
        # Said twice, so that SQLite uses the index of those that have one.
        of_app, values = ("app = ? and app <> '' and ", (app,)) if app else ("", ())
        query = f"select * from accepted where {of_app}first < ? order by first desc limit 1"
        row = self._row(query, *values, task)
        return None if row is None else self._accepted_row(row)

    def accepted_at(self, task: int) -> tuple[int, float] | None:
        """First task and time of day of the Submit that holds `task`, or of the next one."""
        query = "select first, at from accepted where first >= ? order by first limit 1"
        results: tuple[int, float] | None = self._row(query, task)
        return results

    def last_app(self, scope: str = "") -> str:
        """Which run of an application submitted last, among the newest messages; "" if none did."""
        query = (
            "select app from (select app, owner from accepted order by first desc limit ?)"
            " where app <> '' and ? in ('', owner) limit 1"
        )
        row = self._row(query, APP_MESSAGES, scope)
        return "" if row is None else row[0]

    def accepted_by_key(self, owner: str, key: str, offset: int) -> tuple[int, int, bytes] | None:
        """(first id, count, digest) of the Submit stored under an owner's key."""
        query = (
            "select first, count, digest from accepted"
            " where owner = ? and key = ? and offset = ? and key not like '~%'"
        )
        results: tuple[int, int, bytes] | None = self._row(query, owner, key, offset)
        return results

    def finished(self, after_seq: int = 0) -> Iterator[tuple[int, bytes]]:
        """(first_seq, packed Completed) in order; DamagedRecord at one that is damaged."""
        query = "select seq, body, crc from finished where seq > ? order by seq"
        for row in self.rows(query, after_seq):
            yield row[0], self._intact(*row)

    def finished_at(self, first_seq: int) -> tuple[bytes, str] | None:
        """The packed Completed whose completions are numbered from there, and its owner."""
        result = self._row("select seq, body, crc, owner from finished where seq = ?", first_seq)
        return None if result is None else (self._intact(*result[:3]), result[3])

    def finished_after(self, seq: int, owner: str = "") -> bytes | None:
        """The packed Completed that holds the first completion numbered above `seq`; of those of
        an `owner`, if one is named."""
        of_owner = "owner = ?2 and owner <> ''" if owner else "?2 = ''"
        inside = f"select max(seq) from finished where {of_owner} and seq <= ?1 + 1"
        query = (
            f"select seq, body, crc from finished where {of_owner} and seq + count > ?1 + 1"
            f" and seq >= coalesce(({inside}), 0) order by seq limit 1"
        )
        row = self._row(query, seq, owner)
        return None if row is None else self._intact(*row)

    def finished_before(self, seq: int, owner: str = "") -> tuple[int, bytes] | None:
        """(first_seq, packed Completed) of the newest message that begins below `seq`; of those of
        an `owner`, if one is named."""
        of_owner = "owner = ?2 and owner <> ''" if owner else "?2 = ''"
        query = f"select seq, body, crc from finished where {of_owner} and seq < ?1"
        row = self._row(f"{query} order by seq desc limit 1", seq, owner)
        return None if row is None else (row[0], self._intact(*row))

    def newest_of(self, owner: str) -> int:
        """The number of an owner's newest completion; 0 if there is none."""
        query = "select seq + count - 1 from finished where owner = ? and owner <> ''"
        return self._one(f"{query} order by seq desc limit 1", owner) or 0

    def count_of(self, owner: str) -> int:
        """How many completions are an owner's."""
        query = "select sum(count) from finished where owner = ? and owner <> ''"
        return self._one(query, owner) or 0

    def ended(self) -> dict[TaskState, int]:
        """How many tasks ended in which state, all starts together."""
        counts = self._ended("")
        for state, number in self.rows("select state, count(*) from replaced group by state"):
            counts[TaskState(state)] -= number
        for state in counts:
            counts[state] += self.meta(GONE + state)
        return counts

    def ended_in(self, first_seq: int) -> dict[TaskState, int]:
        """The same of one record."""
        return self._ended("where seq = ?", first_seq)

    def _ended(self, where: str, *values: int) -> dict[TaskState, int]:
        query = "select sum(count), sum(failed), sum(cancelled), sum(expired) from finished "
        total, *others = (number or 0 for number in self._row(query + where, *values) or (0,) * 4)
        counts = dict(zip(UNHAPPY, others, strict=True))
        counts[TaskState.DONE] = total - sum(others)
        return counts

    def last_seq(self) -> int:
        """The number of the newest completion there ever was."""
        query = "select seq + count - 1 from finished order by seq desc limit 1"
        return max(self._one(query) or 0, self.meta(LAST_SEQ))

    def next_task(self) -> int:
        """The first id that was never given out."""
        query = "select first + count from accepted order by first desc limit 1"
        return max(self._one(query) or 1, self.meta(NEXT_TASK))

    def replaced(self) -> Iterator[int]:
        """Numbers of completions whose task has run again since: no longer its end."""
        return (row[0] for row in self.rows("select seq from replaced"))

    def file_of(self, name: str) -> tuple[int, int] | None:
        """Whose file of results this is, and its bytes (0: it was removed); None: nobody's."""
        results: tuple[int, int] | None = self._row(
            "select task, bytes from file where name = ?", name
        )
        return results

    def files(self) -> Iterator[str]:
        """The names of all files that should be there."""
        return (row[0] for row in self.rows("select name from file where bytes > 0"))

    def seq_of(self, task: int) -> int | None:
        """The `first_seq` of the Completed that holds a task, as far as indexed."""
        return self._one("select seq from result where task = ?", task)

    def count_at(self, first_seq: int) -> int:
        """How many completions a record has."""
        return self._one("select count from finished where seq = ?", first_seq) or 0

    def tasks_at(self, first_seq: int) -> Iterator[int]:
        """The tasks of one record that it is still the end of, as far as indexed."""
        query = "select task from result where seq = ? order by task"
        return (row[0] for row in self.rows(query, first_seq))

    def indexed(self) -> int:
        """Everything up to this `first_seq` is in the index."""
        return self.meta("indexed")

    def sent(self) -> array[int]:
        """All task numbers sent out since the last `settle_sent`, one entry an attempt."""
        task_numbers = array("q")
        for first, count in self.rows("select first, sent from accepted where sent > 0"):
            task_numbers.extend(range(first, first + count))
        for (blob,) in self.rows("select tasks from sent order by row"):
            task_numbers.frombytes(blob)
        return task_numbers

    def events(self, since: int, limit: int, owner: str = "") -> list[Event]:
        """In order; for an `owner`, if one is named: nothing about the tasks of others."""
        query = (
            "select body from event where seq > ?1 and (?3 = '' or owner in ('', ?3))"
            " order by seq limit ?2"
        )
        rows = self.rows(query, since, limit, owner)
        return [msgspec.msgpack.decode(row[0], type=Event) for row in rows]

    def kept_by_owner(self) -> dict[str, int]:
        """Bytes of the submits, completions and files of results of each owner."""
        entries: dict[str, int] = {}
        owner_of = (
            "(select owner from finished where finished.seq <= file.seq order by seq desc limit 1)"
        )
        for query in (
            "select owner, sum(length(body)) from accepted group by owner",
            "select owner, sum(length(body)) from finished group by owner",
            f"select {owner_of}, sum(bytes) from file where bytes > 0 group by 1",
        ):
            for owner, size in self.rows(query):
                entries[owner or ""] = entries.get(owner or "", 0) + size
        return entries

    def last_event(self) -> int:
        return self._one("select max(seq) from event") or 0

    def cursor_at(self, owner: str, name: str) -> int:
        return self._one("select seq from cursor where owner = ? and name = ?", owner, name) or 0

    def cursors_of(self, owner: str) -> int:
        return self._one("select count(*) from cursor where owner = ?", owner) or 0

    def slowest_cursor(self) -> int | None:
        return self._one("select min(seq) from cursor")

    def scaled(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Pools that people have sized: name, least, most, and both as then configured."""
        for row in self.rows("select * from pool order by name"):
            yield row[0], row[1], row[2], row[3], row[4]

    def drained(self) -> Iterator[tuple[str, str]]:
        """Nodes that people have drained, and why."""
        return ((row[0], row[1]) for row in self.rows("select * from drained order by node"))

    def policies_told(self) -> dict[str, bytes]:
        """What a configuration said of policies when it was applied last, by pool."""
        return {row[0]: row[1] for row in self.rows("select pool, body from policy_told")}

    def _accepted_row(self, columns: tuple[Any, ...]) -> AcceptedRow:
        row = AcceptedRow(*columns[:-2])
        if checksum(row) != columns[-2]:
            raise self._damaged()
        return row

    def _intact(self, seq: int, body: bytes, crc: int) -> bytes:
        if zlib.crc32(body) != crc:
            raise DamagedRecord(f"{self._damaged().message} (completion {seq})", seq)
        return body

    def _damaged(self) -> JournalError:
        return JournalError(
            f"a record in the journal {self._path} is damaged: its checksum does not fit",
            hint=WAY_OUT,
        )


def checksum(row: AcceptedRow) -> int:
    """CRC-32 of what a row holds and of where it belongs."""
    belongs = zlib.crc32(row.owner.encode(), row.first ^ row.count)
    return zlib.crc32(row.body, zlib.crc32(row.routes, belongs))
