"""Everything compiled, before the first task: so that nothing is compiled inside one.

Kernels are kept on disk, so only the first start on a machine compiles. Processes that start there
together share the work: each compiles the groups that nobody else has begun, then loads the rest;
no kernel is compiled by two (see `jit.kernel`). `python -m simulators.warm FOLDER` does it all
ahead of time, or lends a hand to those who wait.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Modules whose import compiles, by engine.
_STATEVECTOR = ("simulators.statevector.small",)
_GROUPS = {
    "statevector": _STATEVECTOR,
    "fault": _STATEVECTOR,
    # What a service needs to judge circuits; a worker needs the first of them for wide ones.
    "admission": (
        "simulators.circuit.flow",
        "simulators.circuit.survey",
        "simulators.circuit.traits",
        "simulators.circuit.grammar",
    ),
    # And what it needs to judge wide ones: not before it is ready, but before one comes.
    "wide admission": ("simulators.circuit.cone",),
}
# What a first small circuit does not wait for, and a first wide one does: compiled by whoever lends
# a hand, from its end, while a worker that must not wait for that begins at the other.
_WIDE = (
    "simulators.circuit.cone",
    "simulators.statevector.tiles.double",
    "simulators.statevector.planning.divide",
    "simulators.statevector.planning.bind",
    "simulators.circuit.turns",
    "simulators.statevector.run",
)
_LATER = (
    *_WIDE,
    "simulators.statevector.kernels.passes",
    "simulators.statevector.kernels.stacked",
    "simulators.statevector.kernels.sweep",
    "simulators.statevector.kernels.sums",
    "simulators.statevector.kernels.draws",
    "simulators.statevector.kernels.strings",
    "simulators.statevector.kernels.dense",
    "simulators.statevector.lanes",
    "simulators.statevector.tiles.single",
)
_SELDOM = ("simulators.statevector.ranks.kernels",)  # loaded by engines over ranks alone
_ASKED = ("simulators.statevector.gradient.adjoint",)  # loaded where a gradient is asked for


def prepare(folder: Path) -> Path:
    """Keep kernels under `folder` (made if need be); returns the folder of this version.

    To be called before any engine is imported; later imports find the kernels there. They are
    loaded as code: nobody else may be able to write to `folder`, and the caller sees to that.
    """
    from simulators import jit  # here, because numba takes 0.3 s to import

    chosen = jit.use_cache(folder)
    for each in (folder, chosen):  # of parents, the mode does not count
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    return chosen


def warm_up(folder: Path, engine: str = "statevector", *, ranks: bool = False) -> None:
    """Compile or load the kernels of `engine`; its own `warm_up` then runs circuits through them.

    `folder`: as for `prepare`, which is called. Blocks while other processes compile. An engine
    that is not listed here brings its own kernels. `ranks`: it will run over several, which needs
    all there are.
    """
    chosen = prepare(folder)
    wanted: tuple[str, ...] = _GROUPS.get(engine, ())
    if ranks and wanted is _STATEVECTOR:
        wanted = (*wanted, *_LATER, *_SELDOM)
    _share(chosen, wanted)


def load_later(folder: Path, engine: str) -> bool:
    """Load what a first circuit of `engine` did not wait for, as far as it is compiled: for a
    process that has nothing to do. `folder`: as for `prepare`, which has been called.

    True: all of it is loaded. The engine's own `warm_up` then makes the first calls of its kernels,
    which cost more than later ones.
    """
    from simulators import jit

    chosen = jit.use_cache(folder)
    wanted = _LATER if _GROUPS.get(engine) is _STATEVECTOR else ()
    compiled = [group for group in wanted if _is_done(chosen, group)]
    for group in compiled:
        _load(chosen, group, wait=True)
    return bool(wanted) and len(compiled) == len(wanted)


def complete(folder: Path, report: Callable[[int, int], None] = lambda _done, _all: None) -> None:
    """Compile or load all there is. `report`: called after each module of kernels with the number
    of those that are done, and of all."""
    _share(prepare(folder), _all(), report)


def is_warm(folder: Path) -> bool:
    """Is everything on disk already? Looks only; `folder` as for `prepare`."""
    from simulators import jit

    chosen = jit.version(folder)
    return all(_is_done(chosen, group) for group in _all())


def _all() -> tuple[str, ...]:
    """What a first wide circuit needs before the rest. A service and its worker have begun with
    what any needs."""
    first = dict.fromkeys(group for groups in _GROUPS.values() for group in groups)
    return (*dict.fromkeys((*_WIDE, *first, *_LATER)), *_SELDOM, *_ASKED)


def _share(
    folder: Path,
    wanted: Sequence[str],
    report: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """First what nobody has begun, then what others have."""
    done = 0
    waiting: list[str] = []
    for group in wanted:
        if not _load(folder, group, wait=False):
            waiting.append(group)
            continue
        done += 1
        report(done, len(wanted))
    for group in waiting:
        _load(folder, group, wait=True)
        done += 1
        report(done, len(wanted))


def _is_done(folder: Path, group: str) -> bool:
    return (folder / f"{group}.done").exists()


def _load(folder: Path, group: str, *, wait: bool) -> bool:
    """Import a group of kernels; False if another process is compiling it and `wait` is not set."""
    if _is_done(folder, group):
        importlib.import_module(group)
        return True
    lock = os.open(folder / f"{group}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        importlib.import_module(group)
        (folder / f"{group}.done").touch()
        return True
    finally:
        os.close(lock)


def main() -> None:
    """Compile everything into the folder named on the command line."""
    complete(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
