"""Code generation for one sweep: operations in an order with few phases and few lane swaps.

Gates whose qubits are row bits come first, then those that need a lane swap. Only if neither is
left, all diagonal gates that are ready become one PHASE operation.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.bit_ops import count, lowest
from simulators.compiler.kernel import device_function
from simulators.statevector.planning import fusion as f
from simulators.statevector.planning import tables as t
from simulators.statevector.planning.phase_codegen import merge_diagonals
from simulators.statevector.planning.real_rotations import (
    P_MASK,
    P_NUMBERS,
    P_ONE,
    P_PARITY,
    P_ZERO,
)

_FAR = 1 << 40


@device_function
def _swap_lane(lane, row, notes, out, done):  # type: ignore[no-untyped-def]
    at = t.new_op(out, done, t.SWAP_LANE_ROW)
    out[t.OPS, at, t.A] = lane
    out[t.OPS, at, t.A + 1] = row
    t.exchange(lane, row, notes)


@device_function
def _conditions(out, at, mask, value, notes):  # type: ignore[no-untyped-def]
    rows, _, outside = t.parts(mask, notes)
    out[t.OPS, at, t.ROW_MASK] = rows
    out[t.OPS, at, t.OUTER_MASK] = outside
    rows, _, outside = t.parts(value, notes)
    out[t.OPS, at, t.ROW_VALUE] = rows
    out[t.OPS, at, t.OUTER_VALUE] = outside


@device_function
def _map(piece, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    at = t.new_op(out, done, t.PERMUTE_ROWS)
    pieces = inputs[t.PIECES]
    _conditions(out, at, pieces[piece, P_MASK], pieces[piece, P_ZERO], notes)
    rows, _, _ = t.parts(pieces[piece, P_ONE], notes)
    out[t.OPS, at, t.ROW_OTHER] = rows


@device_function
def _local(mask, wires, num_wires):  # type: ignore[no-untyped-def]
    """Convert a set of wires to their indices in a block."""
    result = 0
    for k in range(num_wires):
        if mask >> wires[k] & 1:
            result |= 1 << k
    return result


@device_function
def _part(entry_row, mask, zero, gap, part_rows, done):  # type: ignore[no-untyped-def]
    row = done[t.PARTS]
    done[t.PARTS] += 1
    part_rows[row, t.NUMBERS] = entry_row
    part_rows[row, t.PART_MASK] = mask
    part_rows[row, t.ZERO] = zero
    part_rows[row, t.ONE] = zero ^ gap


@device_function
def _dense(b, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write a block's matrices, one for each value of its unconditional diagonal wires."""
    blocks, elements, pieces = inputs[t.BLOCKS], inputs[t.ELEMENTS], inputs[t.PIECES]
    recipes, built = out[t.RECIPES], out[t.PARTS]
    starts, members, place, wires = (
        notes[t.STARTS],
        notes[t.MEMBERS],
        notes[t.STANDS],
        notes[t.SPARE],
    )
    moves, condition = blocks[b, f.TARGET_MASK], blocks[b, f.CONTROL_MASK]
    free = blocks[b, f.DIAGONAL_MASK] & ~condition
    size = 0
    rest = moves
    while rest:  # moved wires by ascending row bits
        wire = lowest(rest)
        k = size
        while k and place[wires[k - 1]] > place[wire]:
            wires[k] = wires[k - 1]
            k -= 1
        wires[k] = wire
        size += 1
        rest &= rest - 1
    num_wires = size
    rest = free
    while rest:
        wires[num_wires] = lowest(rest)
        num_wires += 1
        rest &= rest - 1
    at_part = done[t.PARTS]
    for m in range(starts[b], starts[b + 1]):
        e = members[m]
        for p in range(elements[e, f.FIRST], elements[e, f.LAST]):
            if elements[e, f.MATRIX] >= 0:
                row = done[t.PARTS]
                done[t.PARTS] += 1
                built[row, t.NUMBERS] = -1 - elements[e, f.MATRIX]
                built[row, t.PART_MASK] = count(elements[e, f.TARGET_MASK])
                for c in range(count(elements[e, f.TARGET_MASK])):
                    built[row, t.ZERO + c] = _local(1 << pieces[p, c], wires, num_wires)
                continue
            mask = _local(pieces[p, P_MASK], wires, num_wires)
            zero_bits, one_bits = pieces[p, P_ZERO], pieces[p, P_ONE]
            if pieces[p, P_PARITY]:  # as two parts: one of the wires, and none or both
                one_bits = pieces[p, P_MASK] & ~zero_bits
                _part(
                    pieces[p, P_NUMBERS], mask, _local(one_bits, wires, num_wires), 0, built, done
                )
                one_bits = zero_bits
            _part(
                pieces[p, P_NUMBERS], mask, _local(zero_bits, wires, num_wires),
                _local(one_bits ^ zero_bits, wires, num_wires), built, done,
            )  # fmt: skip
    reals = blocks[b, f.IS_REAL]
    recipe = done[t.RECIPES]
    done[t.RECIPES] += 1
    recipes[recipe, t.HOW] = t.REAL_ROTATION_RULE if blocks[b, f.REAL_ROTATION] else t.BLOCK
    recipes[recipe, t.DERIVED] = blocks[b, f.REAL_ROTATION]
    recipes[recipe, t.FROM] = at_part
    recipes[recipe, t.TO] = done[t.PARTS]
    recipes[recipe, t.WHERE] = done[t.FLOATS]
    recipes[recipe, t.MOVED] = size
    if not blocks[b, f.REAL_ROTATION]:
        recipes[recipe, t.FREE] = num_wires - size
    recipes[recipe, t.REAL_NUMBERS] = reals
    for pattern in range(1 << (num_wires - size)):
        value = blocks[b, f.CONTROL_VALUE]
        for k in range(size, num_wires):
            if pattern >> (k - size) & 1:
                value |= 1 << wires[k]
        at = t.new_op(out, done, (t.REAL if reals else t.DENSE) + size)
        for k in range(size):
            out[t.OPS, at, t.A + k] = place[wires[k]] - t.LANE_WIRES
        _conditions(out, at, condition | free, value, notes)
        out[t.OPS, at, t.AT] = done[t.FLOATS]
        done[t.FLOATS] += (1 if reals else 2) << (2 * size)


