"""Parser of PRTE's log: whether its daemons are ready, and a short reason of its end. Pure.

PRTE writes pages about possible causes, which contain the name of the lost node.
"""

from __future__ import annotations

import re

_MAX_CHARS = 160  # length of messages that are not recognised
_LOST = re.compile(r"Remote daemon:\s+\S+ on node (\S+)")
_ENDED = re.compile(r"Remote host:\s+(\S+)\s+Daemon exit status:\s+(\S+)")
_READY = "DVM ready"
_WITHOUT_CONTENT = ("", _READY, "Terminated", "Killed")  # frames, and the messages of shells


def is_ready(log: str) -> bool:
    """Return whether all daemons have started."""
    return _READY in log


def failure_summary(log: str) -> str:
    """Return why PRTE ended, according to its log; "" if the log has no reason."""
    log = log.rpartition(_READY)[2]  # earlier messages were not the cause
    if lost := _LOST.findall(log):
        return f"its daemon on {lost[-1]} is lost"
    if ended := _ENDED.findall(log):
        return f"its daemon on {ended[-1][0]} ended (exit {ended[-1][1]})"
    lines = [line for line in log.splitlines() if line.strip("- \t") not in _WITHOUT_CONTENT]
    message = " ".join(" ".join(lines).split())
    if len(message) <= _MAX_CHARS:
        return message
    return "... " + message[-_MAX_CHARS:].partition(" ")[2]
