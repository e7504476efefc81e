"""From sampled basis states and classical records to packed outcomes; shared by the engines.

A record is a row of uint64 words, clbit c in bit c % 64 of word c // 64. Packed outcomes are
distinct, ascending as unsigned integers, and little-endian.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def words(num_bits: int) -> int:
    """uint64 words that hold so many bits; at least one."""
    return max(1, (num_bits + 63) // 64)


def outcome_width(num_bits: int) -> int:
    """Bytes of one packed outcome: 1, 2, 4, 8, or as many as needed beyond 64 bits."""
    for width in (1, 2, 4, 8):
        if num_bits <= 8 * width:
            return width
    return (num_bits + 7) // 8


def gather(indices: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Records [indices, words] in which clbit c reads bit source[c] of the index; -1 reads 0."""
    records = np.zeros((indices.size, words(source.size)), np.uint64)
    write(records, indices, source)
    return records


def write(
    records: NDArray[np.uint64], indices: NDArray[np.int64], source: NDArray[np.int64]
) -> None:
    """Write bit source[c] of each index into clbit c of its record; -1 leaves clbit c alone."""
    for c in np.flatnonzero(source >= 0).tolist():
        bit = np.uint64(c & 63)
        column = records[:, c >> 6]
        column &= ~(np.uint64(1) << bit)
        column |= ((indices >> source[c]) & 1).astype(np.uint64) << bit


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
    found, inverse = distinct(records)
    return found, np.bincount(inverse, weights, len(found)).astype(np.float64)


def pack(records: NDArray[np.uint64], num_bits: int) -> tuple[bytes, int]:
    """Packed outcomes of records, and their width in bytes."""
    width = outcome_width(num_bits)
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
