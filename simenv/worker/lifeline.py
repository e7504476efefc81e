"""What a started process does so that it never outlives its starter."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(starter_pid: int, by: signal.Signals = signal.SIGKILL) -> int:
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
