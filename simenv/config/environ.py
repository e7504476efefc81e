"""Environment variables that the service and its workers inherit: one allow-list for both.

The service inherits the variables of its workers, its own settings, and those that it needs to
reach other nodes as its user. Invariant: no variable identifies a worker as a rank of another MPI
program. A service that was itself started by mpirun, a PMIx job or srun must not pass on its rank:
MPI would wait for peers that do not exist. The launcher of a worker adds the MPI variables that it
needs.
"""

from __future__ import annotations

from collections.abc import Mapping

# Paths, and settings of threads and MPI. Nothing else.
WORKER_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LANG", "TMPDIR", "VIRTUAL_ENV", "SIMENV_HOME"),
        *("SIMENV_KERNELS", "XDG_RUNTIME_DIR", "LD_LIBRARY_PATH"),
        *("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"),
    }
)
WORKER_PREFIXES = (
    *("LC_", "OMP_", "NUMBA_", "SLURM_", "PBS_"),
    # A site's settings of MPI, without the variables that identify a rank of another MPI program.
    *("OMPI_MCA_", "OPAL_", "PMIX_MCA_", "PRTE_MCA_", "MPICH_", "I_MPI_"),
    *("UCX_", "FI_", "MPI4PY_"),
)
# The service divides the GPUs that it was granted among its workers.
SERVICE_NAMES = WORKER_NAMES | {"SSH_AUTH_SOCK", "KRB5CCNAME", "CUDA_VISIBLE_DEVICES"}
SERVICE_PREFIXES = ("SIMENV_", *WORKER_PREFIXES)


# Credentials for the site's job manager. Another node gets a worker's environment as an argument of
# a command, which every user of that node can read.
SECRETS = frozenset({"SLURM_JWT", "PBS_JOBCOOKIE"})
# Variables of a step of srun, not of the job. Open MPI takes a process with these variables for one
# that srun started, and asks Slurm for its rank.
STEP_PREFIXES = (
    *("SLURM_STEP", "SLURM_SRUN_", "SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_DISTRIBUTION"),
    *("SLURM_LAUNCH_NODE", "SLURM_UMASK", "SLURM_PMI", "SLURM_MPI_"),
)
STEP = frozenset(
    {
        *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_GTIDS", "SLURM_TASK_PID"),
        *("SLURM_TASKS_PER_NODE_STEP", "SLURM_NPROCS", "SLURM_NTASKS"),
    }
)
# If one of these is set, the service is a rank of an outer MPI, whose launcher added settings.
OUTER_RANK = ("PMIX_RANK", "PMIX_NAMESPACE", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMI_FD")
MPI_PREFIXES = ("OMPI_", "PMIX_", "PRTE_")
# Libraries of engines: their threads sleep while they wait, and BLAS starts none of its own.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}


def worker_environ(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the allow-listed variables of an environment, and those of QUIET."""
    is_rank = any(name in environ for name in OUTER_RANK)
    inherited = {
        key: value
        for key, value in environ.items()
        if (key in WORKER_NAMES or key.startswith(WORKER_PREFIXES))
        and key not in STEP | SECRETS
        and not key.startswith(STEP_PREFIXES)
        and not (is_rank and key.startswith(MPI_PREFIXES))
    }
    return tuple({**QUIET, **inherited}.items())


def gpu_environ(gpu: str) -> tuple[tuple[str, str], ...]:
    """Return the variables that make one GPU, by UUID or number, the only one that CUDA sees."""
    return ("CUDA_DEVICE_ORDER", "PCI_BUS_ID"), ("CUDA_VISIBLE_DEVICES", gpu)
