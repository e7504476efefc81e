"""How a worker's process ends itself, and what it says of itself on the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def leave(code: int, why: str) -> NoReturn:
    """End the process now, with a last line in its log. A worker holds nothing that is not stored
    elsewhere: it may end at any moment."""
    say(f"leaving: {why}")
    os._exit(code)


def say(line: str) -> None:
    """A line for the worker's log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def rss_bytes() -> int:
    """This process's resident memory; 0 where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
