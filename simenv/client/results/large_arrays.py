"""Arrays of a result that are too large for a message: mapped from the result file, or fetched.

An array is read when it is first requested. Invariant: a returned array has the checksum that its
worker recorded. After a mismatch the task runs again, which gives the same bits.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from simenv.errors import StoreError
from simenv.model import ResultFile, StoredArray
from simenv.result_files import reader
from simenv.wire.messages.queries import CHUNK_BYTES


class ResultSource(Protocol):
    """The connection by which stored arrays are read; `ServiceSession` implements it."""

    @property
    def results_folder(self) -> Path | None:
        """The service's results folder as this process sees it; None: not visible from here."""

    def fetch_chunk(self, task: int, file: str, offset: int, size_bytes: int) -> bytes:
        """Return a part of a result file, through the service."""


class LargeArrays:
    """Arrays in the file of one result. Thread-safe.

    `renew` is called with the fault of the file; it returns the file of a repaired result.
    """

    def __init__(
        self, source: ResultSource, task: int, file: ResultFile, renew: Callable[[str], ResultFile]
    ) -> None:
        self._source = source
        self._task = task
        self._file = file
        self._renew = renew
        self._lock = threading.Lock()
        self._views: dict[str, memoryview] = {}

    def size(self, field: str) -> int:
        """Return the bytes of an array; 0 if the file has none of that name."""
        array = self._array(field)
        return array.size_bytes if array is not None else 0

    def view(self, field: str) -> memoryview:
        """Return the bytes of an array, read-only. Raises StoreError if they cannot be read."""
        with self._lock:
            view = self._views.get(field)
            if view is None:
                view = self._views[field] = self._read(field)
            return view

    def where(self, field: str) -> dict[str, object]:
        """Return file, dataset, dtype, shape and checksum of an array, for other programs."""
        array = self._array(field)
        root = self._source.results_folder
        return {
            "file": str(root / self._file.name) if root is not None else self._file.name,
            "dataset": field,
            "dtype": array.dtype if array is not None else "",
            "shape": list(array.shape) if array is not None else [],
            "checksum": array.checksum if array is not None else 0,
        }

    def _array(self, field: str) -> StoredArray | None:
        return next((array for array in self._file.arrays if array.field == field), None)

    def _read(self, field: str) -> memoryview:
        """Map the array if its file is accessible, else fetch it through the service."""
        for last in (False, True):
            array = self._array(field)
            if array is None:
                return memoryview(b"")
            try:
                return (None if last else self._map(array)) or self._fetch(array)
            except StoreError as error:
                if last:
                    raise
                self._file = self._renew(error.message)
        raise AssertionError("the last iteration returns or raises")

    def _map(self, array: StoredArray) -> memoryview | None:
        root = self._source.results_folder
        if root is None:
            return None
        try:
            descriptor = reader.open_file(reader.below(root, self._file.name))
        except StoreError:
            return None  # not readable here; the service may be able to read it
        try:
            return reader.mapped(descriptor, array)
        finally:
            os.close(descriptor)

    def _fetch(self, array: StoredArray) -> memoryview:
        """Fetch an array into a temporary file, so that it takes disk and not memory."""
        with tempfile.TemporaryFile() as copy:
            offset, end = array.offset, array.offset + array.size_bytes
            while offset < end:
                size_bytes = min(CHUNK_BYTES, end - offset)
                data = self._source.fetch_chunk(self._task, self._file.name, offset, size_bytes)
                if not data:
                    raise StoreError(f"{self._file.name} ends too early")
                os.pwrite(copy.fileno(), data, offset)
                offset += len(data)
            return reader.mapped(copy.fileno(), array)
