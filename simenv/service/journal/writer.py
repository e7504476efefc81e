"""Write the journal: SQLite in WAL mode, one row a message, one commit a pass of the event loop.

Levels of durability: `power` syncs every commit. `accepted` syncs commits that contain a submit or
an end that cannot be recomputed; a commit with reproducible results only is synced within
SYNC_DELAY_S, since after a power failure such a task is still queued and returns the same bits.
`process` never syncs and survives the death of any process.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from array import array
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from simenv.errors import JournalError
from simenv.model import Event, TaskState
from simenv.service import fault_injection
from simenv.service.journal import reader, tables
from simenv.service.telemetry.counters import DurationBuckets

JOURNAL_FORMAT = 2
SYNC_DELAY_S = 0.05
PAGE_BYTES = 4_096  # smallest addition of a row to the WAL
_SCHEMA = """
create table if not exists meta(key text primary key, value int) without rowid;
create table if not exists accepted(first integer primary key, count int, at real, key text,
  offset int, digest blob, routes blob, body blob, owner text, app text, crc int, sent int);
create index if not exists accepted_app on accepted(app, first) where app <> '';
create index if not exists accepted_key on accepted(owner, key, offset) where key not like '~%';
create table if not exists finished(seq integer primary key, count int,
  failed int, cancelled int, expired int, at real, body blob, crc int, owner text);
create index if not exists finished_owner on finished(owner, seq, count) where owner <> '';
create table if not exists sent(row integer primary key, tasks blob);
create table if not exists result(task integer primary key, seq int);
create table if not exists cursor(owner text, name text, seq int, primary key(owner, name))
  without rowid;
create table if not exists event(seq integer primary key, body blob, owner text);
drop index if exists event_audit;
create index if not exists event_owner on event(owner, seq);
create table if not exists file(name text primary key, task int, seq int, bytes int) without rowid;
create index if not exists file_seq on file(seq);
create table if not exists replaced(seq integer primary key, task int, state text);
create table if not exists pool(name text primary key, least int, most int, told_least int,
  told_most int) without rowid;
