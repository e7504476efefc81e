"""Data of results: packed outcomes, bitstrings, and large arrays.

Bitstrings of packed outcomes have clbit 0 rightmost and one space between registers. Invariant:
text is made when a result is first read. Strings are cached by shape (the sizes of the registers)
for later results, within bounds.

Arrays of a result that are too large for a message are mapped from the result file, or fetched,
when they are first requested. Invariant: a returned array has the checksum that its worker
recorded. After a mismatch the task runs again, which gives the same bits.

The packed result of one task is decoded once for all its rows. Invariant: the lengths of all parts
agree, which is checked when a result is read. Arrays and text are made when they are first
requested. Read-only.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from simenv import result_files
from simenv.client.circuits import native
from simenv.errors import ProtocolError, StoreError
from simenv.model import Origin, ResultData, ResultFile, StoredArray, result_lengths
from simenv.model.task import AmplitudeResultData
from simenv.wire import codec
from simenv.wire.messages.base import A, ClientRequest
from simenv.wire.messages.queries import CHUNK_BYTES, FetchResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from simenv.model.accounts import Receipt

SHAPES_KEPT = 16
STRINGS_KEPT = 8_192  # for each shape: 1 MB at most for the usual widths
TABLE_BITS = 6  # up to this width all strings of a shape are made at once, in a list
LIST_BITS = 12  # the same for results of many outcomes, after as many as the list has strings
MANY_KEYS = 64
MANY_BYTES = 4 * MANY_KEYS  # of their counts
SETS_KEPT = 256  # cached sets of outcomes for each shape of at most TABLE_BITS

Registers = tuple[tuple[str, int], ...]
PackedBits = bytes | memoryview

_CASTS: dict[int, Literal["H", "I", "Q"]] = {2: "H", 4: "I", 8: "Q"}


def counts(
    rows: PackedBits, width: int, packed_counts: PackedBits, registers: Registers
) -> dict[str, int]:
    """Return counts by bitstring; `packed_counts`: uint32, one for each row."""
    if len(packed_counts) >= MANY_BYTES:
        table = _strings(tuple([size for _, size in registers])).table(len(packed_counts) // 4)
        if table:
            with contextlib.suppress(IndexError):  # an outcome beyond the clbits
                return _many_counts(table, rows, width, packed_counts)
    times = _unpack(len(packed_counts) // 4)(packed_counts)
    return dict(zip(_keys(registers)(rows, width), times, strict=True))


_unpack = functools.lru_cache(MANY_BYTES)(lambda number: struct.Struct(f"<{number}I").unpack)


def _many_counts(
    table: list[str], rows: PackedBits, width: int, packed_counts: PackedBits
) -> dict[str, int]:
    size = len(packed_counts)
    if size % 4 or len(rows) * 4 != size * width:  # the compiled code reads without limits
        raise ProtocolError(
            f"a result has {size} bytes of counts for {len(rows)} bytes of outcomes of {width}"
        )
    packer = native.CHOICE.packer
    in_memory = isinstance(rows, bytes) and isinstance(packed_counts, bytes)
    if packer is not None and in_memory and 0 < width <= 2 and sys.byteorder == "little":
        return packer.counts_dict(table, rows, width, packed_counts, size // 4)
    times = _unpack(size // 4)(packed_counts)
    return {table[o]: n for o, n in zip(_outcomes(rows, width), times, strict=True)}


def probabilities(
    rows: PackedBits, width: int, values: PackedBits, registers: Registers
) -> dict[str, float]:
    """Return probabilities by bitstring; `values`: float64, one for each row."""
    weights = struct.unpack(f"<{len(values) // 8}d", values)
    return dict(zip(_keys(registers)(rows, width), weights, strict=True))


def keys(rows: PackedBits, width: int, registers: Registers) -> Iterable[str]:
    """Return the bitstring of each row: `width` bytes, little-endian (0: no clbits, one row)."""
    return _keys(registers)(rows, width)


def strings(rows: PackedBits, width: int, registers: Registers) -> list[str]:
    """Return the bitstring of each row, for many rows with few distinct outcomes."""
    find = _strings(tuple([size for _, size in registers])).__getitem__
    return [find(outcome) for outcome in integers(rows, width)]


def integers(rows: PackedBits, width: int) -> Iterable[int]:
    """Return the outcomes as Python integers."""
    if width == 1:
        return rows
    cast = _CASTS.get(width)
    if cast is not None:
        return memoryview(rows).cast(cast).tolist()
    return [int.from_bytes(rows[k : k + width], "little") for k in range(0, len(rows), width)]


class _Strings(dict[int, str]):
    """Map from outcome to bitstring, filled on demand."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self._width = sum(sizes)
        edges = accumulate(reversed(sizes), initial=0)  # the last register is leftmost
        self._cuts = tuple(pairwise(edges)) if len(sizes) > 1 else ()
        self._table: list[str] = []
        self._lookups = 0

    def __missing__(self, outcome: int) -> str:
        text = format(outcome, f"0{self._width}b") if self._width else ""
        if self._cuts:
            text = " ".join([text[start:end] for start, end in self._cuts])
        if len(self) < STRINGS_KEPT:
            self[outcome] = text
        return text

    def keys_of(self, rows: PackedBits, width: int) -> Iterable[str]:
        """Return the bitstring of each row. Many wide outcomes mostly differ: they are cut from the
        digits of one number, in a third of the time of one string after the other."""
        bits, step = self._width, 8 * width
        if LIST_BITS < bits <= step and not self._cuts and len(rows) >= MANY_KEYS * width:
            number = int.from_bytes(rows, "little")
            beyond = ((1 << step) - (1 << bits)).to_bytes(width, "little") * (len(rows) // width)
            if not number & int.from_bytes(beyond, "little"):  # no outcome beyond the clbits
                text = f"{number:0{8 * len(rows)}b}"  # the last outcome first
                return [text[end - bits : end] for end in range(len(text), 0, -step)]
        return map(self.__getitem__, _outcomes(rows, width))

    def table(self, lookups: int) -> list[str]:
        """Return the strings of all outcomes, by outcome; [] if there are too many, or more than
        the lookups that were announced so far: making them all would cost more than it saves."""
        if not self._table and 0 < self._width <= LIST_BITS:
            self._lookups += lookups
            if self._lookups >= 1 << self._width:
                self._table = [self[outcome] for outcome in range(1 << self._width)]
        return self._table


class _OutcomeSets(dict[PackedBits, tuple[str, ...]]):
    """Map from a set of packed outcomes to its bitstrings, for shapes with few outcomes. Such sets
    repeat; one lookup takes half the time of a lookup for each outcome."""

    def __init__(self, table: list[str]) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, rows: PackedBits) -> tuple[str, ...]:
        table = self._table
        result = tuple([table[outcome] for outcome in rows])
        if len(self) >= SETS_KEPT:
            self.clear()
        self[bytes(rows)] = result
        return result

    def keys_of(self, rows: PackedBits, width: int) -> tuple[str, ...]:
        if width == 1:
            return self[rows]
        return tuple([self._table[outcome] for outcome in _outcomes(rows, width)])


