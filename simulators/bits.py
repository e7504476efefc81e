"""Bit-packed outcomes, a row of bytes a shot, counted without a Python object a bit.

A row is little-endian, bit b in bit b % 8 of byte b // 8; as wide as `sampling.outcome_width`.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import outcome_width

_FLUSH_ROWS = 1 << 16


def select(
    rows: NDArray[np.uint8], source: NDArray[np.int64], identical: bool = False
) -> NDArray[np.uint8]:
    """Rows [shots, outcome_width(len(source))] whose bit c is bit source[c] of `rows`; -1 reads 0.

    `identical`: source[c] is c for all of as many bits as a row of `rows` has.
    """
    shots, width = len(rows), outcome_width(source.size)
    if identical:
        if rows.shape[1] == width:
            return rows
        padded = np.zeros((shots, width), np.uint8)
        padded[:, : rows.shape[1]] = rows
        return padded
    every = np.unpackbits(rows, axis=1, bitorder="little")
    chosen = np.zeros((shots, 8 * width), np.uint8)
    read = np.flatnonzero(source >= 0)
    chosen[:, read] = every[:, source[read]]
    return np.packbits(chosen, axis=1, bitorder="little")


class Counts:
    """Distinct rows and how often each came; added to in pieces."""

    def __init__(self, num_bits: int) -> None:
        self.width = outcome_width(num_bits)
        self._wide: Counter[bytes] = Counter()
        self._values = np.zeros(0, f"<u{self.width}") if self.width <= 8 else None
        self._sums = np.zeros(0, np.int64)
        self._pending: list[NDArray[np.uint8]] = []
        self._waiting = 0

    def add(self, rows: NDArray[np.uint8]) -> None:
        """Count rows [shots, width] once each."""
        if self._values is None:
            data, width = rows.tobytes(), self.width
            self._wide.update([data[at : at + width] for at in range(0, len(data), width)])
            return
        self._pending.append(rows)
        self._waiting += len(rows)
        if self._waiting >= max(_FLUSH_ROWS, self._values.size):
            self._flush()

    def packed(self) -> tuple[bytes, bytes]:
        """(outcomes, counts): distinct rows, ascending as unsigned integers, and uint32."""
        if self._values is None:
            keys = sorted(self._wide, key=lambda row: row[::-1])
            counts = np.fromiter((self._wide[key] for key in keys), np.uint32, len(keys))
            return b"".join(keys), counts.tobytes()
        self._flush()
        return self._values.tobytes(), self._sums.astype(np.uint32).tobytes()

    def _flush(self) -> None:
        if not self._pending or self._values is None:
            return
        rows = np.ascontiguousarray(np.concatenate(self._pending))
        self._pending, self._waiting = [], 0
        found, counts = np.unique(rows.view(self._values.dtype).ravel(), return_counts=True)
        self._values, inverse = np.unique(
            np.concatenate((self._values, found)), return_inverse=True
        )
        sums = np.bincount(inverse, np.concatenate((self._sums, counts)), self._values.size)
        self._sums = sums.astype(np.int64)
