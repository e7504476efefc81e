"""The environment variables that processes of an environment inherit: one allow-list for all.

A service inherits what its workers may have, and what it alone needs: its own settings, and how it
reaches other nodes in its user's name. Both lists were apart once, and settings of MPI were lost on
the way from the user's shell to a worker.
"""

from __future__ import annotations

# Where things are, and how threads and MPI behave. Nothing else.
WORKER_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LANG", "TMPDIR", "VIRTUAL_ENV", "SIMENV_HOME"),
        *("SIMENV_KERNELS", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"),
        *("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"),
    }
)
WORKER_PREFIXES = (
    *("LC_", "OMP_", "NUMBA_", "SLURM_", "PBS_"),
    # A site's settings of MPI, not what names a rank of another MPI program.
    *("OMPI_MCA_", "OPAL_", "PMIX_MCA_", "PRTE_MCA_", "MPICH_", "I_MPI_"),
    *("UCX_", "FI_", "MPI4PY_"),
)
SERVICE_NAMES = WORKER_NAMES | {"SSH_AUTH_SOCK", "KRB5CCNAME"}
SERVICE_PREFIXES = ("SIMENV_", *WORKER_PREFIXES)
