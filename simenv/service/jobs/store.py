"""Jobs of all owners, with their data, in the journal.

Invariants: what was answered is on the disk. A job is changed only by who knows its last version,
and gets data only while it is open. Jobs are bounded: an owner has at most OWNER_JOBS, OWNER_OPEN
of them open, as many open sessions, and OWNER_BYTES; all owners together have ALL_BYTES. The oldest
ended ones go for new ones, all of them `keep_days` after their end, and open ones after twice that
time. The number of a job, under which its data lie, is never used again. Used from the loop's
thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time
from typing import Any, NamedTuple

import msgspec

from simenv.errors import (
    KeyConflictError,
    NotAllowedError,
    NotFoundError,
    OptionError,
    QueueFullError,
    SimenvError,
)
from simenv.model.jobs import BLOB_PART_BYTES, MAX_METADATA_BYTES, JobRecord, JobTask
from simenv.service.journal.database import Connection
from simenv.service.journal.tables import (
    COUNT_ORPHANS,
    DROP_ORPHANS,
    JOB,
    JOB_BLOB,
    NEXT_JOB,
    next_job_statement,
)
from simenv.service.journal.writer import PAGE_BYTES as ROW_BYTES, Journal
from simenv.service.queries.query_queue import ReplySteps
from simenv.wire import codec
from simenv.wire.messages import jobs as m
from simenv.wire.rights import Identity

OWNER_JOBS = 10_000  # ended ones included
OWNER_OPEN = 1_000
OWNER_BYTES = 2**30  # metadata and data of one owner's jobs
ALL_BYTES = 8 * 2**30
SESSION = "session"  # the kind of a group of jobs, which has no tasks of its own
DRAFT_S = 3_600.0  # for which a job stays whose data are not complete
END_BYTES = MAX_METADATA_BYTES  # for which the end of a job without data needs no room
MAX_OPEN_S = 366 * 86_400.0  # from now to an end that is known: of the longest session, and a day
PRUNE_S = 60.0
PRUNED = 64  # old jobs that go with one new job,
PRUNED_BYTES = 64 * BLOB_PART_BYTES  # and about how much of their data: the loop has other work
LISTED_ROWS = 128  # between two looks at the clock
PAGE_BYTES = 4 * 2**20  # of a listing, unless one job alone is larger
_EVER_S = 1e12

_KINDS = {True: f"kind = '{SESSION}'", False: f"kind <> '{SESSION}'"}
_LABELS = msgspec.msgpack.Decoder(tuple[str, ...])
_TASKS = msgspec.msgpack.Decoder(tuple[JobTask, ...])
_READ = (
    "select id, kind, version, created, ended, labels, tasks, metadata, reservation from job"
    " where number = ? and owner = ?"
)
_encode = msgspec.msgpack.encode


class _Row(NamedTuple):
    """A stored job. `head_bytes`: of its tasks and metadata."""

    number: int  # jobs are numbered in the order of their creation
    version: int
    ended_s: float
    total_bytes: int
    head_bytes: int
    reservation: int


class JobStore:
    """See the module."""

    def __init__(
        self,
        journal: Journal,
        keep_days: float,
        disk_refusal: Callable[[str], SimenvError | None] = lambda _: None,
    ) -> None:
        """`disk_refusal`: returns the error if the disk is too full for new data of an owner."""
        self._journal = journal
        self._rows = journal.records.rows
        self._keep_s = keep_days * 86_400.0
        self._disk_refusal = disk_refusal
        self._charges: list[tuple[str, int, int]] = []  # of the transaction
        self._pruned_s = 0.0
        if self._number(COUNT_ORPHANS):
            with journal.transaction(journal.forced_level) as db:
                db.execute(DROP_ORPHANS)
        query = "select owner, count(*), sum(bytes) from job group by owner"
        self._use = {owner: [count, int(size)] for owner, count, size in self._rows(query)}
        journal.job_bytes = sum(size for _, size in self._use.values())

    def put(self, sender: Identity, message: m.PutJob) -> m.Jobs:
        """Store a job that is new, or changed. Raises NotFoundError, KeyConflictError if it is
        stored with another version or has ended and would be open or get data, OptionError for an
        end after MAX_OPEN_S, NotAllowedError if the sender's rights are bound to another
        reservation than the job's, QueueFullError above the limits."""
        owner, job = sender.owner, message.job
        now_s = time()
        row = self._find(owner, job.id)
        if row is None and job.version:
            raise _unknown(job.id)
        if row is not None:
            stored = self._read(row.number, owner)
            if row.version != job.version:
                if self._is_repeated(row, stored, message):
                    return m.Jobs(message.request, [stored])  # its sender did not get the answer
                text = f"job {job.id} has changed: it has version {row.version}"
                raise KeyConflictError(f"{text}, not {job.version}", hint="read it again")
            _check_change(sender, row, stored, message, now_s)
        if job.ended_s > now_s + MAX_OPEN_S and (row is None or job.ended_s != row.ended_s):
            expected = f"{now_s + MAX_OPEN_S:.0f} at most"
            raise OptionError(option="ended_s", value=job.ended_s, expected=expected)
        labels, tasks = _encode(job.labels), _encode(job.tasks)
        head_bytes = len(tasks) + len(job.metadata)
        added = head_bytes - (0 if row is None else row.head_bytes)
        packed = labels, tasks, job.metadata
        with self._transaction(head_bytes) as db:
            if row is None:
                number = self._create(db, owner, job, now_s)
                columns = owner, job.id, job.kind, 1, now_s, job.ended_s, 0
                db.execute(*JOB.put(number, *columns, *packed, sender.reservation))
                self._charge(owner, 1, 0)
            else:
                number = row.number
                for name in message.removed:
                    self._remove_blob(db, owner, number, name)
                changed = job.kind, job.version + 1, job.ended_s, *packed, number
                db.execute(  # `_add_bytes` follows, which seals it
                    "update job set kind = ?, version = ?, ended = ?, labels = ?, tasks = ?,"
                    " metadata = ? where number = ?",
                    changed,
                )
            ends = row is not None and not row.ended_s and job.ended_s and not message.blobs
            if added > (END_BYTES if ends else 0):
                self._make_room(db, owner, number, added)
            self._add_bytes(db, owner, number, added)
            for name, data in message.blobs.items():
                self._add(db, owner, number, name, data)
        return m.Jobs(message.request, [self._read(number, owner)])

    def _is_repeated(self, row: _Row, stored: JobRecord, message: m.PutJob) -> bool:
        """Return whether the last change of a job was the one of this message."""
        job = message.job
        if not job.version:
            return row.version == 1 and stored.metadata == job.metadata
        as_stored = msgspec.structs.replace(
            job, version=row.version, created_s=stored.created_s, reservation=stored.reservation
        )
        if row.version != job.version + 1 or as_stored != stored:
            return False
        query = "select data from job_blob where job = ? and name = ? order by start desc limit 1"
        names = {*message.blobs, *message.removed}
        parts = {
            name: bytes(data) for name in names for (data,) in self._rows(query, row.number, name)
        }
        return parts == message.blobs

    def _create(self, db: Connection, owner: str, job: JobRecord, now_s: float) -> int:
        """Make room for a new job; return its number. Raises QueueFullError, and what
        `disk_refusal` returns."""
        if (refusal := self._disk_refusal(owner)) is not None:
            raise refusal
        self._drop_all(db, self._too_old(now_s))
        is_session = job.kind == SESSION
        query = f"select count(*) from job where owner = ? and {_KINDS[is_session]}"
        if self._number(f"{query} and (ended = 0 or ended > ?)", owner, now_s) >= OWNER_OPEN:
            if is_session:
                text = f"{OWNER_OPEN} sessions of this user are open, the limit"
                raise QueueFullError(text, hint="close some")
            text = f"{OWNER_OPEN} jobs of this user have not ended, the limit"
            raise QueueFullError(text, hint="wait for some, or cancel them")
        last = self._number("select coalesce(max(number), 0) from job")
        number = max(last + 1, self._journal.records.meta(NEXT_JOB))
        db.execute(*next_job_statement(number + 1))
        self._make_room(db, owner, number, 0, jobs=1)
        return number

    def append(self, sender: Identity, message: m.AppendJobBlob) -> m.Jobs:
        """Add a part to the data of an open job. Raises NotFoundError, KeyConflictError for a job
        that has ended, OptionError for another place than the end, and as `put`."""
        owner, name, start = sender.owner, message.name, message.start
        row = self._get(owner, message.job)
        _check_bound(sender, row, message.job)
        if row.ended_s:
            raise KeyConflictError(f"job {message.job} has ended: its data do not change")
        size = self._blob_bytes(row.number, name)
        if start + len(message.data) != size:  # else its sender did not get the answer
            if start != size:
                expected = f"{size}, the end of {name}"
                raise OptionError(option="start", value=start, expected=expected)
            with self._transaction(0) as db:
                self._add(db, owner, row.number, name, message.data)
        return m.Jobs(message.request)

    def get(self, sender: Identity, message: m.GetJob) -> m.Jobs:
        """Return a job. Raises NotFoundError."""
        owner = sender.owner
        return m.Jobs(message.request, [self._read(self._get(owner, message.job).number, owner)])

    def blob(self, sender: Identity, message: m.ReadJobBlob) -> m.JobBlob:
        """Return a part of a job's data. Raises NotFoundError."""
        number = self._get(sender.owner, message.job).number
        query = "select data from job_blob where job = ? and name = ? and start = ?"
        rows = self._rows(query, number, message.name, message.start)
        size = self._blob_bytes(number, message.name)
        return m.JobBlob(message.request, next((bytes(data) for (data,) in rows), b""), size)

    def remove(self, sender: Identity, message: m.DeleteJob) -> m.Jobs:
        """Remove a job and its data. Raises NotAllowedError as `put`."""
        owner = sender.owner
        row = self._find(owner, message.job)
        if row is not None:
            _check_bound(sender, row, message.job)
            with self._transaction(0) as db:
                self._drop(db, row.number, owner, row.total_bytes)
        return m.Jobs(message.request)

    def listed(self, sender: Identity, message: m.ListJobs) -> ReplySteps:
        """Yield the answer with the jobs that a selector fits; fewer than its limit if they are
        more than PAGE_BYTES."""
        owner, chosen = sender.owner, message.selector
        now_s, labels, found = time(), set(chosen.labels), list[int]()
        kinds = ", ".join("?" * len(chosen.kinds))
        sign, order = (">", "asc") if chosen.ascending else ("<", "desc")
        before_s = chosen.before_s or _EVER_S
        is_open = {None: "? > 0", True: "(ended = 0 or ended > ?)", False: "ended between 1 and ?"}
        query = (
            f"select number, labels from job where owner = ? and number {sign} ? and kind in"
            f" ({kinds}) and created between ? and ? and {is_open[chosen.is_open]}"
            f" order by number {order} limit {LISTED_ROWS}"
        )
        values = *chosen.kinds, chosen.after_s, before_s, now_s
        last = 0 if chosen.ascending else 2**62
        while page := list(self._rows(query, owner, last, *values)):
            for number, packed in page:
                if not labels or labels.issubset(_LABELS.decode(packed)):
                    found.append(number)
            last = page[-1][0]
            yield None
        shown, size = list[JobRecord](), 0
        for number in found[chosen.offset : chosen.offset + chosen.limit]:
            rows = list(self._rows(_READ, number, owner))  # none, if it was removed meanwhile
            size += sum(len(tasks) + len(metadata) for *_, tasks, metadata, _ in rows)
            if shown and size > PAGE_BYTES:
                break
            shown += map(_decoded, rows)
            yield None
        yield codec.encode(m.Jobs(message.request, shown, len(found)))

    @contextmanager
    def _transaction(self, size: int) -> Iterator[Connection]:
        """Run the block in one transaction, which also survives a power failure."""
        self._journal.written_bytes += size + ROW_BYTES
        self._charges.clear()
        try:
            with self._journal.transaction(self._journal.forced_level) as db:
                yield db
        except BaseException:
            for owner, jobs, size_bytes in list(self._charges):
                self._charge(owner, -jobs, -size_bytes)
            raise

    def prune(self) -> None:
        """Remove some jobs that are too old, if it is time to look for them."""
        now_s = time()
        if abs(now_s - self._pruned_s) < PRUNE_S:
            return
        self._pruned_s = now_s
        if old := self._too_old(now_s):
            with self._transaction(0) as db:
                self._drop_all(db, old)

    def _too_old(self, now_s: float) -> list[tuple[int, str, int]]:
        """Return number, owner and bytes of some jobs that are too old."""
        found: dict[int, tuple[int, str, int]] = {}
        first = f"number in (select number from job order by number limit {PRUNED})"
        for condition, before_s in (
            ("ended > 0 and ended < ?", now_s - self._keep_s),
            ("ended = 0 and created < ?", now_s - 2 * self._keep_s),
            ("ended = 0 and kind = '' and created < ?", now_s - DRAFT_S),
            # Its end was moved again and again.
            (f"{first} and created < ?", now_s - 2 * self._keep_s - MAX_OPEN_S),
        ):
            query = f"select number, owner, bytes from job where {condition} limit {PRUNED}"
            found |= {row[0]: row for row in self._rows(query, before_s)}
        return list(found.values())

    def _drop_all(self, db: Connection, old: list[tuple[int, str, int]]) -> None:
        """Remove jobs, up to about PRUNED_BYTES."""
        removed = 0
        for number, owner, size in old:
            if removed < PRUNED_BYTES:
                self._drop(db, number, owner, size)
                removed += size

    def _make_room(self, db: Connection, owner: str, number: int, size: int, jobs: int = 0) -> None:
        """Remove the oldest ended jobs, but not this one, until `size` more bytes and `jobs` more
        jobs are within the limits. Raises QueueFullError if that is not enough; the transaction is
        rolled back then."""
        use = self._use.get(owner, [0, 0])
        before = use[1], self._journal.job_bytes
        while use[0] + jobs > OWNER_JOBS or use[1] + size > OWNER_BYTES:
            if not self._drop_oldest(db, number, "owner = ? and", owner):
                raise _full("this user's jobs", before[0], size, OWNER_BYTES)
        while self._journal.job_bytes + size > ALL_BYTES:
            if not self._drop_oldest(db, number):
                raise _full("all users' jobs", before[1], size, ALL_BYTES)

    def _drop_oldest(self, db: Connection, kept: int, whose: str = "", *owner: str) -> bool:
        """Remove the job that ended first, if any but `kept` has ended."""
        query = f"select number, owner, bytes from job where {whose} ended > 0 and ended <= ?"
        query += " and number <> ? order by ended limit 1"
        rows = list(self._rows(query, *owner, time(), kept))
        for row in rows:
            self._drop(db, *row)
        return bool(rows)

    def _add(self, db: Connection, owner: str, number: int, name: str, data: bytes) -> None:
        """Add data to a job. Raises QueueFullError."""
        self._make_room(db, owner, number, len(data))
        db.execute(*JOB_BLOB.put(number, name, self._blob_bytes(number, name), data))
        self._add_bytes(db, owner, number, len(data))
        self._journal.written_bytes += len(data)

    def _add_bytes(self, db: Connection, owner: str, number: int, size: int) -> None:
        db.execute("update job set bytes = bytes + ? where number = ?", (size, number))
        JOB.seal(db, number)
        self._charge(owner, 0, size)

    def _drop(self, db: Connection, number: int, owner: str, size: int) -> None:
        db.execute(*JOB_BLOB.remove(number))
        db.execute(*JOB.remove(number))
        self._charge(owner, -1, -size)

    def _charge(self, owner: str, jobs: int, size: int) -> None:
        """Count jobs and bytes of an owner; the transaction takes them back if it fails."""
        use = self._use.setdefault(owner, [0, 0])
        use[0] += jobs
        use[1] += size
        self._journal.job_bytes += size
        if not any(use):
            del self._use[owner]
        self._charges.append((owner, jobs, size))

    def _remove_blob(self, db: Connection, owner: str, number: int, name: str) -> None:
        self._add_bytes(db, owner, number, -self._blob_bytes(number, name))
        db.execute(*JOB_BLOB.remove(number, name))

    def _number(self, query: str, *values: object) -> int:
        return int(next(self._rows(query, *values), (0,))[0])

    def _blob_bytes(self, number: int, name: str) -> int:
        query = "select start + length(data) from job_blob where job = ? and name = ?"
        return self._number(f"{query} order by start desc limit 1", number, name)

    def _find(self, owner: str, job: str) -> _Row | None:
        query = (
            "select number, version, ended, bytes, length(tasks) + length(metadata), reservation"
            " from job where owner = ? and id = ?"
        )
        return next((_Row(*columns) for columns in self._rows(query, owner, job)), None)

    def _get(self, owner: str, job: str) -> _Row:
        row = self._find(owner, job)
        if row is None:
            raise _unknown(job)
        return row

    def _read(self, number: int, owner: str) -> JobRecord:
        return _decoded(next(self._rows(_READ, number, owner)))


