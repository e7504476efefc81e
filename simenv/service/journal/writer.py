"""Write the journal: one row a message, one commit a pass of the event loop, in the database that
the configuration names.

Levels of durability: `power` syncs every commit. `accepted` syncs commits that contain a submit or
an end that cannot be recomputed; a commit with reproducible results only is synced within
SYNC_DELAY_S, since after a power failure such a task is still queued and returns the same bits.
`process` never syncs and survives the death of any process.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from simenv.errors import ConfigError, JournalError
from simenv.model import Event, TaskState
from simenv.service import fault_injection
from simenv.service.durations import DurationBuckets
from simenv.service.journal import accepted, finished, reader, tables
from simenv.service.journal.database import (
    Connection,
    Database,
    LeadershipLost,
    LogNotSynced,
    PostgresPlace,
    SqliteDatabase,
    Statement,
    checksum,
    hint_of,
)

SYNC_DELAY_S = 0.05
PAGE_BYTES = 4_096  # smallest addition of a row to the WAL
_SCHEMA = """
create table if not exists meta(key text primary key, value int) without rowid;
create table if not exists accepted(first integer primary key, count int, at real, key text,
  "offset" int, digest blob, routes blob, body blob, owner text, app text, crc int, sent int);
create index if not exists accepted_app on accepted(app, first) where app <> '';
create index if not exists accepted_key on accepted(owner, key, "offset") where key not like '~%';
create table if not exists finished(seq integer primary key, count int,
  failed int, cancelled int, expired int, at real, body blob, crc int, owner text);
create index if not exists finished_owner on finished(owner, seq, count) where owner <> '';
create table if not exists sent(row integer primary key, tasks blob);
create table if not exists ended(first integer primary key, count int, seq int);
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


def open_database(
    place: Path | PostgresPlace, durability: str = "process", *, read_only: bool = False
) -> Database:
    """Open the database of a journal. In PostgreSQL this makes the process the leader of the
    environment, unless `read_only`. Raises JournalError, ConfigError, and HeldElsewhere of
    `postgres` while another service leads."""
    if isinstance(place, PostgresPlace):
        if find_spec("psycopg") is None:
            text = f"the journal is in PostgreSQL ({place}), and psycopg is not installed"
            raise ConfigError(text, hint="pip install 'simenv[postgresql]'")
        from simenv.service.journal import postgres

        return postgres.open_postgres(place, durability, read_only=read_only)
    return SqliteDatabase(place, durability, read_only=read_only)


class PendingRows:
    """Rows that wait for the next commit."""

    def __init__(self) -> None:
        self.accepted: list[accepted.AcceptedRow] = []
        self.standings: list[Statement] = []  # of accepted Submits
        self.finished: list[tuple[int | float | bytes | str, ...]] = []
        self.files: list[tuple[str, int, int, int]] = []
        self.sent = array("q")
        self.events: list[tuple[int, bytes, str]] = []
        self.cursors: list[tuple[str, str, int]] = []
        self.settings: list[Statement] = []

    def _lists(self) -> tuple[MutableSequence[Any], ...]:
        return (
            self.accepted,
            self.standings,
            self.sent,
            self.finished,
            self.files,
            self.events,
            self.cursors,
            self.settings,
        )

    @property
    def has_any(self) -> bool:
        return any(self._lists())

    def clear(self) -> None:
        for rows in self._lists():
            if rows:
                del rows[:]

    def statements(self) -> list[Statement]:
        """Return the statements that store the rows."""
        results: list[Statement] = []
        if self.accepted:
            sent = set(self.sent)
            for row in self.accepted:
                # Mostly the first tasks are sent in the same pass: a column counts these, so that
                # no row of `sent` is needed.
                at_once = 0
                while at_once < row.count and row.first + at_once in sent:
                    at_once += 1
                sent.difference_update(range(row.first, row.first + at_once))
                values = msgspec.structs.astuple(row)  # in the order of the columns
                content = row.owner.encode(), row.routes, row.body
                crc = checksum(*content, start=row.first ^ row.count)
                results.append((_ACCEPT, (*values, crc, at_once)))
            if len(sent) < len(self.sent):
                self.sent = array("q", sorted(sent))
        if self.sent:
            results.append(("insert into sent(tasks) values(?)", (self.sent.tobytes(),)))
        for query, rows in (
            (_FINISH, self.finished),
            (_FILE, self.files),
            (_EVENT, self.events),
            (_CURSOR, self.cursors),
        ):
            if rows:
                results += [(query, values) for values in rows]
        results += self.standings
        results += self.settings
        return results


