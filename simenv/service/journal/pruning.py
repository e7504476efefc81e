"""Find, measure and remove old records of the journal, each in a short transaction.

Invariant: ids and completion numbers are never used twice, and the counts of ended tasks continue
from their previous values.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from simenv.errors import JournalError, ProtocolError
from simenv.model import TaskState
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.service.journal import finished, rows, tables, writer
from simenv.service.journal.schema import FILE, META
from simenv.wire import codec
from simenv.wire.messages import client as messages, queries

MAX_RECORDS = 25  # in one transaction
MAX_BYTES = 2**20
MAX_TASKS = 100
MAX_FILES = 20
FILES_PER_QUERY = 200  # examined in one query for the files of one owner
# When the task of a file ended; not in the order of completions where a clock was set back.
_ENDED = (
    "coalesce((select at from finished f where f.seq <= file.seq order by f.seq desc limit 1), 0)"
)
ATTEMPT_ROWS = 200
USAGE_ROWS = 200


class EndedRecords(msgspec.Struct, frozen=True):
    """One record of ended tasks."""

    first_seq: int
    count: int
    at: float
    body_bytes: int
    states: tuple[str, ...]  # of its completions, without those that a later run replaced
    tasks: tuple[int, ...]  # of the same completions
    files: tuple[str, ...]
    file_bytes: int
    owner: str = ""


class ResultsFileEntry(msgspec.Struct, frozen=True):
    """One file of results."""

    name: str
    task: int
    seq: int
    size_bytes: int
    owner: str = ""


class JournalPruner:
    """Search and removal of old records. Used from the loop's thread, through the journal's own
    connection."""

    def __init__(self, journal: writer.Journal, state: SchedulerState) -> None:
        self._journal = journal
        self._state = state

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return list(self._journal.records.rows(query, *values))

    def _number(self, query: str, *values: object) -> int:
        return self._rows(query, *values)[0][0] or 0

    def total_bytes(self) -> int:
        """Bytes of result files, and used bytes of the journal's file."""
        return self._file_bytes() + self.journal_bytes()

    def _file_bytes(self) -> int:
        return self._number("select sum(bytes) from file")

    def journal_bytes(self) -> int:
        """Used bytes of the journal's file without jobs; those of stored messages where they are
        not known."""
        used = self._journal.database.sizes()[1]
        if used is None:
            return sum(self._journal.kept_bytes.values()) - self._file_bytes()
        return used - self._journal.job_bytes

    def is_due(self, before_s: float, max_bytes: int) -> bool:
        """Return whether the oldest record ended before `before_s`, or more than `max_bytes` are
        stored."""
        oldest = self._rows("select at from finished order by seq limit 1")
        return bool(oldest) and (oldest[0][0] < before_s or self.total_bytes() > max_bytes)

    def stored_data(self) -> queries.RetainedData:
        """Return the present amounts of stored data."""
        tasks = self._number("select cast(sum(count) as bigint) from ended")
        files = self._rows("select count(*), sum(bytes) from file where bytes > 0")[0]
        size = self._journal.database.sizes()[0]
        oldest = self._rows("select at from finished order by seq limit 1")
        return queries.RetainedData(
            tasks, files[0], files[1] or 0, size, 0, oldest[0][0] if oldest else 0.0
        )

    def _first_since(self, at_s: float) -> int:
        """Return the number of the first completion that ended at `at_s` or later, by bisection."""
        low, high = 0, self._journal.records.last_seq() + 1
        while low < high:
            middle = (low + high) // 2
            query = "select seq, at from finished where seq <= ? order by seq desc limit 1"
            rows = self._rows(query, middle)
            if rows and rows[0][1] >= at_s:
                high = rows[0][0]
            else:
                low = middle + 1
        return low

    def files_size(self, before_s: float) -> tuple[int, int]:
        """Return the number and the bytes of the files of tasks that ended before `before_s`."""
        query = (
            f"select count(*), sum(bytes) from file where bytes > 0 and seq < ? and {_ENDED} < ?"
        )
        files, size = self._rows(query, self._first_since(before_s), before_s)[0]
        return files, int(size or 0)

    def files_before(self, before_s: float, after_seq: int) -> list[ResultsFileEntry]:
        """Return some of the oldest files of tasks that ended before `before_s`, above a completion
        number."""
        query = (
            "select name, task, seq, bytes from file where seq > ? and seq < ? and bytes > 0"
            f" and {_ENDED} < ? order by seq limit ?"
        )
        rows = self._rows(query, after_seq, self._first_since(before_s), before_s, FILES_PER_QUERY)
        return [ResultsFileEntry(*row) for row in rows]

    def bytes_by_owner(self) -> dict[str, int]:
        """Bytes of submits and results by owner, in files and rows of the journal."""
        return {owner: size for owner, size in self._journal.kept_bytes.items() if size > 0}

    def oldest_files(
        self, owner: str, wanted_bytes: int, after_seq: int
    ) -> tuple[list[ResultsFileEntry], int]:
        """Return the oldest files of an owner above a completion number, up to `wanted_bytes` or
        the size of one transaction, and the last examined number (0: there are no more)."""
        of = "(select owner from finished f where f.seq <= file.seq order by f.seq desc limit 1)"
        query = (
            f"select name, task, seq, bytes, {of} from file where seq > ? and bytes > 0"
            " order by seq limit ?"
        )
        results: list[ResultsFileEntry] = []
        rows = self._rows(query, after_seq, FILES_PER_QUERY)
        for name, task, seq, size, whose in rows:
            if (whose or "") == owner:
                if wanted_bytes <= 0 or len(results) == MAX_FILES:
                    return results, after_seq
                results.append(ResultsFileEntry(name, task, seq, size, owner))
                wanted_bytes -= size
            after_seq = seq
        return results, after_seq if rows else 0

    def too_old(self, after_seq: int, before_s: float) -> list[EndedRecords]:
        """Return some of the oldest records above a completion number that ended before
        `before_s`; at most those of one transaction."""
        query = "select seq, count, at, length(body), owner from finished where seq > ?"
        rows = self._rows(f"{query} order by seq limit ?", after_seq, MAX_RECORDS)
        return self._first_records(row for row in rows if row[2] < before_s)

    def oldest_of(self, owner: str, wanted_bytes: int, after_seq: int) -> list[EndedRecords]:
        """Return the oldest records of an owner above a completion number, up to `wanted_bytes` or
        the size of one transaction."""
        query = "select seq, count, at, length(body), owner from finished where owner = ?"
        indexed = " and owner <> ''" if owner else ""
        query += f"{indexed} and seq > ? order by seq limit ?"
        results: list[EndedRecords] = []
        for record in self._first_records(self._rows(query, owner, after_seq, MAX_RECORDS)):
            if wanted_bytes <= 0:
                break
            results.append(record)
            wanted_bytes -= record.body_bytes + record.file_bytes
        return results

    def _first_records(self, rows: Iterable[tuple[Any, ...]]) -> list[EndedRecords]:
        """Return the first records of these rows, as many as fit into one transaction."""
        results: list[EndedRecords] = []
        total_bytes = tasks = 0
        for seq, count, at, size, owner in rows:
            total_bytes, tasks = total_bytes + size, tasks + count
            if results and (total_bytes > MAX_BYTES or tasks > MAX_TASKS):
                break
            results.append(self._opened(seq, count, at, size, owner))
        return results

    def _opened(self, seq: int, count: int, at: float, size: int, owner: str) -> EndedRecords:
        states, tasks = [], []
        between = (seq, seq + count - 1)
        replaced = {
            row[0]
            for row in self._rows("select seq from replaced where seq between ? and ?", *between)
        }
        try:
            stored = self._journal.records.finished.at(seq)
            completed = codec.to_client(stored[0]) if stored is not None else None
            assert isinstance(completed, messages.Completed)
            for number, completion in enumerate(completed.results, seq):
                if number not in replaced:
                    states.append(str(messages.STATES[completion.state]))
                    tasks.append(completion.task)
        except (JournalError, ProtocolError):  # damaged: all of it can be removed
            tasks = list(self._journal.records.finished.tasks_at(seq))
            states = [str(TaskState.DONE)] * len(tasks)
        query = "select name, bytes from file where seq between ? and ? and bytes > 0"
        files = self._rows(query, *between)
        names = tuple(name for name, _ in files)
        size_of_files = sum(size for _, size in files)
        fields = (tuple(states), tuple(tasks), names, size_of_files)
        return EndedRecords(seq, count, at, size, *fields, owner)

    def measure(self, old: EndedRecords) -> queries.RetainedData:
        """Return the amounts of data that the removal of a record frees."""
        slowest = self._journal.records.slowest_cursor()
        last_seq = old.first_seq + old.count - 1
        unread = 0 if slowest is None else max(0, min(old.count, last_seq - slowest))
        return queries.RetainedData(
            len(old.tasks), len(old.files), old.file_bytes, old.body_bytes, unread, old.at
        )

    def forget_files(self, files: list[ResultsFileEntry]) -> None:
        """Mark files as removed, and with them the results of their tasks. Raises JournalError if
        that is not stored."""
        with self._journal.transaction("NORMAL") as db:
            for file in files:
                db.execute("update file set bytes = 0 where name = ?", (file.name,))
                FILE.seal(db, file.name)
        for file in files:
            self._journal.kept_bytes[file.owner] -= file.size_bytes

    def forget(self, records: list[EndedRecords]) -> None:
        """Remove records, and Submits whose tasks all have no record left. Raises JournalError if
        that is not stored."""
        reader = self._journal.records
        last_seq, next_task = reader.last_seq(), reader.next_task()
        removed: dict[str, int] = {}
        submits: list[tuple[str, int]] = []  # owner and bytes of each removed Submit
        for record in records:
            for state in record.states:
                removed[state] = removed.get(state, 0) + 1
        counters = {rows.LAST_SEQ: last_seq, rows.NEXT_TASK: next_task}
        counters |= {
            rows.GONE + state: reader.meta(rows.GONE + state) + n for state, n in removed.items()
        }
        tasks = [task for record in records for task in record.tasks]
        with self._journal.transaction("NORMAL") as db:
            for key, value in counters.items():
                db.execute(*META.put(key, value))
            for record in records:
                last = record.first_seq + record.count - 1
                db.execute("delete from finished where seq = ?", (record.first_seq,))
                between = (record.first_seq, last)
                db.execute("delete from replaced where seq between ? and ?", between)
                db.execute("delete from file where seq between ? and ?", between)
                drop = "delete from ended where first >= ? and first < ? and seq = ?"
                runs = finished.runs(sorted(record.tasks))
                ends = [(first, first + count, record.first_seq) for first, count in runs]
                db.executemany(drop, ends)
            for first, count in self._submits_of(tasks):
                used = "select first + count from ended where first < ? order by first desc limit 1"
                last = db.execute(used, (first + count,)).fetchone()
                if last is None or last[0] <= first:
                    query = "select owner, length(body) from accepted where first = ?"
                    submits += db.execute(query, (first,)).fetchall()
                    db.execute("delete from accepted where first = ?", (first,))
                    db.execute(*tables.STANDING.remove(first))
        for record in records:
            self._journal.kept_bytes[record.owner] -= record.body_bytes + record.file_bytes
        for owner, size in submits:
            self._journal.kept_bytes[owner] -= size

    def _submits_of(self, tasks: list[int]) -> list[tuple[int, int]]:
        """Return (first id, count) of the Submits of these tasks without unfinished tasks."""
        results: list[tuple[int, int]] = []
        end = 0
        query = "select first, count from accepted where first <= ? order by first desc limit 1"
        for task in sorted(tasks):
            if task < end:
                continue
            for first, count in self._rows(query, task):
                end = first + count
                results.append((first, count))
        waiting = self._state.tasks
        return [
            (first, count)
            for first, count in results
            if not any(number in waiting for number in range(first, first + count))
        ]

    def forget_attempts(self) -> bool:
        """Remove some rows of sent attempts if all tasks have ended. Returns whether there may be
        more rows."""
        if self._state.tasks:
            return False
        query = "delete from sent where row in (select row from sent order by row limit ?)"
        with self._journal.transaction("NORMAL") as db:
            return db.execute(query, (ATTEMPT_ROWS,)).rowcount == ATTEMPT_ROWS

    def merge_usage(self) -> bool:
        """Merge some sums of old hours into days, or of old days into months. Returns whether there
        may be more."""
        hour = int(time.time()) // 3_600
        statements = tables.merge_usage(self._journal.records, hour, USAGE_ROWS)
        if statements:
            with self._journal.transaction("NORMAL") as db:
                for statement in statements:
                    db.execute(*statement)
            self._journal.usage_merges += 1
        return bool(statements)

    def vacuum(self, pages: int, spare: int) -> bool:
        """Return up to `pages` free pages to the file system if more than `spare` are free. Returns
        whether it did."""
        return self._journal.database.release_pages(pages, spare)
