"""Liveness of the classical bits of a dynamic circuit (Aho et al., Compilers, section 9.2.5).

A bit is live at a position if something reads its value from there on: an expression, or a result
that shows it. Engines drop dead bits from their records, so records that differ in them alone are
one: the outcome of a correction costs nothing once the correction is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from simulators.circuit.analysis.measurements import measurement_layout
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit, shown_clbits
from simulators.dynamic.instructions import (
    Assembler,
    Branch,
    Jump,
    LoopBack,
    LoopPass,
    Measure,
    Store,
)

_MOST_BITS = 1 << 28  # of all masks together; of larger programs, every bit counts as live
_FEW_ITEMS = 4_096  # whose masks have fewer bits, however wide the record is


# Instructions that read or write bits, or do not go on at the next position alone.
_WITH_BITS = Measure, Store, Branch, Jump, LoopPass, LoopBack


def output_mask(circuit: Circuit) -> int:
    """Mask of the clbits that results show."""
    shown = shown_clbits(circuit)
    if shown is None:
        return (1 << circuit.num_clbits) - 1
    return sum(1 << clbit for clbit in shown.tolist())


def live_bits(items: Sequence[Any], live: int) -> tuple[int, ...]:
    """Mask of the bits of a record that are live at each position, and `live`, that of those that
    are read after the last instruction: [items + 1]. Bits are numbered as by `Expression.reads`:
    clbits, then variables. Items of other types than those of `instructions` have no bits."""
    if len(items) > _FEW_ITEMS:
        width = max(mask.bit_length() for mask in (live, *map(_bits_of, items)))
        if width * len(items) > _MOST_BITS:
            return (-1,) * (len(items) + 1)
    masks = [0] * len(items) + [live]
    has_loops = False
    last: list[int] = []
    while masks != last:
        last = list(masks)
        for at in range(len(items) - 1, -1, -1):
            item = items[at]
            masks[at] = _before(item, at, masks)
            has_loops |= type(item) is LoopBack
        if not has_loops:
            break
    return tuple(masks)


def recorded_bits(circuit: Circuit, *, keep: bool = False) -> tuple[int, int]:
    """Largest number of bits that are measured before the end and live at once: a density matrix
    has at most as many records as these have values. And the number of such measurements, each of
    which may divide a history. `keep`: results show no bits."""
    layout = measurement_layout(circuit, keep=keep)
    assembler = Assembler(circuit, layout.roles)
    items = assembler.items
    for k, is_mark in enumerate(assembler.marks().tolist()):
        if is_mark:
            assembler.add(k)
        elif assembler.codes[k] >= UNITARY:  # a block without any instruction vanishes
            items.append(None)
    final = sum(1 << clbit for clbit in np.flatnonzero(layout.source >= 0).tolist())
    masks = live_bits(items, 0 if keep else output_mask(circuit) & ~final)
    written = most = count = 0
    for at, item in enumerate(items):
        if isinstance(item, Measure):
            written |= 1 << item.clbit
            most = max(most, (masks[at + 1] & written).bit_count())
            count += masks[at + 1] >> item.clbit & 1
    return most, count


def _bits_of(item: Any) -> int:
    return item.expression.reads if isinstance(item, Branch | Store) else 0


def _before(item: Any, at: int, masks: list[int]) -> int:
    """Bits that are live before an instruction, from those of the positions that follow it."""
    after = masks[at + 1]
    if not isinstance(item, _WITH_BITS):
        return after
    if isinstance(item, Measure):
        return after & ~(1 << item.clbit)
    if isinstance(item, Store):
        first, width = item.expression.target or (0, 0)
        return after & ~(((1 << width) - 1) << first) | item.expression.reads
    if isinstance(item, Branch):
        result = item.expression.reads | masks[item.otherwise]
        for target in item.targets.values():
            result |= masks[target]
        return result
    if isinstance(item, Jump):
        return masks[item.target]
    if isinstance(item, LoopPass):
        return after | masks[item.end]
    if isinstance(item, LoopBack):
        return masks[item.begin]
    return after
