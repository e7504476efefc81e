"""What a worker's environment must not hold, whoever started the service."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from simenv.client.environments import launch
from simenv.config.environ import (
    SERVICE_NAMES,
    SERVICE_PREFIXES,
    WORKER_NAMES,
    WORKER_PREFIXES,
    worker_environ,
)

MPI_WAIT_S = 120.0
SITE = {"OMPI_MCA_btl": "self,sm,tcp", "OMPI_MCA_pml": "ob1", "PRTE_MCA_x": "1", "UCX_TLS": "tcp"}
RANK = {  # what mpirun and prte write into the environment of a rank
    "PMIX_RANK": "1",
    "PMIX_NAMESPACE": "prterun-node1-17@1",
    "PMIX_SERVER_URI41": "prterun-node1-17@0.0;tcp4://127.0.0.1:1",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_MCA_ess": "pmi",
    "PRTE_LAUNCHED": "1",
}
JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_CONF": "/etc/slurm.conf"}
STEP = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEPID": "0",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "2",
    "SLURM_SRUN_COMM_PORT": "40001",
    "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    "SLURM_CPU_BIND": "quiet,mask_cpu:0x1",
}


def inherited(**environ: str) -> dict[str, str]:
    return dict(worker_environ(environ))


def test_mpi_settings_of_site_reach_worker() -> None:
    assert SITE.items() <= inherited(**SITE).items()


@pytest.mark.parametrize(
    "name",
    [
        *("MPICH_ASYNC_PROGRESS", "I_MPI_FABRICS", "OPAL_PREFIX", "OMPI_MCA_btl", "UCX_TLS"),
        *("FI_PROVIDER", "MPI4PY_RC_THREADS", "OMP_NUM_THREADS", "PBS_JOBID", "LD_LIBRARY_PATH"),
    ],
)
def test_setting_reaches_a_worker_from_the_shell_that_started_the_service(name: str) -> None:
    assert inherited(**launch.environment({name: "1"}))[name] == "1"


def test_service_variables_include_all_worker_variables() -> None:
    assert WORKER_NAMES < SERVICE_NAMES
    assert set(WORKER_PREFIXES) < set(SERVICE_PREFIXES)


def test_mpi_rank_variables_of_service_do_not_reach_worker() -> None:
    result = inherited(**RANK, **SITE)
    assert not [name for name in result if name.startswith(("OMPI_", "PMIX_", "PRTE_"))]
    assert result["UCX_TLS"] == "tcp"


def test_pmi_rank_variables_of_service_do_not_reach_worker() -> None:
    result = inherited(PMI_RANK="1", PMI_SIZE="2", PMI_FD="9", OMPI_MCA_pmix="^s1")
    assert not [name for name in result if name.startswith(("PMI_", "OMPI_"))]


def test_site_credentials_of_user_do_not_reach_worker() -> None:
    assert not {"SLURM_JWT", "PBS_JOBCOOKIE"} & set(inherited(SLURM_JWT="x", PBS_JOBCOOKIE="y"))


def test_slurm_job_variables_reach_worker_and_step_variables_do_not() -> None:
    result = inherited(**JOB, **STEP)
    assert {name for name in result if name.startswith("SLURM_")} == set(JOB)


def test_secrets_and_preloaded_libraries_do_not_reach_worker() -> None:
    result = inherited(AWS_SECRET_ACCESS_KEY="s", LD_PRELOAD="/x.so", PYTHONPATH="/x", PATH="/bin")
    assert set(result) == {"PATH", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"}


def test_openmp_wait_policy_is_passive_unless_site_sets_it() -> None:
    assert inherited()["OMP_WAIT_POLICY"] == "PASSIVE"
    assert inherited(OMP_WAIT_POLICY="ACTIVE")["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.skipif(importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed")
def test_mpi_starts_as_singleton_in_worker_environment_of_service_rank(tmp_path: Path) -> None:
    environ = inherited(**RANK, **JOB, **STEP, PATH="/usr/bin:/bin", HOME=str(tmp_path))
    script = "from mpi4py import MPI; print('size', MPI.COMM_WORLD.size)"
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    process = subprocess.run(
        [sys.executable, "-c", script],
        env={**environ, **allowed},
        capture_output=True,
        text=True,
        timeout=MPI_WAIT_S,
        check=False,
    )
    if "cannot load MPI library" in process.stderr:
        pytest.skip("there is no MPI library here")
    assert process.stdout == "size 1\n", process.stderr
