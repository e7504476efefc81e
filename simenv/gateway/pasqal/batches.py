"""Batches of Pasqal's clients, as the service stores them: a job with one task for each of their
jobs.

Functions take the client of the user and block. Invariant: the state of a batch is that of its
tasks; nothing else is stored of it after its jobs were accepted. A batch's id is a UUID whose last
16 bits are 0, and its k-th job has the same number plus k + 1, so that no table leads from a job to
its batch.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from simenv.client.client import Client
from simenv.client.job_tasks import JobTasks
from simenv.client.submission.options import checked_seed
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.pulses import prepare_pulses
from simenv.client.submission.sequence_device import device_of
from simenv.errors import (
    KeyConflictError,
    LimitExceededError,
    NotFoundError,
    VersionMismatchError,
)
from simenv.gateway.context import Caller
from simenv.gateway.pasqal.requests import PackedBatch, PackedJob
from simenv.model import TaskState
from simenv.model.jobs import BLOB_PART_BYTES, JobRecord, JobSelector
from simenv.model.pulses import PulseCall
from simenv.model.task import joint_state
from simenv.model.task_rules import checked_key

KIND = "pasqal"  # of the stored job
FORMAT = 1  # of its metadata
STATUS = {
    TaskState.QUEUED: "PENDING",
    TaskState.RUNNING: "RUNNING",
    TaskState.DONE: "DONE",
    TaskState.CANCELLED: "CANCELED",
    TaskState.FAILED: "ERROR",
    TaskState.EXPIRED: "ERROR",
}
_SEQUENCE, _CONFIG, _JOBS = "sequence", "config", "jobs"  # names of its data
_LOW = 0xFFFF  # bits of an id that number the jobs


class Metadata(msgspec.Struct, frozen=True, array_like=True):
    """Metadata of a stored batch."""

    format: int
    project: str
    device_type: str
    content: bytes = b""  # digest of the request, where it had an idempotency key
    # Digests of the keys of calls that have added jobs, and of their contents.
    added: tuple[tuple[bytes, bytes], ...] = ()


class StoredBatch(msgspec.Struct, frozen=True):
    """A batch and the states of its jobs."""

    record: JobRecord
    project: str
    device_type: str
    states: tuple[TaskState, ...]

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def is_open(self) -> bool:
        return not self.record.ended_s

    @property
    def tags(self) -> list[str]:
        return [label[4:] for label in self.record.labels if label.startswith("tag=")]

    @property
    def status(self) -> str:
        """A batch that may get more jobs has not ended."""
        if not self.states:
            return "PENDING" if self.is_open else "CANCELED"
        joint = joint_state(self.states)
        is_over = joint not in (TaskState.QUEUED, TaskState.RUNNING)
        return "RUNNING" if is_over and self.is_open else STATUS[joint]

    @property
    def counts(self) -> dict[str, int]:
        """Number of jobs in each state."""
        return dict(Counter(STATUS[state] for state in self.states))

    @property
    def job_ids(self) -> list[str]:
        number = uuid.UUID(self.id).int
        return [str(uuid.UUID(int=number + k)) for k in range(1, len(self.states) + 1)]


def new_id(key: str | None) -> str:
    """Return the id of a batch: of a repeated call with an idempotency key, the same one."""
    drawn = uuid.uuid4() if key is None else uuid.UUID(bytes=_digest(b"batch", key.encode()))
    return str(uuid.UUID(int=drawn.int & ~_LOW))


def _digest(*parts: bytes) -> bytes:
    return hashlib.blake2b(msgspec.msgpack.encode(parts), digest_size=16).digest()


class Repeat(NamedTuple):
    """The idempotency key of a call, None: it has none, and the digest of its content."""

    key: str | None
    content: bytes

    @classmethod
    def of(cls, key: str | None, content: Callable[[], bytes]) -> Repeat:
        """Raises OptionError."""
        return cls(None, b"") if key is None else cls(checked_key(key), _digest(content()))

    def check(self, content: bytes) -> None:
        """Raise KeyConflictError if an earlier call with the key had other content."""
        if content != self.content:
            text = f"the key {self.key!r} was used before with other content"
            raise KeyConflictError(text, hint="choose another key")


def place_of(job_id: str) -> tuple[str, int]:
    """Return the id of a job's batch, and the number of the job in it. Raises NotFoundError."""
    try:
        number = uuid.UUID(job_id).int
    except ValueError as error:
        raise NotFoundError(f"no job {job_id[:80]!r} here") from error
    return str(uuid.UUID(int=number & ~_LOW)), (number & _LOW) - 1


