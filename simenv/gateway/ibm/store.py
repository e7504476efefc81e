"""Jobs, sessions and calibrations of IBM's clients, in an SQLite file of the gateway's folder.

Invariant: a job that was answered with its number is on the disk, with its parameters; its state
only moves forward, and its result is written once. The file has a format number (`user_version`).
It is bounded: jobs that have not ended after `keep_days` fail, ended ones go after that time, and
the oldest of them earlier when a user, or all users together, keep more bytes or jobs than the
limits; a result beyond the limits fails its job. Thread-safe.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

import msgspec

from simenv.errors import ConfigError, NotFoundError, QueueFullError
from simenv.model.views import DeviceInfo

FORMAT = 1
PART_BYTES = 64 * 2**10  # of a row of the table of blobs, which are read part by part
USER_JOBS = 10_000  # of one user, ended ones included
USER_PENDING = 1_000
USER_SESSIONS = 1_000
USER_BYTES = 2**30  # parameters and results of one user's jobs
ALL_BYTES = 8 * 2**30
MAX_CALIBRATIONS = 2_000
JOURNAL_BYTES = 64 * 2**20  # of the journal, once its changes are in the file
PRUNE_S = 600.0  # interval in which ended jobs are looked for that are too old

IQM_CIRCUITS = "iqm-circuits"  # program of the jobs of IQM's clients
QUEUED, RUNNING = "Queued", "Running"
COMPLETED, CANCELLED, FAILED = "Completed", "Cancelled", "Failed"
TOO_LONG = "Cancelled - Ran too long"
RUN_FAILED = 1010  # IBM's code of a job that failed while it ran
PENDING = (QUEUED, RUNNING)

_TABLES = """
CREATE TABLE jobs (
  id TEXT PRIMARY KEY, user TEXT NOT NULL, account TEXT NOT NULL, program TEXT NOT NULL,
  backend TEXT NOT NULL, session TEXT NOT NULL, created REAL NOT NULL, status TEXT NOT NULL,
  ended REAL NOT NULL, bytes INTEGER NOT NULL, head BLOB NOT NULL);
CREATE INDEX jobs_of_user ON jobs (user, created);
CREATE TABLE blobs (id TEXT NOT NULL, kind TEXT NOT NULL, part INTEGER NOT NULL,
  data BLOB NOT NULL, PRIMARY KEY (id, kind, part)) WITHOUT ROWID;
CREATE TABLE tags (id TEXT NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (id, tag)) WITHOUT ROWID;
CREATE TABLE sessions (
  id TEXT PRIMARY KEY, user TEXT NOT NULL, created REAL NOT NULL, head BLOB NOT NULL);
CREATE TABLE calibrations (
  backend TEXT NOT NULL, calibration TEXT NOT NULL, calibrated REAL NOT NULL, info BLOB NOT NULL,
  PRIMARY KEY (backend, calibration)) WITHOUT ROWID;
