"""Run a program that never outlives its starter: `python -I -S tether.py PID -- ARGV...`

The kernel sends SIGKILL when the starter's thread ends; the setting survives the exec. A file of
its own, run by its path, so that it starts without the interpreter's site packages.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def words(starter_pid: int, argv: Sequence[str]) -> list[str]:
    """The command line that runs `argv` tethered to the process (its main thread) `starter_pid`."""
    return [sys.executable, "-I", "-S", __file__, str(starter_pid), "--", *argv]


def main(argv: list[str]) -> None:
    """Become the program; SystemExit with words if the starter is gone or the program missing."""
    starter, dashes, *program = argv
    if dashes != "--" or not program:
        raise SystemExit("usage: tether.py PID -- ARGV...")
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(starter):
        raise SystemExit(f"the starter (pid {starter}) is gone")
    try:
        os.execvp(program[0], program)
    except OSError as error:
        raise SystemExit(f"cannot start {program[0]}: {error.strerror}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