def add(
    client: Client, packed: PackedBatch, caller: Caller, trace: str, repeat: Repeat
) -> StoredBatch:
    """Submit the jobs of a new batch and store it; all or nothing. Raises KeyConflictError."""
    number = new_id(repeat.key)
    if repeat.key is not None and (earlier := _repeated(client, number, repeat)) is not None:
        return earlier
    labels = [f"device={packed.device_type}", *(f"tag={tag}" for tag in dict.fromkeys(packed.tags))]
    metadata = Metadata(FORMAT, packed.project, packed.device_type, repeat.content)
    record = JobRecord(
        number, KIND, labels=tuple(labels), metadata=msgspec.msgpack.encode(metadata)
    )
    blobs: dict[str, bytes | memoryview] = {_JOBS: b"".join(job.line for job in packed.jobs)}
    blobs |= {name: text.encode() for name, text in _texts(packed) if text}
    orders = _orders(client, packed.jobs, caller, trace)
    tasks = JobTasks(client.session)
    try:
        return _batch(client, tasks.create(record, orders, blobs, closes=not packed.is_open))
    except KeyConflictError:  # perhaps of a call with the same key at the same time
        if repeat.key is None or (earlier := _repeated(client, number, repeat)) is None:
            raise
        return earlier


def _repeated(client: Client, number: str, repeat: Repeat) -> StoredBatch | None:
    """Return the batch of an earlier call with the key. Raises KeyConflictError."""
    record = JobTasks(client.session).stored(number)
    if record is None:
        return None
    repeat.check(_metadata(record).content)
    return _batch(client, record)


def _texts(packed: PackedBatch) -> list[tuple[str, str]]:
    return [(_SEQUENCE, packed.sequence), (_CONFIG, packed.config)]


def was_added(batch: StoredBatch, repeat: Repeat) -> bool:
    """Return whether an earlier call with the key has added the jobs. Raises KeyConflictError."""
    if repeat.key is None:
        return False
    content = dict(_metadata(batch.record).added).get(_digest(repeat.key.encode()))
    if content is not None:
        repeat.check(content)
    return content is not None


def add_jobs(
    client: Client,
    batch: StoredBatch,
    jobs: Sequence[PackedJob],
    caller: Caller,
    trace: str,
    repeat: Repeat,
) -> StoredBatch:
    """Submit further jobs of an open batch; all or nothing. Raises KeyConflictError."""
    lines = b"".join(job.line for job in jobs)
    if len(lines) > BLOB_PART_BYTES:
        text = f"variables of {len(lines)} bytes; the limit is {BLOB_PART_BYTES}"
        raise LimitExceededError(text, hint="fewer jobs at once")
    metadata = _metadata(batch.record)
    if repeat.key is not None:
        pair = _digest(repeat.key.encode()), repeat.content
        metadata = msgspec.structs.replace(metadata, added=(*metadata.added, pair))

    def check(record: JobRecord) -> None:
        if record.ended_s or len(record.tasks) != len(batch.states):
            text = f"batch {batch.id} was closed, or got other jobs meanwhile"
            raise KeyConflictError(text, hint="add the jobs again, or make another batch")

    record = JobTasks(client.session).add(
        batch.record, check, _orders(client, jobs, caller, trace),
        metadata=msgspec.msgpack.encode(metadata), blobs={_JOBS: lines} if lines else None,
    )  # fmt: skip
    return _batch(client, record)


