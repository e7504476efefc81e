"""Jobs and sessions of vendors' clients, as the service stores them: their form, and changes.

Functions take the client of the user, in the gateway and in its job processes, and block.
Invariant: the state of a job only moves forward; after its end only its tags change, and a private
one has no parameters.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import time
from typing import Any

import msgspec

from simenv.client.client import Client
from simenv.errors import (
    DECODE_ERRORS,
    KeyConflictError,
    NotAllowedError,
    NotFoundError,
    QueueFullError,
    SimenvError,
    StoreError,
)
from simenv.model.jobs import BLOB_PART_BYTES, JobRecord, JobSelector

IBM, IQM, SESSION = "ibm", "iqm", "session"  # kinds of stored jobs
KINDS = (IBM, IQM)
QUEUED, RUNNING = "Queued", "Running"
COMPLETED, CANCELLED, FAILED = "Completed", "Cancelled", "Failed"
TOO_LONG = "Cancelled - Ran too long"
INVALID, RUN_FAILED, RAN_TOO_LONG, INTERNAL = 1002, 1010, 1305, 9999  # codes of IBM's service
MAX_REASON_CHARS = 10_000
PENDING = (QUEUED, RUNNING)
RESULTS = ("result", "measurements", "measurement_counts")  # data that a job's run adds


class Job(msgspec.Struct, frozen=True, omit_defaults=True):
    """One job. Times in seconds since 1970; 0: not yet. `tasks`: its tasks, once the service has
    accepted them; `attempts`: processes that ended while they read it."""

    id: str
    user: str
    account: str
    program: str  # sampler, estimator or executor; of IQM's clients: ""
    backend: str
    created_s: float = 0.0
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
    session_reservation: int = 0
    warnings: tuple[str, ...] = ()  # of the results of its tasks

    @property
    def is_pending(self) -> bool:
        return self.status in PENDING

    @property
    def kind(self) -> str:
        return IBM if self.program else IQM


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


_JOB = msgspec.msgpack.Decoder(Job)
_SESSION = msgspec.msgpack.Decoder(SessionRecord)


def new_id() -> str:
    """Number of a job or session: 20 random characters, as that service's are."""
    return secrets.token_hex(10)


def labels(*, tags: Sequence[str] = (), **fields: str) -> tuple[str, ...]:
    """Labels by which a job is found: `backend=emu`."""
    named = [f"{name}={value}" for name, value in fields.items() if value]
    return (*named, *(f"tag={tag}" for tag in dict.fromkeys(tags)))


def _record(job: Job, stored: JobRecord | None = None) -> JobRecord:
    head = msgspec.structs.replace(job, tasks=(), tags=())
    fields = {"backend": job.backend, "program": job.program, "session": job.session}
    return JobRecord(
        job.id, job.kind, stored.version if stored else 0, 0.0, job.ended_s,
        labels(tags=job.tags, **fields), job.tasks, msgspec.msgpack.encode(head),
    )  # fmt: skip


def _job(record: JobRecord) -> Job:
    """Raises StoreError for metadata that another program has written."""
    tags = tuple(each[4:] for each in record.labels if each.startswith("tag="))
    try:
        job = _JOB.decode(record.metadata)
    except DECODE_ERRORS as error:
        raise StoreError(f"job {record.id} cannot be read: {error}") from error
    reservation = record.reservation or job.reservation
    if record.ended_s and job.is_pending:
        job = msgspec.structs.replace(job, status=CANCELLED, ended_s=record.ended_s)
    return msgspec.structs.replace(
        job, id=record.id, tags=tags, tasks=record.tasks, created_s=record.created_s,
        reservation=reservation,
    )  # fmt: skip


# Jobs.


def add(client: Client, /, job: Job, params: bytes | memoryview, noise: bytes = b"") -> Job:
    """Store a new job; return it. `noise`: the document of its calibration, if that is not the
    present one. Raises QueueFullError, InsufficientError; then nothing was stored."""
    blobs: dict[str, bytes | memoryview] = {"params": params}
    if noise:
        blobs["noise"] = noise
    return _job(client.jobs.add(_record(job), blobs))


def find(client: Client, /, number: str) -> Job:
    """Return a job. Raises NotFoundError."""
    try:
        record = client.jobs.get(number)
    except NotFoundError:
        record = None
    if record is None or record.kind not in KINDS:
        raise _unknown(number)
    return _job(record)


def _unknown(number: str) -> NotFoundError:
    return NotFoundError(f"Job not found: {number[:80]}", hint="GET /jobs lists them")


def change(
    client: Client,
    /,
    number: str,
    removed: Sequence[str] = (),
    blobs: Mapping[str, bytes] | None = None,
    **fields: Any,
) -> Job | None:
    """Change fields of a job; return it. None: it was deleted, or has ended, after which only its
    tags change. `removed`, `blobs`: data that go, and the last part of data that come."""

    def changed(record: JobRecord) -> JobRecord | None:
        job = _job(record)
        if not job.is_pending and fields.keys() != {"tags"}:
            return None
        made = _record(msgspec.structs.replace(job, **fields), record)
        if fields.keys() == {"tags"}:
            return msgspec.structs.replace(record, labels=made.labels)
        if fields.get("status") == CANCELLED:  # all tokens of the user may do that, and no more
            return msgspec.structs.replace(record, ended_s=made.ended_s)
        return made

    try:
        record = client.jobs.change(number, changed, removed, blobs)
    except NotFoundError:
        return None
    return None if record is None else _job(record)


