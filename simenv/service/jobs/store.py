"""Jobs of all owners, with their data, in the journal.

Invariants: what was answered is on the disk. A job is changed only by who knows its last version,
and gets data only while it is open. Jobs are bounded: an owner has at most OWNER_JOBS, OWNER_OPEN
of them open, as many open sessions, and OWNER_BYTES; all owners together have ALL_BYTES. The oldest
ended ones go for new ones, all of them `keep_days` after their end, and open ones after twice that
time. Used from the loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time
from typing import NamedTuple

import msgspec

from simenv.errors import KeyConflictError, NotFoundError, OptionError, QueueFullError, SimenvError
from simenv.model.jobs import BLOB_PART_BYTES, JobRecord, JobTask
from simenv.service.journal.database import Connection
from simenv.service.journal.tables import JOB, JOB_BLOB
from simenv.service.journal.writer import PAGE_BYTES, Journal
from simenv.service.queries.query_queue import ReplySteps
from simenv.wire import codec
from simenv.wire.messages import jobs as m

OWNER_JOBS = 10_000  # ended ones included
OWNER_OPEN = 1_000
OWNER_BYTES = 2**30  # metadata and data of one owner's jobs
ALL_BYTES = 8 * 2**30
SESSION = "session"  # the kind of a group of jobs, which has no tasks of its own
DRAFT_S = 3_600.0  # for which a job stays whose data are not complete
PRUNED = 64  # old jobs that go with one new job,
PRUNED_BYTES = 64 * BLOB_PART_BYTES  # and about how much of their data: the loop has other work
LISTED_ROWS = 256  # between two looks at the clock

_KINDS = {True: f"kind = '{SESSION}'", False: f"kind <> '{SESSION}'"}
_LABELS = msgspec.msgpack.Decoder(tuple[str, ...])
_TASKS = msgspec.msgpack.Decoder(tuple[JobTask, ...])
_encode = msgspec.msgpack.encode


class _Row(NamedTuple):
    """A stored job. `head_bytes`: of its tasks and metadata."""

    number: int  # jobs are numbered in the order of their creation
    version: int
    ended_s: float
    total_bytes: int
    head_bytes: int


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
        self._bytes = self._number("select coalesce(sum(bytes), 0) from job")

    def put(self, owner: str, message: m.PutJob) -> m.Jobs:
        """Store a job that is new, or changed. Raises NotFoundError, KeyConflictError if it is
        stored with another version, QueueFullError above the limits."""
        job, row = message.job, self._find(owner, message.job.id)
        if row is None and job.version:
            raise _unknown(job.id)
        if row is not None and row.version != job.version:
            stored = self._read(row.number)
            if job.version or (row.version, stored.metadata) != (1, job.metadata):
                text = f"job {job.id} has changed: it has version {row.version}"
                raise KeyConflictError(f"{text}, not {job.version}", hint="read it again")
            return m.Jobs(message.request, [stored])  # its sender did not get the answer
        labels, tasks = _encode(job.labels), _encode(job.tasks)
        head_bytes = len(tasks) + len(job.metadata)
        added = head_bytes - (0 if row is None else row.head_bytes)
        packed = labels, tasks, job.metadata
        with self._transaction(head_bytes) as db:
            if row is None:
                number = self._create(db, owner, job)
                columns = owner, job.id, job.kind, 1, time(), job.ended_s, 0
                db.execute(*JOB.put(number, *columns, *packed))
            else:
                number = row.number
                for name in message.removed:
                    self._remove_blob(db, number, name)
                changed = job.kind, job.version + 1, job.ended_s, *packed, number
                db.execute(
                    "update job set kind = ?, version = ?, ended = ?, labels = ?, tasks = ?,"
                    " metadata = ? where number = ?",
                    changed,
                )
            if added > 0:
                self._make_room(db, owner, added)
            self._add_bytes(db, number, added)
            for name, data in message.blobs.items():
                self._add(db, owner, number, name, data)
        return m.Jobs(message.request, [self._read(number)])

    def _create(self, db: Connection, owner: str, job: JobRecord) -> int:
        """Make room for a new job; return its number. Raises QueueFullError, and what
        `disk_refusal` returns."""
        if (refusal := self._disk_refusal(owner)) is not None:
            raise refusal
        now_s = time()
        self._prune(db, now_s)
        is_session = job.kind == SESSION
        query = f"select count(*) from job where owner = ? and {_KINDS[is_session]}"
        if self._number(f"{query} and (ended = 0 or ended > ?)", owner, now_s) >= OWNER_OPEN:
            if is_session:
                text = f"{OWNER_OPEN} sessions of this user are open, the limit"
                raise QueueFullError(text, hint="close some")
            text = f"{OWNER_OPEN} jobs of this user have not ended, the limit"
            raise QueueFullError(text, hint="wait for some, or cancel them")
        self._make_room(db, owner, 0, jobs=1)
        return 1 + self._number("select coalesce(max(number), 0) from job")

    def append(self, owner: str, message: m.AppendJobBlob) -> m.Jobs:
        """Add a part to the data of an open job. Raises NotFoundError, KeyConflictError for a job
        that has ended, OptionError for another place than the end, QueueFullError."""
        row, name, start = self._get(owner, message.job), message.name, message.start
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

    def get(self, owner: str, message: m.GetJob) -> m.Jobs:
        """Return a job. Raises NotFoundError."""
        return m.Jobs(message.request, [self._read(self._get(owner, message.job).number)])

    def blob(self, owner: str, message: m.ReadJobBlob) -> m.JobBlob:
        """Return a part of a job's data. Raises NotFoundError."""
        number = self._get(owner, message.job).number
        query = "select data from job_blob where job = ? and name = ? and start = ?"
        rows = self._rows(query, number, message.name, message.start)
        size = self._blob_bytes(number, message.name)
        return m.JobBlob(message.request, next((bytes(data) for (data,) in rows), b""), size)

    def remove(self, owner: str, message: m.DeleteJob) -> m.Jobs:
        """Remove a job and its data."""
        row = self._find(owner, message.job)
        if row is not None:
            with self._transaction(0) as db:
                self._drop(db, row.number, row.total_bytes)
        return m.Jobs(message.request)

    def listed(self, owner: str, message: m.ListJobs) -> ReplySteps:
        """Yield the answer with the jobs that a selector fits."""
        chosen = message.selector
        kinds, found = ", ".join("?" * len(chosen.kinds)), []
        sign, order = (">", "asc") if chosen.ascending else ("<", "desc")
        query = (
            f"select number, created, ended, labels from job where owner = ? and number {sign} ?"
            f" and kind in ({kinds}) order by number {order} limit {LISTED_ROWS}"
        )
        last, now_s, labels = 0 if chosen.ascending else 2**62, time(), set(chosen.labels)
        while page := list(self._rows(query, owner, last, *chosen.kinds)):
            for number, created_s, ended_s, packed in page:
                is_open = not ended_s or ended_s > now_s
                fits = chosen.is_open in (None, is_open) and chosen.after_s <= created_s
                fits = fits and (not chosen.before_s or created_s <= chosen.before_s)
                if fits and (not labels or labels.issubset(_LABELS.decode(packed))):
                    found.append(number)
            last = page[-1][0]
            yield None
        shown = []
        for number in found[chosen.offset : chosen.offset + chosen.limit]:
            with_job = self._rows("select 1 from job where number = ?", number)
            shown += [self._read(number) for _ in with_job]  # unless it was removed meanwhile
            yield None
        yield codec.encode(m.Jobs(message.request, shown, len(found)))

    @contextmanager
    def _transaction(self, size: int) -> Iterator[Connection]:
        """Run the block in one transaction, which also survives a power failure."""
        self._journal.written_bytes += size + PAGE_BYTES
        before = self._bytes
        try:
            with self._journal.transaction(self._journal.forced_level) as db:
                yield db
        except BaseException:
            self._bytes = before
            raise

    def _prune(self, db: Connection, now_s: float) -> None:
        """Remove some jobs that are too old."""
        removed = 0
        for condition, before_s in (
            ("ended > 0 and ended < ?", now_s - self._keep_s),
            ("ended = 0 and created < ?", now_s - 2 * self._keep_s),
            ("ended = 0 and kind = '' and created < ?", now_s - DRAFT_S),
        ):
            query = f"select number, bytes from job where {condition} limit {PRUNED}"
            for number, size in list(self._rows(query, before_s)):
                if removed < PRUNED_BYTES:
                    self._drop(db, number, size)
                    removed += size

    def _make_room(self, db: Connection, owner: str, size: int, jobs: int = 0) -> None:
        """Remove the oldest ended jobs until `size` more bytes and `jobs` more jobs are within the
        limits. Raises QueueFullError if that is not enough; the transaction is rolled back then."""
        query = "select count(*), coalesce(sum(bytes), 0) from job where owner = ?"
        ((count, used),) = self._rows(query, owner)
        for whose, used_bytes, most_bytes, excess, text in (
            ("owner = ?", int(used), OWNER_BYTES, count + jobs - OWNER_JOBS, "this user's jobs"),
            ("? <> '~'", self._bytes, ALL_BYTES, 0, "all users' jobs"),
        ):
            left_bytes = used_bytes
            if left_bytes + size <= most_bytes and excess <= 0:
                continue
            query = f"select number, bytes from job where {whose} and ended > 0 and ended <= ?"
            for number, old_bytes in list(self._rows(f"{query} order by ended", owner, time())):
                self._drop(db, number, old_bytes)
                left_bytes, excess = left_bytes - old_bytes, excess - 1
                if left_bytes + size <= most_bytes and excess <= 0:
                    break
            else:
                text = f"{text} keep {used_bytes} bytes, and {size} more exceed the limit of"
                hint = "wait until some have ended, or delete them"
                raise QueueFullError(f"{text} {most_bytes}", hint=hint)

    def _add(self, db: Connection, owner: str, number: int, name: str, data: bytes) -> None:
        """Add data to a job. Raises QueueFullError."""
        self._make_room(db, owner, len(data))
        db.execute(*JOB_BLOB.put(number, name, self._blob_bytes(number, name), data))
        self._add_bytes(db, number, len(data))
        self._journal.written_bytes += len(data)

    def _add_bytes(self, db: Connection, number: int, size: int) -> None:
        db.execute("update job set bytes = bytes + ? where number = ?", (size, number))
        self._bytes += size

    def _drop(self, db: Connection, number: int, size: int) -> None:
        db.execute(*JOB_BLOB.remove(number))
        db.execute(*JOB.remove(number))
        self._bytes -= size

    def _remove_blob(self, db: Connection, number: int, name: str) -> None:
        self._add_bytes(db, number, -self._blob_bytes(number, name))
        db.execute(*JOB_BLOB.remove(number, name))

    def _number(self, query: str, *values: object) -> int:
        return int(next(self._rows(query, *values), (0,))[0])

    def _blob_bytes(self, number: int, name: str) -> int:
        query = "select start + length(data) from job_blob where job = ? and name = ?"
        return self._number(f"{query} order by start desc limit 1", number, name)

    def _find(self, owner: str, job: str) -> _Row | None:
        query = (
            "select number, version, ended, bytes, length(tasks) + length(metadata) from job"
            " where owner = ? and id = ?"
        )
        return next((_Row(*columns) for columns in self._rows(query, owner, job)), None)

    def _get(self, owner: str, job: str) -> _Row:
        row = self._find(owner, job)
        if row is None:
            raise _unknown(job)
        return row

    def _read(self, number: int) -> JobRecord:
        query = (
            "select id, kind, version, created, ended, labels, tasks, metadata from job"
            " where number = ?"
        )
        ((*head, labels, tasks, metadata),) = self._rows(query, number)
        job, kind, version, created_s, ended_s = head
        decoded = _LABELS.decode(labels), _TASKS.decode(tasks)
        return JobRecord(job, kind, version, created_s, ended_s, *decoded, bytes(metadata))


def _unknown(job: str) -> NotFoundError:
    return NotFoundError(f"there is no job {job} of this user")
