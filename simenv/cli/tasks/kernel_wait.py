"""One line that says that kernels are compiled, for commands that compute in their own process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TextIO

from simenv.client.tasks.progress import PATIENCE_S, ProgressLine
from simenv.text import elapsed

_LOOK_S = 0.2


@contextmanager
def kernel_progress(stream: TextIO | None = None) -> Iterator[None]:
    """Show for how long this process has been compiling, from PATIENCE_S on. `stream`: by default
    stderr."""
    line = ProgressLine(sys.stderr if stream is None else stream)
    if not line.visible:
        yield
        return
    over = Event()
    thread = Thread(target=_watch, args=(line, over), name="kernel-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        line.clear()


def _watch(line: ProgressLine, over: Event) -> None:
    from simulators.compiler.kernel_time import busy_ns

    while not over.wait(_LOOK_S):
        busy_s = busy_ns() / 1e9
        if busy_s >= PATIENCE_S:
            line.show(f"compiling kernels, once on this machine, {elapsed(busy_s)}")
        else:
            line.clear()
