"""Frames: messages of bytes over pipes, each with its length in front.

Invariant: a length is only a claim. A reader refuses one above its limit, and the readers of the
parent process take memory only for bytes that have come.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_LENGTH = struct.Struct("!Q")
_BUFFERS = 1_024  # of one call: IOV_MAX of Linux


class FrameError(OSError):
    """The process at the other end has ended, or announces a frame above the limit."""


def frame(*parts: bytes) -> list[memoryview]:
    """Return the buffers of one frame, whose body are these parts."""
    head = _LENGTH.pack(sum(map(len, parts)))
    return [memoryview(each) for each in (head, *parts) if each]


def write_some(descriptor: int, buffers: list[memoryview]) -> list[memoryview]:
    """Write as much of the buffers as a pipe takes; return the rest. Raises OSError."""
    written = os.writev(descriptor, buffers[:_BUFFERS])
    for number, each in enumerate(buffers):
        if written < len(each):
            return [each[written:], *buffers[number + 1 :]]
        written -= len(each)
    return []


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Read the next frame of a blocking stream; None: the stream has ended."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(head)
    data = stream.read(size)
    return data if len(data) == size else None


async def read_frame_async(reader: asyncio.StreamReader, most_bytes: int) -> bytes:
    """Read the next frame. Raises FrameError for one above the limit, asyncio.IncompleteReadError
    at the end of the stream."""
    (size,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    _check(size, most_bytes)
    return await reader.readexactly(size)


class FrameBuffer:
    """Frames of a stream whose bytes come in pieces."""

    def __init__(self, most_bytes: int) -> None:
        """`most_bytes`: limit of one frame."""
        self._most_bytes = most_bytes
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add bytes; yield the frames that are complete now. Raises FrameError."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._data)
            _check(size, self._most_bytes)
            end = _LENGTH.size + size
            if len(self._data) < end:
                return
            with memoryview(self._data) as view:
                body = bytes(view[_LENGTH.size : end])
            del self._data[:end]
            yield body


def _check(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise FrameError(f"a frame of {size} bytes; the limit is {most_bytes}")
