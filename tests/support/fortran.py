"""A Fortran compiler: this machine's, else Debian's, unpacked once into a folder of its own.

Where it cannot be had, the test skips and says why, but not in CI.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from packages import bring

FOLDER = Path(sys.prefix) / "var" / "simenv-fortran"


@dataclass(frozen=True)
class FortranCompiler:
    """`environ`: with which it and the programs that it makes run."""

    argv: tuple[str, ...]
    environ: dict[str, str]


def compiler() -> FortranCompiler:
    """Skips the test where there is none."""
    own = shutil.which("gfortran")
    if own is not None:
        return FortranCompiler((own,), dict(os.environ))
    why = bring("unpacked.sh", FOLDER, "gfortran")
    if why:
        if os.environ.get("CI") == "true":
            pytest.fail(why)
        pytest.skip(why)
    item = next(FOLDER.glob("usr/bin/gfortran-*"))
    libraries = next(FOLDER.glob("usr/lib/*/libgfortran.so.*")).parent
    # It looks for the parts that it shares with gcc below its own folder; they are the machine's.
    gcc = next(FOLDER.glob("usr/lib/gcc/*/*/f951")).parent.relative_to(FOLDER)
    return FortranCompiler(
        (str(item), "-fno-use-linker-plugin", f"-B/{gcc}"),
        {**os.environ, "LD_LIBRARY_PATH": str(libraries)},
    )
