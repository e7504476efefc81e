"""Write the journal: one row a message, one commit a pass of the event loop, in the database that
the configuration names.

Levels of durability: `power` syncs every commit. `accepted` syncs commits that contain a submit or
an end that cannot be recomputed; a commit with reproducible results only is synced within
SYNC_DELAY_S, since after a power failure such a task is still queued and returns the same bits.
`process` never syncs and survives the death of any process.
"""

from __future__ import annotations

import secrets
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
from simenv.service.journal import accepted, finished, marks, reader, rows, tables
from simenv.service.journal.database import (
    Connection,
    Database,
    LeadershipLost,
    LogNotSynced,
    PostgresPlace,
    SqliteDatabase,
    Statement,
    hint_of,
)
from simenv.service.journal.schema import (
    ACCEPTED,
    CURSOR,
    DRAINED,
    ENDED,
    EVENT,
    FILE,
    FINISHED,
    META,
    POOL,
    SENT,
)

SYNC_DELAY_S = 0.05
# Keys of `meta` with numbers that the mark has too. Those of other keys begin otherwise.
_COUNTERS = {tables.NEXT_ID: "reservation", tables.NEXT_JOB: "job", tables.NEXT_ENTRY: "entry"}
PAGE_BYTES = 4_096  # smallest addition of a row to the WAL


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
        for pending in self._lists():
            if pending:
                del pending[:]

    def numbers(self) -> dict[str, int]:
        """Return, for counters of the mark, the first number that is free after these rows."""
        found = {}
        if self.accepted:
            found["task"] = self.accepted[-1].first + self.accepted[-1].count
        if self.finished:
            seq, count = self.finished[-1][:2]
            found["completion"] = int(seq) + int(count)
        if self.events:
            found["event"] = self.events[-1][0] + 1
        for _, values in self.settings:
            if values and values[0] in _COUNTERS:
                found[_COUNTERS[values[0]]] = values[1]
        return found

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
                results.append((ACCEPTED.insert, ACCEPTED.row(*values, at_once)))
            if len(sent) < len(self.sent):
                self.sent = array("q", sorted(sent))
        if self.sent:
            results.append(SENT.append(self.sent.tobytes()))
        results += [(FINISHED.insert, FINISHED.row(*values)) for values in self.finished]
        results += [FILE.put(*values) for values in self.files]
        results += [EVENT.put(*values) for values in self.events]
        results += [CURSOR.put(*values) for values in self.cursors]
        results += self.standings
        results += self.settings
        return results