@functools.lru_cache(maxsize=SHAPES_KEPT)
def _strings(sizes: tuple[int, ...]) -> _Strings:
    return _Strings(sizes)


@functools.lru_cache(maxsize=SHAPES_KEPT)
def _outcome_sets(sizes: tuple[int, ...]) -> _OutcomeSets:
    return _OutcomeSets(_strings(sizes).table(1 << sum(sizes)))


@functools.lru_cache(maxsize=SHAPES_KEPT)
def _shared(registers: Registers) -> Registers:
    """Return one object for equal registers of many results: fewer objects for the collector."""
    return registers


@functools.lru_cache(maxsize=SHAPES_KEPT)
def _keys(registers: Registers) -> Callable[[PackedBits, int], Iterable[str]]:
    sizes = tuple([size for _, size in registers])
    if 0 < sum(sizes) <= TABLE_BITS:
        return _outcome_sets(sizes).keys_of
    return _strings(sizes).keys_of


def _outcomes(rows: PackedBits, width: int) -> Iterable[int]:
    return integers(rows, width) if width else (0,)


class ResultSource(Protocol):
    """The connection by which stored results are read and checked; `ServiceSession` is one."""

    @property
    def results_folder(self) -> Path | None:
        """The service's results folder as this process sees it; None: not visible from here."""

    @property
    def readable_results(self) -> Path | None:
        """The same, also where this process may read it and its user may not."""

    def request(self, message: ClientRequest[A], timeout_s: float | None = None) -> A:
        """Send a message to the service and return its answer."""


