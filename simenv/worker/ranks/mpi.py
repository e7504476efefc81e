"""MPI as the ranks of a worker use it: begun once, entered for numerics alone, ended together.

Nobody waits in MPI for work: a rank that does burns a core. It is begun by the main thread, and
that one alone calls it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI

_RANKS = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class NoMpi(Exception):
    """The ranks that were told do not come together; the message is one line for the log."""


def rank_told(environ: Mapping[str, str]) -> int:
    """What the launcher says of our rank, before MPI is begun; 0 if it says nothing."""
    told = next((environ[name] for name in _RANKS if environ.get(name, "").isdigit()), "0")
    return int(told)


def begin(ranks: int) -> MPI.Intracomm:
    """All ranks that were started together, this process among them. Raises NoMpi."""
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        mpi4py.rc.finalize = False  # not at exit: a rank that fails must not wait for the others
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise NoMpi(f"no MPI, and {ranks} ranks were told: {error}") from error
    world = MPI.COMM_WORLD
    if world.size != ranks:
        library = MPI.Get_library_version().partition("\n")[0].partition(",")[0]
        raise NoMpi(
            f"COMM_WORLD has size {world.size}, {ranks} were told: the launcher's MPI and mpi4py's"
            f" ({library}) are different"
        )
    return world


def end() -> None:
    """In all ranks, where none has failed: without it the launcher takes an exit for a failure."""
    from mpi4py import MPI

    MPI.Finalize()
