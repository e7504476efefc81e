"""What is seen of a service from outside, on this machine: its process, its log, since when.

Invariant: importing this loads nothing that speaks to one, so that a new one can be started first.
"""

from __future__ import annotations

import os
from pathlib import Path

SERVICE = b"simenv.service"  # in the command line of every service
START_FIELD = 19  # starttime, counted from the state: proc_pid_stat(5)


def runs(pid: int, fragment: bytes, *, ending: bool = False, start_ticks: str = "") -> bool:
    """Does `pid` run as a process of ours, with `fragment` in its command line?

    Another user's process counts as gone, whatever it says of itself, and so do all where there is
    no permission to tell. `start_ticks`: when it was started, where that is known: a later process
    may have the same number. `ending`: a process that is just being taken apart, and has no command
    line any more, counts.
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
    """The last non-empty lines of a log, control characters made visible; [] without one."""
    try:
        with log.open("rb") as source:
            source.seek(max(0, os.fstat(source.fileno()).st_size - 16_384))
            text = source.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines[-count:]]
