"""Work that several processes need done once: who comes first does it, the others wait."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DONE = b"+"


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of all processes, one at a time, until one has come through without an error: from then on
    nobody waits. Where no such file can be made or locked, each is
    on its own."""
    lock = -1 if _is_done(path) else _opened(path)
    try:
        if lock >= 0:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        if lock >= 0:
            with suppress(OSError):  # a full disk: the next one takes the lock, too
                os.pwrite(lock, _DONE, 0)
    finally:
        if lock >= 0:
            os.close(lock)


def _is_done(path: Path) -> bool:
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
