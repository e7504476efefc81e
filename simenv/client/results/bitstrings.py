"""Bitstrings of packed outcomes: clbit 0 rightmost, one space between registers.

Invariant: text is made when a result is first read. Strings are cached by shape (the sizes of the
registers) for later results, within bounds.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import Literal

SHAPES_KEPT = 16
STRINGS_KEPT = 8_192  # for each shape: 1 MB at most for the usual widths
TABLE_BITS = 6  # up to this width all strings of a shape are made at once, in a list
SETS_KEPT = 256  # cached sets of outcomes for each shape of at most TABLE_BITS

_CASTS: dict[int, Literal["H", "I", "Q"]] = {2: "H", 4: "I", 8: "Q"}

Registers = tuple[tuple[str, int], ...]
PackedBits = bytes | memoryview


def counts(
    rows: PackedBits, width: int, packed_counts: PackedBits, registers: Registers
) -> dict[str, int]:
    """Return counts by bitstring; `packed_counts`: uint32, one for each row."""
    times = struct.unpack(f"<{len(packed_counts) // 4}I", packed_counts)
    return dict(zip(_keys(registers)(rows, width), times, strict=True))


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

    def __missing__(self, outcome: int) -> str:
        text = format(outcome, f"0{self._width}b") if self._width else ""
        if self._cuts:
            text = " ".join([text[start:end] for start, end in self._cuts])
        if len(self) < STRINGS_KEPT:
            self[outcome] = text
        return text


class _OutcomeSets(dict[PackedBits, tuple[str, ...]]):
    """Map from a set of packed outcomes to its bitstrings, for shapes with few outcomes. Such sets
    repeat; one lookup takes half the time of a lookup for each outcome."""

    def __init__(self, strings: _Strings, outcomes: int) -> None:
        super().__init__()
        self._table = [strings[outcome] for outcome in range(outcomes)]

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
    return _OutcomeSets(_strings(sizes), 1 << sum(sizes))


@functools.lru_cache(maxsize=SHAPES_KEPT)
def _keys(registers: Registers) -> Callable[[PackedBits, int], Iterable[str]]:
    sizes = tuple([size for _, size in registers])
    if 0 < sum(sizes) <= TABLE_BITS:
        return _outcome_sets(sizes).keys_of
    find = _strings(sizes).__getitem__
    return lambda rows, width: map(find, _outcomes(rows, width))


def _outcomes(rows: PackedBits, width: int) -> Iterable[int]:
    return integers(rows, width) if width else (0,)
