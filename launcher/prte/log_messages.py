"""PRTE's log: whether its daemons are ready, and why it ended, in a few words. Pure.

PRTE writes pages about possible causes; the lost node is named within them.
"""

from __future__ import annotations

import re

_MAX_CHARS = 160  # of messages that are not recognised
_LOST = re.compile(r"Remote daemon:\s+\S+ on node (\S+)")
_ENDED = re.compile(r"Remote host:\s+(\S+)\s+Daemon exit status:\s+(\S+)")
_READY = "DVM ready"
_WITHOUT_CONTENT = ("", _READY, "Terminated", "Killed")  # frames; a shell's message at an end


def is_ready(log: str) -> bool:
    """Test whether all daemons have started."""
    return _READY in log


def failure_summary(log: str) -> str:
    """Return why PRTE ended, as far as its log tells; "" if it does not."""
    log = log.rpartition(_READY)[2]  # earlier messages did not end it
    if lost := _LOST.findall(log):
        return f"its daemon on {lost[-1]} is lost"
    if ended := _ENDED.findall(log):
        return f"its daemon on {ended[-1][0]} ended (exit {ended[-1][1]})"
    lines = [line for line in log.splitlines() if line.strip("- \t") not in _WITHOUT_CONTENT]
    message = " ".join(" ".join(lines).split())
    if len(message) <= _MAX_CHARS:
        return message
    return "... " + message[-_MAX_CHARS:].partition(" ")[2]
