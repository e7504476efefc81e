"""Durable jobs: named groups of tasks with metadata, which outlive the process that made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.errors import KeyConflictError
from simenv.model.jobs import BLOB_PART_BYTES, JobRecord, JobSelector
from simenv.wire.messages import jobs as m

CHANGES = 20  # attempts to change a job that others change too


class JobRecords:
    """The caller's jobs in the service. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def add(self, job: JobRecord, blobs: Mapping[str, bytes | memoryview]) -> JobRecord:
        """Store a new job with its data; return it with its time of creation. No listing has it
        before its data are complete. Raises QueueFullError, InsufficientError."""
        first = {name: bytes(data[:BLOB_PART_BYTES]) for name, data in blobs.items()}
        if all(len(data) <= BLOB_PART_BYTES for data in blobs.values()):
            return self._put(job, first)
        draft = self._put(msgspec.structs.replace(job, kind=""), first)
        for name, data in blobs.items():
            self._append_from(job.id, name, data, BLOB_PART_BYTES, BLOB_PART_BYTES)
        return self._put(msgspec.structs.replace(draft, kind=job.kind))

    def _put(
        self, job: JobRecord, blobs: Mapping[str, bytes] | None = None, removed: Sequence[str] = ()
    ) -> JobRecord:
        message = m.PutJob(0, job, dict(blobs or {}), tuple(removed))
        return self._session.request(message).jobs[0]

    def get(self, job: str) -> JobRecord:
        """Return a job. Raises NotFoundError."""
        return self._session.request(m.GetJob(0, job)).jobs[0]

    def change(
        self,
        job: str,
        change: Callable[[JobRecord], JobRecord | None],
        removed: Sequence[str] = (),
        blobs: Mapping[str, bytes] | None = None,
    ) -> JobRecord | None:
        """Change a job as it is now; return it. `change`: returns the changed one, or None to leave
        it; called again if another process has changed the job meanwhile. `removed`: data that go;
        `blobs`: one more part of each of some data. Raises NotFoundError, KeyConflictError,
        QueueFullError."""
        for attempt in range(CHANGES):
            changed = change(self.get(job))
            if changed is None:
                return None
            try:
                return self._put(changed, blobs, removed)
            except KeyConflictError:
                if attempt + 1 == CHANGES:
                    raise
        raise AssertionError  # the loop returns or raises

    def listed(self, selector: JobSelector) -> tuple[list[JobRecord], int]:
        """Return the jobs of a page, and the number of jobs on all pages."""
        found = self._session.request(m.ListJobs(0, selector))
        return found.jobs, found.count

    def all(self, selector: JobSelector) -> Iterator[JobRecord]:
        """Yield the jobs of all pages."""
        while True:
            page, count = self.listed(selector)
            yield from page
            offset = selector.offset + len(page)
            if not page or offset >= count:
                return
            selector = msgspec.structs.replace(selector, offset=offset)

    def remove(self, job: str) -> None:
        """Remove a job and its data, if there is one; its tasks stay."""
        self._session.request(m.DeleteJob(0, job))

    def append(self, job: str, name: str, data: bytes) -> None:
        """Add bytes to the data of an open job. Raises NotFoundError, KeyConflictError if it has
        ended, QueueFullError."""
        if data:
            self._append_from(job, name, data, 0, self.part(job, name, 0)[1])

    def _append_from(
        self, job: str, name: str, data: bytes | memoryview, first: int, start: int
    ) -> None:
        """Append `data[first:]` at the place `start`."""
        for at in range(first, len(data), BLOB_PART_BYTES):
            part = bytes(data[at : at + BLOB_PART_BYTES])
            self._session.request(m.AppendJobBlob(0, job, name, start + at - first, part))

    def part(self, job: str, name: str, start: int) -> tuple[bytes, int]:
        """Return the part of a job's data that begins at a byte, and the size of all of it. Parts
        have BLOB_PART_BYTES at most. Raises NotFoundError."""
        found = self._session.request(m.ReadJobBlob(0, job, name, start))
        return found.data, found.size_bytes

    def data(self, job: str, name: str) -> bytes:
        """Return data of a job; b"" if it has none of that name. Raises NotFoundError."""
        parts, start = [], 0
        while True:
            part, size = self.part(job, name, start)
            parts.append(part)
            start += len(part)
            if not part or start >= size:
                return b"".join(parts)
