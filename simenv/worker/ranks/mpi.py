"""MPI in the ranks of a worker: initialised once, used for numerics alone, finalised together.

No rank waits for work in MPI, which would keep a core busy. Only the main thread calls MPI.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI

_RANKS = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class NoMpi(Exception):
    """MPI cannot be initialised with the requested ranks; the message is one line for the log."""


def rank_from_environ(environ: Mapping[str, str]) -> int:
    """Return the rank of this process from the launcher's variables, for use before MPI is
    initialised; 0 if there are none."""
    arguments = next((environ[name] for name in _RANKS if environ.get(name, "").isdigit()), "0")
    return int(arguments)


def begin(ranks: int) -> MPI.Intracomm:
    """Initialise MPI and return the communicator of all ranks of this worker. Raises NoMpi."""
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        mpi4py.rc.finalize = False  # not at exit: a rank that fails must not wait for the others
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise NoMpi(f"no MPI, and {ranks} ranks were requested: {error}") from error
    mpi_run = MPI.COMM_WORLD
    if mpi_run.size != ranks:
        library = MPI.Get_library_version().partition("\n")[0].partition(",")[0]
        raise NoMpi(
            f"COMM_WORLD has size {mpi_run.size}, {ranks} were requested: the launcher's MPI "
            f"and mpi4py's ({library}) are different"
        )
    return mpi_run


def end() -> None:
    """Finalise MPI. Called by all ranks if none has failed: without it the launcher takes the exit
    of a rank for a failure."""
    from mpi4py import MPI

    MPI.Finalize()
