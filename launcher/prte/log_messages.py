"""What a PRTE says when it ends, in a few words. Pure.

It writes pages about what may have been the cause; who is gone stands in between.
"""

from __future__ import annotations

import re

_MOST = 160  # characters of words that are not understood
_LOST = re.compile(r"Remote daemon:\s+\S+ on node (\S+)")
_ENDED = re.compile(r"Remote host:\s+(\S+)\s+Daemon exit status:\s+(\S+)")
_READY = "DVM ready"
_EMPTY = ("", _READY, "Terminated", "Killed")  # frames; a shell's word on a daemon's end


def ready(log: str) -> bool:
    """All daemons are there."""
    return _READY in log


def last_words(log: str) -> str:
    """Why it ended, as far as its log tells; ""."""
    log = log.rpartition(_READY)[2]  # what was said before did not end it
    if lost := _LOST.findall(log):
        return f"its daemon on {lost[-1]} is lost"
    if ended := _ENDED.findall(log):
        return f"its daemon on {ended[-1][0]} ended (exit {ended[-1][1]})"
    lines = [line for line in log.splitlines() if line.strip("- \t") not in _EMPTY]
    words = " ".join(" ".join(lines).split())
    if len(words) <= _MOST:
        return words
    return "... " + words[-_MOST:].partition(" ")[2]
