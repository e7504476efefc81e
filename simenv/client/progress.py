"""One line of waiting text, rewritten in place; nothing where there is no terminal."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TextIO

from simenv.client.signs import elapsed
from simenv.model import TaskInfo, TaskState


class Line:
    """A context manager, so that the line is gone when the waiting is over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._shown = ""

    def show(self, text: str) -> None:
        if text == self._shown or not self._stream.isatty():
            return
        self._stream.write(f"\r{text}\x1b[K")
        self._stream.flush()
        self._shown = text

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def passes(info: TaskInfo) -> str:
    """`pass 12 of 40`; "" where that is not known."""
    if not info.passes_done:
        return ""
    of = f" of {info.passes}" if info.passes >= info.passes_done else ""
    return f"pass {info.passes_done}{of}"


def describe(infos: Sequence[TaskInfo], task: str) -> str:
    """`t-8k2g RUNNING try 2 on sv-1, pass 7 of 9, 0:03`, or `t-8k2h QUEUED 0:41 (why)`."""
    if not infos:
        return task
    info = infos[0]
    words = [task, str(info.state)]
    if info.attempt > 1:
        words.append(f"try {info.attempt}")
    if info.state is TaskState.RUNNING:
        words.append(f"on {info.worker},")
        if told := passes(info):
            words.append(f"{told},")
    words.append(elapsed(info.time_s))
    if info.reason:
        words.append(f"({info.reason})")
    return " ".join(words)
