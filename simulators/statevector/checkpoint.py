"""Amplitudes on disk, so that a run can go on from there: one HDF5 file a rank.

Invariant: under its name a file is whole and on the disk, and nothing of it is believed before its
checksum has been seen to fit.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

FORMAT = 1
_BLOCK = 1 << 18  # amplitudes written at a time: 4 MiB in double precision
_NEW = ".new"  # what the name of an unfinished file ends with
_NAME = "amplitudes"

Amplitudes = NDArray[np.complexfloating[Any, Any]]


class Mark(msgspec.Struct, frozen=True):
    """Which state it is."""

    digest: str  # of all that the state goes through
    done: int  # passes behind it
    rank: int
    ranks: int
    positions: tuple[int, ...]  # of each wire; (): in order


def write(path: Path, mark: Mark, amplitudes: Amplitudes) -> None:
    """Under a temporary name first. Raises OSError, and leaves nothing of it then."""
    temporary = path.with_name(path.name + _NEW)
    try:
        _fill(temporary, mark, amplitudes)
        temporary.replace(path)
        _sync(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError):  # of HDF5, which can not close what it did not write
            raise OSError(str(error)) from error
        raise


def mark_of(path: Path) -> Mark | None:
    """What a file says it is; None if it says nothing that can be read."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs["format"] != FORMAT:
                return None
            return msgspec.json.decode(file.attrs["mark"], type=Mark)
    except (OSError, KeyError, TypeError, ValueError):
        return None


def read(path: Path, mark: Mark, into: Amplitudes) -> bool:
    """Fill `into` with what was written under that mark; False if the file is not, or damaged:
    then there may be anything in it."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            table = file[_NAME]
            fits = table.shape == into.shape and table.dtype == into.dtype
            if not fits or msgspec.json.decode(file.attrs["mark"], type=Mark) != mark:
                return False
            crc = 0
            for at in range(0, into.size, _BLOCK):
                part = slice(at, min(at + _BLOCK, into.size))
                table.read_direct(into, part, part)
                crc = zlib.crc32(into[part].view(np.uint8).data, crc)
            return bool(file.attrs["checksum"] == crc)
    except (OSError, KeyError, TypeError, ValueError):
        return False


def _fill(path: Path, mark: Mark, amplitudes: Amplitudes) -> None:
    import h5py

    crc = 0
    with h5py.File(path, "w", libver=("v110", "v110"), locking=False) as file:
        table = file.create_dataset(_NAME, amplitudes.shape, amplitudes.dtype)
        for at in range(0, amplitudes.size, _BLOCK):
            part = slice(at, min(at + _BLOCK, amplitudes.size))
            crc = zlib.crc32(amplitudes[part].view(np.uint8).data, crc)
            table.write_direct(amplitudes, part, part)
        file.attrs["format"] = FORMAT
        file.attrs["content"] = "part of a state, to go on from"
        file.attrs["mark"] = msgspec.json.encode(mark).decode()
        file.attrs["checksum"] = crc
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
