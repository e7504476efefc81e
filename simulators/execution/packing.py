"""Records of shots, and packing of outcomes; shared by the engines.

A record is a row of uint64 words, clbit c in bit c % 64 of word c // 64. Packed outcomes are
distinct, ascending as unsigned integers, and little-endian. Bit-packed rows have bit b in bit b % 8
of byte b // 8.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import num_words, outcome_width


def gather(indices: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Records [indices, words] in which clbit c reads bit source[c] of the index; -1 reads 0."""
    records = np.zeros((indices.size, num_words(source.size)), np.uint64)
    write(records, indices, source)
    return records


def write(
    records: NDArray[np.uint64], indices: NDArray[np.int64], source: NDArray[np.int64]
) -> None:
    """Write bit source[c] of each index into clbit c of its record; -1 leaves clbit c alone. Bits
    that keep their places are copied at once; others are looked up in a table, eight at a time."""
    for word in range(records.shape[1]):
        column = records[:, word]
        bits: dict[int, int] = {}  # record bit by index bit
        for c, bit in enumerate(source[64 * word : 64 * word + 64].tolist()):
            if bit >= 0:
                bits[bit] = bits.get(bit, 0) | 1 << c
        wanted = np.uint64(sum(bits.values()))
        column &= ~wanted
        if all(bit < 64 and mask == 1 << bit for bit, mask in bits.items()):
            column |= indices.view(np.uint64) & wanted
            continue
        for first in range(0, max(bits, default=-1) + 1, 8):
            table = np.zeros(256, np.uint64)
            for k in range(8):
                table[1 << k : 2 << k] = table[: 1 << k] | np.uint64(bits.get(first + k, 0))
            column |= table[(indices >> first) & 255]


_TABULATED = 1 << 16  # records below this are counted in a table, not sorted


