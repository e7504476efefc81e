"""Jobs: named groups of tasks, with labels, and data that the service stores and does not read.

Invariant: a job belongs to its owner alone; no other owner finds it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

MAX_METADATA_BYTES = 64 * 2**10
MAX_JOB_TASKS = 2**17
MAX_LABELS, MAX_LABEL_CHARS = 16, 320
MAX_LISTED = 1_000  # jobs in one answer
BLOB_PART_BYTES = 256 * 2**10  # of a job's data in one message, and in one row of the journal

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
# What jobs are looked for by: more than any of them has, so that a wrong name is found to be none.
Sought = Annotated[str, msgspec.Meta(max_length=2**20)]
Kind = Annotated[str, msgspec.Meta(max_length=32)]
Label = Annotated[str, msgspec.Meta(max_length=MAX_LABEL_CHARS)]
Labels = Annotated[tuple[Label, ...], msgspec.Meta(max_length=MAX_LABELS)]
TaskId = Annotated[str, msgspec.Meta(max_length=64)]
Values = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Time = Annotated[float, msgspec.Meta(ge=0.0, le=1e11)]  # seconds since 1970
# Its id, and the number of its sets of values; 0: a task of one circuit without a sweep.
JobTask = tuple[TaskId, Values]


class JobRecord(msgspec.Struct, frozen=True, array_like=True):
    """One job. `kind`: of its metadata; "": its data are not complete yet, and no listing has it.
    `version`: number of its changes, by which a change of an outdated job is refused; 0: it is not
    stored yet. `ended_s`: 0 while it is open; in the future: until then. `reservation`: to which
    the rights of its sender were bound, as the service knows; 0: to none."""

    id: Id
    kind: Kind
    version: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    created_s: Time = 0.0  # by the service's clock
    ended_s: Time = 0.0
    labels: Labels = ()
    tasks: Annotated[tuple[JobTask, ...], msgspec.Meta(max_length=MAX_JOB_TASKS)] = ()
    metadata: Annotated[bytes, msgspec.Meta(max_length=MAX_METADATA_BYTES)] = b""
    reservation: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


class JobSelector(msgspec.Struct, frozen=True, array_like=True):
    """Jobs of a listing: of these kinds, with all of these labels. `is_open` None: any; times in
    seconds since 1970, 0: no bound."""

    kinds: Annotated[tuple[Kind, ...], msgspec.Meta(min_length=1, max_length=8)]
    labels: Annotated[tuple[Sought, ...], msgspec.Meta(max_length=128)] = ()
    is_open: bool | None = None
    after_s: Time = 0.0
    before_s: Time = 0.0
    ascending: bool = False  # by creation
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LISTED)] = MAX_LISTED
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**40)] = 0