def _orders(
    client: Client, jobs: Sequence[PackedJob], caller: Caller, trace: str
) -> list[PreparedSubmit]:
    """Return what is to be submitted, in the order of the jobs."""
    of_all: dict[str, Any] = {"account": caller.account or None, "trace": trace}
    if caller.reservation:
        of_all["reservation"] = caller.reservation
    of_all["seed"] = checked_seed(None, None)
    orders = []
    for _, group in groupby(jobs, key=lambda job: sorted(job.options.items(), key=str)):
        each = list(group)
        options = of_all | each[0].options
        info = device_of(options, client.submit_devices)
        orders.append(prepare_pulses([job.call for job in each], options, info))
    return orders


def complete_all(client: Client) -> None:
    """Complete the batches that other processes have left."""
    JobTasks(client.session).complete_all(KIND)


def find(client: Client, number: str) -> StoredBatch:
    """Return a batch. Raises NotFoundError."""
    try:
        record = JobTasks(client.session).complete(number) if len(number) <= 64 else None
    except NotFoundError:
        record = None
    if record is None or record.kind != KIND:
        raise NotFoundError(f"no batch {number[:80]!r} here", hint="GET batches lists them")
    return _batch(client, record)


def _metadata(record: JobRecord) -> Metadata:
    """Raises VersionMismatchError."""
    stored = msgspec.msgpack.decode(record.metadata, type=Metadata)
    if stored.format != FORMAT:
        text = f"batch {record.id} has format {stored.format}, this version reads {FORMAT}"
        raise VersionMismatchError(text, hint="read it with the version that stored it")
    return stored


def _batch(client: Client, record: JobRecord) -> StoredBatch:
    stored = _metadata(record)
    ids = [task for task, _ in record.tasks]
    infos = {info.id: info.state for info in client.tasks(ids)} if ids else {}
    states = tuple(infos.get(task, TaskState.FAILED) for task in ids)  # FAILED: it was removed
    return StoredBatch(record, stored.project, stored.device_type, states)


def listed(client: Client, selector: JobSelector) -> tuple[list[StoredBatch], int]:
    """Return the batches of a page, and the number of batches on all pages."""
    records, count = client.jobs.listed(selector)
    tasks, found = JobTasks(client.session), []
    for record in records:
        with suppress(NotFoundError):  # its jobs were refused
            found.append(_batch(client, tasks.completed(record)))
    return found, count


def texts(client: Client, batch: StoredBatch) -> tuple[str, str]:
    """Return sequence and configuration of a batch; "": none."""
    sequence, config = (client.jobs.data(batch.id, name).decode() for name in (_SEQUENCE, _CONFIG))
    return sequence, config


def job_lines(client: Client, batch: StoredBatch) -> list[dict[str, Any]]:
    """Return runs and variables of each job."""
    lines = client.jobs.data(batch.id, _JOBS).splitlines()
    return [msgspec.json.decode(line) for line in lines[: len(batch.states)]]


def close(client: Client, number: str) -> StoredBatch:
    """Close a batch: it gets no more jobs."""
    return _batch(client, JobTasks(client.session).close(find(client, number).id))


def cancel(client: Client, batch: StoredBatch, places: Sequence[int] | None = None) -> StoredBatch:
    """Cancel jobs of a batch by their numbers; None: all, and the batch gets no more."""
    tasks = [task for task, _ in batch.record.tasks]
    chosen = tasks if places is None else [tasks[place] for place in places]
    if chosen:
        client.cancel(chosen)
    return close(client, batch.id) if places is None else find(client, batch.id)


def set_tags(client: Client, number: str, tags: Sequence[str]) -> StoredBatch:
    """Replace the tags of a batch."""
    find(client, number)

    def changed(record: JobRecord) -> JobRecord:
        kept = [label for label in record.labels if not label.startswith("tag=")]
        labels = (*kept, *(f"tag={tag}" for tag in dict.fromkeys(tags)))
        return msgspec.structs.replace(record, labels=labels)

    client.jobs.change(number, changed)
    return find(client, number)


def sequence_of(client: Client, task: str) -> str:
    """Return the sequence of a job by its task."""
    program = client.history.submitted(task).spec.program
    return msgspec.msgpack.decode(program, type=PulseCall).sequence
