"""Progress line of a waiting command: compilation in its own process, or checks of the service."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from time import monotonic
from typing import TextIO

from simenv.client.tasks.progress import LOG, PATIENCE_S, ProgressLine, progress_line
from simenv.text import elapsed

_LOOK_S = 0.2


def kernel_progress(stream: TextIO | None = None) -> AbstractContextManager[None]:
    """Show for how long this process has been compiling, from PATIENCE_S on. `stream`: default
    stderr."""

    def busy_s() -> float:
        from simulators.compiler.kernel_time import busy_ns

        return busy_ns() / 1e9

    return _progress("compiling kernels, once on this machine", busy_s, stream)


def answer_progress(stream: TextIO | None = None) -> AbstractContextManager[None]:
    """Show for how long the service has been checking a circuit, from PATIENCE_S on.

    The first circuit of its kind may wait for kernels in the service.
    """
    begin_s = monotonic()
    text = "the service checks the circuit; the first of its kind waits for kernels"
    return _progress(text, lambda: monotonic() - begin_s, stream)


@contextmanager
def _progress(text: str, since_s: Callable[[], float], stream: TextIO | None) -> Iterator[None]:
    """Show `text` with a duration. `since_s`: returns the seconds that the wait has lasted."""
    line = progress_line(LOG, sys.stderr if stream is None else stream)
    over = Event()
    arguments = (line, text, since_s, over)
    thread = Thread(target=_watch, args=arguments, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        line.clear()


def _watch(line: ProgressLine, text: str, since_s: Callable[[], float], over: Event) -> None:
    while not over.wait(_LOOK_S):
        lasted_s = since_s()
        if lasted_s >= PATIENCE_S:
            line.show(f"{text}, {elapsed(lasted_s)}")
        else:
            line.clear()
