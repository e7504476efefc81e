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
_BAR_CHARS = 20
PATIENCE_S = 1.0  # a start that takes longer shows its progress
_PER_SECOND = 0.1  # a lower rate is that of a minute
_LEAST_S = 1.0  # in which tasks have to end before there is a rate


class TaskProgress(NamedTuple):
    """What a task, or several, have done of what they have to do. `fraction`: 0.0 to 1.0. `unit`:
    what is counted, such as "passes"; "": the engine does not report it, or the task does not run.
    `left_s`: forecast of the rest of the run; None: not known. `rate`: units a second, of several
    tasks."""

    fraction: float = 0.0
    done: int = 0
    total: int = 0
    unit: str = ""
    left_s: float | None = None
    rate: float = 0.0

    def __str__(self) -> str:
        """Return `13 of 42 passes, 31 %, 0:42 left`; what is not known is left out."""
        parts = []
        if self.unit:
            parts += [f"{self.done} of {self.total} {self.unit}", f"{int(100 * self.fraction)} %"]
        if self.rate >= _PER_SECOND:
            parts.append(f"{self.rate:.{0 if self.rate >= 10 else 1}f}/s")
        elif self.rate:
            parts.append(f"{60 * self.rate:.1f}/min")
        if self.left_s is not None:
            parts.append(f"{elapsed(self.left_s)} left")
        return ", ".join(parts)


_NOTHING = TaskProgress()


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

    def show(self, text: str, progress: TaskProgress = _NOTHING) -> None:
        """Replace the line; cut to the terminal's width, since a wrapped line cannot be removed. A
        bar stands before the text where the progress is known."""
        if progress.unit:
            full = int(_BAR_CHARS * progress.fraction)
            text = f"[{'#' * full}{'-' * (_BAR_CHARS - full)}] {text}"
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

    def show(self, text: str, progress: TaskProgress = _NOTHING) -> None:
        """See `ProgressLine`."""
        if not self.visible:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bar is None:
            columns = (BarColumn(), TextColumn("{task.fields[text]}"))
            console = Console(file=self._stream)
            self._bar = Progress(*columns, console=console, transient=True, auto_refresh=False)
            self._bar.add_task("", total=1.0, text="")
            self._bar.start()
        self._bar.update(0, completed=progress.fraction, text=text)
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

    def show(self, text: str, progress: TaskProgress = _NOTHING) -> None:  # noqa: ARG002  # text
        """See `ProgressLine`."""
        if monotonic() >= self._next_s:
            self._next_s = monotonic() + LOG_S
            self.finish(text)


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


def progress_of(info: TaskInfo) -> TaskProgress:
    """Return the progress of one task."""
    if info.state is TaskState.DONE:
        return TaskProgress(1.0, 1, 1, "tasks", 0.0)
    if info.state is not TaskState.RUNNING:
        return _NOTHING
    left_s = info.left_us / 1e6 if info.left_us >= 0 else None
    if info.progress is None:
        return TaskProgress(left_s=left_s)
    part = info.progress
    return TaskProgress(part.fraction, part.done, part.total, part.unit, left_s)


def group_progress(
    running: Sequence[TaskInfo], ended: int, total: int, time_s: float, before: int = 0
) -> TaskProgress:
    """Return the progress of several tasks. `running`: some of those that have not ended;
    `time_s`: since `before` of the `ended` ones had. The rest takes as long as their rate says, and
    at least as long as the last of `running`, which says all where none waits."""
    each = [progress_of(info) for info in running if info.state is TaskState.RUNNING]
    fraction = min(1.0, (ended + sum(one.fraction for one in each)) / max(1, total))
    rate = (ended - before) / time_s if ended > before and time_s >= _LEAST_S else 0.0
    forecasts = [one.left_s for one in each if one.left_s is not None]
    if ended == total:
        forecasts = [0.0]
    elif rate and not len(forecasts) == len(each) == total - ended:
        forecasts.append((1.0 - fraction) * total / rate)
    elif not rate and len(each) < total - ended:
        forecasts = []
    return TaskProgress(fraction, ended, total, "tasks", max(forecasts, default=None), rate)


class GroupRate:
    """Progress of several tasks that is asked for again and again. The rate counts the tasks that
    have ended since the service answered first: earlier ends may be of any time."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._first: tuple[float, int] | None = None  # monotonic time, tasks ended by then

    def progress(self, infos: Sequence[TaskInfo] | None, ended: int) -> TaskProgress:
        """Return the progress. `infos`: of some tasks that have not ended, as the service has
        answered; None: it was not asked yet."""
        now_s = monotonic()
        if self._first is None and infos is not None:
            self._first = now_s, ended
        begun_s, before = self._first or (now_s, ended)
        return group_progress(infos or (), ended, self._total, now_s - begun_s, before)


def describe(infos: Sequence[TaskInfo], task: str) -> str:
    """Return `t-8k2g RUNNING try 2 on sv-1, 7 of 9 passes, 77 %, 0:01 left, 0:03`, or
    `t-8k2h QUEUED 0:41 (why)`."""
    if not infos:
        return task
    info = infos[0]
    parts = [task, str(info.state)]
    if info.attempt > 1:
        parts.append(f"try {info.attempt}")
    if info.state is TaskState.RUNNING:
        parts.append(f"on {info.worker},")
        if text := str(progress_of(info)):
            parts.append(f"{text},")
    parts.append(elapsed(info.time_s))
    if info.reason:
        parts.append(f"({info.reason})")
    return " ".join(parts)
