"""Read and check result files as bytes, without HDF5 and numpy.

Invariant: the checksum of an array is verified before its content is used.
"""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from simenv.errors import StoreError
from simenv.model import ResultFile, StoredArray

BLOCK_BYTES = 4 * 2**20
CHECKPOINTS = "kept"  # folder of the checkpoints of long runs, with one folder for each task


def below(root: Path, name: str) -> Path:
    """Return the path of a file below `root`. Raises StoreError if the name leads out of `root`."""
    relative = PurePosixPath(name)
    if not name or relative.is_absolute() or ".." in relative.parts:
        raise StoreError(f"{name[:80]!r} is not the name of a file of results")
    return root / relative


def open_file(path: Path) -> int:
    """Open a file for reading and return its descriptor. Raises StoreError if that fails. A pipe in
    place of a file is opened without a wait for its writer, and has no bytes to map."""
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error


def damage(path: Path, stored: ResultFile) -> str:
    """Return the defect of a result file, or "" if it is complete; reads every byte."""
    try:
        descriptor = open_file(path)
    except StoreError as error:
        return error.message
    try:
        size = os.fstat(descriptor).st_size
        if size != stored.size_bytes:
            return f"{path} has {size} bytes, it was written with {stored.size_bytes}"
        for array in stored.arrays:
            if checksum(descriptor, array.offset, array.size_bytes) != array.checksum:
                return f"{array.field} in {path} is damaged: its checksum does not fit"
        crc = 0
        for start, end in gaps(stored):
            crc = checksum(descriptor, start, end - start, crc)
        return "" if crc == stored.checksum else f"{path} is damaged: its checksum does not fit"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    finally:
        os.close(descriptor)


def mapped(descriptor: int, array: StoredArray) -> memoryview:
    """Map the bytes of one array. Raises StoreError if they differ from the written ones."""
    end = array.offset + array.size_bytes
    try:
        if os.fstat(descriptor).st_size < end:
            raise StoreError(f"{array.field} ends at byte {end}; the file is shorter")
        if not array.size_bytes:
            return memoryview(b"")
        page = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY
        mapping = mmap.mmap(descriptor, end - page, access=mmap.ACCESS_READ, offset=page)
        result = checksum(descriptor, array.offset, array.size_bytes)
    except OSError as error:
        raise StoreError(f"{array.field} cannot be read: {error.strerror}") from error
    if result != array.checksum:
        raise StoreError(f"{array.field} is damaged: its checksum does not fit")
    return memoryview(mapping)[array.offset - page :]


def checksum(descriptor: int, offset: int, size_bytes: int, crc: int = 0) -> int:
    """CRC-32 of a part of a file, read block by block; `crc` is that of the preceding bytes."""
    for block in blocks(descriptor, offset, size_bytes):
        crc = zlib.crc32(block, crc)
    return crc


def blocks(descriptor: int, offset: int, size_bytes: int) -> Iterator[bytes]:
    """Yield a part of a file in blocks; ends early if the file is shorter."""
    end = offset + size_bytes
    while offset < end:
        block = os.pread(descriptor, min(BLOCK_BYTES, end - offset), offset)
        if not block:
            return
        yield block
        offset += len(block)


def gaps(stored: ResultFile) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each byte range outside the arrays."""
    position = 0
    for array in stored.arrays:
        yield position, array.offset
        position = array.offset + array.size_bytes
    yield position, stored.size_bytes
