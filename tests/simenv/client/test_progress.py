"""The line of waiting text, on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from simenv.client.progress import Line, describe
from simenv.model import TaskInfo, TaskState


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def info(state: TaskState, **changes: object) -> TaskInfo:
    values = {"attempt": 1, "time_s": 41.0, "worker": "", "reason": "", **changes}
    return TaskInfo(
        id="t-8k2g", name="", pool="main", state=state, num_qubits=2, shots=10, **values
    )  # type: ignore[arg-type]


def test_on_a_terminal_the_line_is_rewritten_and_gone_at_the_end() -> None:
    stream = Terminal()
    with Line(stream) as line:
        line.show("one")
        line.show("one")
        line.show("two")
    assert stream.getvalue() == "\rone\x1b[K\rtwo\x1b[K\r\x1b[K"


def test_a_file_is_filled_with_waiting() -> None:
    stream = io.StringIO()
    with Line(stream) as line:
        line.show("one")
        line.show("one")
        line.show("two")
    assert stream.getvalue() == ""


def test_no_waiting_leaves_no_trace() -> None:
    stream = Terminal()
    with Line(stream):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], "t-8k2g"),
        ([info(TaskState.RUNNING, attempt=2, worker="sv-1")], "t-8k2g RUNNING try 2 on sv-1, 0:41"),
        (
            [info(TaskState.RUNNING, worker="sv-1", passes_done=7, passes=9)],
            "t-8k2g RUNNING on sv-1, pass 7 of 9, 0:41",
        ),
        (
            [info(TaskState.RUNNING, worker="sv-1", passes_done=7)],
            "t-8k2g RUNNING on sv-1, pass 7, 0:41",
        ),
        ([info(TaskState.QUEUED, reason="no slot")], "t-8k2g QUEUED 0:41 (no slot)"),
    ],
)
def test_what_is_said_of_a_task(found: list[TaskInfo], text: str) -> None:
    assert describe(found, "t-8k2g") == text
