"""Messages about jobs. Each is about the sender's own jobs alone, also of an administrator."""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model.jobs import BLOB_PART_BYTES, JobRecord, JobSelector, Sought
from simenv.wire.messages.base import ClientRequest, Number, Reply

BlobName = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]
BlobPart = Annotated[bytes, msgspec.Meta(max_length=BLOB_PART_BYTES)]


class PutJob(ClientRequest["Jobs"], frozen=True, tag=70):
    """Store a job; answered by Jobs, when stored. `job.version`: 0 of a new one, else that of the
    job as it is stored. `blobs`: the first parts of its data; `removed`: data that go."""

    job: JobRecord
    blobs: Annotated[dict[BlobName, BlobPart], msgspec.Meta(max_length=8)] = msgspec.field(
        default_factory=dict
    )
    removed: Annotated[tuple[BlobName, ...], msgspec.Meta(max_length=8)] = ()


class AppendJobBlob(ClientRequest["Jobs"], frozen=True, tag=71):
    """Add a part to the data of an open job, `start` bytes from its begin. A repeated
    part has no effect."""

    job: Sought
    name: BlobName
    start: Number
    data: BlobPart


class GetJob(ClientRequest["Jobs"], frozen=True, tag=72):
    """Request a job."""

    job: Sought


class ListJobs(ClientRequest["Jobs"], frozen=True, tag=73):
    """Request a page of jobs; answered by Jobs, with the number of jobs without limit and
    offset."""

    selector: JobSelector


class DeleteJob(ClientRequest["Jobs"], frozen=True, tag=74):
    """Remove a job and its data; its tasks stay. Answered by Jobs, when stored. Without such a job
    it has no effect."""

    job: Sought


class ReadJobBlob(ClientRequest["JobBlob"], frozen=True, tag=75):
    """Request the part of a job's data that begins at `start`."""

    job: Sought
    name: BlobName
    start: Number = 0


class Jobs(Reply, frozen=True, tag=70):
    jobs: list[JobRecord] = msgspec.field(default_factory=list)
    count: int = 0  # of all that match


class JobBlob(Reply, frozen=True, tag=71):
    """A part of the data, b"" behind the end, and the size of all of it in bytes."""

    data: bytes
    size_bytes: int
