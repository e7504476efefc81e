"""End the worker's process: on request, on errors, and with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

LAST_S = 3.0  # for what must be done outside first; a launcher that ends all waits a little longer
_last: list[Callable[[], None]] = []


def exit_process(code: int, why: str) -> NoReturn:
    """End the process now, with a last line in its log. A worker holds nothing that is not stored
    elsewhere: it may end at any moment; one that holds a machine sees to its job first."""
    log_line(f"leaving: {why}")
    for call in _last:
        thread = threading.Thread(target=call, name="leaving", daemon=True)
        thread.start()
        thread.join(LAST_S)
    os._exit(code)


def on_exit(call: Callable[[], None]) -> None:
    """`call` is called whenever this process ends itself, and when it is asked to by SIGTERM; it
    has LAST_S, whatever the main thread waits for."""
    _last.append(call)
    signal.signal(signal.SIGTERM, _on_sigterm)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    """In a thread of its own: the main one may be within the call of a provider's."""
    args = (128 + number, f"signal {number}")
    threading.Thread(target=exit_process, args=args, name="leave", daemon=True).start()


def log_line(line: str) -> None:
    """A line for the worker's log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def import_also_from(folders: str) -> None:
    """Search modules in these folders too, written as in PYTHONPATH, after all that is installed:
    so no file of a user replaces a module of ours."""
    sys.path += [folder for folder in folders.split(os.pathsep) if folder not in ("", *sys.path)]


_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(starter_pid: int, by: signal.Signals = signal.SIGKILL) -> int:
    """Ask for a signal, SIGKILL, when the starter's thread ends; exit now if it is gone already.
    Returns its pid, for the caller's own checks. 0: whoever started us, of whom no more is known.

    Linux only; elsewhere the caller's own check of its parent has to do.
    """
    parent = starter_pid or os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(f"the starter (pid {parent}) is gone")
    return parent
