"""The journal and history: SQLite in WAL mode, one row a message, one commit a pass of the loop.

Three levels of durability. `power`: every commit is fsynced. `accepted`: a commit that holds an
accept, or an end that cannot be computed again, is fsynced; one that holds only reproducible
results is not (after a power cut such a task is still queued and gives the same bits), but follows
within SYNC_DELAY_S. `process`: no fsync; survives the death of any process of ours.

Checkpoints run beside the loop, in a thread with a connection of its own (`Checkpointer`).
"""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import msgspec

from simenv.errors import JournalError
from simenv.model import Event, TaskState
from simenv.service import faults

JOURNAL_FORMAT = 1
SYNC_DELAY_S = 0.05
UNHAPPY = (TaskState.FAILED, TaskState.CANCELLED, TaskState.EXPIRED)
_SCHEMA = """
create table if not exists meta(key text primary key, value int) without rowid;
create table if not exists accepted(first integer primary key, count int, at real, key text,
  offset int, digest blob, routes blob, body blob);
create index if not exists accepted_key on accepted(key, offset) where key not like '~%';
create table if not exists finished(row integer primary key, first_seq int, count int,
  failed int, cancelled int, expired int, body blob);
create index if not exists finished_seq on finished(first_seq);
create table if not exists sent(row integer primary key, tasks blob);
create table if not exists result(task integer primary key, row int);
create table if not exists cursor(name text primary key, seq int) without rowid;
create table if not exists event(seq integer primary key, body blob);
"""


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


