"""Real MPIs to test with: the one of this installation, Debian's Open MPI 4, MPICH.

The two others are brought once by `scripts/other_mpi.sh` into folders of their own, or taken from
this machine where it has them. Where they cannot be had, the test skips and says why, but not in
CI.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from packages import bring

from launcher import mpirun
from launcher.mpirun import MpiFamily, Mpirun

FOLDER = Path(sys.prefix) / "var" / "simenv-mpis"
NAMES = ("openmpi5", "openmpi4", "mpich")


@dataclass(frozen=True)
class RealMpi:
    """`environ`: with which this mpirun works and mpi4py is bound to its library."""

    mpirun: Mpirun
    environ: dict[str, str]
    library: str  # how its library's name begins


def real(name: str) -> RealMpi:
    """One of NAMES; skips the test where it cannot be had."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OMPI_")}
    if name == "openmpi5":
        entries = [each for each in mpirun.find(environ) if each.family is MpiFamily.OPEN_MPI_5]
        if not entries:
            _lacking("neither pip's Open MPI nor one on PATH is version 5")
        return RealMpi(entries[0], environ, "Open MPI v5")
    if name == "openmpi4":
        return _openmpi4(environ)
    folder = _brought(name)
    library = folder / "lib" / "libmpi.so.12"
    environ |= {"MPI4PY_LIBMPI": str(library), "LD_LIBRARY_PATH": str(library.parent)}
    return RealMpi(_looked_at(folder / "bin" / "mpiexec", environ), environ, "MPICH")


def _openmpi4(environ: dict[str, str]) -> RealMpi:
    debian = shutil.which("mpirun.openmpi")
    if debian is not None:
        own = next(Path("/usr/lib").glob("*/libmpi.so.40"))
        environ |= {"MPI4PY_LIBMPI": str(own)}
        return RealMpi(_looked_at(Path(debian), environ), environ, "Open MPI v4")
    folder = _brought("openmpi4")
    libraries = next(folder.glob("usr/lib/*/libmpi.so.40")).parent
    environ |= {
        "LD_LIBRARY_PATH": f"{libraries}:{folder / 'lib' / libraries.name}",
        "OPAL_PREFIX": str(folder / "usr"),
        "OPAL_LIBDIR": str(libraries / "openmpi" / "lib"),
        "OPAL_PKGLIBDIR": str(libraries / "openmpi" / "lib" / "openmpi3"),
        "OPAL_PKGDATADIR": str(folder / "usr" / "share" / "openmpi"),
        "OPAL_SYSCONFDIR": str(folder / "etc"),
        "PMIX_MCA_pcompress_base_silence_warning": "1",  # it looks for its text below /usr
    }
    path = folder / "usr" / "bin" / "mpirun.openmpi"
    return RealMpi(_looked_at(path, environ), environ, "Open MPI v4")


def _brought(name: str) -> Path:
    folder = FOLDER / name
    why = bring("other_mpi.sh", name, folder)
    if why:
        _lacking(why)
    return folder


def _looked_at(path: Path, environ: dict[str, str]) -> Mpirun:
    result = mpirun.identify(path, environ)
    assert result is not None, f"{path} is none we know"
    return result


def _lacking(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
