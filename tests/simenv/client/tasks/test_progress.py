"""The line of waiting text, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from simenv.client.tasks.progress import (
    BARS,
    PATIENCE_S,
    ProgressLine,
    StartLine,
    describe,
    ended_steps,
    progress_line,
    sweeps,
)
from simenv.errors import OptionError
from simenv.model import TaskInfo, TaskState


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def info(state: TaskState, **changes: object) -> TaskInfo:
    values = {"attempt": 1, "time_s": 41.0, "worker": "", "reason": "", **changes}
    return TaskInfo(
        id="t-8k2g", name="", pool="main", state=state, num_qubits=2, shots=10, **values
    )  # type: ignore[arg-type]


def test_line_on_terminal_is_rewritten_and_cleared_at_end() -> None:
    stream = Terminal()
    with ProgressLine(stream) as line:
        line.show("one")
        line.show("one")
        line.show("two")
    assert stream.getvalue() == "\rone\x1b[K\rtwo\x1b[K\r\x1b[K"


def test_line_is_cleared_before_others_print() -> None:
    stream = Terminal()
    with ProgressLine(stream) as line:
        line.show("one")
        line.clear()
        line.clear()
        stream.write("printed\n")
        line.finish("all")
    assert stream.getvalue() == "\rone\x1b[K\r\x1b[Kprinted\nall\n"


def test_line_is_cut_to_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    stream = Terminal()
    ProgressLine(stream).show("x" * 50)
    assert stream.getvalue() == f"\r{'x' * 9}\x1b[K"


def test_notebook_shows_the_line_without_escape_codes() -> None:
    class OutStream(io.StringIO):
        """As ipykernel's: no terminal, and a carriage return goes to the line's begin."""

    OutStream.__module__ = "ipykernel.iostream"
    stream = OutStream()
    with ProgressLine(stream) as line:
        line.show("three")
        line.show("two")
    assert stream.getvalue() == "\rthree\rtwo  \r   \r"


def test_start_is_reported_only_after_delay() -> None:
    stream = Terminal()
    with StartLine(stream) as line:
        line.report("0 of 2 workers ready", 0.5 * PATIENCE_S)
        assert stream.getvalue() == ""
        line.report("0 of 2 workers ready", 12.0)
        assert "\rstarting: 0 of 2 workers ready, 0:12" in stream.getvalue()


def test_process_without_stderr_shows_no_progress_line() -> None:
    with ProgressLine(None) as line:
        assert not line.visible
        line.show("one")


def test_progress_line_is_not_written_to_file() -> None:
    stream = io.StringIO()
    with ProgressLine(stream) as line:
        line.show("one")
        line.show("one")
        line.show("two")
    assert stream.getvalue() == ""


def test_unused_line_writes_nothing() -> None:
    stream = Terminal()
    with ProgressLine(stream):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], "t-8k2g"),
        ([info(TaskState.RUNNING, attempt=2, worker="sv-1")], "t-8k2g RUNNING try 2 on sv-1, 0:41"),
        (
            [info(TaskState.RUNNING, worker="sv-1", passes_done=7, passes=9)],
            "t-8k2g RUNNING on sv-1, sweep 7 of 9, 0:41",
        ),
        (
            [info(TaskState.RUNNING, worker="sv-1", passes_done=7)],
            "t-8k2g RUNNING on sv-1, sweep 7, 0:41",
        ),
        ([info(TaskState.QUEUED, reason="no slot")], "t-8k2g QUEUED 0:41 (no slot)"),
    ],
)
def test_task_is_described_by_state_worker_and_progress(found: list[TaskInfo], text: str) -> None:
    assert describe(found, "t-8k2g") == text


@pytest.mark.parametrize("library", BARS)
def test_bar_of_a_library_shows_steps_and_is_out_of_the_way(library: str) -> None:
    pytest.importorskip(library)
    stream = Terminal()
    with progress_line(library, stream) as line:
        line.show("t-8k2g RUNNING", ended_steps(3, 7))
        assert "3/7" in stream.getvalue()
        assert "t-8k2g RUNNING" in stream.getvalue()
        assert "3 of 7" not in stream.getvalue()
        line.clear()
        stream.write("printed\n")
        line.show("", ended_steps(5, 7))
        assert "5/7" in stream.getvalue().partition("printed\n")[2]
        line.finish("7 of 7 tasks ended")
    assert stream.getvalue().rpartition("\n")[0].endswith("7 of 7 tasks ended")
    item = stream.getvalue().partition("printed\n")[0]
    assert item.endswith(("\r", "\x1b[2K", "\x1b[1A\x1b[2K")), repr(item)


@pytest.mark.parametrize("library", BARS)
def test_bar_is_not_written_to_file(library: str) -> None:
    stream = io.StringIO()
    with progress_line(library, stream) as line:
        line.show("one", ended_steps(0, 1))
    assert not stream.getvalue()


def test_missing_library_of_a_bar_leaves_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simenv.client.tasks.progress.find_spec", lambda _: None)
    stream = Terminal()
    with progress_line("tqdm", stream) as line:
        line.show("t-8k2g QUEUED", ended_steps(0, 2))
    assert "0 of 2 tasks ended | t-8k2g QUEUED" in stream.getvalue()


def test_unknown_bar_is_refused() -> None:
    with pytest.raises(OptionError, match="progress='bar'"):
        progress_line("bar", None)


def test_sweeps_of_a_running_task_are_steps() -> None:
    assert sweeps([info(TaskState.RUNNING, passes_done=3, passes=9)]) == (3, 9, "sweeps", "")
    assert sweeps([]) is None
    assert sweeps([info(TaskState.RUNNING, passes_done=3, passes=0)]) is None