class Journal:
    """Used from the loop's thread only. Nothing is stored until `commit`."""

    def __init__(self, path: Path, durability: str) -> None:
        self.path = path
        self._durability = durability
        try:
            self._db = sqlite3.connect(path, isolation_level=None, cached_statements=64)
            self._open()
        except sqlite3.Error as error:
            raise JournalError(
                f"the journal {path} cannot be opened: {error}",
                hint="is it damaged? move it away to start empty, or restore a copy",
            ) from error
        self.epoch = self._next_epoch()
        self.commits = 0
        self.unsynced = False
        self._accepted: list[AcceptedRow] = []
        self._finished: list[tuple[int | bytes, ...]] = []
        self._sent = array("q")
        self._events: list[tuple[int, bytes]] = []
        self._cursors: list[tuple[str, int]] = []
        self._force = False
        self._next_row = 1 + (self._one("select max(row) from finished") or 0)

    def _open(self) -> None:
        run = self._db.execute
        run("pragma journal_mode=wal")
        run("pragma wal_autocheckpoint=0")
        run("pragma busy_timeout=5000")
        self._level = "OFF"
        self._synchronous("FULL" if self._durability != "process" else "NORMAL")
        found = run("pragma user_version").fetchone()[0]
        if found not in (0, JOURNAL_FORMAT):
            raise JournalError(
                f"{self.path} has format {found}, this build reads {JOURNAL_FORMAT}",
                hint="use the simenv version that wrote it, or move the file away",
            )
        damaged = run("pragma quick_check(1)").fetchone()[0]
        if damaged != "ok":
            raise sqlite3.DatabaseError(damaged)
        self._db.executescript(_SCHEMA)
        run(f"pragma user_version={JOURNAL_FORMAT}")

    def _next_epoch(self) -> int:
        epoch = 1 + (self._one("select value from meta where key='epoch'") or 0)
        self._db.execute("insert or replace into meta values('epoch', ?)", (epoch,))
        return epoch

    def _one(self, query: str, values: tuple[object, ...] = ()) -> int | None:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def _synchronous(self, level: str) -> None:
        if level != self._level:
            self._db.execute(f"pragma synchronous={level}")
            self._level = level

    # --- writing -------------------------------------------------------------------------------

    def accept(self, row: AcceptedRow) -> None:
        self._accepted.append(row)

    def sent(self, numbers: list[int]) -> None:
        """Tasks that go out in this pass: the attempt count after a restart is made from these."""
        self._sent.extend(numbers)

    def finish(self, first_seq: int, states: list[TaskState], body: bytes) -> int:
        """A packed Completed and the states in it; returns its row.

        Anything but DONE cannot be computed again, so it forces the commit to the disk.
        """
        row = self._next_row
        self._next_row += 1
        unhappy = [states.count(state) for state in UNHAPPY]
        self._finished.append((row, first_seq, len(states), *unhappy, body))
        self._force = self._force or any(unhappy)
        return row

    def event(self, event: Event) -> None:
        self._events.append((event.seq, msgspec.msgpack.encode(event)))

    def cursor(self, name: str, seq: int) -> None:
        """A promise to whoever acknowledged: stored like an accept."""
        self._cursors.append((name, seq))
        self._force = True

    @property
    def pending(self) -> bool:
        return bool(self._accepted or self._finished or self._sent or self._events or self._cursors)

    def commit(self) -> None:
        """Store all that is pending, as one transaction.

        JournalError if that fails: then the accepts are dropped (nobody heard of them), everything
        else stays pending and is tried again with the next commit.
        """
        if not self.pending:
            return
        force = self._durability == "power" or bool(self._accepted) or self._force
        if self._durability != "process":
            self._synchronous("FULL" if force else "NORMAL")
        try:
            faults.hit("journal.commit.before")
            self._write()
            faults.hit("journal.commit.after")
        except (sqlite3.Error, OSError) as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            self._accepted.clear()
            raise JournalError(
                f"the journal {self.path} cannot be written: {error}",
                hint="free space on its disk; tasks accepted before are safe, new ones are refused",
            ) from error
        self.commits += 1
        self.unsynced = self._durability == "accepted" and not force
        self._accepted.clear()
        self._finished.clear()
        self._events.clear()
        self._cursors.clear()
        del self._sent[:]
        self._force = False

    def _write(self) -> None:
        db = self._db
        db.execute("begin immediate")
        if self._accepted:
            rows = [msgspec.structs.astuple(row) for row in self._accepted]
            db.executemany("insert into accepted values(?,?,?,?,?,?,?,?)", rows)
        if self._sent:
            db.execute("insert into sent(tasks) values(?)", (self._sent.tobytes(),))
        if self._finished:
            db.executemany("insert into finished values(?,?,?,?,?,?,?)", self._finished)
        if self._events:
            db.executemany("insert or replace into event values(?,?)", self._events)
        if self._cursors:
            db.executemany("insert or replace into cursor values(?,?)", self._cursors)
        db.execute("commit")

    def sync(self) -> None:
        """Bring earlier unforced commits to the disk: WAL keeps the order, one write does it."""
        self._synchronous("FULL")
        now = int(time.time())
        self._db.execute("insert or replace into meta values('synced', ?)", (now,))
        self.unsynced = False

    # --- reading -------------------------------------------------------------------------------

    def accepted(self) -> Iterator[AcceptedRow]:
        for row in self._db.execute("select * from accepted order by first"):
            yield AcceptedRow(*row)

    def count_accepted(self) -> int:
        return self._one("select count(*) from accepted") or 0

    def indexed_tasks(self) -> Iterator[int]:
        return (row[0] for row in self._db.execute("select task from result"))

    def accepted_of(self, task: int) -> AcceptedRow | None:
        """The Submit that brought a task."""
        query = "select * from accepted where first <= ? order by first desc limit 1"
        row = self._db.execute(query, (task,)).fetchone()
        return AcceptedRow(*row) if row is not None and task < row[0] + row[1] else None

    def accepted_by_key(self, key: str, offset: int) -> tuple[int, int, bytes] | None:
        """(first id, count, digest) of the Submit stored under a user's key."""
        query = (
            "select first, count, digest from accepted"
            " where key = ? and offset = ? and key not like '~%'"
        )
        found: tuple[int, int, bytes] | None = self._db.execute(query, (key, offset)).fetchone()
        return found

    def finished(self, after_row: int = 0) -> Iterator[tuple[int, bytes]]:
        """(row, packed Completed) in order."""
        query = "select row, body from finished where row > ? order by row"
        return iter(self._db.execute(query, (after_row,)))

    def finished_row(self, row: int) -> bytes | None:
        found = self._db.execute("select body from finished where row = ?", (row,)).fetchone()
        return None if found is None else found[0]

    def finished_since(self, seq: int, limit: int) -> list[bytes]:
        """Packed Completed messages that hold completions numbered above `seq`, in order."""
        query = (
            "select body from finished where first_seq >= coalesce("
            "(select max(first_seq) from finished where first_seq <= ?1 + 1), 0)"
            " order by first_seq limit ?2"
        )
        return [row[0] for row in self._db.execute(query, (seq, limit))]

    def newest_finished(self, limit: int) -> list[bytes]:
        query = "select body from finished order by row desc limit ?"
        return [row[0] for row in self._db.execute(query, (limit,))]

    def ended(self) -> dict[TaskState, int]:
        """How many tasks ended in which state, all starts together."""
        query = "select sum(count), sum(failed), sum(cancelled), sum(expired) from finished"
        total, *others = (number or 0 for number in self._db.execute(query).fetchone())
        counts = dict(zip(UNHAPPY, others, strict=True))
        counts[TaskState.DONE] = total - sum(others)
        return counts

    def last_seq(self) -> int:
        return self._one("select max(first_seq + count - 1) from finished") or 0

    def next_task(self) -> int:
        return self._one("select max(first + count) from accepted") or 1

    def row_of(self, task: int) -> int | None:
        """The finished row of a task, as far as indexed."""
        return self._one("select row from result where task = ?", (task,))

    def indexed_row(self) -> int:
        """Everything up to this row of `finished` is in the index."""
        return self._one("select value from meta where key='indexed'") or 0

    def index(self, pairs: list[tuple[int, int]], up_to_row: int) -> None:
        """Add (task, row) pairs to the index: called when the loop is idle."""
        self._synchronous("NORMAL")
        self._db.execute("begin immediate")
        self._db.executemany("insert or replace into result values(?,?)", pairs)
        self._db.execute("insert or replace into meta values('indexed', ?)", (up_to_row,))
        self._db.execute("commit")

    def take_sent(self) -> array[int]:
        """All task numbers ever sent out and not yet settled, one entry an attempt."""
        numbers = array("q")
        for (blob,) in self._db.execute("select tasks from sent order by row"):
            numbers.frombytes(blob)
        return numbers

    def settle_sent(self, numbers: array[int]) -> None:
        """Keep only these: called at start, with the attempts of unfinished tasks."""
        self._db.execute("begin immediate")
        self._db.execute("delete from sent")
        if numbers:
            self._db.execute("insert into sent(tasks) values(?)", (numbers.tobytes(),))
        self._db.execute("commit")

    def events(self, since: int, limit: int) -> list[Event]:
        query = "select body from event where seq > ? order by seq limit ?"
        rows = self._db.execute(query, (since, limit))
        return [msgspec.msgpack.decode(row[0], type=Event) for row in rows]

    def last_event(self) -> int:
        return self._one("select max(seq) from event") or 0

    def cursor_at(self, name: str) -> int:
        return self._one("select seq from cursor where name = ?", (name,)) or 0

    def slowest_cursor(self) -> int | None:
        return self._one("select min(seq) from cursor")

    def close(self) -> None:
        """Store what is pending and fold the WAL into the file."""
        self.commit()
        self._synchronous("FULL")
        self._db.execute("pragma wal_checkpoint(truncate)")
        self._db.close()