class Journal:
    """The journal. Used from the loop's thread only. Nothing is stored until `commit`."""

    usage_merges = 0  # number of times that rows of usage were merged

    def __init__(
        self,
        place: Path | PostgresPlace,
        durability: str,
        mark: Path | None = None,
        copies: Path | None = None,
    ) -> None:
        """Open or create the journal. `mark`: the file with the numbers that were given; None:
        there is none; `copies`: the path of its copy, but for its end. Raises JournalError, and as
        `open_database`."""
        self.place = place
        self.mark = None if mark is None else marks.IdMark(mark)
        self.is_new = True  # no service has used it before
        self.missing = range(0)  # tasks that were accepted, and that the journal does not know
        self._durability = durability
        self.database = open_database(place, durability)
        self._db = self.database.db
        try:
            self.database.create(tables.SCHEMA)
            self.records = reader.Records(self.database, place)
            self.is_new = self.records.row("select 1 from meta where key = 'epoch'") is None
            lineage = self.records.meta(marks.LINEAGE)
            if lineage:
                self._add_copy(copies, lineage)
            floors = dict.fromkeys(marks.COUNTERS, 0) if self.mark is None else self.mark.floors
            self.epoch = self.database.next_epoch(floors["epoch"])
            if not lineage:
                lineage = secrets.randbits(62) | 1
                self.database.store([META.put(marks.LINEAGE, lineage)], forced=False)
                self._add_copy(copies, lineage)
            self._number_on(floors)
            self.kept_bytes = self.records.bytes_by_owner()  # with pending rows
        except BaseException:
            self.abandon()  # it leads no more
            raise
        self.job_bytes = 0  # of jobs, which have bounds of their own
        self.written_bytes = 0  # since the start, approximately; decides when a checkpoint is due
        self.unsynced = False
        self.commit_times = DurationBuckets()
        self._rows = PendingRows()
        self._force = False
        self.pending = False  # there are rows to commit

    def _add_copy(self, copies: Path | None, lineage: int) -> None:
        if self.mark is not None and copies is not None:
            self.mark.add_copy(copies.with_name(f"{copies.name}-{lineage:x}.mark"))

    def _number_on(self, floors: dict[str, int]) -> None:
        """Let all numbers begin above those that were given, though the journal may be older than
        the service that gave them."""
        records = self.records
        # `reserved` numbers of another start of the machine may not have been given.
        known = records.next_task()
        if self.mark is not None and self.mark.is_exact and known < floors["task"]:
            self.missing = range(known, floors["task"])
        present = {
            "task": (rows.NEXT_TASK, known),
            "completion": (rows.LAST_SEQ, records.last_seq() + 1),
            "event": (rows.LAST_EVENT, records.last_event() + 1),
            "reservation": (tables.NEXT_ID, records.meta(tables.NEXT_ID)),
            "job": (tables.NEXT_JOB, records.meta(tables.NEXT_JOB)),
            "entry": (tables.NEXT_ENTRY, records.meta(tables.NEXT_ENTRY)),
        }
        if self.mark is not None and self.mark.margin:
            self.mark.is_exact = False
            floors = {name: each + self.mark.margin for name, (_, each) in present.items()}
        last = (rows.LAST_SEQ, rows.LAST_EVENT)  # of these `meta` has the last, not the next
        raised = [
            META.put(key, floors[name] - (key in last))
            for name, (key, following) in present.items()
            if floors[name] > following
        ]
        if raised and self.mark is not None and not self.mark.is_exact:
            raised.append(META.put(f"{rows.GONE}bound", 1))  # numbers below were not all given
        if raised:
            self.database.store(raised, forced=True)
        if self.mark is not None:
            free = {name: max(each, floors[name]) for name, (_, each) in present.items()}
            self.mark.note(free | {"epoch": self.epoch})

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
        at_s = at_s or time.time()
        self.kept_bytes[owner] = self.kept_bytes.get(owner, 0) + len(body)
        self._rows.finished.append((first_seq, len(states), *unsuccessful, at_s, body, owner))
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
        self.put([POOL.put(*row)], forced=True)

    def drained(self, node: str, reason: str) -> None:
        self.put([DRAINED.put(node, reason)], forced=True)

    def resumed(self, node: str) -> None:
        self.put([DRAINED.remove(node)], forced=True)

    def put(self, statements: list[Statement], *, forced: bool) -> None:
        """Add statements for other tables to the next commit. `forced`: force it to disk, because
        the change is or will be acknowledged."""
        if statements:
            self._rows.settings += statements
            self.pending = True
        self._force = self._force or forced

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
        if self.mark is not None:
            self.mark.note(self._rows.numbers())
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
            db.execute(*META.put("synced", now))
        self.unsynced = False

    def index(self, runs: list[tuple[int, int, int]], up_to: int) -> None:
        """Add runs of ended tasks to the index: first task, number of tasks, `first_seq` of their
        record; called when the loop is idle."""
        with self.transaction("NORMAL") as db:
            for run in runs:
                db.execute(*ENDED.put(*run))
            db.execute(*META.put("indexed", up_to))

    def replace_sent(self, task_numbers: array[int]) -> None:
        """Replace the recorded attempts; called at start, with those of unfinished tasks."""
        with self.transaction("NORMAL") as db:
            db.execute("delete from sent")
            db.execute("update accepted set sent = 0 where sent > 0")
            if task_numbers:
                db.execute(*SENT.append(task_numbers.tobytes()))

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
        if self.mark is not None:
            self.mark.close()

    def abandon(self) -> None:
        """Close without another word to the database, as if this process had died."""
        self.database.abandon()
        if self.mark is not None:
            self.mark.abandon()


def _size(statements: list[Statement]) -> int:
    size = len(statements) * PAGE_BYTES
    for _, values in statements:
        for value in values:
            if type(value) is bytes:
                size += len(value)
    return size
