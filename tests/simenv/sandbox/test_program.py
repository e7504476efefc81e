"""A program ends with all that it has started, and within its bounds."""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from waiting import until

from simenv.sandbox.program import OutputLimitError, last_text, run_program

LIMIT_BYTES = 10_000
PATIENCE_S = 30.0
GRANDCHILD = """
import subprocess, sys
inner = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(inner.pid, flush=True)
inner.wait()
"""


def run(program: str, check: Callable[[str], None] = len) -> tuple[int, str]:  # type: ignore[assignment]
    """Run a program of Python; `check` gets its output so far."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = run_program(
            [sys.executable, "-c", program], (out, err), LIMIT_BYTES, environ=os.environ, cwd="/",
            check=lambda: check(os.pread(out.fileno(), LIMIT_BYTES, 0).decode()),
        )  # fmt: skip
        return code, last_text(out, 5)


def test_code_and_output_are_returned() -> None:
    assert run("print('123456789 '); raise SystemExit(3)") == (3, "789")
    assert run("import os; os.kill(os.getpid(), 9)") == (-9, "")


@pytest.mark.parametrize("program", ["print('x' * 10_001)", "while True: print('x' * 1_000)"])
def test_output_above_the_limit_ends_it(program: str) -> None:
    with pytest.raises(OutputLimitError, match="10000 bytes"):
        run(program)


def test_stopped_program_takes_along_what_has_left_its_group() -> None:
    pids: list[int] = []

    def stop(text: str) -> None:
        if text.endswith("\n"):
            pids.append(int(text))
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(GRANDCHILD, stop)
    until(lambda: not psutil.pid_exists(pids[0]), message="a process outlives its program")


def test_program_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with tempfile.TemporaryFile() as out, pytest.raises(FileNotFoundError):
        run_program(
            [str(tmp_path / "none")], (out, out), 1, environ={}, cwd="/", check=time.monotonic
        )


def test_limits_that_cannot_be_set_are_an_error() -> None:
    def refuse() -> None:
        raise ValueError("not allowed to raise maximum limit")

    with tempfile.TemporaryFile() as out, pytest.raises(OSError, match="with its limits"):
        run_program(
            [sys.executable], (out, out), 1,
            environ={}, cwd="/", check=time.monotonic, before_exec=refuse,
        )  # fmt: skip
