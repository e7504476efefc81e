"""Named points at which tests kill the service or make it fail; disabled by default.

A plan is a list of `point:nth:action`, separated by commas. At the nth hit of the point, `kill`
ends the process with SIGKILL and `error` raises an OSError (disk full).
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter

from simenv.errors import ConfigError

POINTS = (
    *("submit.received", "submit.admitted", "assign.before", "assign.sent"),
    *("journal.commit.before", "journal.commit.after", "accepted.sent", "finished.received"),
    *("completion.before", "completion.sent", "checkpoint.before", "checkpoint.after"),
    *("copy.before", "copy.after", "reopen.before", "reopen.after", "gc.before", "gc.after"),
    "reservation.changed",
)
ACTIONS = ("kill", "error")

plan: dict[tuple[str, int], str] = {}  # empty: hot paths do not call `hit` then
_hits: Counter[str] = Counter()


def install(text: str) -> None:
    """Activate the plan in the configuration. Raises ConfigError for an entry of another form."""
    plan.clear()
    _hits.clear()
    for part in filter(None, text.split(",")):
        parts = part.split(":")
        if (
            len(parts) != 3
            or parts[0] not in POINTS
            or not parts[1].isdigit()
            or parts[2] not in ACTIONS
        ):
            hint = f"points: {', '.join(POINTS)}; what: {', '.join(ACTIONS)}"
            raise ConfigError(f"faults: {part!r} is not point:nth:what", hint=hint)
        plan[parts[0], int(parts[1])] = parts[2]


def hit(point: str) -> None:
    """Count one hit of a point, and execute the planned action. Raises OSError if that is
    `error`."""
    if not plan:
        return
    _hits[point] += 1
    action = plan.get((point, _hits[point]))
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "error":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), point)
