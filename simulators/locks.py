"""Work that several processes need done once: the first does it, the others wait for it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DONE = b"+"


class Busy(Exception):
    """Another process does the work just now."""


@contextmanager
def one_at_a_time(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Let one process at a time into the block, until one has left it without an error: from then
    on nobody waits. Where no such file can be made or locked, there is no order.

    Raises Busy instead of waiting where `wait` is false.
    """
    lock = -1 if is_done(path) else _opened(path)
    try:
        if lock >= 0:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy from None
            except OSError:  # a file system without locks
                pass
        yield
        if lock >= 0:
            with suppress(OSError):  # a full disk: the next one takes the lock, too
                os.pwrite(lock, _DONE, 0)
    finally:
        if lock >= 0:
            os.close(lock)


def is_done(path: Path) -> bool:
    """Whether a process has left the block of this file without an error."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return -1