create table if not exists drained(node text primary key, reason text) without rowid;
create table if not exists policy_told(pool text primary key, body blob) without rowid;
"""
_ACCEPT = "insert into accepted values(?,?,?,?,?,?,?,?,?,?,?,?)"
_FINISH = "insert into finished values(?,?,?,?,?,?,?,?,?)"
_FILE = "insert or replace into file values(?,?,?,?)"
_EVENT = "insert or replace into event values(?,?,?)"
_CURSOR = "insert or replace into cursor values(?,?,?)"


class Journal:
    """The journal. Used from the loop's thread only. Nothing is stored until `commit`."""

    usage_merges = 0  # number of times that rows of usage were merged

    def __init__(self, path: Path, durability: str) -> None:
        self.path = path
        self._durability = durability
        if path.exists() and not path.stat().st_size:
            raise JournalError(
                f"the journal {path} is there and has no content: it was cut", hint=reader.WAY_OUT
            )
        try:
            self._db = sqlite3.connect(path, isolation_level=None, cached_statements=64)
            self._open()
        except sqlite3.Error as error:
            text = f"the journal {path} cannot be opened: {error}"
            raise JournalError(text, hint=f"is it damaged? {reader.WAY_OUT}") from error
        self.records = reader.Records(self._db, path)
        self.epoch = self._next_epoch()
        self.kept_bytes = self.records.bytes_by_owner()  # with pending rows
        self.written_bytes = 0  # since the start, approximately; decides when a checkpoint is due
        self.unsynced = False
        self.commit_times = DurationBuckets()
        self._accepted: list[reader.AcceptedRow] = []
        self._standings: list[tables.Statement] = []  # of accepted Submits
        self._finished: list[tuple[int | float | bytes | str, ...]] = []
        self._files: list[tuple[str, int, int, int]] = []
        self._sent = array("q")
        self._events: list[tuple[int, bytes, str]] = []
        self._cursors: list[tuple[str, str, int]] = []
        self._settings: list[tuple[str, tuple[Any, ...]]] = []
        self._force = False
        self.pending = False  # there are rows to commit

    def _open(self) -> None:
        run = self._db.execute
        run("pragma auto_vacuum=incremental")  # for a new file; an existing one keeps its mode
        run("pragma journal_mode=wal")
        run("pragma wal_autocheckpoint=0")
        run("pragma busy_timeout=5000")
        self._level = "OFF"
        self._synchronous("FULL" if self._durability != "process" else "NORMAL")
        result = run("pragma user_version").fetchone()[0]
        if result not in (0, JOURNAL_FORMAT):
            text = f"{self.path} has format {result}, this build reads {JOURNAL_FORMAT}"
            hint = "use the simenv version that wrote it, or move it and its copy away"
            raise JournalError(text, hint=hint)
        damaged = run("pragma quick_check(1)").fetchone()[0]
        if damaged != "ok":
            raise sqlite3.DatabaseError(damaged)
        self._db.executescript(_SCHEMA + "".join(table.schema for table in tables.TABLES))
        run(f"pragma user_version={JOURNAL_FORMAT}")

    def _next_epoch(self) -> int:
        epoch = 1 + self.records.meta("epoch")
        self._db.execute("insert or replace into meta values('epoch', ?)", (epoch,))
        return epoch

    def _synchronous(self, level: str) -> None:
        if level != self._level:
            self._db.execute(f"pragma synchronous={level}")
            self._level = level

    def accept(self, row: reader.AcceptedRow, standing: tables.Standing | None = None) -> None:
        """Record a Submit. `standing`: its account and class; None: it has neither."""
        self.kept_bytes[row.owner] = self.kept_bytes.get(row.owner, 0) + len(row.body)
        self._accepted.append(row)
        if standing is not None and (standing.account or standing.qos):
            values = msgspec.structs.astuple(standing)
            self._standings.append(tables.STANDING.put(row.first, *values))
        self.pending = True

    def sent(self, task_numbers: list[int]) -> None:
        """Record tasks that are sent in this pass, from which a restart counts their attempts."""
        self._sent.extend(task_numbers)
        self.pending = True

    def finish(
        self,
        first_seq: int,
        states: list[TaskState],
        body: bytes,
        owner: str = "",
        *,
        repeatable: bool = True,
        at_s: float = 0.0,
    ) -> None:
        """Record a packed Completed, whose completions are numbered from `first_seq`, and their
        states. All of its tasks are of one owner. `repeatable`: the engine returns the same results
        again. Other results, and ends other than DONE, force the commit to disk. `at_s`: time of
        day of the end; 0.0: now."""
        unsuccessful = [states.count(state) for state in reader.UNSUCCESSFUL]
        crc, at_s = zlib.crc32(body), at_s or time.time()
        self.kept_bytes[owner] = self.kept_bytes.get(owner, 0) + len(body)
        self._finished.append((first_seq, len(states), *unsuccessful, at_s, body, crc, owner))
        self._force = self._force or any(unsuccessful) or not repeatable
        self.pending = True

    def file(self, name: str, task: int, seq: int, size_bytes: int, owner: str = "") -> None:
        """Record the file with the large arrays of a task's completion."""
        self.kept_bytes[owner] = self.kept_bytes.get(owner, 0) + size_bytes
        self._files.append((name, task, seq, size_bytes))

    def event(self, event: Event, owner: str = "") -> None:
        """Record an event. `owner`: of the task that it is about; "": about no task."""
        self._events.append((event.seq, msgspec.msgpack.encode(event), owner))
        self.pending = True

    def cursor(self, owner: str, name: str, seq: int) -> None:
        """Record the position of a cursor; its commit is forced to disk like that of a submit."""
        self._cursors.append((owner, name, seq))
        self._force = self.pending = True

    def scaled(
        self,
        pool: str,
        min_workers: int,
        max_workers: int,
        configured_min: int,
        configured_max: int,
    ) -> None:
        """Record the size of a pool. `configured_min`, `configured_max`: its size in the
        configuration."""
        row = (pool, min_workers, max_workers, configured_min, configured_max)
        self._set("insert or replace into pool values(?,?,?,?,?)", row)

    def drained(self, node: str, reason: str) -> None:
        self._set("insert or replace into drained values(?,?)", (node, reason))

    def resumed(self, node: str) -> None:
        self._set("delete from drained where node = ?", (node,))

    def put(self, statements: list[tuple[str, tuple[Any, ...]]], *, forced: bool) -> None:
        """Add statements for other tables to the next commit. `forced`: force it to disk, because
        the change is or will be acknowledged."""
        if statements:
            self._settings += statements
            self.pending = True
        self._force = self._force or forced

    def _set(self, query: str, values: tuple[Any, ...]) -> None:
        self.put([(query, values)], forced=True)

    def finished_at(self, first_seq: int) -> bytes | None:
        """Return the packed Completed numbered from `first_seq`, also if it is not committed yet;
        None if there is none."""
        for row in self._finished:
            if row[0] == first_seq:
                body = row[6]
                assert isinstance(body, bytes)
                return body
        stored = self.records.finished_at(first_seq)
        return None if stored is None else stored[0]

    @property
    def has_pending_ends(self) -> bool:
        """True if ends of tasks wait for the next commit."""
        return bool(self._finished)

    def commit(self) -> None:
        """Store all pending rows in one transaction. If that fails, raises JournalError and drops
        the accepted submits, which were not acknowledged yet; all other rows stay pending for the
        next commit."""
        if not self.pending:
            return
        force = self._durability == "power" or bool(self._accepted) or self._force
        if self._durability != "process":
            self._synchronous("FULL" if force else "NORMAL")
        begin_ns = time.perf_counter_ns()
        try:
            if fault_injection.plan:
                fault_injection.hit("journal.commit.before")
            statements = self._statements()
            if len(statements) == 1:  # it is a transaction by itself: this saves two of three calls
                self._db.execute(*statements[0])
            else:
                self._db.execute("begin immediate")
                for query, values in statements:
                    self._db.execute(query, values)
                self._db.execute("commit")
        except (sqlite3.Error, OSError, OverflowError) as error:
            for row in self._accepted:
                self.kept_bytes[row.owner] -= len(row.body)
            self._accepted.clear()
            self._standings.clear()
            self.pending = any(self._waiting())
            raise self._failed(error) from error
        self.commit_times.add((time.perf_counter_ns() - begin_ns) // 1000)
        if fault_injection.plan:
            fault_injection.hit("journal.commit.after")
        self.written_bytes += _size(statements)
        self.unsynced = self._durability == "accepted" and not force
        for rows in self._waiting():
            if rows:
                del rows[:]
        self._force = self.pending = False

    def _waiting(self) -> tuple[MutableSequence[Any], ...]:
        """Return the lists of pending rows."""
        return (
            self._accepted,
            self._standings,
            self._sent,
            self._finished,
            self._files,
            self._events,
            self._cursors,
            self._settings,
        )

    def _statements(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Return the statements that store the pending rows."""
        results: list[tuple[str, tuple[Any, ...]]] = []
        if self._accepted:
            sent = set(self._sent)
            for row in self._accepted:
                # Mostly the first tasks are sent in the same pass: a column counts these, so that
                # no row of `sent` is needed.
                at_once = 0
                while at_once < row.count and row.first + at_once in sent:
                    at_once += 1
                sent.difference_update(range(row.first, row.first + at_once))
                values = msgspec.structs.astuple(row)  # in the order of the columns
                results.append((_ACCEPT, (*values, reader.checksum(row), at_once)))
            if len(sent) < len(self._sent):
                self._sent = array("q", sorted(sent))
        if self._sent:
            results.append(("insert into sent(tasks) values(?)", (self._sent.tobytes(),)))
        for query, rows in (
            (_FINISH, self._finished),
            (_FILE, self._files),
            (_EVENT, self._events),
            (_CURSOR, self._cursors),
        ):
            if rows:
                results += [(query, values) for values in rows]
        results += self._standings
        results += self._settings
        return results

    def sync(self) -> None:
        """Force earlier commits to disk. The WAL keeps their order: one forced commit suffices."""
        with self.transaction("FULL"):
            now = int(time.time())
            self._db.execute("insert or replace into meta values('synced', ?)", (now,))
        self.unsynced = False

    def index(self, pairs: list[tuple[int, int]], up_to: int) -> None:
        """Add (task, first_seq) pairs to the index; called when the loop is idle."""
        with self.transaction("NORMAL"):
            self._db.executemany("insert or replace into result values(?,?)", pairs)
            self._db.execute("insert or replace into meta values('indexed', ?)", (up_to,))

    def replace_sent(self, task_numbers: array[int]) -> None:
        """Replace the recorded attempts; called at start, with those of unfinished tasks."""
        with self.transaction("NORMAL"):
            self._db.execute("delete from sent")
            self._db.execute("update accepted set sent = 0 where sent > 0")
            if task_numbers:
                self._db.execute("insert into sent(tasks) values(?)", (task_numbers.tobytes(),))

    @contextmanager
    def transaction(self, level: str) -> Iterator[sqlite3.Connection]:
        """Run the block in one transaction. After an error of SQLite, rolls back and raises
        JournalError. `level`: as for `pragma synchronous`."""
        try:
            self._synchronous(level)
            self._db.execute("begin immediate")
            yield self._db
            self._db.execute("commit")
        except (sqlite3.Error, OverflowError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> JournalError:
        if self._db.in_transaction:
            self._db.execute("rollback")
        hint = "free space on its disk; tasks accepted before are safe, new ones are refused"
        return JournalError(f"the journal {self.path} cannot be written: {error}", hint=hint)

    def close(self) -> None:
        """Commit pending rows, and checkpoint the WAL into the file."""
        self.commit()
        self._synchronous("FULL")
        self._db.execute("pragma wal_checkpoint(truncate)")
        self._db.close()


def _size(statements: list[tuple[str, tuple[Any, ...]]]) -> int:
    size = len(statements) * PAGE_BYTES
    for _, values in statements:
        for value in values:
            if type(value) is bytes:
                size += len(value)
    return size
