"""Cache of probe results in a file, so that a start need not probe again.

Only successful results are stored: a failure may be temporary and is probed again. An entry is
valid for one program in its present state, on one node, under one environment. If the file cannot
be read or written, everything is probed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import msgspec

from launcher.probe import ProbeResult

FORMAT = 1
MAX_ENTRIES = 64
# Prefixes of variables that decide which MPI is used and how it behaves.
MPI_VARIABLES = ("MPI4PY_", "OMPI_", "OPAL_", "PRTE_", "PMIX_", "MPICH_", "I_MPI_", "FI_", "UCX_")
LOADER_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD")


class _Entry(msgspec.Struct, frozen=True):
    key: str
    result: ProbeResult = msgspec.field(name="outcome")


class _File(msgspec.Struct, frozen=True):
    format: int
    entries: tuple[_Entry, ...]


class ProbeCache:
    """Cache file, read once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: tuple[_Entry, ...] = ()
        with suppress(OSError, msgspec.MsgspecError):
            read = msgspec.json.decode(file.read_bytes(), type=_File)
            if read.format == FORMAT:
                self._entries = read.entries

    def get(self, key: str) -> ProbeResult | None:
        return next((entry.result for entry in self._entries if entry.key == key), None)

    def add(self, key: str, result: ProbeResult) -> None:
        others = [entry for entry in self._entries if entry.key != key]
        self._entries = (*others[1 - MAX_ENTRIES :], _Entry(key, result))
        with suppress(OSError):
            self._write(msgspec.json.format(msgspec.json.encode(_File(FORMAT, self._entries))))

    def _write(self, text: bytes) -> None:
        """Replace the file atomically: several environments may start at once."""
        descriptor, name = tempfile.mkstemp(prefix=self._file.name, dir=self._file.parent)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(text)
            Path(name).replace(self._file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def cache_key(path: str, environ: Mapping[str, str]) -> str:
    """Return a digest of a program's present state, of this node and of the variables of MPI."""
    try:
        info = Path(path).stat()
        state = f"{info.st_mtime_ns} {info.st_size}"
    except OSError:
        state = "gone"
    variables = sorted(
        f"{name}={value}"
        for name, value in environ.items()
        if name.startswith(MPI_VARIABLES) or name in LOADER_VARIABLES
    )
    facts = (
        *(path, state, sys.version, sys.prefix, mpi4py_version(), os.uname().nodename),
        *("in a Slurm job" if "SLURM_JOB_ID" in environ else "", *variables),
    )
    return hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest()


def mpi4py_version() -> str:
    """Return the version of mpi4py; "" if it is not installed, "?" if it is not installed as a
    wheel.

    It is read without the import of mpi4py or of `importlib.metadata`, which would take 10 ms.
    """
    spec = find_spec("mpi4py")
    if spec is None or spec.origin is None:
        return ""
    installed = Path(spec.origin).parents[1].glob("mpi4py-*.dist-info")
    return next((path.stem.removeprefix("mpi4py-") for path in installed), "?")
