"""What earlier probes found out, in a file: so that a start need not try again.

Only what worked is kept: what failed may have failed for the moment, and is tried again. An entry
is of one program as it is now, on one node, under one environment; the file is a cache: where it
cannot be read or written, everything is tried.
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

from launcher.probe import Outcome

FORMAT = 1
MAX_ENTRIES = 64
# Variables that decide which MPI is found, and how it behaves.
STEERING = ("MPI4PY_", "OMPI_", "OPAL_", "PRTE_", "PMIX_", "MPICH_", "I_MPI_", "FI_", "UCX_")
ALSO = ("LD_LIBRARY_PATH", "LD_PRELOAD")


class _Entry(msgspec.Struct, frozen=True):
    key: str
    outcome: Outcome


class _File(msgspec.Struct, frozen=True):
    format: int
    entries: tuple[_Entry, ...]


class Known:
    """The file, read once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._entries: tuple[_Entry, ...] = ()
        with suppress(OSError, msgspec.MsgspecError):
            read = msgspec.json.decode(file.read_bytes(), type=_File)
            if read.format == FORMAT:
                self._entries = read.entries

    def get(self, key: str) -> Outcome | None:
        return next((entry.outcome for entry in self._entries if entry.key == key), None)

    def add(self, key: str, outcome: Outcome) -> None:
        others = [entry for entry in self._entries if entry.key != key]
        self._entries = (*others[1 - MAX_ENTRIES :], _Entry(key, outcome))
        with suppress(OSError):
            self._write(msgspec.json.format(msgspec.json.encode(_File(FORMAT, self._entries))))

    def _write(self, text: bytes) -> None:
        """By rename: several environments may start at once."""
        descriptor, name = tempfile.mkstemp(prefix=self._file.name, dir=self._file.parent)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(text)
            Path(name).replace(self._file)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise


def key_of(path: str, environ: Mapping[str, str]) -> str:
    """Of a program, as it is now and here."""
    try:
        info = Path(path).stat()
        state = f"{info.st_mtime_ns} {info.st_size}"
    except OSError:
        state = "gone"
    steering = sorted(
        f"{name}={value}"
        for name, value in environ.items()
        if name.startswith(STEERING) or name in ALSO
    )
    facts = (
        *(path, state, sys.version, sys.prefix, mpi4py_version(), os.uname().nodename),
        *("in a Slurm job" if "SLURM_JOB_ID" in environ else "", *steering),
    )
    return hashlib.blake2b("\0".join(facts).encode(), digest_size=16).hexdigest()


def mpi4py_version() -> str:
    """ "" where it is not installed; "?" where it is, by other means than a wheel.

    Seen without importing it, or `importlib.metadata`, which takes a start 10 ms.
    """
    spec = find_spec("mpi4py")
    if spec is None or spec.origin is None:
        return ""
    found = Path(spec.origin).parents[1].glob("mpi4py-*.dist-info")
    return next((one.stem.removeprefix("mpi4py-") for one in found), "?")