def end(
    client: Client, /, job: Job, results: Mapping[str, bytes] | None = None, **fields: Any
) -> Job | None:
    """Store the end of a job with its results, by name; see to its session. Return it; None: it was
    deleted, or had ended. Results without room fail it."""
    removed: tuple[str, ...] = ("params",) if job.private else ()
    try:
        ended = change(client, job.id, removed, _last_parts(client, job, results or {}), **fields)
    except QueueFullError as error:
        reason = f"there is no room for its result: {error.message}"
        fields |= {"status": FAILED, "reason": reason, "reason_code": RUN_FAILED}
        ended = change(client, job.id, (*removed, *(results or ())), **fields)
    if ended is not None and ended.session:
        with suppress(SimenvError):  # its reservation ends by itself
            change_session(client, ended.session, job_ended_s=ended.ended_s)
            close_if_done(client, ended.session)
    return ended


def _last_parts(client: Client, /, job: Job, results: Mapping[str, bytes]) -> dict[str, bytes]:
    """Store all but the last part of results; return these, which come with the end of the job."""
    left = {}
    for name, data in results.items():
        last = max(0, len(data) - 1) // BLOB_PART_BYTES * BLOB_PART_BYTES
        with suppress(NotFoundError, KeyConflictError):  # it has ended, which `change` finds too
            client.jobs.append(job.id, name, data[:last])
        left[name] = data[last:]
    return left


def fail(client: Client, /, job: Job, code: int, reason: str) -> Job | None:
    """Store that a job has failed, with the code of IBM's service; as `end`."""
    status = TOO_LONG if code == RAN_TOO_LONG else FAILED
    reason = reason[:MAX_REASON_CHARS]
    return end(client, job, status=status, reason=reason, reason_code=code, ended_s=time())


def listed(client: Client, /, selector: JobSelector) -> tuple[int, list[Job]]:
    """Return the number of jobs that match without limit and offset, and those within."""
    records, count = client.jobs.listed(selector)
    return count, list(map(_job, records))


def pending(client: Client, /, session: str = "") -> list[Job]:
    """Return the user's jobs that have not ended, the oldest first. `session`: of this one only."""
    wanted = labels(session=session)
    selector = JobSelector(KINDS, wanted, is_open=True, ascending=True)
    return list(map(_job, client.jobs.all(selector)))


def tags(client: Client, /, search: str) -> list[str]:
    """Return the tags of the user's jobs that contain a text, sorted."""
    found = {tag for job in client.jobs.all(JobSelector(KINDS)) for tag in _job(job).tags}
    return sorted(tag for tag in found if search in tag)


def cancel_tasks(client: Client, /, number: str) -> None:
    """Cancel the tasks of a job that is cancelled: what cancelled it may have ended before."""
    with suppress(NotFoundError):  # it was deleted
        job = find(client, number)
        if job.status == CANCELLED and job.tasks:
            client.cancel([name for name, _ in job.tasks])


def remove_result(client: Client, /, number: str) -> None:
    """Remove the result of a job that has ended."""
    with suppress(NotFoundError, NotAllowedError):  # it was deleted, or is of another token
        client.jobs.change(number, lambda record: record, ("result",))


# Sessions.


def _session_record(session: SessionRecord, stored: JobRecord | None = None) -> JobRecord:
    return JobRecord(
        session.id, SESSION, stored.version if stored else 0,
        ended_s=session.closed_s or session.expires_s, metadata=msgspec.msgpack.encode(session),
    )  # fmt: skip


def put_session(client: Client, /, session: SessionRecord) -> None:
    """Store a new session. Raises QueueFullError if too many are open."""
    client.jobs.add(_session_record(session), {})


def session(client: Client, /, number: str) -> SessionRecord:
    """Return a session. Raises NotFoundError."""
    try:
        record = client.jobs.get(number)
    except NotFoundError:
        record = None
    if record is None or record.kind != SESSION:
        raise NotFoundError(f"Session not found: {number[:80]}")
    return _SESSION.decode(record.metadata)


def change_session(client: Client, /, number: str, **fields: Any) -> None:
    """Change fields of a session. Raises NotFoundError."""

    def changed(record: JobRecord) -> JobRecord:
        made = msgspec.structs.replace(_SESSION.decode(record.metadata), **fields)
        return _session_record(made, record)

    client.jobs.change(number, changed)


def close_if_done(client: Client, /, number: str) -> None:
    """Close a session that takes no more jobs, if none of its jobs is left. Raises
    NotFoundError."""
    found = session(client, number)
    selector = JobSelector(KINDS, labels(session=number), is_open=True, limit=1)
    if not found.accepting and not client.jobs.listed(selector)[1]:
        close_session(client, found)


def close_session(client: Client, /, given: SessionRecord) -> None:
    """Close a session, and release its reservation."""
    if given.closed_s:
        return
    change_session(client, given.id, closed_s=time())
    if given.reservation:
        client.reservation(given.reservation).release()
