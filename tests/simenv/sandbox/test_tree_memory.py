"""Memory of a tree of processes: none is missed, and what is shared counts once."""

import mmap
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from waiting import until

from simenv.sandbox.process_tree import children
from simenv.sandbox.tree_memory import tree_memory

MIB = 2**20


@contextmanager
def forked(work: Callable[[], object], count: int = 1) -> Iterator[int]:
    """A child with `count` children, each of which has done `work`; the pid of the first."""
    read, write = os.pipe()
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        for _ in range(count):
            if os.fork() == 0:
                held = work()
                os.write(done, b"x")
                os.read(read, 1)
                del held
                os._exit(0)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        for _ in range(count):
            os.read(ready, 1)
        yield pid
    finally:
        below = children(pid)
        os.close(write)
        os.waitpid(pid, 0)
        until(lambda: not any(os.path.exists(f"/proc/{each}/statm") for each in below))
        os.close(ready)
        os.close(done)


def file_in_memory(size: int) -> int:
    descriptor = os.memfd_create("test")
    for _ in range(size // MIB):
        os.write(descriptor, b"x" * MIB)
    return descriptor


def test_memory_of_grandchildren_and_of_files_in_memory_is_counted() -> None:
    for work in (lambda: bytearray(os.urandom(MIB)) * 100, lambda: file_in_memory(100 * MIB)):
        with forked(lambda: None, 2) as pid:
            least = tree_memory(pid)
        with forked(work, 2) as pid:
            found = tree_memory(pid)
        assert found.processes == least.processes == 3
        assert found.used_bytes - least.used_bytes > 190 * MIB


def test_buffers_of_sockets_and_pipes_are_counted_once() -> None:
    """Full ones, whose memory is in no process."""

    def filled() -> list[object]:
        held: list[object] = []
        for _ in range(40):
            one, two = socket.socketpair()
            one.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    one.send(bytes(2**14))
            held += [one, two, os.dup(one.fileno()), os.pipe()]
        return held

    with forked(lambda: None) as pid:
        least = tree_memory(pid).used_bytes
    with forked(filled) as pid:
        found = tree_memory(pid).used_bytes - least
    assert 30 * MIB < found < 40 * MIB, "40 pairs and 40 pipes of 256 KiB each"


def test_shared_memory_counts_once() -> None:
    shared = mmap.mmap(-1, 100 * MIB)
    with forked(lambda: None, 4) as pid:
        least = tree_memory(pid).used_bytes
    with forked(lambda: shared.write(bytes(100 * MIB)), 4) as pid:
        exact, quick = tree_memory(pid).used_bytes, tree_memory(pid, 2**40).used_bytes
    assert exact - least < 150 * MIB
    assert quick > 350 * MIB, "the quick sum is never less"


def test_sample_stands_for_many_processes() -> None:
    """Of which each has pages of its own, and far more that it shares with all."""
    with forked(lambda: None, 250) as pid:
        least = tree_memory(pid)

    def own_pages() -> mmap.mmap:  # of the heap some would come back, others not
        area = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, MIB, mmap.PAGESIZE):
            area[at] = 1
        return area

    with forked(own_pages, 250) as pid:
        found = tree_memory(pid)
    assert found.processes == least.processes == 251
    assert 230 * MIB < found.used_bytes - least.used_bytes < 320 * MIB


def test_process_that_has_ended_takes_nothing() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert tree_memory(pid).used_bytes == 0
