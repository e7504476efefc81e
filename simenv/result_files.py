"""Result files in HDF5 for results too large for a message: layout, reader, writer.

HDF5 metadata around the arrays of a result, built in memory. The HDF5 library writes names, types
and shapes into memory (`_MemoryFile`), so that it never fails on a full disk; the writer of the
file adds the bytes of the arrays. Writers and readers share the functions for types and shapes of
arrays.

Write one result file: temporary name, blocks with checksums, fsync, rename. Invariant: a file under
its final name is complete. Arrays are written block by block, without a second copy in memory.

Read and check result files as bytes, without HDF5 and numpy. Invariant: the checksum of an array is
verified before its content is used.
"""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from simenv import foreign_files
from simenv.errors import StoreError
from simenv.files import sync_folder
from simenv.model import ResultFile, StoredArray, task_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


ALIGNMENT = 4_096  # of every array in the file: a page, so that it can be mapped


class Skeleton(msgspec.Struct, frozen=True):
    """The bytes of an HDF5 file outside its arrays, and the offsets of the arrays."""

    pieces: tuple[tuple[int, bytes], ...]  # (offset, bytes), ascending
    offsets: dict[str, int]  # array -> its first byte in the file
    size_bytes: int  # of the whole file


class Field(msgspec.Struct, frozen=True):
    """Type, shape and HDF5 attributes of an array for which the file reserves space."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    attributes: Mapping[str, str | int | float]


def skeleton(fields: Mapping[str, Field], attributes: Mapping[str, str | int | float]) -> Skeleton:
    """Build an HDF5 file with one contiguous dataset for each field, in order; `attributes` belong
    to its root. Names may contain `/`: the groups are created."""
    import h5py

    memory = _MemoryFile()
    with h5py.File(
        memory,
        "w",
        libver=("v110", "v110"),
        alignment_threshold=ALIGNMENT,
        alignment_interval=ALIGNMENT,
    ) as file:
        for key, value in attributes.items():
            file.attrs[key] = value
        offsets = {name: _allocate(file, name, field) for name, field in fields.items()}
    return Skeleton(tuple(sorted(memory.pieces.items())), offsets, memory.size_bytes)


def _allocate(file: Any, name: str, field: Field) -> int:
    from h5py import h5d, h5p, h5s, h5t

    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    folder, _, leaf = name.rpartition("/")
    group = file.require_group(folder) if folder else file
    built = h5d.create(
        group.id,
        leaf.encode(),
        h5t.py_create(field.dtype, logical=True),
        h5s.create_simple(field.shape),
        properties,
    )
    for key, value in field.attributes.items():
        group[leaf].attrs[key] = value
    offset: int | None = built.get_offset()
    return offset or 0  # HDF5 allocates no place for an empty dataset


class _MemoryFile(io.RawIOBase):
    """Sparse file in memory: it stores the written pieces and no bytes between them."""

    def __init__(self) -> None:
        self.pieces: dict[int, bytes] = {}
        self.size_bytes = 0
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}[whence]
        self._position = base + offset
        return self._position

    def write(self, data: Any, /) -> int:
        piece = bytes(data)
        self.pieces[self._position] = piece
        self._position += len(piece)
        self.size_bytes = max(self.size_bytes, self._position)
        return len(piece)

    def truncate(self, size: int | None = None) -> int:
        self.size_bytes = self._position if size is None else size
        return self.size_bytes


FORMAT = 1  # of the files: names, types and attributes


def outcomes(rows: bytes | memoryview, width: int) -> NDArray[np.unsignedinteger[Any]]:
    """View packed outcomes as uint8/16/32/64 [k], or uint8 [k, width] beyond 64 clbits."""
    import numpy as np

    if width in (1, 2, 4, 8):
        return np.frombuffer(rows, np.dtype(f"<u{width}"))
    return np.frombuffer(rows, np.uint8).reshape(-1, max(1, width))


def array_of(values: bytes | memoryview, kind: str, *shape: int) -> NDArray[Any]:
    """View packed numbers as an array of dtype `kind`; `shape` may contain one -1."""
    import numpy as np

    return np.frombuffer(values, np.dtype(kind)).reshape(*(shape or (-1,)))


BLOCK_BYTES = 4 * 2**20
STREAMED_BYTES = 2**18  # of a file that is read once: what one reader who has stopped holds
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
        raise _store_error(name or str(path), frame.size_bytes, error) from error
    rest = checksum_of_rest(frame, stored)
    return ResultFile(name or path.name, frame.size_bytes, rest, stored)


def checksum_of_rest(frame: Skeleton, stored: tuple[StoredArray, ...]) -> int:
    """CRC-32 of the bytes outside the arrays: those of HDF5, and zeros between them."""
    crc, position = 0, 0
    for start, end in [(a.offset, a.offset + a.size_bytes) for a in stored] + [
        (frame.size_bytes, frame.size_bytes)
    ]:
        crc = zlib.crc32(_rest(frame, position, start), crc)
        position = end
    return crc


def _rest(frame: Skeleton, begin: int, end: int) -> bytearray:
    """Return a range of bytes outside the arrays."""
    rest = bytearray(end - begin)
    for offset, piece in frame.pieces:
        if begin <= offset < end:
            rest[offset - begin : offset - begin + len(piece)] = piece
    return rest


def parts(
    arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, str | int | float]
) -> tuple[int, Iterator[bytes | bytearray | memoryview]]:
    """Return the size of the file that `write` would write, and an iterator over its bytes."""
    fields = {key: Field(array.dtype, array.shape, {}) for key, array in arrays.items()}
    frame = skeleton(fields, attributes)

    def each() -> Iterator[bytes | bytearray | memoryview]:
        position = 0
        for name, offset in sorted(frame.offsets.items(), key=lambda entry: entry[1]):
            yield _rest(frame, position, offset)
            yield from flat_blocks(arrays[name], once=True)
            position = offset + arrays[name].nbytes
        yield _rest(frame, position, frame.size_bytes)

    return frame.size_bytes, each()


def flat_blocks(array: NDArray[Any], *, once: bool = False) -> Iterator[memoryview]:
    """Yield the bytes of a contiguous array in blocks. `once`: pages of a file that `mapped` has
    mapped leave the memory of the process again."""
    view = memoryview(array.reshape(-1).view("u1").data)
    base: Any = array
    while getattr(base, "base", None) is not None:
        base = base.base
    mapping = getattr(base, "obj", None)
    step = STREAMED_BYTES if once else BLOCK_BYTES
    for start in range(0, len(view), step):
        yield view[start : start + step]
        if once and isinstance(mapping, mmap.mmap):
            mapping.madvise(mmap.MADV_DONTNEED)


def _fill(
    descriptor: int, frame: Skeleton, arrays: Mapping[str, NDArray[Any]]
) -> tuple[StoredArray, ...]:
    stored = []
    for offset, piece in frame.pieces:
        _write_at(descriptor, memoryview(piece), offset)
    for name, array in arrays.items():
        crc, at = 0, frame.offsets[name]
        for block in flat_blocks(array):
            crc = zlib.crc32(block, crc)
            _write_at(descriptor, block, at)
            at += len(block)
        stored.append(
            StoredArray(name, array.dtype.str, array.shape, frame.offsets[name], array.nbytes, crc)
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


def _store_error(name: str, size_bytes: int, error: OSError) -> StoreError:
    hint = "see to its disk, then submit again"
    if error.errno in _FULL:
        hint = (
            f"free {size_bytes} bytes on its disk, then submit again; "
            "the event disk.full says what `simenv prune` frees"
        )
    return StoreError(
        f"{name} of {size_bytes} bytes cannot be written: {error.strerror}", hint=hint
    )


CHECKPOINTS = "kept"  # folder of the checkpoints of long runs, with one folder for each task
WORKERS = "workers"  # folder of the folders of isolated workers
WIDE_QUBITS = 20  # runs of narrower circuits are too short for checkpoints
SHARD_BITS = 12  # 2**SHARD_BITS tasks share a folder


def attempt_file(task: int, fence: int) -> str:
    """Name of the result file of one attempt, relative to the results folder. `fence`: the fencing
    token of the attempt."""
    return f"{task_name(task >> SHARD_BITS)[2:]}/{task_name(task)}.{fence:x}.h5"


def open_file(root: Path, name: str) -> int:
    """Open a result file below `root` for reading and return its descriptor. Raises StoreError if
    there is no regular file of that name, or a link leads to it."""
    try:
        return foreign_files.open_file(root, name)
    except OSError as error:
        raise StoreError(f"{name[:80]} cannot be read: {error.strerror}") from error


def damage(root: Path, name: str, stored: ResultFile) -> str:
    """Return the defect of a result file below `root`, or "" if it is complete; reads every byte.
    `stored`: as it was written; its own name is not used."""
    try:
        descriptor = open_file(root, name)
    except StoreError as error:
        return error.message
    try:
        size = os.fstat(descriptor).st_size
        if size != stored.size_bytes:
            return f"{name} has {size} bytes, it was written with {stored.size_bytes}"
        for array in stored.arrays:
            if checksum(descriptor, array.offset, array.size_bytes) != array.checksum:
                return f"{array.field} in {name} is damaged: its checksum does not fit"
        crc = 0
        for start, end in gaps(stored):
            crc = checksum(descriptor, start, end - start, crc)
        return "" if crc == stored.checksum else f"{name} is damaged: its checksum does not fit"
    except OSError as error:
        return f"{name} cannot be read: {error.strerror}"
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
