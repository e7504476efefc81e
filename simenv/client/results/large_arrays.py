"""The arrays of a result that are too large for a message: mapped where they lie, or fetched.

Read when somebody first asks for one. Invariant: what is handed out has the checksum that its
worker wrote down; where it has not, the task runs again, and its result has the same bits.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from simenv.errors import SimenvError, StoreError
from simenv.model import ResultFile, StoredArray
from simenv.store import reader
from simenv.wire.messages.queries import CHUNK_BYTES, FetchResult, ResultChunk

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession


class LargeArrays:
    """One result's file. Thread-safe.

    `renew` is called with what is wrong; it returns the file of the result's next completion.
    """

    def __init__(
        self, link: ServiceSession, task: int, file: ResultFile, renew: Callable[[str], ResultFile]
    ) -> None:
        self._link = link
        self._task = task
        self._file = file
        self._renew = renew
        self._lock = threading.Lock()
        self._views: dict[str, memoryview] = {}

    def size(self, field: str) -> int:
        """Bytes of an array; 0 if the file has none of that name."""
        array = self._array(field)
        return array.size_bytes if array is not None else 0

    def view(self, field: str) -> memoryview:
        """The bytes of an array, read-only; StoreError if they cannot be had."""
        with self._lock:
            view = self._views.get(field)
            if view is None:
                view = self._views[field] = self._read(field)
            return view

    def where(self, field: str) -> dict[str, object]:
        """Where an array lies, as builtins: for whoever reads the file by other means."""
        array = self._array(field)
        root = self._link.channel.results
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
        """From the file itself where we can reach it, else through the service."""
        for last in (False, True):
            array = self._array(field)
            if array is None:
                return memoryview(b"")
            try:
                return (None if last else self._mapped(array)) or self._fetched(array)
            except StoreError as error:
                if last:
                    raise
                self._file = self._renew(error.message)
        raise AssertionError("the last turn returns or raises")

    def _mapped(self, array: StoredArray) -> memoryview | None:
        root = self._link.channel.results
        if root is None:
            return None
        try:
            descriptor = reader.open_file(reader.below(root, self._file.name))
        except StoreError:
            return None  # not there for us; perhaps for the service
        try:
            return reader.mapped(descriptor, array)
        finally:
            os.close(descriptor)

    def _fetched(self, array: StoredArray) -> memoryview:
        """In a file of our own without a name, so that it takes disk and not memory."""
        with tempfile.TemporaryFile() as copy:
            place, end = array.offset, array.offset + array.size_bytes
            while place < end:
                ask = partial(
                    FetchResult,
                    task=self._task,
                    file=self._file.name,
                    offset=place,
                    size_bytes=min(CHUNK_BYTES, end - place),
                )
                data = self._ask(ask)
                os.pwrite(copy.fileno(), data, place)
                place += len(data)
            return reader.mapped(copy.fileno(), array)

    def _ask(self, ask: Callable[[int], FetchResult]) -> bytes:
        data = self._link.ask(ResultChunk, ask).data
        if not data:
            raise StoreError(f"{self._file.name} ends too early")
        return data


def failed(task: str, why: str) -> SimenvError:
    """A result that cannot be had although its task has run again."""
    return StoreError(
        f"the result of task {task} is damaged: {why}",
        hint="submit it again with its seed; if that happens again, look at disk and memory",
    )
