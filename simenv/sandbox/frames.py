"""Frames: messages of bytes over pipes, each with its length in front.

Invariant: a length is only a claim. A reader refuses one above its limit, and the readers of the
parent process take memory only for bytes that have come.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

MAX_FRAME_BYTES = 2**30
_LENGTH = struct.Struct("!Q")


class FrameError(OSError):
    """The process at the other end has ended, or announces a frame above the limit."""


def frame(*parts: bytes) -> list[bytes]:
    """Return the buffers of one frame, whose body are these parts."""
    return [_LENGTH.pack(sum(map(len, parts))), *parts]


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

    def __init__(self, most_bytes: int = MAX_FRAME_BYTES) -> None:
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
