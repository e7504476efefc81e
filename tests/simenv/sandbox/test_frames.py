"""Frames come out as they went in, whatever the pieces of the stream; a length is only a claim."""

import io
import struct

import pytest

from simenv.sandbox.frames import FrameBuffer, FrameError, frame, read_frame

BODIES = [b"", b"a", b"bc" * 1_000, b"", b"\0" * 9]


def stream() -> bytes:
    return b"".join(part for body in BODIES for part in frame(body[:1], body[1:]))


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1_000, 10_000])
def test_frames_in_pieces_are_whole(size: int) -> None:
    buffer, data = FrameBuffer(2_000), stream()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert [body for piece in pieces for body in buffer.feed(piece)] == BODIES


def test_frame_above_the_limit_is_refused_before_it_comes() -> None:
    buffer = FrameBuffer(100)
    assert list(buffer.feed(b"".join(frame(bytes(100))))) == [bytes(100)]
    with pytest.raises(FrameError, match="a frame of 101 bytes; the limit is 100"):
        list(buffer.feed(struct.pack("!Q", 101)))


def test_stream_that_ends_amid_a_frame_has_ended() -> None:
    source = io.BytesIO(stream() + b"".join(frame(b"abc"))[:-1])
    assert [read_frame(source) for _ in BODIES] == BODIES
    assert read_frame(source) is None
