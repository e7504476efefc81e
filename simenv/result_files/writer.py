"""Write one result file: temporary name, blocks with checksums, fsync, rename.

Invariant: a file under its final name is complete. Arrays are written block by block, without a
second copy in memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simenv.errors import StoreError
from simenv.files import sync_folder
from simenv.model import ResultFile, StoredArray
from simenv.result_files.hdf5_layout import Field, Skeleton, skeleton

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_BYTES = 4 * 2**20
UNFINISHED = ".new"  # end of a temporary name; after a crash such a file can be removed
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(
    path: Path,
    arrays: Mapping[str, NDArray[Any]],
    attributes: Mapping[str, str | int | float],
    *,
    name: str = "",
    array_attributes: Mapping[str, Mapping[str, str | int | float]] | None = None,
    sync: bool = True,
    mode: int = 0o600,
    mark: str = "",
) -> ResultFile:
    """Write `arrays` (C-contiguous, little-endian) as datasets of those names.

    `attributes` belong to the root of the file, `array_attributes` to each dataset; `name` is the
    name of the file in the returned ResultFile. `sync`: force the file to disk before the return.
    `mode`: as for `os.open`. `mark`: name of the writer, a part of the temporary name. Raises
    StoreError, and removes the incomplete file.
    """
    fields = {
        key: Field(array.dtype, array.shape, (array_attributes or {}).get(key, {}))
        for key, array in arrays.items()
    }
    frame = skeleton(fields, attributes)
    temporary = path.with_name(f".{path.name}.{mark or os.getpid()}{UNFINISHED}")
    try:
        with _created(temporary, mode) as descriptor:
            stored = _fill(descriptor, frame, arrays)
            if sync:
                os.fsync(descriptor)
        temporary.replace(path)
        if sync:
            sync_folder(path.parent)
    except OSError as error:
        raise _store_error(path, frame.size_bytes, error) from error
    rest = checksum_of_rest(frame, stored)
    return ResultFile(name or path.name, frame.size_bytes, rest, stored)


def checksum_of_rest(frame: Skeleton, stored: tuple[StoredArray, ...]) -> int:
    """CRC-32 of the bytes outside the arrays: those of HDF5, and zeros between them."""
    crc, position = 0, 0
    for start, end in [(a.offset, a.offset + a.size_bytes) for a in stored] + [
        (frame.size_bytes, frame.size_bytes)
    ]:
        rest = bytearray(start - position)
        for offset, piece in frame.pieces:
            if position <= offset < start:
                rest[offset - position : offset - position + len(piece)] = piece
        crc = zlib.crc32(rest, crc)
        position = end
    return crc


def _fill(
    descriptor: int, frame: Skeleton, arrays: Mapping[str, NDArray[Any]]
) -> tuple[StoredArray, ...]:
    stored = []
    for offset, piece in frame.pieces:
        _write_at(descriptor, memoryview(piece), offset)
    for name, array in arrays.items():
        view = memoryview(array.reshape(-1).view("u1").data)  # a flat view of a contiguous array
        crc = 0
        for start in range(0, len(view), BLOCK_BYTES):
            block = view[start : start + BLOCK_BYTES]
            crc = zlib.crc32(block, crc)
            _write_at(descriptor, block, frame.offsets[name] + start)
        stored.append(
            StoredArray(name, array.dtype.str, array.shape, frame.offsets[name], len(view), crc)
        )
    os.ftruncate(descriptor, frame.size_bytes)
    return tuple(sorted(stored, key=lambda each: each.offset))


def _write_at(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


@contextlib.contextmanager
def _created(temporary: Path, mode: int) -> Iterator[int]:
    """Create a file and yield its descriptor; the file is removed if the block raises."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        yield descriptor
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _store_error(path: Path, size_bytes: int, error: OSError) -> StoreError:
    hint = f"see to {path.parent}, then submit again"
    if error.errno in _FULL:
        hint = f"free {size_bytes} bytes there (simenv prune), then submit again"
    return StoreError(
        f"{path} of {size_bytes} bytes cannot be written: {error.strerror}", hint=hint
    )
