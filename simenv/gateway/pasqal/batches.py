"""Batches of Pasqal's clients, as the service stores them: a job with one task for each of their
jobs.

Functions take the client of the user and block. Invariant: the state of a batch is that of its
tasks; nothing else is stored of it after its jobs were accepted. A batch's id is a UUID whose last
16 bits are 0, and its k-th job has the same number plus k + 1, so that no table leads from a job to
its batch.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from time import time
from typing import Any

import msgspec

from simenv.client.client import Client
from simenv.client.submission.options import checked_seed
from simenv.client.submission.pulses import send_pulses
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


def new_id() -> str:
    return str(uuid.UUID(int=uuid.uuid4().int & ~_LOW))


def place_of(job_id: str) -> tuple[str, int]:
    """Return the id of a job's batch, and the number of the job in it. Raises NotFoundError."""
    try:
        number = uuid.UUID(job_id).int
    except ValueError as error:
        raise NotFoundError(f"no job {job_id[:80]!r} here") from error
    return str(uuid.UUID(int=number & ~_LOW)), (number & _LOW) - 1


def add(client: Client, packed: PackedBatch, caller: Caller, trace: str) -> StoredBatch:
    """Submit the jobs of a new batch and store it; all or nothing."""
    number = new_id()
    accepted = _submitted(client, packed.jobs, caller, trace)
    labels = [f"device={packed.device_type}", *(f"tag={tag}" for tag in dict.fromkeys(packed.tags))]
    record = JobRecord(
        number, KIND, 0, 0.0, 0.0 if packed.is_open else time(), tuple(labels),
        tuple((task, 0) for task in accepted),
        msgspec.msgpack.encode(Metadata(FORMAT, packed.project, packed.device_type)),
    )  # fmt: skip
    blobs: dict[str, bytes | memoryview] = {_JOBS: b"".join(job.line for job in packed.jobs)}
    blobs |= {name: text.encode() for name, text in _texts(packed) if text}
    try:
        return _batch(client, client.jobs.add(record, blobs))
    except BaseException:  # also an interrupt: nobody knows the tasks
        client.cancel(accepted)
        raise


def _texts(packed: PackedBatch) -> list[tuple[str, str]]:
    return [(_SEQUENCE, packed.sequence), (_CONFIG, packed.config)]


def add_jobs(
    client: Client, batch: StoredBatch, jobs: Sequence[PackedJob], caller: Caller, trace: str
) -> StoredBatch:
    """Submit further jobs of an open batch; all or nothing. Raises KeyConflictError."""
    accepted = _submitted(client, jobs, caller, trace)

    def changed(record: JobRecord) -> JobRecord:
        if record.ended_s or len(record.tasks) != len(batch.states):
            text = f"batch {batch.id} was closed, or got other jobs meanwhile"
            raise KeyConflictError(text, hint="add the jobs again, or make another batch")
        tasks = (*record.tasks, *((task, 0) for task in accepted))
        return msgspec.structs.replace(record, tasks=tasks)

    lines = b"".join(job.line for job in jobs)
    try:
        if len(lines) > BLOB_PART_BYTES:
            text = f"variables of {len(lines)} bytes; the limit is {BLOB_PART_BYTES}"
            raise LimitExceededError(text, hint="fewer jobs at once")
        client.jobs.change(batch.id, changed, blobs={_JOBS: lines} if lines else None)
    except BaseException:  # also an interrupt: the batch does not have the tasks
        client.cancel(accepted)
        raise
    return find(client, batch.id)


def _submitted(client: Client, jobs: Sequence[PackedJob], caller: Caller, trace: str) -> list[str]:
    """Submit tasks; return their ids. Jobs of the same shots and seed go in one message."""
    of_all: dict[str, Any] = {"account": caller.account or None, "trace": trace}
    if caller.reservation:
        of_all["reservation"] = caller.reservation
    drawn, accepted = checked_seed(None, None), list[str]()
    try:
        for _, group in groupby(jobs, key=lambda job: sorted(job.options.items(), key=str)):
            each = list(group)
            options = of_all | {"seed": drawn} | each[0].options
            info = device_of(options, client.submit_devices)
            tasks = send_pulses(client.session, [job.call for job in each], options, info)
            accepted += [task.id for task in tasks]
    except BaseException:  # also an interrupt: all jobs are submitted, or none
        if accepted:
            client.cancel(accepted)
        raise
    return accepted


def find(client: Client, number: str) -> StoredBatch:
    """Return a batch. Raises NotFoundError."""
    try:
        record = client.jobs.get(number) if len(number) <= 64 else None
    except NotFoundError:
        record = None
    if record is None or record.kind != KIND:
        raise NotFoundError(f"no batch {number[:80]!r} here", hint="GET batches lists them")
    return _batch(client, record)


def _batch(client: Client, record: JobRecord) -> StoredBatch:
    stored = msgspec.msgpack.decode(record.metadata, type=Metadata)
    if stored.format != FORMAT:
        text = f"batch {record.id} has format {stored.format}, this version reads {FORMAT}"
        raise VersionMismatchError(text, hint="read it with the version that stored it")
    ids = [task for task, _ in record.tasks]
    infos = {info.id: info.state for info in client.tasks(ids)} if ids else {}
    states = tuple(infos.get(task, TaskState.FAILED) for task in ids)  # FAILED: it was removed
    return StoredBatch(record, stored.project, stored.device_type, states)


def listed(client: Client, selector: JobSelector) -> tuple[list[StoredBatch], int]:
    """Return the batches of a page, and the number of batches on all pages."""
    records, count = client.jobs.listed(selector)
    return [_batch(client, record) for record in records], count


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
    find(client, number)

    def changed(record: JobRecord) -> JobRecord | None:
        return None if record.ended_s else msgspec.structs.replace(record, ended_s=time())

    client.jobs.change(number, changed)
    return find(client, number)


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