class Journal:
    """The journal. Used from the loop's thread only. Nothing is stored until `commit`."""

    usage_merges = 0  # number of times that rows of usage were merged

    def __init__(self, place: Path | PostgresPlace, durability: str) -> None:
        """Open or create the journal. Raises JournalError, and as `open_database`."""
        self.place = place
        self._durability = durability
        self.database = open_database(place, durability)
        self._db = self.database.db
        try:
            self.database.create(_SCHEMA + "".join(table.schema for table in tables.TABLES))
            self.records = reader.Records(self.database, place)
            self.epoch = self.database.next_epoch()
            self.kept_bytes = self.records.bytes_by_owner()  # with pending rows
        except BaseException:
            self.database.abandon()  # it leads no more
            raise
        self.job_bytes = 0  # of jobs, which have bounds of their own
        self.written_bytes = 0  # since the start, approximately; decides when a checkpoint is due
        self.unsynced = False
        self.commit_times = DurationBuckets()
        self._rows = PendingRows()
        self._force = False
        self.pending = False  # there are rows to commit

    def accept(self, row: accepted.AcceptedRow, standing: tables.Standing | None = None) -> None:
        """Record a Submit. `standing`: its account and class; None: it has neither."""
        self.kept_bytes[row.owner] = self.kept_bytes.get(row.owner, 0) + len(row.body)
        self._rows.accepted.append(row)
        if standing is not None and (standing.account or standing.qos):
            values = msgspec.structs.astuple(standing)
            self._rows.standings.append(tables.STANDING.put(row.first, *values))
        self.pending = True

    def sent(self, task_numbers: list[int]) -> None:
        """Record tasks that are sent in this pass, from which a restart counts their attempts."""
        self._rows.sent.extend(task_numbers)
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
        unsuccessful = [states.count(state) for state in finished.UNSUCCESSFUL]
        crc, at_s = checksum(body), at_s or time.time()
        self.kept_bytes[owner] = self.kept_bytes.get(owner, 0) + len(body)
        self._rows.finished.append((first_seq, len(states), *unsuccessful, at_s, body, crc, owner))
        self._force = self._force or any(unsuccessful) or not repeatable
        self.pending = True

    def file(self, name: str, task: int, seq: int, size_bytes: int, owner: str = "") -> None:
        """Record the file with the large arrays of a task's completion."""
        self.kept_bytes[owner] = self.kept_bytes.get(owner, 0) + size_bytes
        self._rows.files.append((name, task, seq, size_bytes))

    def event(self, event: Event, owner: str = "") -> None:
        """Record an event. `owner`: of the task that it is about; "": about no task."""
        self._rows.events.append((event.seq, msgspec.msgpack.encode(event), owner))
        self.pending = True

    def cursor(self, owner: str, name: str, seq: int) -> None:
        """Record the position of a cursor; its commit is forced to disk like that of a submit."""
        self._rows.cursors.append((owner, name, seq))
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

    def put(self, statements: list[Statement], *, forced: bool) -> None:
        """Add statements for other tables to the next commit. `forced`: force it to disk, because
        the change is or will be acknowledged."""
        if statements:
            self._rows.settings += statements
            self.pending = True
        self._force = self._force or forced

    def _set(self, query: str, values: tuple[Any, ...]) -> None:
        self.put([(query, values)], forced=True)

    def finished_at(self, first_seq: int) -> bytes | None:
        """Return the packed Completed numbered from `first_seq`, also if it is not committed yet;
        None if there is none."""
        for row in self._rows.finished:
            if row[0] == first_seq:
                body = row[6]
                assert isinstance(body, bytes)
                return body
        stored = self.records.finished.at(first_seq)
        return None if stored is None else stored[0]

    def check_leadership(self) -> None:
        """Raise LeadershipLost if another service leads the environment, or may."""
        if self.database.lost:
            raise LeadershipLost(f"{self.place}: {self.database.lost}")

    @property
    def forced_level(self) -> str:
        """Level of a `transaction` whose answer promises that it is stored."""
        return "NORMAL" if self._durability == "process" else "FULL"

    @property
    def has_pending_ends(self) -> bool:
        """True if ends of tasks wait for the next commit."""
        return bool(self._rows.finished)

    def commit(self) -> None:
        """Store all pending rows in one transaction. If that fails, raises JournalError and drops
        the accepted submits, which were not acknowledged yet; all other rows stay pending for the
        next commit."""
        if not self.pending:
            return
        force = self._durability == "power" or bool(self._rows.accepted) or self._force
        begin_ns = time.perf_counter_ns()
        try:
            if fault_injection.plan:
                fault_injection.hit("journal.commit.before")
            statements = self._rows.statements()
            self.database.store(statements, forced=force)
        except LogNotSynced as error:
            self._withdraw_accepted()
            raise self._failed(error) from error
        except LeadershipLost:
            raise
        except Exception as error:  # of the database, or a fault of the service
            self._drop_accepted()
            self.pending = self._force or self._rows.has_any
            raise self._failed(error) from error
        self.commit_times.add((time.perf_counter_ns() - begin_ns) // 1000)
        if fault_injection.plan:
            fault_injection.hit("journal.commit.after")
        self.written_bytes += _size(statements)
        self.unsynced = self._durability == "accepted" and not force
        self._rows.clear()
        self._force = self.pending = False

    def _drop_accepted(self) -> None:
        """Drop submits that will be refused."""
        for row in self._rows.accepted:
            self.kept_bytes[row.owner] -= len(row.body)
        self._rows.accepted.clear()
        self._rows.standings.clear()

    def _withdraw_accepted(self) -> None:
        """Remove the submits of a commit that may not survive a power failure: they will be
        refused. What else it stored counts as stored after the next commit. They are removed at
        once, so that no repetition of a Submit finds them, and with the next forced commit."""
        removals = [
            ("delete from accepted where first = ?", (row.first,)) for row in self._rows.accepted
        ]
        removals += [tables.STANDING.remove(values[0]) for _, values in self._rows.standings]
        self._drop_accepted()
        self._rows.clear()
        if removals:
            with suppress(*self.database.errors):
                self.database.store(removals, forced=False)
        self._rows.settings += removals
        self._force = self.pending = True

    def sync(self) -> None:
        """Force earlier commits to disk. The WAL keeps their order: one forced commit suffices."""
        with self.transaction("FULL") as db:
            now = int(time.time())
            db.execute("insert or replace into meta values('synced', ?)", (now,))
        self.unsynced = False

    def index(self, runs: list[tuple[int, int, int]], up_to: int) -> None:
        """Add runs of ended tasks to the index: first task, number of tasks, `first_seq` of their
        record; called when the loop is idle."""
        with self.transaction("NORMAL") as db:
            db.executemany("insert or replace into ended values(?,?,?)", runs)
            db.execute("insert or replace into meta values('indexed', ?)", (up_to,))

    def replace_sent(self, task_numbers: array[int]) -> None:
        """Replace the recorded attempts; called at start, with those of unfinished tasks."""
        with self.transaction("NORMAL") as db:
            db.execute("delete from sent")
            db.execute("update accepted set sent = 0 where sent > 0")
            if task_numbers:
                db.execute("insert into sent(tasks) values(?)", (task_numbers.tobytes(),))

    @contextmanager
    def transaction(self, level: str) -> Iterator[Connection]:
        """Run the block in one transaction. After an error of the database, rolls back and raises
        JournalError. `level`: FULL, to survive a power failure, or NORMAL."""
        try:
            with self.database.transaction(level) as db:
                yield db
        except self.database.errors as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> JournalError:
        text = f"the journal {self.place} cannot be written: {error}"
        return JournalError(text, hint=hint_of(error) or self.database.hint)

    def close(self) -> None:
        """Commit pending rows, and close the database."""
        self.commit()
        self.database.close()


def _size(statements: list[Statement]) -> int:
    size = len(statements) * PAGE_BYTES
    for _, values in statements:
        for value in values:
            if type(value) is bytes:
                size += len(value)
    return size