@device_function
def _bring(block, width, size, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Swap lanes until all wires of a block are on row bits. The wires that become lanes are those
    with the latest next use in this pass."""
    blocks = inputs[t.BLOCKS]
    after, taken, wire_at, place, uses = (
        notes[t.ORDER], notes[t.TAKEN], notes[t.HERE], notes[t.STANDS], notes[t.SPARE],
    )  # fmt: skip
    needed = blocks[block, f.TARGET_MASK] | blocks[block, f.DIAGONAL_MASK]
    for k in range(width):
        uses[k] = _FAR
    k = after[0]
    unseen = width
    while k < size and unseen:
        b = taken[k]
        if blocks[b, f.KIND] != f.DIAGONAL:
            rest = blocks[b, f.TARGET_MASK] | blocks[b, f.DIAGONAL_MASK]
            while rest:
                at = place[lowest(rest)]
                if at >= 0 and uses[at] == _FAR:
                    uses[at] = k
                    unseen -= 1
                rest &= rest - 1
        k = after[k + 1]
    for lane in range(t.LANE_WIRES):
        if not needed >> wire_at[lane] & 1:
            continue
        chosen = -1
        for row in range(t.LANE_WIRES, width):
            if needed >> wire_at[row] & 1:
                continue
            if chosen < 0 or uses[row] > uses[chosen]:
                chosen = row
        _swap_lane(lane, chosen - t.LANE_WIRES, notes, out, done)
        uses[lane], uses[chosen] = uses[chosen], uses[lane]


@device_function
def write(size, width, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write the operations of the `size` blocks of the pass."""
    blocks = inputs[t.BLOCKS]
    after, taken = notes[t.ORDER], notes[t.TAKEN]
    for k in range(size + 1):
        after[k] = k
    pivot = np.int64(0)
    for k in range(size):
        pivot |= blocks[taken[k], f.TARGET_MASK]
    while after[0] < size:
        moved = seen = 0
        wanted = before = -1
        k = after[0]
        while k < size and (moved != pivot or not pivot):
            b = taken[k]
            moves = blocks[b, f.TARGET_MASK]
            mask = moves | blocks[b, f.DIAGONAL_MASK]
            kind = blocks[b, f.KIND]
            ready = kind != f.DIAGONAL and not (moves & seen) and not (mask & moved)
            if ready:
                _, lanes, _ = t.parts(mask, notes)
                if lanes:
                    ready = False
                    if wanted < 0:
                        wanted = b
            if ready:
                if kind == f.DENSE:
                    _dense(b, inputs, notes, out, done)
                elif kind == f.PERMUTING:
                    first = notes[t.MEMBERS, notes[t.STARTS, b]]
                    _map(inputs[t.ELEMENTS, first, f.FIRST], inputs, notes, out, done)
                after[before + 1] = after[k + 1]
            else:
                moved |= moves
                seen |= mask
                before = k
            k = after[k + 1]
        if wanted >= 0:
            _bring(wanted, width, size, inputs, notes, out, done)
        elif after[0] < size:
            merge_diagonals(size, pivot, width, inputs, notes, out, done)


@device_function
def restore(width, notes, out, done):  # type: ignore[no-untyped-def]
    """Move every wire of a tile back to its place."""
    home, wire_at, place = notes[t.HOME], notes[t.HERE], notes[t.STANDS]
    for lane in range(t.LANE_WIRES):
        wire = home[lane]
        if wire_at[lane] == wire:
            continue
        if place[wire] < t.LANE_WIRES:  # through a row bit
            _swap_lane(place[wire], 0, notes, out, done)
        _swap_lane(lane, place[wire] - t.LANE_WIRES, notes, out, done)
    for row in range(width - t.LANE_WIRES):
        wire = home[t.LANE_WIRES + row]
        other = place[wire] - t.LANE_WIRES
        if other == row:
            continue
        at = t.new_op(out, done, t.PERMUTE_ROWS)
        out[t.OPS, at, t.ROW_MASK] = 1 << row | 1 << other
        out[t.OPS, at, t.ROW_VALUE] = 1 << row
        out[t.OPS, at, t.ROW_OTHER] = 1 << other
        moved = wire_at[t.LANE_WIRES + row]
        wire_at[t.LANE_WIRES + row], wire_at[t.LANE_WIRES + other] = wire, moved
        place[wire], place[moved] = t.LANE_WIRES + row, t.LANE_WIRES + other
