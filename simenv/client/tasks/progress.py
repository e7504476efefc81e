"""Progress of waiting: a line that is rewritten in place, or a bar.

Nothing is written unless the stream is a terminal or a notebook.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from io import StringIO
from time import monotonic
from typing import Any, NamedTuple, Self, TextIO

from simenv.errors import OptionError
from simenv.model import TaskInfo, TaskState
from simenv.text import elapsed

BAR, LOG = "rich", "log"
LOG_S = 10.0  # between two lines of a log, and before the first
PATIENCE_S = 1.0  # a start that takes longer shows its progress


class StepProgress(NamedTuple):
    """Number of finished steps. `text`: shown by a line without a bar, if its text lacks the
    numbers."""

    done: int
    total: int
    unit: str
    text: str = ""


class ProgressLine:
    """A line that is rewritten in place; removed at the end, and before anything else is printed. A
    context manager. It is shown on a terminal and in a notebook (ipykernel's streams obey a
    carriage return); elsewhere nothing is written."""

    def __init__(self, stream: TextIO | None) -> None:
        """`stream`: None if the process has none."""
        self._stream = stream or StringIO()
        self._last_text = ""
        self._notebook = type(stream).__module__.startswith("ipykernel.")

    @property
    def visible(self) -> bool:
        """True if the stream is a terminal or a notebook."""
        return self._notebook or self._stream.isatty()

    def show(self, text: str, steps: StepProgress | None = None) -> None:
        """Replace the line; cut to the terminal's width, since a wrapped line cannot be removed."""
        if steps is not None and steps.text:
            text = f"{steps.text} | {text}" if text else steps.text
        if text == self._last_text or not self.visible:
            return
        if not self._notebook:
            text = text[: max(1, shutil.get_terminal_size().columns - 1)]
        self._stream.write(f"\r{text}{self._erasure(len(text))}")
        self._stream.flush()
        self._last_text = text

    def clear(self) -> None:
        """Remove the line before the caller prints something. Idempotent."""
        if self._last_text:
            self._stream.write("\r" + self._erasure(0) + ("\r" if self._notebook else ""))
            self._stream.flush()
            self._last_text = ""

    def finish(self, text: str) -> None:
        """Write a last line, which stays."""
        if self.visible:
            self.clear()
            self._stream.write(f"{text}\n")
            self._stream.flush()

    def _erasure(self, length: int) -> str:
        """Return the characters that erase the former text behind `length` characters of the new
        one."""
        return " " * (len(self._last_text) - length) if self._notebook else "\x1b[K"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


class ProgressBar(ProgressLine):
    """A bar of rich, followed by the text; rich is loaded only if the bar is visible."""

    _bar: Any = None

    def show(self, text: str, steps: StepProgress | None = None) -> None:
        """See `ProgressLine`."""
        if not self.visible:
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        steps = steps or StepProgress(0, 1, "tasks")
        if self._bar is None:
            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
            console = Console(file=self._stream)
            self._bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
            self._bar.add_task("", total=0, text="")
            self._bar.start()
        label = f"{steps.unit} {text}".rstrip()
        self._bar.update(0, completed=steps.done, total=steps.total, text=label)
        self._bar.refresh()

    def clear(self) -> None:
        """See `ProgressLine`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class LogLine(ProgressLine):
    """Progress in a stream that is neither a terminal nor a notebook, such as the log of a batch
    job: a line every LOG_S seconds."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self._next_s = monotonic() + LOG_S

    @property
    def visible(self) -> bool:
        return True

    def show(self, text: str, steps: StepProgress | None = None) -> None:
        """See `ProgressLine`."""
        if monotonic() >= self._next_s:
            self._next_s = monotonic() + LOG_S
            self.finish(f"{steps.text} | {text}" if steps is not None and steps.text else text)


def progress_line(progress: bool | str, stream: TextIO | None) -> ProgressLine:
    """Return the line of a bool, the bar of BAR, or the log of LOG: a line on a terminal, else
    lines of a log. Raises OptionError for another text."""
    line = ProgressLine(stream)
    if isinstance(progress, bool):
        return line
    if progress == BAR:
        return ProgressBar(stream)
    if progress == LOG:
        return line if line.visible else LogLine(stream)
    raise OptionError(f"progress={progress!r:.80}", hint=f"True, {BAR!r}, {LOG!r}")


class StartLine(ProgressLine):
    """The progress of a start that takes longer than `PATIENCE_S`; see `launch.start`."""

    def report(self, text: str, elapsed_s: float) -> None:
        """Show the present stage and the time since the start."""
        if elapsed_s >= PATIENCE_S:
            self.show(f"starting: {text}, {elapsed(elapsed_s)}")


def passes(info: TaskInfo) -> str:
    """Return `sweep 12 of 40`; "" if the number is not known."""
    if not info.passes_done:
        return ""
    of = f" of {info.passes}" if info.passes >= info.passes_done else ""
    return f"sweep {info.passes_done}{of}"


def ended_steps(ended: int, total: int) -> StepProgress:
    """Return the steps of waiting for tasks: ended tasks of all tasks."""
    return StepProgress(ended, total, "tasks", f"{ended} of {total} tasks ended")


def sweeps(infos: Sequence[TaskInfo]) -> StepProgress | None:
    """Return the sweeps of a task over its state; None if they are not known."""
    if not infos or infos[0].passes < infos[0].passes_done:
        return None
    return StepProgress(infos[0].passes_done, infos[0].passes, "sweeps")


def describe(infos: Sequence[TaskInfo], task: str) -> str:
    """Return `t-8k2g RUNNING try 2 on sv-1, sweep 7 of 9, 0:03`, or `t-8k2h QUEUED 0:41 (why)`."""
    if not infos:
        return task
    info = infos[0]
    parts = [task, str(info.state)]
    if info.attempt > 1:
        parts.append(f"try {info.attempt}")
    if info.state is TaskState.RUNNING:
        parts.append(f"on {info.worker},")
        if settings := passes(info):
            parts.append(f"{settings},")
    parts.append(elapsed(info.time_s))
    if info.reason:
        parts.append(f"({info.reason})")
    return " ".join(parts)
