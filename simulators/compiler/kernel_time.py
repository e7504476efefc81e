"""Time that a process has spent on compiling kernels, or on loading them from the cache.

A first task of a kind waits for its kernels. That is not part of its run time: runs are measured
with `working_ns`, a clock that stands still meanwhile.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_spent_ns = 0
_depth = 0
_begin_ns = 0  # begin of the outermost open block
_lock = threading.Lock()


def spent_ns() -> int:
    """Nanoseconds spent on kernels by this process so far."""
    return _spent_ns


def working_ns() -> int:
    """A monotonic clock in nanoseconds that stands still while kernels are compiled or loaded."""
    return time.perf_counter_ns() - _spent_ns


def busy_ns() -> int:
    """Time for which this process has been compiling or loading a kernel, ns; 0: it does
    neither."""
    return time.perf_counter_ns() - _begin_ns if _depth else 0


@contextmanager
def booked() -> Iterator[None]:
    """Record the time of this block; nested blocks count once."""
    global _spent_ns, _depth, _begin_ns
    begin_ns = time.perf_counter_ns()
    with _lock:
        if not _depth:
            _begin_ns = begin_ns
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if not _depth:
                _spent_ns += time.perf_counter_ns() - begin_ns