"""


class Job(msgspec.Struct, frozen=True):
    """One job. Times in seconds since 1970; 0: not yet. `tasks`: its tasks, once the service has
    accepted them; `attempts`: processes that ended while they read it."""

    id: str
    user: str
    account: str
    program: str  # sampler, estimator or executor
    backend: str
    created_s: float
    session: str = ""
    tags: tuple[str, ...] = ()
    cost: int = 0  # longest run of the machine, in seconds
    private: bool = False
    runtime: str = ""
    calibration_id: str = ""
    status: str = QUEUED
    reason: str = ""
    reason_code: int = 0
    started_s: float = 0.0
    ended_s: float = 0.0
    quantum_s: float = 0.0
    tasks: tuple[tuple[str, int], ...] = ()  # with the sets of values of each; 0: a task of one
    attempts: int = 0
    trace: str = ""  # traceparent of its request
    reservation: int = 0  # that of the token of its request, on its backend
    warnings: tuple[str, ...] = ()  # of the results of its tasks

    @property
    def is_pending(self) -> bool:
        return self.status in PENDING


class SessionRecord(msgspec.Struct, frozen=True):
    """One session. `reservation` 0: none, as of a batch. `closed_s` 0: open."""

    id: str
    user: str
    account: str
    backend: str
    mode: str  # dedicated or batch
    created_s: float
    max_ttl_s: int
    reservation: int = 0
    accepting: bool = True
    closed_s: float = 0.0
    activated_s: float = 0.0
    job_started_s: float = 0.0  # of the last one that began
    job_ended_s: float = 0.0

    @property
    def expires_s(self) -> float:
        return self.created_s + self.max_ttl_s

    def is_closed(self, now_s: float) -> bool:
        return bool(self.closed_s) or now_s >= self.expires_s


class JobQuery(msgspec.Struct, frozen=True):
    """Filters of a listing. `pending` None: any; times in seconds since 1970, 0: no bound."""

    user: str
    limit: int = 10
    offset: int = 0
    pending: bool | None = None
    backend: str = ""
    program: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()
    after_s: float = 0.0
    before_s: float = 0.0
    ascending: bool = False
    except_program: str = ""

    def where(self) -> tuple[str, list[Any]]:
        """Condition of SQL, and its values."""
        terms, values = ["user = ?"], list[Any]((self.user,))
        for column in ("backend", "program", "session"):
            if value := getattr(self, column):
                terms.append(f"{column} = ?")
                values.append(value)
        if self.except_program:
            terms.append("program != ?")
            values.append(self.except_program)
        if self.pending is not None:
            terms.append(f"status {'' if self.pending else 'NOT '}IN (?, ?)")
            values += PENDING
        for tag in self.tags:
            terms.append("EXISTS (SELECT 1 FROM tags WHERE tags.id = jobs.id AND tag = ?)")
            values.append(tag)
        if self.after_s:
            terms.append("created >= ?")
            values.append(self.after_s)
        if self.before_s:
            terms.append("created <= ?")
            values.append(self.before_s)
        return " AND ".join(terms), values


def new_id() -> str:
    """Number of a job or session: 20 random characters, as that service's are."""
    return secrets.token_hex(10)


