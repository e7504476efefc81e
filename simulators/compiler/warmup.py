"""Compilation and loading of kernels before the first task, so that no task waits for a compiler.

Kernels are kept on disk, so only the first start on a machine compiles. Processes that compile at
the same time share the work by modules: kernels of one module call the same device functions, which
each process types anew. `python -m simulators.compiler.warmup FOLDER` compiles all kernels, first
the groups for which tasks wait (`kernel.Kernel.load`, `want`).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from simulators import catalog
from simulators.compiler import folder as folders

if TYPE_CHECKING:
    from simulators.compiler.kernel import Group, Kernel

# Modules whose import registers the kernels of a group.
_CIRCUIT, _STATEVECTOR = "simulators.circuit", "simulators.statevector"
_GENERAL = (f"{_STATEVECTOR}.execute", f"{_STATEVECTOR}.backend.local")
_PROFILER = f"{_CIRCUIT}.analysis.profiler"
_MODULES: dict[Group, tuple[str, ...]] = {
    "small": (f"{_STATEVECTOR}.small.counts",),
    "admission": (f"{_CIRCUIT}.validation.admission", _PROFILER),
    "light_cone": (_PROFILER,),
    "wide": (*_GENERAL, f"{_STATEVECTOR}.small.merged_evolution"),
    "deferred": (*_GENERAL, f"{_STATEVECTOR}.small.batch"),
    "distributed": (f"{_STATEVECTOR}.distributed.backend",),
    "gradient": (f"{_STATEVECTOR}.gradient.adjoint",),
    "attachment": (
        f"{_CIRCUIT}.device_check",
        f"{_CIRCUIT}.passes.attach_noise",
        f"{_CIRCUIT}.analysis.noise_profile",
    ),
    "noise": ("simulators.densitymatrix.plain_part",),
    "trajectories": (f"{_STATEVECTOR}.noisy",),
    "sweeps": (
        "simulators.tensornetwork.sweep.sampling",
        "simulators.tensornetwork.contraction.greedy",
        "simulators.tensornetwork.contraction.sample_kernel",
    ),
    "pauli": ("simulators.strings.kernel",),
    "rydberg": ("simulators.rydberg.splitting_kernel",),
    "transfer": ("simulators.transfer.evolution",),
}
_NOISE: tuple[Group, ...] = ("attachment", "noise")
TOTAL = "total"  # file in the folder of this version: number of all kernels
# A service and its worker begin with "small" and "admission"; helpers compile the others.
_ALL: tuple[Group, ...] = (
    "light_cone", "wide", "noise", "attachment", "deferred", "small", "admission", "trajectories",
    "gradient", "transfer", "distributed", "sweeps", "pauli", "rydberg",
)  # fmt: skip


def prepare(folder: Path) -> Path:
    """Store kernels under `folder` (made if necessary); returns the folder of this version. Kernels
    that are loaded later are read from there, and run as code: the caller must make sure that no
    other user can write to `folder`."""
    from simulators.compiler import kernel  # here, because numba takes 0.3 s to import

    folders.choose(folder)
    chosen = kernel.version(folder)
    for each in (folder, chosen):  # the mode does not apply to parents
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    return chosen


def compile_group(folder: Path, engine: str = "statevector", *, ranks: bool = False) -> None:
    """Compile or load the kernels of `engine`; its own `warm_up` then runs circuits through them.
    `folder`: as for `prepare`, which is called. Blocks while other processes compile. An engine
    whose card names no groups has its own kernels. `ranks`: True if it will run over several ranks,
    which needs all groups."""
    chosen = prepare(folder)
    card = catalog.card(engine)
    if card is not None:
        groups = card.kernels.start
        if ranks and card.kernels.later:
            groups = (*groups, *card.kernels.later, "distributed")
        _load(chosen, _groups(groups))


def compile_groups(folder: Path, *groups: Group) -> None:
    """Compile or load groups of kernels. `folder`: as for `prepare`, which is called."""
    _load(prepare(folder), groups)


def _groups(names: Sequence[str]) -> tuple[Group, ...]:
    return tuple(group for group in _MODULES if group in names)


def load_remaining(folder: Path, engine: str) -> bool:
    """Load the compiled kernels that a first circuit of `engine` did not wait for: for an idle
    process. `folder`: as for `prepare`, which has been called. True: all of them are loaded. The
    engine's own `warm_up` then makes the first calls of its kernels, which cost more than later
    ones."""
    folders.choose(folder)
    card = catalog.card(engine)
    if card is None or not card.kernels.later:
        return False
    return load_stored(*_groups(card.kernels.later)) and load_stored(*_NOISE)


def load_stored(*groups: Group) -> bool:
    """Load the compiled kernels of groups; True: all of them are. `prepare` has been called."""
    kernels = registered(groups)
    stored = [each for each in kernels if each.is_stored]
    for each in stored:
        each.load()
    return len(stored) == len(kernels)


def compile_all(folder: Path, progress: Callable[[int, int], object] | None = None) -> None:
    """Compile or load all kernels. `folder`: as for `prepare`, which is called. `progress`: called
    with the numbers of loaded kernels and of all after each of them."""
    chosen = prepare(folder)
    with suppress(OSError):  # a full disk: nobody is told how many are left
        (chosen / TOTAL).write_text(str(len(registered(_ALL))))
    _load(chosen, _ALL, progress)


def want(*groups: Group) -> None:
    """Let processes that compile all kernels begin with these. `prepare` has been called."""
    from simulators.compiler import kernel

    for group in groups:
        kernel.want(group)


def progress_of(folder: Path) -> tuple[int, int]:
    """Return the numbers of stored kernels and of all, 0 if no process has said it; imports none of
    their modules. `folder`: as for `prepare`."""
    from simulators.compiler import kernel

    chosen = kernel.version(folder)
    try:
        total = int((chosen / TOTAL).read_text() or 0)
    except (OSError, ValueError):
        total = 0
    try:
        names = os.listdir(chosen)
    except OSError:
        names = []
    return sum(name.endswith(".code") for name in names), total


def is_compiled(folder: Path) -> bool:
    """Return whether all kernels are on disk; imports none of their modules. `folder`: as for
    `prepare`."""
    from simulators.compiler import kernel

    if kernel.packaged() is not None:
        return True
    chosen = kernel.version(folder)
    return all((chosen / f"{group}.done").exists() for group in _ALL)


def registered(groups: Sequence[Group]) -> tuple[Kernel, ...]:
    """Kernels of these groups, after the import of their modules."""
    from simulators.compiler import kernel

    for group in groups:
        for module in _MODULES[group]:
            importlib.import_module(module)
    return kernel.kernels(*groups)


def _load(
    folder: Path,
    groups: Sequence[Group],
    progress: Callable[[int, int], object] | None = None,
) -> None:
    """Compile or load kernels: wanted groups first, then modules at which no other process is, and
    last the kernels at which others are."""
    from simulators.compiler import kernel

    left = list(registered(groups))
    total = len(left)
    modules: set[str] = set()  # at which other processes are
    names: set[str] = set()  # of kernels at which they are
    while left:
        free = [each for each in left if each.module not in modules]
        free = free or [each for each in left if each.name not in names]
        wanted = [each for each in free or left if kernel.is_wanted(each.group)]
        each = (wanted or free or left)[0]
        if each.load(wait=not free):
            left.remove(each)
            if progress is not None:
                progress(total - len(left), total)
        else:
            modules.add(each.module)
            names.add(each.name)
    for group in groups:
        (folder / f"{group}.done").touch()


def compile_package(level: str, folder: Path, scratch: Path) -> None:
    """Compile all kernels for a level of x86-64, in one order, for a wheel: into
    `folder/kernels-DIGEST/LEVEL`. The same interpreter, numba and sources give the same bytes.
    `scratch`: an empty folder. Call it before kernels are imported, in a process with
    PYTHONHASHSEED=0 and without numba's variables for processors."""
    from numba.core import config

    from simulators.compiler import numba_pipeline

    config.CPU_NAME, config.CPU_FEATURES = level, numba_pipeline.FEATURES[level]
    chosen = prepare(scratch)
    target = folder / chosen.name / level
    target.mkdir(parents=True)
    for each in registered(_ALL):
        each.load()
        code = numba_pipeline.path(chosen, each.name)
        code.rename(numba_pipeline.path(target, each.name, by_processor=False))


def main() -> None:
    """Compile all kernels into the folder named on the command line: first those of the checks of
    wide circuits, which any first circuit may need. At normal priority: a worker or a task may wait
    for the kernel under way."""
    compile_groups(folder := Path(sys.argv[1]), "light_cone")
    compile_all(folder)


if __name__ == "__main__":
    main()
