"""Parts of results as clients read them."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from simenv.gateway.limits import PART_BYTES
from simenv.gateway.native.results import _Pieces


def test_pieces_are_the_blocks() -> None:
    blocks = [bytes(range(7)), b"", b"x" * (PART_BYTES + 1)]
    pieces = list(_Pieces(iter_of(blocks)))
    assert b"".join(pieces) == b"".join(blocks)
    assert max(map(len, pieces)) == PART_BYTES


def iter_of(blocks: list[bytes]) -> Iterator[bytes]:
    yield from blocks


def test_a_client_that_leaves_while_a_thread_reads_leaves_no_open_file() -> None:
    reading, go_on, closed = (threading.Event() for _ in range(3))

    def blocks() -> Iterator[bytes]:
        try:
            while True:
                reading.set()
                assert go_on.wait(60.0)
                yield b"block"
        finally:
            closed.set()

    pieces = _Pieces(blocks())
    with ThreadPoolExecutor(1) as thread:
        piece = thread.submit(next, pieces)
        assert reading.wait(60.0)
        pieces.close()
        assert not closed.is_set()
        go_on.set()
        assert piece.result(60.0) == b"block"
        assert closed.is_set()
    with pytest.raises(StopIteration):
        next(pieces)
    pieces.close()
