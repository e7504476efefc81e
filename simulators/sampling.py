"""From sampled basis states and classical records to packed outcomes; shared by the engines.

A record is a row of uint64 words, clbit c in bit c % 64 of word c // 64. Packed outcomes are
distinct, ascending as unsigned integers, and little-endian.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import outcome_width, words


def gather(indices: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Records [indices, words] in which clbit c reads bit source[c] of the index; -1 reads 0."""
    records = np.zeros((indices.size, words(source.size)), np.uint64)
    write(records, indices, source)
    return records


def write(
    records: NDArray[np.uint64], indices: NDArray[np.int64], source: NDArray[np.int64]
) -> None:
    """Write bit source[c] of each index into clbit c of its record; -1 leaves clbit c alone.

    Bits that stay where they are go all at once; else eight at a time are looked up in a table.
    """
    for word in range(records.shape[1]):
        column = records[:, word]
        bits: dict[int, int] = {}  # of a record, by bit of the index
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


def distinct(
    records: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Distinct records in ascending order, and for each record which of them it is."""
    if records.shape[1] == 1:
        found, inverse = np.unique(records[:, 0], return_inverse=True)
        return found.reshape(-1, 1), inverse
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
    """Distinct records, ascending, with how often each occurs, or the sum of its weights."""
    if weights is None and records.shape[1] == 1 and len(records):
        ordered = records[:, 0]
        if (ordered[1:] < ordered[:-1]).any():
            ordered = np.sort(ordered)
        begins = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        counts = np.diff(begins, append=ordered.size)
        return ordered[begins].reshape(-1, 1), counts.astype(np.float64)
    found, inverse = distinct(records)
    return found, np.bincount(inverse, weights, len(found)).astype(np.float64)


def pack(records: NDArray[np.uint64], num_bits: int) -> tuple[bytes, int]:
    """Packed outcomes of records, and their width in bytes."""
    width = outcome_width(num_bits)
    if width <= 8:
        return records[:, 0].astype(f"<u{width}").tobytes(), width
    raw = np.ascontiguousarray(records).view(np.uint8)
    return np.ascontiguousarray(raw[:, :width]).tobytes(), width


def pack_counts(counts: Mapping[int, int], num_bits: int) -> tuple[int, bytes, bytes]:
    """Width, packed outcomes and their uint32 counts, of how often each outcome came."""
    width, outcomes = outcome_width(num_bits), sorted(counts)
    packed = b"".join([outcome.to_bytes(width, "little") for outcome in outcomes])
    return width, packed, np.array([counts[key] for key in outcomes], np.uint32).tobytes()


def unpack(outcomes: bytes, width: int) -> list[int]:
    """Packed outcomes as integers."""
    return [
        int.from_bytes(outcomes[at : at + width], "little") for at in range(0, len(outcomes), width)
    ]