class LargeArrays:
    """Arrays in the file of one result. Thread-safe. `renew` is called with the fault of the file;
    it returns the file of a repaired result."""

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
        root = self._source.readable_results
        if root is None:
            return None
        try:
            descriptor = result_files.open_file(root, self._file.name)
        except StoreError:
            return None  # not readable here; the service may be able to read it
        try:
            return result_files.mapped(descriptor, array)
        finally:
            os.close(descriptor)

    def _fetch(self, array: StoredArray) -> memoryview:
        """Fetch an array into a temporary file, so that it takes disk and not memory."""
        with tempfile.TemporaryFile() as copy:
            offset, end = array.offset, array.offset + array.size_bytes
            while offset < end:
                size_bytes = min(CHUNK_BYTES, end - offset)
                part = FetchResult(0, self._task, self._file.name, offset, size_bytes)
                data = self._source.request(part).data
                if not data:
                    raise StoreError(f"{self._file.name} ends too early")
                os.pwrite(copy.fileno(), data, offset)
                offset += len(data)
            return result_files.mapped(copy.fileno(), array)


class Stages(msgspec.Struct, frozen=True):
    """Seconds that a task spent in each stage; bindings that were sent as one task share them.

    `queued_s`, `sent_s`, `compile_s` and `run_s` were measured by service and worker; `compile_s`
    is the wait of a worker's first tasks for kernels to be compiled or loaded, and no part of
    `run_s`. `accepted_s` is the caller's wait for the durable acceptance, in which the task may
    already run. `returned_s` is the rest of `total_s`: transfers, commits, and the time until the
    answer was read. If another process submitted the task, `accepted_s` and `returned_s` are 0.
    `device_s` is the time on the emulated device by its calibration, 0 without one; `begun_s` is
    the wall-clock time of the begin there, for a paced device.
    """

    accepted_s: float
    queued_s: float
    sent_s: float
    run_s: float
    returned_s: float
    total_s: float
    compile_s: float = 0.0
    device_s: float = 0.0
    begun_s: float = 0.0


class Provenance(msgspec.Struct, frozen=True):
    """Origin of a result, as the properties of `Result` show it."""

    task: str
    name: str
    engine: str
    route: str
    origin: Origin
    slots: int
    attempts: int
    timing: Stages

    def provenance(self) -> Provenance:
        """Return itself; see `ProvenanceSource`."""
        return self

    def receipt(self) -> Receipt | None:
        """Return None: a copied result has no service."""
        return None


class ProvenanceSource(Protocol):
    """Provider of a result's provenance and receipt, which are fetched only when they are read."""

    def provenance(self) -> Provenance: ...
    def receipt(self) -> Receipt | None: ...


