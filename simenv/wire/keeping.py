"""Messages about what is kept of ended tasks: bytes of a result's file, a broken result, old ones.

A part of `messages`. Invariant: the service believes no client that a result is broken; it looks
for itself.
"""

from __future__ import annotations

import msgspec

from simenv.model.bounds import Text
from simenv.wire.numbers import Number

CHUNK_BYTES = 2**20  # the most that one FetchResult brings


class FetchResult(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """A part of the file that holds a task's large arrays; answered by ResultChunk."""

    request: Number
    task: Number
    file: Text
    offset: Number
    size_bytes: Number


class Rerun(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """A task's result is not what was written; answered by Rerunning when that has been checked."""

    request: Number
    task: Number


class Collect(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Give up what is kept of tasks that ended longer ago, or of all that the limits do not allow.

    `older_s` < 0: what retention would remove by itself. `dry`: only say what would go. Answered by
    Collected when it is done.
    """

    request: Number
    older_s: float = -1.0
    dry: bool = False


class ResultChunk(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """The bytes asked for, CHUNK_BYTES at most; fewer where the file ends."""

    request: int
    data: bytes


class Rerunning(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """One word: "again" (it is queued again), "waits" (it has not ended), "intact" (what is stored
    is whole: fetch it again), "removed" (its file went by retention), "unknown"."""

    request: int
    word: str


class Kept(msgspec.Struct, frozen=True):
    """What is kept of ended tasks, or what was given up of them."""

    tasks: int = 0
    files: int = 0
    file_bytes: int = 0
    journal_bytes: int = 0  # rows given up; of what is kept: the journal's file
    unread: int = 0  # completions among them that a cursor had not passed
    oldest_s: float = 0.0  # time of day when the oldest of them ended; 0.0: none


class Collected(msgspec.Struct, frozen=True, array_like=True, tag=19):
    request: int
    freed: Kept
    left: Kept
