"""Read the journal: submissions, ends, events, cursors. Errors of the database are raised as
JournalError."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from simenv.model import Event
from simenv.service.journal.accepted import AcceptedRecords
from simenv.service.journal.database import Database, PostgresPlace
from simenv.service.journal.finished import FinishedRecords
from simenv.service.journal.rows import LAST_EVENT, LAST_SEQ, NEXT_TASK, JournalRows
from simenv.service.journal.schema import ACCEPTED, EVENT, FINISHED

AUDIT = "@audit"  # the owner of events of the audit log: no key has that name


class Records(JournalRows):
    """All that the journal stores."""

    def __init__(self, database: Database, place: Path | PostgresPlace) -> None:
        super().__init__(database, place)
        self.accepted = AcceptedRecords(self)
        self.finished = FinishedRecords(self)

    def last_seq(self) -> int:
        """Return the number of the newest completion, also if it has been removed."""
        row = self.newest(FINISHED)
        return max(0 if row is None else row[0] + row[1] - 1, self.meta(LAST_SEQ))

    def next_task(self) -> int:
        """Return the first task id that was never used."""
        row = self.newest(ACCEPTED)
        return max(1 if row is None else row[0] + row[1], self.meta(NEXT_TASK))

    def file_of(self, name: str) -> tuple[int, int] | None:
        """Return the task and the bytes of a result file (0 bytes: it was removed); None if no task
        has it."""
        results: tuple[int, int] | None = self.row(
            "select task, bytes from file where name = ?", name
        )
        return results

    def file_at(self, seq: int) -> tuple[str, int] | None:
        """Return the name and the bytes (0: it was removed) of the result file of a completion;
        None if it has none."""
        results: tuple[str, int] | None = self.row(
            "select name, bytes from file where seq = ?", seq
        )
        return results

    def files(self) -> Iterator[str]:
        """Yield the names of all result files that were not removed."""
        return (row[0] for row in self.rows("select name from file where bytes > 0"))

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
        row = self.newest(EVENT)
        return max(0 if row is None else row[0], self.meta(LAST_EVENT))

    def cursor_at(self, owner: str, name: str) -> int:
        return self.scalar("select seq from cursor where owner = ? and name = ?", owner, name) or 0

    def cursors_of(self, owner: str) -> int:
        return self.scalar("select count(*) from cursor where owner = ?", owner) or 0

    def slowest_cursor(self) -> int | None:
        return self.scalar("select min(seq) from cursor")

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
