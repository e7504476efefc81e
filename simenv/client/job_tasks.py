"""Submission of tasks into durable jobs: a job gets all tasks of a call or none of them, whichever
process dies.

The tasks are stored first, as a job of the kind SUBMISSION, and the job that gets them has its id
as a label. Then the service accepts them, each message under an idempotency key of its own; the
submission ends, accepted or refused, with the ids of its tasks; and the job gets these, or they are
cancelled. Invariant: the first end of a submission decides, and each step can be repeated. So any
process that reads the job completes what another one has left, with the same tasks.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import time

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.jobs import JobRecords
from simenv.client.submission.prepare import PreparedSubmit
from simenv.client.submission.send import chunks, send
from simenv.client.tasks.task import numbers_of
from simenv.errors import (
    DECODE_ERRORS,
    KeyConflictError,
    LimitExceededError,
    NotFoundError,
    SimenvError,
    StoreError,
    VersionMismatchError,
)
from simenv.model import TaskOptions, TaskSpec
from simenv.model.jobs import JobRecord, JobSelector
from simenv.text import size

SUBMISSION = "submission"  # kind of a stored submission
FORMAT = 1  # of its content
MAX_BYTES = 256 * 2**20  # of the content, unpacked
ORPHAN_S = 3_600.0  # after which a submission without a job is removed
_LABEL = "submission="  # of the job that gets the tasks, with the id of the submission
_REFUSED = "refused"  # label of an ended submission whose tasks are to be cancelled
_CONTENT = "content"  # name of its data
_LEVEL = 1  # of zlib: the programs of one call are much alike


class Content(msgspec.Struct, frozen=True, array_like=True):
    """What a job gets. `messages`: terms and tasks of each; `creates`: the job is new, and there is
    none if they are refused; `closes`: it ends then; `metadata` b"": as it is; `blobs`: one more
    part of each of some data."""

    format: int
    messages: list[tuple[TaskOptions, list[TaskSpec]]]
    creates: bool = False
    closes: bool = False
    metadata: bytes = b""
    blobs: dict[str, bytes] = {}


def _pack(content: Content) -> bytes:
    packed = msgspec.msgpack.encode(content)
    if len(packed) > MAX_BYTES:
        text = f"programs of {size(len(packed))} in one call; the limit is {size(MAX_BYTES)}"
        raise LimitExceededError(text, hint="fewer jobs at once")
    return zlib.compress(packed, _LEVEL)


def _unpack(data: bytes, number: str) -> Content:
    """Raises VersionMismatchError, StoreError for data that another program has written."""
    stream = zlib.decompressobj()
    try:
        packed = stream.decompress(data, MAX_BYTES)
        head = msgspec.msgpack.decode(packed, type=list[msgspec.Raw])
        stored = msgspec.msgpack.decode(head[0], type=int)
        if stored != FORMAT:
            text = f"submission {number} has format {stored}, this version reads {FORMAT}"
            raise VersionMismatchError(text, hint="complete it with the version that stored it")
        return msgspec.msgpack.decode(packed, type=Content)
    except (zlib.error, IndexError, *DECODE_ERRORS) as error:
        raise StoreError(f"submission {number} cannot be read: {error}") from error


def _messages(orders: Sequence[PreparedSubmit]) -> list[tuple[TaskOptions, list[TaskSpec]]]:
    """Return terms and tasks of each message; neighbours with the same terms share messages."""
    groups: list[tuple[TaskOptions, list[TaskSpec]]] = []
    for order in orders:
        if not groups or groups[-1][0] != order.terms:
            groups.append((order.terms, []))
        groups[-1][1].extend(order.specs)
    return [(terms, part) for terms, specs in groups for part in chunks(specs)]


def _label_of(job: JobRecord) -> str:
    """Return the label that names the submission of a job; "": it gets no tasks now."""
    return next((each for each in job.labels if each.startswith(_LABEL)), "")


def _without(job: JobRecord, label: str) -> JobRecord:
    kept = tuple(each for each in job.labels if each != label)
    return msgspec.structs.replace(job, labels=kept)


class JobTasks:
    """The tasks of the caller's jobs. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session
        self._records = JobRecords(session)

    def create(
        self,
        job: JobRecord,
        orders: Sequence[PreparedSubmit],
        blobs: Mapping[str, bytes | memoryview],
        *,
        closes: bool,
    ) -> JobRecord:
        """Store a new job with its data and submit its tasks; return it. `closes`: it has ended
        then. After an error there is neither, but after one with `maybe_accepted`, when `complete`
        tells. Raises KeyConflictError for the id of another job, and as `Client.submit_many`."""
        content = Content(FORMAT, _messages(orders), creates=True, closes=closes)
        if not content.messages:
            return self._records.add(
                msgspec.structs.replace(job, ended_s=time() if closes else 0.0), blobs
            )
        number = self._store(job, content)
        label = _LABEL + number
        try:
            labelled = msgspec.structs.replace(job, labels=(*job.labels, label))
            stored = self._records.add(labelled, blobs)
        except BaseException:  # also an interrupt: nobody has the job
            with suppress(SimenvError):
                self._withdraw(job.id, label, removes_job=True)
            raise
        if label not in stored.labels:  # the same job of another call
            self._records.remove(number)
        return self.complete(job.id)

    def stored(self, job: str) -> JobRecord | None:
        """Return a job that an earlier call of the same content may have stored, with its tasks;
        None: there is none. What a process has left before all its data were stored is removed."""
        try:
            found = self._records.get(job)
            if found.kind:
                return self.completed(found)
        except NotFoundError:
            return None
        self._records.remove(job)
        return None

    def add(
        self,
        job: JobRecord,
        check: Callable[[JobRecord], None],
        orders: Sequence[PreparedSubmit],
        *,
        metadata: bytes = b"",
        blobs: Mapping[str, bytes] | None = None,
    ) -> JobRecord:
        """Submit tasks into a job; return it with them. After an error it is as before, but as in
        `create`. `check`: raises the error of a job that cannot get them, as it is now; `metadata`,
        `blobs`: as in `Content`. Raises KeyConflictError while others add tasks, and as
        `Client.submit_many`."""
        messages = _messages(orders)
        content = Content(FORMAT, messages, metadata=metadata, blobs=dict(blobs or {}))
        number = self._store(job, content)
        label = _LABEL + number

        def labelled(now: JobRecord) -> JobRecord:
            check(now)
            if _label_of(now):
                text = f"job {job.id} gets other tasks at the moment"
                raise KeyConflictError(text, hint="add them again")
            return msgspec.structs.replace(now, labels=(*now.labels, label))

        try:
            self._records.change(job.id, labelled)
        except BaseException:  # also an interrupt: the job gets nothing
            with suppress(SimenvError):
                self._withdraw(job.id, label, removes_job=False)
            raise
        return self.complete(job.id)

    def close(self, job: str) -> JobRecord:
        """End a job once it has its tasks; return it. Raises NotFoundError, KeyConflictError."""

        def closed(now: JobRecord) -> JobRecord | None:
            if _label_of(now):
                text = f"job {job} gets tasks at the moment"
                raise KeyConflictError(text, hint="close it again")
            return None if now.ended_s else msgspec.structs.replace(now, ended_s=time())

        return self._records.change(self.complete(job).id, closed) or self._records.get(job)

    def complete(self, job: str) -> JobRecord:
        """Return a job with its tasks. Raises NotFoundError if there is no such job, also because
        its tasks were refused, and the refusal where this call has met it."""
        return self.completed(self._records.get(job))

    def completed(self, job: JobRecord) -> JobRecord:
        """As `complete`, for a job that was read."""
        while label := _label_of(job):
            if not job.kind:
                raise NotFoundError(f"job {job.id} is not stored yet")
            self._end(job, label)
            job = self._records.get(job.id)
        return job

    def complete_all(self, kind: str) -> None:
        """Complete the jobs of a kind that processes have left. What is refused ends; the error of
        one that cannot be completed now is that of its next reader."""
        selector = JobSelector((SUBMISSION,), (f"kind={kind}",))
        for submission in list(self._records.all(selector)):
            job = next((each[4:] for each in submission.labels if each.startswith("job=")), "")
            with suppress(SimenvError):
                with suppress(NotFoundError):
                    self.complete(job)
                if submission.ended_s or time() - submission.created_s > ORPHAN_S:
                    self._records.remove(submission.id)  # no job waits for it

    def _store(self, job: JobRecord, content: Content) -> str:
        """Store a submission; return its id."""
        labels = (f"job={job.id}", f"kind={job.kind}")
        record = JobRecord(str(uuid.uuid4()), SUBMISSION, labels=labels)
        return self._records.add(record, {_CONTENT: _pack(content)}).id

    def _end(self, job: JobRecord, label: str) -> None:
        """Take the steps that are left of a job's submission. Raises its refusal."""
        number = label.removeprefix(_LABEL)
        sent: list[str] = []
        try:
            submission = self._records.get(number)
            content = _unpack(self._records.data(number, _CONTENT), number)
            refusal = None
            if not submission.ended_s:
                submission, refusal = self._decided(submission, content, sent)
        except NotFoundError:  # another process has ended it
            self._cancel_strays(job.id, label, sent)
            return
        tasks = submission.tasks
        if _REFUSED in submission.labels:
            self._cancel([*(task for task, _ in tasks), *sent])
            self._withdraw(job.id, label, removes_job=content.creates)
            if refusal is not None:
                raise refusal
            return

        def changed(now: JobRecord) -> JobRecord | None:
            if label not in now.labels:
                return None
            ended_s = now.ended_s or (time() if content.closes else 0.0)
            return msgspec.structs.replace(
                _without(now, label), tasks=(*now.tasks, *tasks), ended_s=ended_s,
                metadata=content.metadata or now.metadata,
            )  # fmt: skip

        self._records.change(job.id, changed, blobs=content.blobs)
        self._records.remove(number)
        if refusal is not None and not isinstance(refusal, SimenvError):
            raise refusal  # an interrupt

    def _decided(
        self, submission: JobRecord, content: Content, sent: list[str]
    ) -> tuple[JobRecord, BaseException | None]:
        """Send the tasks, whose ids `sent` gets, and end the submission; return it as its first end
        was, and the error. Raises an error with `maybe_accepted`."""
        refusal: BaseException | None = None
        try:
            self._send(submission.id, content, sent)
        except BaseException as error:
            refusal = error
            if isinstance(error, SimenvError) and error.maybe_accepted:
                error.hint = "the job is stored, and gets its tasks when it is next read"
                raise
            if not isinstance(error, SimenvError):
                # An interrupt. What the service has accepted is known by its keys alone.
                with suppress(SimenvError):
                    self._send(submission.id, content, sent)

        def ended(now: JobRecord) -> JobRecord | None:
            if now.ended_s:
                return None
            labels = now.labels if refusal is None else (*now.labels, _REFUSED)
            tasks = tuple((task, 0) for task in dict.fromkeys(sent))
            return msgspec.structs.replace(now, tasks=tasks, labels=labels, ended_s=time())

        changed = self._records.change(submission.id, ended)
        return changed or self._records.get(submission.id), refusal

    def _send(self, number: str, content: Content, sent: list[str]) -> None:
        first = 0
        for place, (terms, specs) in enumerate(content.messages):
            order = PreparedSubmit(terms, specs, single=len(specs) == 1)
            try:
                sent += [task.id for task in send(self._session, order, f"{number}/{place}")]
            except SimenvError as error:
                if error.index >= 0:
                    error.index += first
                raise
            first += len(specs)

    def _cancel_strays(self, job: str, label: str, sent: Sequence[str]) -> None:
        """Cancel sent tasks that the job does not have, after the end of its submission."""
        try:
            self._unlabel(job, label)  # there is one if the submission was removed before the job
            known = {task for task, _ in self._records.get(job).tasks}
        except NotFoundError:
            known = set()
        self._cancel([task for task in sent if task not in known])

    def _withdraw(self, job: str, label: str, *, removes_job: bool) -> None:
        """Take back the label of a job, or the job that has it, and remove the submission."""
        with suppress(NotFoundError):
            if not removes_job:
                self._unlabel(job, label)
            elif label in self._records.get(job).labels:
                self._records.remove(job)
        self._records.remove(label.removeprefix(_LABEL))

    def _cancel(self, tasks: Sequence[str]) -> None:
        if tasks:
            self._session.cancel(numbers_of(dict.fromkeys(tasks)))

    def _unlabel(self, job: str, label: str) -> None:
        def changed(now: JobRecord) -> JobRecord | None:
            return _without(now, label) if label in now.labels else None

        self._records.change(job, changed)
