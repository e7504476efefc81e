"""From packed outcomes to the keys people read: clbit 0 rightmost, one space between registers.

Invariant: nothing is turned into text before somebody looks; a string that was made once for a
shape (the registers) is kept for the next result of the same shape, within bounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, pairwise
from typing import Literal

SHAPES_KEPT = 16
STRINGS_KEPT = 8_192  # a shape: 1 MB at most for the usual widths
TABLE_BITS = 6  # up to here all strings of a shape are made at once: a list is the fastest map

_CASTS: dict[int, Literal["H", "I", "Q"]] = {2: "H", 4: "I", 8: "Q"}

Registers = tuple[tuple[str, int], ...]
Packed = bytes | memoryview


def counts(rows: Packed, width: int, numbers: Packed, registers: Registers) -> dict[str, int]:
    """`numbers` are uint32, one for each row."""
    times = memoryview(numbers).cast("I").tolist()
    return dict(zip(keys(rows, width, registers), times, strict=True))


def probabilities(
    rows: Packed, width: int, values: Packed, registers: Registers
) -> dict[str, float]:
    """`values` are float64, one for each row."""
    weights = memoryview(values).cast("d").tolist()
    return dict(zip(keys(rows, width, registers), weights, strict=True))


def keys(rows: Packed, width: int, registers: Registers) -> Iterator[str]:
    """One string for each row; a row is `width` bytes, little-endian (0: no clbits, one row)."""
    return map(_strings(registers), integers(rows, width) if width else (0,))


def integers(rows: Packed, width: int) -> Iterable[int]:
    """Outcomes as Python integers."""
    if width == 1:
        return rows
    cast = _CASTS.get(width)
    if cast is not None:
        return memoryview(rows).cast(cast).tolist()
    return [int.from_bytes(rows[k : k + width], "little") for k in range(0, len(rows), width)]


class _Strings(dict[int, str]):
    """Outcome -> key, filled as asked for."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self._width = sum(sizes)
        edges = accumulate(reversed(sizes), initial=0)  # the last register stands leftmost
        self._cuts = tuple(pairwise(edges)) if len(sizes) > 1 else ()

    def __missing__(self, outcome: int) -> str:
        text = format(outcome, f"0{self._width}b") if self._width else ""
        if self._cuts:
            text = " ".join([text[start:end] for start, end in self._cuts])
        if len(self) < STRINGS_KEPT:
            self[outcome] = text
        return text


@functools.lru_cache(maxsize=SHAPES_KEPT)
def _strings(registers: Registers) -> Callable[[int], str]:
    sizes = tuple(size for _, size in registers)
    strings = _Strings(sizes)
    if sum(sizes) <= TABLE_BITS:
        return [strings[outcome] for outcome in range(1 << sum(sizes))].__getitem__
    return strings.__getitem__