def _decoded(row: tuple[Any, ...]) -> JobRecord:
    """Return a job of the columns of _READ."""
    job, kind, version, created_s, ended_s, labels, tasks, metadata, reservation = row
    named = _LABELS.decode(labels), _TASKS.decode(tasks), bytes(metadata)
    return JobRecord(job, kind, version, created_s, ended_s, *named, reservation)


def _full(whose: str, used: int, wanted: int, limit: int) -> QueueFullError:
    text = f"{whose} keep {used} bytes, and {wanted} more exceed the limit of {limit}"
    return QueueFullError(text, hint="wait until some have ended, or delete them")


def _check_change(
    sender: Identity, row: _Row, stored: JobRecord, message: m.PutJob, now_s: float
) -> None:
    """Check that a job which has ended stays so and gets no data, and that a sender with other
    rights changes its labels alone, or ends it as it is. Raises KeyConflictError,
    NotAllowedError."""
    job = message.job
    if row.ended_s and message.blobs:
        raise KeyConflictError(f"job {job.id} has ended: its data do not change")
    is_open = not job.ended_s or job.ended_s > now_s
    if 0.0 < row.ended_s <= now_s and is_open:
        raise KeyConflictError(f"job {job.id} has ended: it does not begin again")
    ends = not row.ended_s and job.ended_s > 0.0
    same = msgspec.structs.replace(
        stored, labels=job.labels, ended_s=job.ended_s if ends else stored.ended_s
    )
    has_data = message.blobs or (message.removed and not ends)  # a private job's go with its end
    sent = msgspec.structs.replace(job, created_s=stored.created_s, reservation=stored.reservation)
    if sent != same or has_data:  # what runs, or what it returned, may be another
        _check_bound(sender, row, job.id)


def _check_bound(sender: Identity, row: _Row, job: str) -> None:
    """Check that a sender whose rights are bound to a reservation changes no job that runs with
    other rights. Raises NotAllowedError."""
    if sender.reservation not in (0, row.reservation):
        text = f"job {job} is not under reservation {sender.reservation}, as this token is"
        raise NotAllowedError(text, hint="use the token with which it was sent")


def _unknown(job: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job:.80} of this user")