class DecodedResult(msgspec.Struct, eq=False, gc=False):
    """The rows of one task; row r is the binding with index `data.binding` + r. Callers hold
    thousands of them, which the collector need not traverse: no reference cycle passes through
    one."""

    data: AmplitudeResultData
    bulk: LargeArrays | None = None
    _ends: list[int] | None = None
    _probability_ends: list[int] | None = None

    @classmethod
    def of(cls, data: ResultData, task: object) -> DecodedResult:
        """Check all lengths. Raises VersionMismatchError and ProtocolError, naming `task`."""
        if not isinstance(data, AmplitudeResultData):  # made in Python, not decoded
            data = AmplitudeResultData(*msgspec.structs.astuple(data))
        msgspec.structs.force_setattr(data, "registers", _shared(data.registers))
        decoded = cls(data)
        sizes = result_lengths.check(data, task)
        if sizes is not None:
            outcomes, counts, possible, probs = sizes[:4]
            rows, width = data.rows, data.probability_width
            decoded._ends = _ends(outcomes, data.outcome_width, counts, 4, rows, data.count, task)
            rows = data.probability_rows
            decoded._probability_ends = _ends(possible, width, probs, 8, rows, data.count, task)
        return decoded

    @classmethod
    def read(cls, payload: bytes, task: object) -> DecodedResult:
        """Decode a payload. Raises ProtocolError and VersionMismatchError."""
        return cls.of(codec.result_data(payload), task)

    def has(self, field: str) -> bool:
        """Return whether an array has data. Never opens a file."""
        return bool(getattr(self.data, field)) or (
            self.bulk is not None and self.bulk.size(field) > 0
        )

    def packed(self, field: str) -> PackedBits:
        """Return the bytes of an array of all rows. Raises StoreError if its file is damaged."""
        result: bytes = getattr(self.data, field)
        return self.bulk.view(field) if not result and self.bulk is not None else result

    def counts(self, row: int) -> tuple[PackedBits, PackedBits]:
        """Return the packed outcomes of a row and their counts, uint32."""
        data, ends = self.data, self._ends
        outcomes: PackedBits = data.outcomes
        packed_counts: PackedBits = data.counts
        if self.bulk is not None:
            outcomes, packed_counts = self.packed("outcomes"), self.packed("counts")
        if ends is None:
            return outcomes, packed_counts
        first, last, width = ends[row], ends[row + 1], data.outcome_width
        return outcomes[first * width : last * width], packed_counts[4 * first : 4 * last]

    def probabilities(self, row: int) -> tuple[PackedBits, PackedBits]:
        """Return the packed outcomes of a row and their probabilities, float64."""
        outcomes, values = self.packed("probability_outcomes"), self.packed("probabilities")
        ends = self._probability_ends
        if ends is None:
            return outcomes, values
        first, last, width = ends[row], ends[row + 1], self.data.probability_width
        return outcomes[first * width : last * width], values[8 * first : 8 * last]

    def statevector(self, row: int) -> NDArray[np.complexfloating[Any, Any]]:
        """Return the amplitudes of a row: complex64 or complex128 [2**num_qubits]."""
        import numpy as np

        data, packed = self.data, self.packed("statevector")
        size = len(packed) // data.count
        single = size == 8 << data.num_qubits
        kind = np.dtype("<c8" if single else "<c16")
        return np.frombuffer(packed, kind, size // kind.itemsize, row * size)

    def amplitudes(self, row: int) -> tuple[list[str], NDArray[np.complexfloating[Any, Any]]]:
        """Return the bit strings, highest qubit first, and their amplitudes in a row: complex64 or
        complex128 [strings]."""
        import numpy as np

        text, width = bytes(self.packed("bit_strings")).decode(), self.data.num_qubits
        strings = [text[at : at + width] for at in range(0, len(text), width)]
        kind = np.dtype("<c8" if self.data.precision == "single" else "<c16")
        table = np.frombuffer(self.packed("amplitudes"), kind)
        return strings, table.reshape(self.data.count, -1)[row]

    def estimates(self, row: int) -> Sequence[float]:
        """Return value and standard error of each observable of a row, alternating."""
        packed = self.packed("expectations")
        size = len(packed) // self.data.count
        return memoryview(packed)[row * size : (row + 1) * size].cast("d").tolist()

    def expectations(self) -> NDArray[np.float64]:
        """Return float64 [rows, observables, 2]: value and standard error."""
        import numpy as np

        table = np.frombuffer(self.packed("expectations"), np.dtype("<f8"))
        return table.reshape(self.data.count, -1, 2)

    def gradients(self, row: int) -> NDArray[np.float64]:
        """Return float64 [observables, parameters] of a row."""
        import numpy as np

        observables = len(self.packed("expectations")) // (16 * self.data.count)
        table = np.frombuffer(self.packed("gradients"), np.dtype("<f8"))
        result: NDArray[np.float64] = table.reshape(self.data.count, observables, -1)[row]
        return result

    def memory(self, row: int) -> PackedBits:
        """Return the packed bits of all shots of a row, shot after shot."""
        packed = self.packed("memory")
        size = len(packed) // self.data.count
        return packed[row * size : (row + 1) * size]

    def extract(self, row: int) -> AmplitudeResultData:
        """Return one row with all of its arrays in memory, as a result of its own: for pickling.
        Raises StoreError if an array in a file cannot be read."""
        data = self.data

        def part(field: str) -> bytes:
            packed = self.packed(field)
            size = len(packed) // data.count
            return bytes(packed[row * size : (row + 1) * size])

        outcomes, counts = self.counts(row)
        possible, probs = self.probabilities(row)
        return msgspec.structs.replace(
            data,
            outcomes=bytes(outcomes),
            counts=bytes(counts),
            probability_outcomes=bytes(possible),
            probabilities=bytes(probs),
            statevector=part("statevector"),
            expectations=part("expectations"),
            gradients=part("gradients"),
            memory=part("memory"),
            value=bytes(self.packed("value")),
            amplitudes=part("amplitudes"),
            bit_strings=bytes(self.packed("bit_strings")),
            binding=data.binding + row,
            count=1,
            rows=b"",
            probability_rows=b"",
            file=None,
        )


def _ends(
    outcome_bytes: int,
    width: int,
    value_bytes: int,
    size: int,
    rows: bytes,
    count: int,
    task: object,
) -> list[int] | None:
    """Return the begin of each row's part and the end of the last one; None if one row has all."""
    ends = None
    if rows:
        ends = [0, *accumulate(memoryview(rows).cast("I"))]
        if ends[-1] * size != value_bytes:
            raise result_lengths.rows_error(outcome_bytes, width, value_bytes, count, task)
    return ends
