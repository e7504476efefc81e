"""Everything compiled, before the first task: so that nothing is compiled inside one.

Kernels are kept on disk, so only the first start on a machine compiles. Processes that start there
together share the work: each compiles the groups that nobody else has begun, then loads the rest.
"""

from __future__ import annotations

import fcntl
import importlib
import os
from pathlib import Path

_GROUPS = ("simulators.statevector.small", "simulators.statevector.run")


def prepare(folder: Path) -> Path:
    """Keep kernels under `folder` (made if need be); returns the folder of this version.

    To be called before any engine is imported; later imports find the kernels there.
    """
    from simulators import jit  # noqa: PLC0415 numba takes 0.3 s to import

    chosen = jit.use_cache(folder)
    chosen.mkdir(parents=True, exist_ok=True)
    return chosen


def warm_up(folder: Path, engine: str = "statevector") -> None:
    """Compile or load all that `engine` needs, and run a small circuit through each of its paths.

    `folder`: as for `prepare`, which it calls. Blocks while another process compiles.
    """
    chosen = prepare(folder)
    waiting = [group for group in _GROUPS if not _load(chosen, group, wait=False)]
    for group in waiting:
        _load(chosen, group, wait=True)
    from simulators import registry  # noqa: PLC0415 after the kernels are there

    registry.create(engine).warm_up()


def _load(folder: Path, group: str, *, wait: bool) -> bool:
    """Import a group of kernels; False if another process is compiling it and `wait` is not set."""
    done = folder / f"{group}.done"
    if done.exists():
        importlib.import_module(group)
        return True
    lock = os.open(folder / f"{group}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        importlib.import_module(group)
        done.touch()
        return True
    finally:
        os.close(lock)
