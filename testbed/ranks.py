"""Programs that run as ranks of one MPI job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.base import YIELD_WHEN_IDLE

ROOT = Path(__file__).parents[1]
WAIT_S = 900.0


def mpirun() -> Path | None:
    """Return the mpirun of this interpreter, else that of the machine."""
    own = Path(sys.executable).with_name("mpirun")
    found = str(own) if own.exists() else shutil.which("mpirun")
    return None if found is None else Path(found)


def rank_environment(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    """Return the environment that a launcher gives to ranks."""
    names = ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT")
    allowed = {name + end: "1" for name in names for end in ("", "_CONFIRM")}
    own = Path(sys.prefix) / "bin" / "prte"
    prefix = {f"{name}_PREFIX": sys.prefix for name in ("OPAL", "PMIX", "PRTE") if own.exists()}
    quick = {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}
    own_folder = {"TMPDIR": str(folder)}
    return {**os.environ, **allowed, **prefix, **quick, **YIELD_WHEN_IDLE, **own_folder, **extra}


def mpirun_command(ranks: int) -> list[str]:
    """Return the words that start a program of this many ranks."""
    return [str(mpirun()), "-n", str(ranks), "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]


def over_ranks(ranks: int, module: str, *arguments: str) -> bytes:
    """Run a module as this number of ranks of one thread each; return the file that they write,
    whose path is their last argument."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        argv = [*mpirun_command(ranks), sys.executable, "-m", module, *arguments, str(out)]
        single_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environ = rank_environment(Path(folder), single_thread)
        subprocess.run(argv, env=environ, cwd=ROOT, check=True, timeout=WAIT_S)
        return out.read_bytes()
