"""HDF5 metadata around the arrays of a result, built in memory.

The HDF5 library writes names, types and shapes into memory (`_MemoryFile`), so that it never fails
on a full disk; the writer of the file adds the bytes of the arrays. Writers and readers share the
functions for types and shapes of arrays.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

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
    to its root.

    Names may contain `/`: the groups are created.
    """
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
    offset: int = built.get_offset()
    return offset


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