class JobStore:
    """The file."""

    def __init__(self, path: Path, keep_days: float) -> None:
        """Open or make the file. Raises ConfigError for a file of a later format."""
        self._lock = threading.RLock()
        self._keep_s = keep_days * 86_400.0
        self._pruned_s = 0.0
        self._has_pruned = False
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        path.chmod(0o600)
        # Before the first table, else it has no effect: `_prune` makes the file smaller.
        self._db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        self._db.execute("PRAGMA synchronous = FULL")
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found not in (0, FORMAT):
            self._db.close()
            text = f"{path} has the format {found}, and this simenv reads {FORMAT}"
            raise ConfigError(
                text, hint="start the version of simenv that wrote it, or move it away"
            )
        if not found:
            with self._transaction():
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {FORMAT}")
        # `_make_room` reads this index alone, not the jobs.
        self._db.execute("CREATE INDEX IF NOT EXISTS sizes ON jobs (user, ended, bytes)")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
            if self._has_pruned:
                self._has_pruned = False
                # `execute` would free one page alone, as the statement has rows without columns.
                with contextlib.suppress(sqlite3.Error):  # what was changed is stored all the same
                    self._db.executescript("PRAGMA incremental_vacuum")

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._db.close()

    def add(self, job: Job, params: bytes | memoryview, noise: bytes = b"") -> None:
        """Store a new job. `noise`: the document of its calibration, if that is not the present
        one. Raises QueueFullError if the user has too many that have not ended, or
        the files of all are too large."""
        now_s = time()
        with self._transaction():
            self._prune(now_s)
            statement = "SELECT count(*) FROM jobs WHERE user = ? AND status IN (?, ?)"
            if self._rows(statement, (job.user, *PENDING))[0][0] >= USER_PENDING:
                text = f"{USER_PENDING} jobs of this user have not ended, the limit"
                raise QueueFullError(text, hint="wait for some, or cancel them")
            size = len(memoryview(params)) + len(noise)
            self._make_room(job.user, USER_BYTES, USER_JOBS, size)
            self._make_room(None, ALL_BYTES, None, size)
            columns = (job.id, job.user, job.account, job.program, job.backend, job.session)
            self._db.execute(
                "INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                (*columns, job.created_s, job.status, size, msgspec.msgpack.encode(job)),
            )
            self._append(job.id, "params", params)
            if noise:
                self._append(job.id, "noise", noise)
            self._tag(job)

    def _append(self, number: str, kind: str, data: bytes | memoryview) -> int:
        """Add bytes to a blob; return how many."""
        view = memoryview(data)
        statement = "SELECT coalesce(max(part) + 1, 0) FROM blobs WHERE id = ? AND kind = ?"
        ((first,),) = self._rows(statement, (number, kind))
        starts = range(0, max(1, len(view)), PART_BYTES)
        self._db.executemany(
            "INSERT INTO blobs VALUES (?, ?, ?, ?)",
            (
                (number, kind, part, view[start : start + PART_BYTES])
                for part, start in enumerate(starts, first)
            ),
        )
        return len(view)

    def append(self, number: str, kind: str, data: bytes) -> None:
        """Add bytes to a part of the result of a job that has not ended."""
        with self._transaction():
            statement = "SELECT 1 FROM jobs WHERE id = ? AND ended = 0"
            if self._rows(statement, (number,)):
                size = self._append(number, kind, data)
                self._db.execute("UPDATE jobs SET bytes = bytes + ? WHERE id = ?", (size, number))

    def forget_result(self, number: str) -> None:
        """Remove the bytes of a result that a process which has ended did not complete."""
        if self._result_kinds(number):
            with self._transaction():
                self._forget_result(number)

    def _forget_result(self, number: str) -> None:
        for kind in self._result_kinds(number):
            self._forget(number, kind)

    def _result_kinds(self, number: str) -> list[str]:
        statement = "SELECT DISTINCT kind FROM blobs WHERE id = ?"
        kinds = [kind for (kind,) in self._rows(statement, (number,))]
        return [kind for kind in kinds if kind not in ("params", "noise")]

    def _tag(self, job: Job) -> None:
        self._db.execute("DELETE FROM tags WHERE id = ?", (job.id,))
        rows = [(job.id, tag) for tag in set(job.tags)]
        self._db.executemany("INSERT INTO tags VALUES (?, ?)", rows)

    def _prune(self, now_s: float) -> None:
        if now_s - self._pruned_s < PRUNE_S:
            return
        self._pruned_s = now_s
        old = "SELECT head FROM jobs WHERE ended = 0 AND created < ?"
        for (head,) in self._rows(old, (now_s - self._keep_s,)):
            job = msgspec.msgpack.decode(head, type=Job)
            reason = f"it has not ended within {self._keep_s / 86_400:g} days"
            fields = {"reason": reason, "reason_code": RUN_FAILED, "ended_s": now_s}
            self._put(job, {"result": reason.encode()}, status=FAILED, **fields)
        self._drop("ended > 0 AND ended < ?", (now_s - self._keep_s,))
        for number in self._done_sessions("created < ?", now_s - self._keep_s):
            self._db.execute("DELETE FROM sessions WHERE id = ?", (number,))
        self._has_pruned = True

    def _drop(self, condition: str, values: Sequence[Any]) -> None:
        chosen = f"(SELECT id FROM jobs WHERE {condition})"
        for table in ("blobs", "tags", "jobs"):
            self._db.execute(f"DELETE FROM {table} WHERE id IN {chosen}", values)

    def _make_room(self, user: str | None, most: int, jobs: int | None, wanted: int) -> None:
        """Remove the oldest ended jobs until `wanted` more bytes and one more job are within the
        limits. Raises QueueFullError if that is not enough; then none is removed."""
        mine, values = ("user = ?", [user]) if user is not None else ("1", [])
        statement = f"SELECT count(*), coalesce(sum(bytes), 0) FROM jobs WHERE {mine}"
        ((count, size),) = self._rows(statement, values)
        if size + wanted <= most and (jobs is None or count < jobs):
            return
        statement = f"SELECT id, bytes FROM jobs WHERE {mine} AND ended > 0 ORDER BY ended"
        dropped = []
        for number, kept in self._rows(statement, values):
            dropped.append(number)
            size, count = size - kept, count - 1
            if size + wanted <= most and (jobs is None or count < jobs):
                for each in dropped:
                    self._drop("id = ?", (each,))
                return
        whose = "all users' jobs" if user is None else "this user's jobs"
        text = f"{whose} keep {size} bytes, and {wanted} more exceed the limit of {most}"
        raise QueueFullError(text, hint="wait until some have ended, or delete them")

    def job(self, number: str, user: str | None) -> Job:
        """Return a job of the user; None: of anybody. Raises NotFoundError."""
        rows = self._rows("SELECT head, user FROM jobs WHERE id = ?", (number,))
        if not rows or user not in (None, rows[0][1]):
            raise NotFoundError(f"Job not found: {number[:80]}", hint="GET /jobs lists them")
        return msgspec.msgpack.decode(rows[0][0], type=Job)

    def change(
        self, number: str, result: Mapping[str, bytes] | bytes | None = None, **fields: Any
    ) -> Job | None:
        """Change fields of a job, and store what is left of its result, by kind; return it. None:
        it was deleted, or has ended, after which only its tags change. A result for which there is
        no room fails the job."""
        if isinstance(result, bytes):
            result = {"result": result}
        with self._transaction():
            try:
                job = self.job(number, None)
            except NotFoundError:
                return None
            if not job.is_pending and fields.keys() != {"tags"}:
                return None
            if result is not None and fields.get("status") == COMPLETED:
                size = sum(map(len, result.values()))
                try:
                    self._make_room(job.user, USER_BYTES, None, size)
                    self._make_room(None, ALL_BYTES, None, size)
                except QueueFullError as error:
                    reason = f"there is no room for its result: {error.message}"
                    fields |= {"status": FAILED, "reason": reason, "reason_code": RUN_FAILED}
                    result = {"result": reason.encode()}
                    self._forget_result(number)
            return self._put(job, result, **fields)

    def _put(self, job: Job, result: Mapping[str, bytes] | None, **fields: Any) -> Job:
        job = msgspec.structs.replace(job, **fields)
        size = sum(self._append(job.id, *each) for each in (result or {}).items())
        self._db.execute(
            "UPDATE jobs SET status = ?, ended = ?, head = ?, bytes = bytes + ? WHERE id = ?",
            (job.status, job.ended_s, msgspec.msgpack.encode(job), size, job.id),
        )
        if job.private and not job.is_pending:
            self._forget(job.id, "params")
        if "tags" in fields:
            self._tag(job)
        return job

    def blob(self, number: str, kind: str) -> bytes:
        """Return the parameters, the noise document or the result of a job; b"" without."""
        return self.read(number, kind, 0, -1)

    def size(self, number: str, kind: str) -> int:
        """Return the bytes of a blob; 0 without."""
        statement = "SELECT coalesce(sum(length(data)), 0) FROM blobs WHERE id = ? AND kind = ?"
        ((size,),) = self._rows(statement, (number, kind))
        return int(size)

    def read(self, number: str, kind: str, part: int, count: int) -> bytes:
        """Return `count` parts of a blob, of PART_BYTES each but the last one; -1: all that follow;
        b"" behind the end."""
        statement = (
            "SELECT data FROM blobs WHERE id = ? AND kind = ? AND part >= ? ORDER BY part LIMIT ?"
        )
        return b"".join(data for (data,) in self._rows(statement, (number, kind, part, count)))

    def remove(self, number: str, kind: str | None = None) -> None:
        """Remove a job, or only its parameters or result."""
        with self._transaction():
            if kind is None:
                self._drop("id = ?", (number,))
            else:
                self._forget(number, kind)

    def _forget(self, number: str, kind: str) -> None:
        size = "(SELECT sum(length(data)) FROM blobs WHERE id = ? AND kind = ?)"
        statement = f"UPDATE jobs SET bytes = bytes - coalesce({size}, 0) WHERE id = ?"
        self._db.execute(statement, (number, kind, number))
        self._db.execute("DELETE FROM blobs WHERE id = ? AND kind = ?", (number, kind))

    def jobs(self, query: JobQuery) -> tuple[int, list[Job]]:
        """Return the number of jobs that match without limit and offset, and those within."""
        condition, values = query.where()
        order = "ASC" if query.ascending else "DESC"
        with self._lock:
            ((count,),) = self._rows(f"SELECT count(*) FROM jobs WHERE {condition}", values)
            rows = self._rows(
                f"SELECT head FROM jobs WHERE {condition} ORDER BY created {order}, rowid {order}"
                " LIMIT ? OFFSET ?",
                (*values, query.limit, query.offset),
            )
        return count, [msgspec.msgpack.decode(head, type=Job) for (head,) in rows]

    def pending(self, user: str) -> list[Job]:
        """Return the user's jobs that have not ended, the oldest first."""
        query = JobQuery(user, limit=USER_PENDING, pending=True, ascending=True)
        return self.jobs(query)[1]

    def tags(self, user: str, search: str) -> list[str]:
        """Return the tags of the user's jobs that contain a text, sorted."""
        statement = "SELECT DISTINCT tag FROM tags, jobs WHERE tags.id = jobs.id AND user = ?"
        rows = self._rows(statement, (user,))
        return sorted(tag for (tag,) in rows if search in tag)

    def put_session(self, session: SessionRecord) -> None:
        """Store a new session; the user's oldest closed one goes where there are too many. Raises
        QueueFullError if they are all open or have jobs that have not ended."""
        with self._transaction():
            statement = "SELECT count(*) FROM sessions WHERE user = ?"
            if self._rows(statement, (session.user,))[0][0] >= USER_SESSIONS:
                done = next(self._done_sessions("user = ?", session.user), None)
                if done is None:
                    text = f"{USER_SESSIONS} sessions of this user are open, the limit"
                    raise QueueFullError(text, hint="close some")
                self._db.execute("DELETE FROM sessions WHERE id = ?", (done,))
            self._db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?)",
                (session.id, session.user, session.created_s, msgspec.msgpack.encode(session)),
            )

    def _done_sessions(self, condition: str, value: object) -> Iterator[str]:
        """Ids of closed sessions whose jobs have all ended, the oldest first."""
        now_s = time()
        rows = self._rows(f"SELECT head FROM sessions WHERE {condition} ORDER BY created", (value,))
        for (head,) in rows:
            session = msgspec.msgpack.decode(head, type=SessionRecord)
            query = JobQuery(session.user, pending=True, session=session.id)
            if session.is_closed(now_s) and not self.jobs(query)[0]:
                yield session.id

    def session(self, number: str, user: str | None) -> SessionRecord:
        """Return a session of the user; None: of anybody. Raises NotFoundError."""
        rows = self._rows("SELECT head, user FROM sessions WHERE id = ?", (number,))
        if not rows or user not in (None, rows[0][1]):
            raise NotFoundError(f"Session not found: {number[:80]}")
        return msgspec.msgpack.decode(rows[0][0], type=SessionRecord)

    def change_session(self, number: str, **fields: Any) -> SessionRecord:
        """Change fields of a session; return it. Raises NotFoundError."""
        with self._transaction():
            session = msgspec.structs.replace(self.session(number, None), **fields)
            head = msgspec.msgpack.encode(session)
            self._db.execute("UPDATE sessions SET head = ? WHERE id = ?", (head, number))
            return session

    def record(self, backend: str, info: DeviceInfo) -> None:
        """Store the present calibration of a backend, if it has one."""
        if not info.calibration_id:
            return
        key = (backend, info.calibration_id)
        statement = "SELECT 1 FROM calibrations WHERE backend = ? AND calibration = ?"
        if self._rows(statement, key):
            return
        with self._transaction():
            encoded = msgspec.msgpack.encode(info)
            statement = "INSERT OR REPLACE INTO calibrations VALUES (?, ?, ?, ?)"
            self._db.execute(statement, (*key, info.calibrated_s, encoded))
            oldest = "SELECT backend, calibration FROM calibrations ORDER BY calibrated DESC"
            self._db.execute(
                "DELETE FROM calibrations WHERE (backend, calibration) IN"
                f" ({oldest} LIMIT -1 OFFSET {MAX_CALIBRATIONS})"
            )

    def calibration_ids(self, backend: str) -> list[str]:
        """Return the ids of the stored calibrations of a backend."""
        statement = "SELECT calibration FROM calibrations WHERE backend = ?"
        return [number for (number,) in self._rows(statement, (backend,))]

    def calibration(self, backend: str, number: str, before_s: float) -> DeviceInfo | None:
        """Return a stored calibration of a backend: the one of this id; else the newest one that
        was in force at a time. None: there is none."""
        condition, value = "calibration = ?", [backend, number or before_s]
        if not number:
            condition = "calibrated <= ?"
        statement = f"SELECT info FROM calibrations WHERE backend = ? AND {condition}"
        rows = self._rows(f"{statement} ORDER BY calibrated DESC LIMIT 1", value)
        return msgspec.msgpack.decode(rows[0][0], type=DeviceInfo) if rows else None
