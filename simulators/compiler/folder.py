"""Folder of compiled kernels of this process, chosen once.

A process of an environment chooses it before it starts a thread (`choose`). A program that calls
`simulate` alone gets the folder of its user, once, under a lock: SIMENV_KERNELS, else `kernels` in
SIMENV_HOME, else in ~/.simenv. Invariant: no run writes into the installed package, and no code is
loaded from a folder that another user can write. Importing this module loads no numba.
"""

from __future__ import annotations

import os
import stat
import tempfile
import threading
import warnings
from pathlib import Path

_lock = threading.Lock()
_chosen: list[Path] = []  # empty: not chosen
_temporary: list[tempfile.TemporaryDirectory[str]] = []  # removed when this process ends
_WRITE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def choose(folder: Path) -> None:
    """Store kernels that are loaded from now on below `folder`. They are loaded from there and run
    as code: the caller must make sure that no other user can write to it."""
    with _lock:
        _chosen[:] = [folder]


def chosen() -> Path | None:
    """Folder of the last `choose`, or of the user; None: none was needed yet."""
    return _chosen[0] if _chosen else None


def current() -> Path:
    """Return the folder, the user's by default. Where the user's cannot be made, or other users can
    write to it, it is a temporary one of this process, with a RuntimeWarning."""
    if not _chosen:
        with _lock:
            if not _chosen:
                _chosen.append(_default())
    return _chosen[0]


def default_path() -> Path:
    """Path of the user's folder of kernels. Raises RuntimeError if the user has no home."""
    named = os.environ.get("SIMENV_KERNELS")
    if named:
        return Path(named).expanduser().absolute()
    home = Path(os.environ.get("SIMENV_HOME") or Path.home() / ".simenv")
    return home.expanduser().absolute() / "kernels"


def _default() -> Path:
    try:
        path = default_path()
        for level in reversed([path, *path.parents]):
            if not level.exists():
                level.mkdir(mode=0o700, exist_ok=True)
        problem = _weakness(path)
    except (OSError, RuntimeError) as error:
        problem = str(error)
    if not problem:
        return path
    _temporary.append(tempfile.TemporaryDirectory(prefix="simenv-kernels-"))
    text = f"kernels are compiled for this process alone: {problem}; set SIMENV_KERNELS"
    warnings.warn(f"{text} to a folder of your own", RuntimeWarning, stacklevel=2)
    return Path(_temporary[-1].name)


def _weakness(path: Path) -> str:
    """Return why other users could change what is in a folder; "": they cannot."""
    real = path.resolve()
    for level in (real, *real.parents):
        info, is_leaf = level.stat(), level == real
        owners = (os.geteuid(),) if is_leaf else (os.geteuid(), 0, _unmapped_uid())
        if info.st_uid not in owners:
            return f"{level} belongs to another user"
        if info.st_mode & _WRITE_BY_OTHERS and (is_leaf or not info.st_mode & stat.S_ISVTX):
            return f"{level} can be written by other users"
    if not os.access(real, os.W_OK | os.X_OK):
        return f"{real} cannot be written"
    return ""


def _unmapped_uid() -> int:
    """Return the uid of root's folders in a user namespace that does not map root, as that of MPI's
    ranks may be; -1: it is 0. The process that made the namespace had to see to the folder."""
    try:
        mapped = Path("/proc/self/uid_map").read_text().split()[::3]
        return -1 if "0" in mapped else int(Path("/proc/sys/kernel/overflowuid").read_text())
    except (OSError, ValueError):
        return -1
