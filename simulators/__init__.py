"""Simulators of quantum circuits, their cards for the scheduler, and the kernel compiler."""

import os

# With colorama installed, numba makes it write escape codes to stdout at exit, after JSON too.
os.environ.setdefault("NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1")
