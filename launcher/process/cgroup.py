"""Control groups (cgroup v2) that bound the memory of processes, one for each.

They are made below this process's own group, if this user may write it and the kernel counts memory
there, as in one that systemd has delegated (`systemd-run --user --scope -p Delegate=yes`); else
below the nearest group above that belongs to this user, such as the slice of the user's services. A
group with processes can have no limits below it (cgroups(7), "no internal processes"), so this
process leaves its own group for one below it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from launcher.allocation.this_node import control_groups

PROCESSES, CONTROLLERS, SUBTREE = "cgroup.procs", "cgroup.controllers", "cgroup.subtree_control"
_MEMORY = "memory"
NO_GROUP = "this process is in no control group of version 2"


class MemoryGroups:
    """Groups of processes by name, below one folder."""

    def __init__(self, folder: Path) -> None:
        """`folder`: a group without processes, in which memory is counted."""
        self._folder = folder
        self._limits: dict[str, int] = {}
        self._ending: list[Path] = []  # whose processes were killed and may not be gone

    def add(self, name: str, pid: int) -> None:
        """Move a process, which has not started others yet, to a new group without a limit. Raises
        OSError."""
        group = self._folder / name
        group.mkdir(exist_ok=True)
        (group / "memory.oom.group").write_text("1")  # all of its processes end, or none
        (group / PROCESSES).write_text(str(pid))
        self._limits[name] = 0

    def limit(self, name: str, max_bytes: int) -> None:
        """Bound the memory of a group; without effect if there is none of that name."""
        if self._limits.get(name, max_bytes) != max_bytes:
            self._limits[name] = max_bytes
            with suppress(OSError):  # its process has ended
                (self._folder / name / "memory.max").write_text(str(max_bytes))

    def is_out_of_memory(self, name: str) -> bool:
        """Return whether the kernel has killed processes of a group at its limit."""
        with suppress(OSError, ValueError):
            text = (self._folder / name / "memory.events").read_text()
            return any(int(line.split()[1]) for line in text.splitlines() if "oom_kill " in line)
        return False

    def remove(self, name: str) -> None:
        """Kill what is left of a group, and remove it."""
        if self._limits.pop(name, None) is not None:
            group = self._folder / name
            with suppress(OSError):
                (group / "cgroup.kill").write_text("1")
            self._ending.append(group)
        self._ending = [group for group in self._ending if not _removed(group)]

    def close(self) -> None:
        """Remove all groups."""
        for name in list(self._limits):
            self.remove(name)
        _removed(self._folder)


def memory_groups(name: str, groups: Iterable[Path] | None = None) -> MemoryGroups | str:
    """Make a group `name` for groups of processes; return the reason if this user cannot. `groups`:
    those in which to try, by default this process's own and its ancestors."""
    reason = ""
    for number, folder in enumerate(_candidates(groups)):
        try:
            return MemoryGroups(_made(folder, name, is_own=number == 0))
        except OSError as error:
            reason = reason or f"{folder}: {error.strerror or error}"
    return reason or NO_GROUP


def unavailable_reason() -> str:
    """Return why the memory of processes cannot be bounded here; "" if that is possible. Nothing
    is moved: whether other processes are in the group is not known before."""
    reasons = [_fault(folder) for folder in _candidates(None)]
    return "" if "" in reasons else next(iter(reasons), NO_GROUP)


def _candidates(groups: Iterable[Path] | None) -> list[Path]:
    """Return this process's own group, then those above it that belong to this user, but not to
    root, to whom all belong."""
    folders = [path for path in groups or control_groups("") if (path / PROCESSES).exists()]
    user = os.geteuid()
    return [*folders[:1], *(path for path in folders[1:] if path.stat().st_uid == user != 0)]


def _fault(folder: Path) -> str:
    if _MEMORY not in (folder / CONTROLLERS).read_text().split():
        return f"{folder}: memory is not counted there"
    if not os.access(folder, os.W_OK) or not os.access(folder / PROCESSES, os.W_OK):
        return f"{folder}: not delegated to this user"
    return ""


def _made(folder: Path, name: str, *, is_own: bool) -> Path:
    """Make a group below `folder` whose own groups have limits of memory. `is_own`: this process is
    in `folder`. Raises OSError."""
    if fault := _fault(folder):
        raise OSError(0, fault.removeprefix(f"{folder}: "))
    made = folder / name
    made.mkdir(exist_ok=True)
    try:
        if _MEMORY not in (folder / SUBTREE).read_text().split():
            if is_own:
                (made / "service").mkdir(exist_ok=True)
                (made / "service" / PROCESSES).write_text(str(os.getpid()))
            (folder / SUBTREE).write_text(f"+{_MEMORY}")
        (made / SUBTREE).write_text(f"+{_MEMORY}")
    except OSError:
        if is_own:
            with suppress(OSError):
                (folder / PROCESSES).write_text(str(os.getpid()))
        _removed(made / "service")
        _removed(made)
        raise
    return made


def _removed(group: Path) -> bool:
    """Remove a group; return False while processes are in it."""
    try:
        group.rmdir()
    except OSError:
        return not group.exists()
    return True
