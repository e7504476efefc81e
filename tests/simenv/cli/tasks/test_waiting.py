"""The line that says what a command waits for."""

from __future__ import annotations

import io
import time

import pytest

from simenv.cli.tasks.waiting import answer_progress, kernel_progress
from simenv.client.tasks import progress
from simulators.compiler.kernel_time import booked

LIMIT_S = 30.0


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def await_text(stream: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.05)


def test_compilation_is_shown_while_it_lasts_and_taken_away_afterwards() -> None:
    stream = Terminal()
    with kernel_progress(stream):
        with booked():
            await_text(stream, "compiling kernels, once on this machine, 0:0")
        await_text(stream, "\x1b[K")
    assert stream.getvalue().endswith("\r\x1b[K")


def test_line_is_taken_away_after_an_error() -> None:
    stream = Terminal()

    def failing() -> None:
        with kernel_progress(stream), booked():
            await_text(stream, "compiling kernels")
            raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        failing()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_nothing_is_written_where_nobody_sees_it_or_nothing_is_compiled() -> None:
    pipe, idle = io.StringIO(), Terminal()
    with kernel_progress(pipe), booked():
        time.sleep(1.5)
    with kernel_progress(idle):
        time.sleep(0.5)
    assert pipe.getvalue() == idle.getvalue() == ""


def test_log_says_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_S", 0.3)
    pipe = io.StringIO()
    with kernel_progress(pipe), booked():
        await_text(pipe, "compiling kernels, once on this machine, 0:0")
    assert pipe.getvalue().endswith("\n")
    assert "\r" not in pipe.getvalue()


def test_wait_for_the_service_is_shown_from_the_first_second_on() -> None:
    stream = Terminal()
    with answer_progress(stream):
        await_text(stream, "the first of its kind waits for kernels, 0:0")
    assert stream.getvalue().endswith("\r\x1b[K")
    quick = Terminal()
    with answer_progress(quick):
        pass
    assert quick.getvalue() == ""