def distinct(records: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Distinct records in ascending order, and for each record its index among them."""
    if records.shape[1] == 1:
        result, inverse = np.unique(records[:, 0], return_inverse=True)
        return result.reshape(-1, 1), inverse
    order = np.lexsort(records.T)  # the last word is the most significant: lexsort's first key
    ordered = records[order]
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    inverse = np.empty(len(order), np.intp)
    inverse[order] = np.cumsum(fresh) - 1
    return ordered[fresh], inverse


def tally(
    records: NDArray[np.uint64], weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """Distinct records, ascending, with their numbers of occurrence, or the sums of their
    weights."""
    if weights is None and records.shape[1] == 1 and len(records):
        ordered = records[:, 0]
        if int(ordered.max()) < min(_TABULATED, 4 * ordered.size):
            sums = np.bincount(ordered.view(np.int64))
            values = np.flatnonzero(sums)
            return values.astype(np.uint64).reshape(-1, 1), sums[values].astype(np.float64)
        if (ordered[1:] < ordered[:-1]).any():
            ordered = np.sort(ordered)
        begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        counts = np.diff(begins, append=ordered.size)
        return ordered[begins].reshape(-1, 1), counts.astype(np.float64)
    result, inverse = distinct(records)
    return result, np.bincount(inverse, weights, len(result)).astype(np.float64)


def pack(records: NDArray[np.uint64], num_bits: int) -> tuple[bytes, int]:
    """Packed outcomes of records, and their width in bytes."""
    width = outcome_width(num_bits)
    if width <= 8:
        return records[:, 0].astype(f"<u{width}").tobytes(), width
    raw = np.ascontiguousarray(records).view(np.uint8)
    return np.ascontiguousarray(raw[:, :width]).tobytes(), width


def outcome_records(
    counts: Mapping[int, int], num_bits: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Records of outcomes that are integers, and the number of shots of each."""
    return records_of(counts, num_bits), np.fromiter(counts.values(), np.int64, len(counts))


def records_of(outcomes: Iterable[int], num_bits: int) -> NDArray[np.uint64]:
    """Records [outcomes, words] of outcomes that are integers, in their order."""
    size = 8 * num_words(num_bits)
    data = b"".join([outcome.to_bytes(size, "little") for outcome in outcomes])
    return np.frombuffer(data, "<u8").reshape(-1, num_words(num_bits))


def unpack(outcomes: bytes, width: int) -> list[int]:
    """Packed outcomes as integers."""
    return [
        int.from_bytes(outcomes[at : at + width], "little") for at in range(0, len(outcomes), width)
    ]


_FLUSH_ROWS = 1 << 16  # pending records of `Counts`


def select(
    rows: NDArray[np.uint8], source: NDArray[np.int64], identical: bool = False
) -> NDArray[np.uint64]:
    """Records [shots, words] whose bit c is bit source[c] of the bit-packed rows; -1 reads 0.
    `identical`: source[c] is c for each bit of a row, and there are no other bits."""
    if identical:
        padded = np.zeros((len(rows), 8 * num_words(source.size)), np.uint8)
        padded[:, : rows.shape[1]] = rows
        return padded.view("<u8")
    return select_bits(np.unpackbits(rows, axis=1, bitorder="little"), source)


def select_bits(bits: NDArray[np.uint8], source: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Records as `select`, from rows that have one byte for each bit."""
    chosen = np.zeros((len(bits), 64 * num_words(source.size)), np.uint8)
    read = np.flatnonzero(source >= 0)
    chosen[:, read] = bits[:, source[read]]
    return np.packbits(chosen, axis=1, bitorder="little").view("<u8")


class Counts:
    """Distinct records and the number of shots of each, accumulated in batches."""

    def __init__(self, num_bits: int) -> None:
        self._num_bits = num_bits
        self._wide: Counter[bytes] | None = Counter() if num_words(num_bits) > 1 else None
        self._records = np.zeros((0, num_words(num_bits)), np.uint64)
        self._sums = np.zeros(0)
        self._pending: list[NDArray[np.uint64]] = []
        self._num_pending = 0

    def add(self, records: NDArray[np.uint64], counts: NDArray[np.int64] | None = None) -> None:
        """Add records [n, words] of `counts` shots each; None: of one shot each."""
        if self._wide is not None:
            data, size = records.tobytes(), 8 * records.shape[1]
            keys = [data[at : at + size] for at in range(0, len(data), size)]
            if counts is None:
                self._wide.update(keys)
            else:
                for key, count in zip(keys, counts.tolist(), strict=True):
                    self._wide[key] += count
        elif counts is not None:
            self._merge(*tally(records, counts.astype(np.float64)))
        else:
            self._pending.append(records)
            self._num_pending += len(records)
            if self._num_pending >= max(_FLUSH_ROWS, len(self._records)):
                self._flush()

    def packed(self) -> tuple[int, bytes, bytes]:
        """Width, packed outcomes and their uint32 counts."""
        if self._wide is not None:
            keys = sorted(self._wide, key=lambda record: record[::-1])
            self._records = np.frombuffer(b"".join(keys), "<u8").reshape(
                -1, num_words(self._num_bits)
            )
            self._sums = np.fromiter((self._wide[key] for key in keys), np.float64, len(keys))
        self._flush()
        outcomes, width = pack(self._records, self._num_bits)
        return width, outcomes, self._sums.astype(np.uint32).tobytes()

    def _flush(self) -> None:
        if self._pending:
            records = self._pending
            self._merge(*tally(records[0] if len(records) == 1 else np.concatenate(records)))
            self._pending, self._num_pending = [], 0

    def _merge(self, records: NDArray[np.uint64], sums: NDArray[np.float64]) -> None:
        if len(self._records):
            records = np.concatenate((self._records, records))
            records, sums = tally(records, np.concatenate((self._sums, sums)))
        self._records, self._sums = records, sums


class Memory:
    """Records of all shots, in order."""

    def __init__(self, num_bits: int) -> None:
        self._bytes = shot_bytes(num_bits)
        self._parts: list[bytes] = []

    def add(self, records: NDArray[np.uint64]) -> None:
        """Add the records [n, words] of the next shots."""
        raw = np.ascontiguousarray(records).view(np.uint8)
        self._parts.append(raw[:, : self._bytes].tobytes())

    def packed(self) -> bytes:
        """Bit-packed records, uint8 [shots, ceil(bits / 8)]."""
        return b"".join(self._parts)


def shot_bytes(num_bits: int) -> int:
    """Bytes of one shot in the output `memory`."""
    return -(-num_bits // 8)
