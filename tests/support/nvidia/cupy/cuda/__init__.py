"""See `cupy`."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from . import driver, memory, runtime


class Device:
    """The first device."""

    def __init__(self, number: int) -> None:
        assert number == 0
        self.compute_capability = runtime.described()[3]


@contextlib.contextmanager
def using_allocator(allocator: Any) -> Iterator[None]:
    assert allocator is None
    yield


class Stream:
    """A stream that records, or the one of all other work, which is done at once."""

    ptr = 0
    recording: list[Callable[[], None]] | None = None

    def __init__(self, *, non_blocking: bool) -> None:
        assert non_blocking

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *error: object) -> None:
        assert Stream.recording is None

    def begin_capture(self) -> None:
        Stream.recording = []

    def end_capture(self) -> "Graph":
        graph, Stream.recording = Graph(Stream.recording or []), None
        return graph


class Graph:
    """Recorded work. `launches`: of all graphs."""

    launches = 0

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self._work = work

    def launch(self) -> None:
        assert Stream.recording is None
        Graph.launches += 1
        for each in self._work:
            each()


def get_current_stream() -> Stream:
    return Stream(non_blocking=True)


def run(work: Callable[[], None]) -> None:
    """Do work, or record it."""
    if Stream.recording is None:
        work()
    else:
        Stream.recording.append(work)


__all__ = [
    "Device", "Graph", "Stream", "driver", "get_current_stream", "memory", "run", "runtime",
    "using_allocator",
]  # fmt: skip
