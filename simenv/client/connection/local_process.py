"""State of a service on this machine from outside: its process and its log.

Invariant: importing this module loads no transport, so that a service can be started first.
"""

from __future__ import annotations

import os
from pathlib import Path

SERVICE = b"simenv.service"  # in the command line of every service
START_FIELD = 19  # starttime, counted from the state: proc_pid_stat(5)


def runs(pid: int, fragment: bytes, *, ending: bool = False, start_ticks: str = "") -> bool:
    """Return whether `pid` is a process of this user with `fragment` in its command line.

    Processes of other users count as ended, and so do all processes if permission is missing.
    `start_ticks`: start time of the process, if known, because another process may get the same
    pid. `ending`: also count a process that is exiting and has no command line any more.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        if Path(f"/proc/{pid}").stat().st_uid != os.geteuid():
            return False  # root may signal everybody
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return not Path("/proc/self").exists()
    if start_ticks and fields[START_FIELD] != start_ticks:
        return False
    return fields[0] not in ("Z", "X") and (fragment in line or (ending and not line))


def last_lines(log: Path, count: int = 1) -> list[str]:
    """Return the last non-empty lines of a log, control characters as `?`; [] without a log."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - 16_384))
            text = source.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines[-count:]]
