"""Read the journal: accepted messages, completions, events, cursors.

Each record has a checksum, because SQLite verifies its own structure but not the content of rows.
Errors of SQLite are raised as JournalError.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from simenv.errors import DECODE_ERRORS, JournalError
from simenv.model import Event, TaskState
from simenv.scheduler.core import Route
from simenv.service.journal.database import WAY_OUT, Database, PostgresPlace

_ROUTES = msgspec.msgpack.Decoder(tuple[list[Route], list[int]])


def pack_routes(routes: list[Route]) -> bytes:
    """Encode the routes of a Submit's tasks; equal routes are stored once."""
    table: dict[Route, int] = {}
    index: list[int] = []
    last, place = None, 0
    for route in routes:  # neighbours mostly have the same route
        if route is not last:
            last, place = route, table.setdefault(route, len(table))
        index.append(place)
    return msgspec.msgpack.encode((list(table), index))


def unpack_routes(packed: bytes) -> list[Route]:
    table, index = _ROUTES.decode(packed)
    return [table[k] for k in index]


def runs(tasks: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive numbers among these: the first of each, and how many."""
    if tasks and list(range(tasks[0], tasks[0] + len(tasks))) == tasks:
        return [(tasks[0], len(tasks))]
    result: list[tuple[int, int]] = []
    for _, group in groupby(enumerate(sorted(tasks)), key=lambda entry: entry[1] - entry[0]):
        numbers = [number for _, number in group]
        result.append((numbers[0], len(numbers)))
    return result


PAGE_ROWS = 100
APP_MESSAGES = 20_000  # searched for the last run of an application: some milliseconds
# Keys of `meta` for values that must survive the removal of the rows that they come from.
LAST_SEQ, NEXT_TASK, GONE = "last_seq", "next_task", "gone "
AUDIT = "@audit"  # the owner of events of the audit log: no key has that name
UNSUCCESSFUL = (TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED)


class DamagedRecord(JournalError):
    """The record of some ended tasks cannot be read: they have to run again."""

    def __init__(self, message: str, first_seq: int) -> None:
        super().__init__(message, hint="their tasks run again; check the disk")
        self.first_seq = first_seq


Value = TypeVar("Value")


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


class Records:
    """Queries of the journal through the loop's own connection, which sees the last commit."""

    def __init__(self, database: Database, place: Path | PostgresPlace) -> None:
        self._db = database.db
        self._errors = database.errors
        self._place = place

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Raises JournalError if the journal cannot be read."""
        try:
            yield from self._db.execute(query, values)
        except self._errors as error:
            raise JournalError(
                f"the journal {self._place} cannot be read: {error}", hint=WAY_OUT
            ) from error

    def decoded(
        self, query: str, decoder: msgspec.msgpack.Decoder[Value], subject: str
    ) -> list[tuple[Any, Value]]:
        """Read rows of a key and a msgpack body. Raises JournalError about `subject` if a body
        cannot be decoded."""
        try:
            return [(key, decoder.decode(body)) for key, body in self.rows(query)]
        except DECODE_ERRORS as error:
            raise JournalError(
                f"{subject} in the journal cannot be read: {error}", hint=WAY_OUT
            ) from error

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        return next(self.rows(query, *values), None)

    def _scalar(self, query: str, *values: object) -> int | None:
        row = self._row(query, *values)
        return None if row is None else row[0]

    def meta(self, key: str) -> int:
        return self._scalar("select value from meta where key = ?", key) or 0

    def accepted(self) -> Iterator[AcceptedRow]:
        query = "select * from accepted where first > ? order by first limit ?"
        return map(self._accepted_row, self._pages(query, 0))

    def _pages(self, query: str, after: int) -> Iterator[tuple[Any, ...]]:
        """Yield the rows behind a key, which is their first column, in its order. A server would
        send all rows of a query at once."""
        while page := list(self.rows(query, after, PAGE_ROWS)):
            yield from page
            after = page[-1][0]

    def count_accepted(self) -> int:
        return self._scalar("select count(*) from accepted") or 0

    def indexed_runs(self) -> Iterator[tuple[int, int]]:
        """Yield the runs of ended tasks in the index: first task, and number of tasks."""
        return ((first, count) for first, count in self.rows("select first, count from ended"))

    def accepted_of(self, task: int) -> AcceptedRow | None:
        """Return the Submit that contains a task; None if there is none."""
        query = "select * from accepted where first <= ? order by first desc limit 1"
        row = self._row(query, task)
        return self._accepted_row(row) if row is not None and task < row[0] + row[1] else None

    def owner_of(self, task: int) -> str | None:
        """Return the owner of a task; None if no stored Submit contains it."""
        query = "select first + count, owner from accepted where first <= ? order by first desc"
        result = self._row(f"{query} limit 1", task)
        return result[1] if result is not None and task < result[0] else None

    def accepted_after(self, task: int, app: str) -> AcceptedRow | None:
        """Return the first Submit with a task numbered above `task`; `app`: of that run only."""
        inside = "select coalesce(max(first), 0) from accepted where first <= ?"
        of_app, values = ("app = ? and ", (app,)) if app else ("", ())
        query = (
            f"select * from accepted where {of_app}first + count > ? + 1 and first >= ({inside})"
            " order by first limit 1"
        )
        row = self._row(query, *values, task, task)
        return None if row is None else self._accepted_row(row)

    def accepted_before(self, task: int, app: str) -> AcceptedRow | None:
        """Return the last Submit with a task numbered below `task`; `app`: of that run only."""
        # `app <> ''` is redundant, but lets SQLite use the partial index `accepted_app`.
        of_app, values = ("app = ? and app <> '' and ", (app,)) if app else ("", ())
        query = f"select * from accepted where {of_app}first < ? order by first desc limit 1"
        row = self._row(query, *values, task)
        return None if row is None else self._accepted_row(row)

    def accepted_at(self, task: int) -> tuple[int, float] | None:
        """Return the first task and the time of day of the first Submit that begins at `task` or
        above; None if there is none."""
        query = "select first, at from accepted where first >= ? order by first limit 1"
        results: tuple[int, float] | None = self._row(query, task)
        return results

    def last_app(self, scope: str = "") -> str:
        """Return the run of an application that submitted last, among the newest APP_MESSAGES
        Submits; "" if none of them belongs to a run."""
        query = (
            "select app from (select app, owner from accepted order by first desc limit ?)"
            " as newest where app <> '' and ? in ('', owner) limit 1"
        )
        row = self._row(query, APP_MESSAGES, scope)
        return "" if row is None else row[0]

    def accepted_by_key(self, owner: str, key: str, offset: int) -> tuple[int, int, bytes] | None:
        """Return (first id, count, digest) of the Submit with an owner's idempotency key; None if
        there is none."""
        query = (
            "select first, count, digest from accepted"
            " where owner = ? and key = ? and \"offset\" = ? and key not like '~%'"
        )
        results: tuple[int, int, bytes] | None = self._row(query, owner, key, offset)
        return results

    def finished(self, after_seq: int = 0) -> Iterator[tuple[int, bytes]]:
        """Yield (first_seq, packed Completed) in order. Raises DamagedRecord at a damaged one."""
        query = "select seq, body, crc from finished where seq > ? order by seq limit ?"
        for row in self._pages(query, after_seq):
            yield row[0], self._verified_body(*row)

    def finished_at(self, first_seq: int) -> tuple[bytes, str] | None:
        """Return the packed Completed whose completions are numbered from `first_seq`, and its
        owner; None if there is none."""
        result = self._row("select seq, body, crc, owner from finished where seq = ?", first_seq)
        return None if result is None else (self._verified_body(*result[:3]), result[3])

    def ended_at(self, first_seq: int) -> float:
        """Return the time of day at which a record was written; 0.0 if there is none."""
        row = self._row("select at from finished where seq = ?", first_seq)
        return 0.0 if row is None else float(row[0])

    def unverified_body(self, first_seq: int) -> bytes:
        """Return the body of a record that may be damaged; b"" if there is none."""
        row = self._row("select body from finished where seq = ?", first_seq)
        return b"" if row is None else bytes(row[0])

    def finished_after(self, seq: int, owner: str = "") -> bytes | None:
        """Return the packed Completed with the first completion numbered above `seq`; `owner`: of
        that owner only; "": of all."""
        of_owner = "owner = ?2 and owner <> ''" if owner else "?2 = ''"
        inside = f"select max(seq) from finished where {of_owner} and seq <= ?1 + 1"
        query = (
            f"select seq, body, crc from finished where {of_owner} and seq + count > ?1 + 1"
            f" and seq >= coalesce(({inside}), 0) order by seq limit 1"
        )
        row = self._row(query, seq, owner)
        return None if row is None else self._verified_body(*row)

    def finished_before(self, seq: int, owner: str = "") -> tuple[int, bytes] | None:
        """Return (first_seq, packed Completed) of the newest message that begins below `seq`;
        `owner`: of that owner only; "": of all."""
        of_owner = "owner = ?2 and owner <> ''" if owner else "?2 = ''"
        query = f"select seq, body, crc from finished where {of_owner} and seq < ?1"
        row = self._row(f"{query} order by seq desc limit 1", seq, owner)
        return None if row is None else (row[0], self._verified_body(*row))

    def newest_of(self, owner: str) -> int:
        """Return the number of an owner's newest completion; 0 if there is none."""
        query = "select seq + count - 1 from finished where owner = ? and owner <> ''"
        return self._scalar(f"{query} order by seq desc limit 1", owner) or 0

    def count_of(self, owner: str) -> int:
        """Return the number of completions of an owner."""
        query = "select sum(count) from finished where owner = ? and owner <> ''"
        return self._scalar(query, owner) or 0

    def ended(self) -> dict[TaskState, int]:
        """Return the number of ended tasks by state, since the environment was created."""
        counts = self._ended("")
        for state, number in self.rows("select state, count(*) from replaced group by state"):
            counts[TaskState(state)] -= number
        for state in counts:
            counts[state] += self.meta(GONE + state)
        return counts

    def ended_in(self, first_seq: int) -> dict[TaskState, int]:
        """Return the number of completions of one record, by state."""
        return self._ended("where seq = ?", first_seq)

    def _ended(self, condition: str, *values: int) -> dict[TaskState, int]:
        query = "select sum(count), sum(failed), sum(cancelled), sum(expired) from finished "
        total, *unsuccessful = (
            number or 0 for number in self._row(query + condition, *values) or (0,) * 4
        )
        counts = dict(zip(UNSUCCESSFUL, unsuccessful, strict=True))
        counts[TaskState.DONE] = total - sum(unsuccessful)
        return counts

    def last_seq(self) -> int:
        """Return the number of the newest completion, also if it has been removed."""
        query = "select seq + count - 1 from finished order by seq desc limit 1"
        return max(self._scalar(query) or 0, self.meta(LAST_SEQ))

    def next_task(self) -> int:
        """Return the first task id that was never used."""
        query = "select first + count from accepted order by first desc limit 1"
        return max(self._scalar(query) or 1, self.meta(NEXT_TASK))

    def replaced(self) -> Iterator[int]:
        """Yield the numbers of completions that are no longer the end of their task, because it
        runs again."""
        return (row[0] for row in self.rows("select seq from replaced"))

    def file_of(self, name: str) -> tuple[int, int] | None:
        """Return the task and the bytes of a result file (0 bytes: it was removed); None if no task
        has it."""
        results: tuple[int, int] | None = self._row(
            "select task, bytes from file where name = ?", name
        )
        return results

    def files(self) -> Iterator[str]:
        """Yield the names of all result files that were not removed."""
        return (row[0] for row in self.rows("select name from file where bytes > 0"))

    def seq_of(self, task: int) -> int | None:
        """Return the `first_seq` of the Completed with a task's end; None if it is not indexed."""
        run = self.run_with(task)
        return None if run is None else run[2]

    def run_with(self, task: int) -> tuple[int, int, int] | None:
        """Return the run of ended tasks that contains a task, as `Journal.index` stored it; None if
        the task is not indexed."""
        query = "select first, count, seq from ended where first <= ? order by first desc limit 1"
        row = self._row(query, task)
        return (row[0], row[1], row[2]) if row is not None and task < row[0] + row[1] else None

    def count_at(self, first_seq: int) -> int:
        """Return the number of completions of a record; 0 if there is no such record."""
        return self._scalar("select count from finished where seq = ?", first_seq) or 0

    def tasks_at(self, first_seq: int) -> Iterator[int]:
        """Yield the indexed tasks whose end is in one record."""
        query = "select first, count from ended where seq = ? order by first"
        runs = self.rows(query, first_seq)
        return chain.from_iterable(range(first, first + count) for first, count in runs)

    def indexed(self) -> int:
        """Return the `first_seq` up to which records are in the index."""
        return self.meta("indexed")

    def sent(self) -> array[int]:
        """Return the task numbers of all attempts sent since the last `replace_sent`."""
        task_numbers = array("q")
        for first, count in self.rows("select first, sent from accepted where sent > 0"):
            task_numbers.extend(range(first, first + count))
        for (blob,) in self.rows("select tasks from sent order by row"):
            task_numbers.frombytes(blob)
        return task_numbers

    def events(self, since: int, limit: int, owner: str = "") -> list[Event]:
        """Return events above `since`, in order. `owner`: without those about tasks of other
        owners; "": all."""
        query = (
            "select body from event where seq > ?1 and (?3 = '' or owner in ('', ?3))"
            " order by seq limit ?2"
        )
        rows = self.rows(query, since, limit, owner)
        return [msgspec.msgpack.decode(row[0], type=Event) for row in rows]

    def bytes_by_owner(self) -> dict[str, int]:
        """Return the bytes of the submits, completions and result files of each owner."""
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
        return self._scalar("select max(seq) from event") or 0

    def cursor_at(self, owner: str, name: str) -> int:
        return self._scalar("select seq from cursor where owner = ? and name = ?", owner, name) or 0

    def cursors_of(self, owner: str) -> int:
        return self._scalar("select count(*) from cursor where owner = ?", owner) or 0

    def slowest_cursor(self) -> int | None:
        return self._scalar("select min(seq) from cursor")

    def scaled(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Yield the pools that administrators have scaled: name, smallest and largest number of
        workers, and both as configured at that time."""
        for row in self.rows("select * from pool order by name"):
            yield row[0], row[1], row[2], row[3], row[4]

    def drained(self) -> Iterator[tuple[str, str]]:
        """Yield the nodes that administrators have drained, with the reasons."""
        return ((row[0], row[1]) for row in self.rows("select * from drained order by node"))

    def applied_policies(self) -> dict[str, bytes]:
        """Return the packed policies of the configuration that was applied last, by pool."""
        return {row[0]: row[1] for row in self.rows("select pool, body from policy_told")}

    def _accepted_row(self, columns: tuple[Any, ...]) -> AcceptedRow:
        row = AcceptedRow(*columns[:-2])
        if checksum(row) != columns[-2]:
            raise self._damaged()
        return row

    def _verified_body(self, seq: int, body: bytes, crc: int) -> bytes:
        if zlib.crc32(body) != crc:
            raise DamagedRecord(f"{self._damaged().message} (completion {seq})", seq)
        return body

    def _damaged(self) -> JournalError:
        text = f"a record in the journal {self._place} is damaged: its checksum does not fit"
        return JournalError(text, hint=WAY_OUT)


def checksum(row: AcceptedRow) -> int:
    """CRC-32 of the content of a row, and of its owner and task numbers."""
    belongs = zlib.crc32(row.owner.encode(), row.first ^ row.count)
    return zlib.crc32(row.body, zlib.crc32(row.routes, belongs))
