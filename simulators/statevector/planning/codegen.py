"""Code generation for one sweep: operations in an order with few phases and few lane swaps.

Gates whose qubits are row bits come first, then those that need a lane swap. Only if neither is
left, all diagonal gates that are ready become one PHASE operation.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.bit_ops import count, lowest
from simulators.compiler.kernel import device_function
from simulators.statevector.planning.fusion import (
    CONTROL_MASK,
    CONTROL_VALUE,
    DENSE,
    DIAGONAL,
    DIAGONAL_MASK,
    FIRST,
    IS_REAL,
    KIND,
    LAST,
    MATRIX,
    PERMUTING,
    REAL_ROTATION,
    TARGET_MASK,
)
from simulators.statevector.planning.phase_codegen import merge_diagonals
from simulators.statevector.planning.real_rotations import (
    P_MASK,
    P_NUMBERS,
    P_ONE,
    P_PARITY,
    P_ZERO,
)
from simulators.statevector.planning.tables import (
    AT,
    BLOCK,
    BLOCKS,
    DERIVED,
    ELEMENTS,
    FLOATS,
    FREE,
    FROM,
    HERE,
    HOME,
    HOW,
    LANE_WIRES,
    MEMBERS,
    MOVED,
    NUMBERS,
    ONE,
    OPS,
    ORDER,
    OUTER_MASK,
    OUTER_VALUE,
    PART_MASK,
    PARTS,
    PERMUTE_ROWS,
    PIECES,
    REAL,
    REAL_NUMBERS,
    REAL_ROTATION_RULE,
    RECIPES,
    ROW_MASK,
    ROW_OTHER,
    ROW_VALUE,
    SPARE,
    STANDS,
    STARTS,
    SWAP_LANE_ROW,
    TAKEN,
    TO,
    WHERE,
    ZERO,
    A,
    exchange,
    new_op,
    parts,
)
from simulators.statevector.planning.tables import DENSE as DENSE_OP

_FAR = 1 << 40


@device_function
def _swap_lane(lane, row, notes, out, done):  # type: ignore[no-untyped-def]
    at = new_op(out, done, SWAP_LANE_ROW)
    out[OPS, at, A] = lane
    out[OPS, at, A + 1] = row
    exchange(lane, row, notes)


@device_function
def _conditions(out, at, mask, value, notes):  # type: ignore[no-untyped-def]
    rows, _, outside = parts(mask, notes)
    out[OPS, at, ROW_MASK] = rows
    out[OPS, at, OUTER_MASK] = outside
    rows, _, outside = parts(value, notes)
    out[OPS, at, ROW_VALUE] = rows
    out[OPS, at, OUTER_VALUE] = outside


@device_function
def _map(piece, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    at = new_op(out, done, PERMUTE_ROWS)
    pieces = inputs[PIECES]
    _conditions(out, at, pieces[piece, P_MASK], pieces[piece, P_ZERO], notes)
    rows, _, _ = parts(pieces[piece, P_ONE], notes)
    out[OPS, at, ROW_OTHER] = rows


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
    row = done[PARTS]
    done[PARTS] += 1
    part_rows[row, NUMBERS] = entry_row
    part_rows[row, PART_MASK] = mask
    part_rows[row, ZERO] = zero
    part_rows[row, ONE] = zero ^ gap


@device_function
def _dense(b, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write a block's matrices, one for each value of its unconditional diagonal wires."""
    blocks, elements, pieces = inputs[BLOCKS], inputs[ELEMENTS], inputs[PIECES]
    recipes, built = out[RECIPES], out[PARTS]
    starts, members, place, wires = notes[STARTS], notes[MEMBERS], notes[STANDS], notes[SPARE]
    moves, condition = blocks[b, TARGET_MASK], blocks[b, CONTROL_MASK]
    free = blocks[b, DIAGONAL_MASK] & ~condition
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
    at_part = done[PARTS]
    for m in range(starts[b], starts[b + 1]):
        e = members[m]
        for p in range(elements[e, FIRST], elements[e, LAST]):
            if elements[e, MATRIX] >= 0:
                row = done[PARTS]
                done[PARTS] += 1
                built[row, NUMBERS] = -1 - elements[e, MATRIX]
                built[row, PART_MASK] = count(elements[e, TARGET_MASK])
                for c in range(count(elements[e, TARGET_MASK])):
                    built[row, ZERO + c] = _local(1 << pieces[p, c], wires, num_wires)
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
    reals = blocks[b, IS_REAL]
    recipe = done[RECIPES]
    done[RECIPES] += 1
    recipes[recipe, HOW] = REAL_ROTATION_RULE if blocks[b, REAL_ROTATION] else BLOCK
    recipes[recipe, DERIVED] = blocks[b, REAL_ROTATION]
    recipes[recipe, FROM] = at_part
    recipes[recipe, TO] = done[PARTS]
    recipes[recipe, WHERE] = done[FLOATS]
    recipes[recipe, MOVED] = size
    if not blocks[b, REAL_ROTATION]:
        recipes[recipe, FREE] = num_wires - size
    recipes[recipe, REAL_NUMBERS] = reals
    for pattern in range(1 << (num_wires - size)):
        value = blocks[b, CONTROL_VALUE]
        for k in range(size, num_wires):
            if pattern >> (k - size) & 1:
                value |= 1 << wires[k]
        at = new_op(out, done, (REAL if reals else DENSE_OP) + size)
        for k in range(size):
            out[OPS, at, A + k] = place[wires[k]] - LANE_WIRES
        _conditions(out, at, condition | free, value, notes)
        out[OPS, at, AT] = done[FLOATS]
        done[FLOATS] += (1 if reals else 2) << (2 * size)


@device_function
def _bring(block, width, size, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Swap lanes until all wires of a block are on row bits. The wires that become lanes are those
    with the latest next use in this pass."""
    blocks = inputs[BLOCKS]
    after, taken, wire_at, place, uses = (
        notes[ORDER], notes[TAKEN], notes[HERE], notes[STANDS], notes[SPARE],
    )  # fmt: skip
    needed = blocks[block, TARGET_MASK] | blocks[block, DIAGONAL_MASK]
    for k in range(width):
        uses[k] = _FAR
    k = after[0]
    unseen = width
    while k < size and unseen:
        b = taken[k]
        if blocks[b, KIND] != DIAGONAL:
            rest = blocks[b, TARGET_MASK] | blocks[b, DIAGONAL_MASK]
            while rest:
                at = place[lowest(rest)]
                if at >= 0 and uses[at] == _FAR:
                    uses[at] = k
                    unseen -= 1
                rest &= rest - 1
        k = after[k + 1]
    for lane in range(LANE_WIRES):
        if not needed >> wire_at[lane] & 1:
            continue
        chosen = -1
        for row in range(LANE_WIRES, width):
            if needed >> wire_at[row] & 1:
                continue
            if chosen < 0 or uses[row] > uses[chosen]:
                chosen = row
        _swap_lane(lane, chosen - LANE_WIRES, notes, out, done)
        uses[lane], uses[chosen] = uses[chosen], uses[lane]


@device_function
def write(size, width, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write the operations of the `size` blocks of the pass."""
    blocks = inputs[BLOCKS]
    after, taken = notes[ORDER], notes[TAKEN]
    for k in range(size + 1):
        after[k] = k
    pivot = np.int64(0)
    for k in range(size):
        pivot |= blocks[taken[k], TARGET_MASK]
    while after[0] < size:
        moved = seen = 0
        wanted = before = -1
        k = after[0]
        while k < size and (moved != pivot or not pivot):
            b = taken[k]
            moves = blocks[b, TARGET_MASK]
            mask = moves | blocks[b, DIAGONAL_MASK]
            kind = blocks[b, KIND]
            ready = kind != DIAGONAL and not (moves & seen) and not (mask & moved)
            if ready:
                _, lanes, _ = parts(mask, notes)
                if lanes:
                    ready = False
                    if wanted < 0:
                        wanted = b
            if ready:
                if kind == DENSE:
                    _dense(b, inputs, notes, out, done)
                elif kind == PERMUTING:
                    first = notes[MEMBERS, notes[STARTS, b]]
                    _map(inputs[ELEMENTS, first, FIRST], inputs, notes, out, done)
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
    home, wire_at, place = notes[HOME], notes[HERE], notes[STANDS]
    for lane in range(LANE_WIRES):
        wire = home[lane]
        if wire_at[lane] == wire:
            continue
        if place[wire] < LANE_WIRES:  # through a row bit
            _swap_lane(place[wire], 0, notes, out, done)
        _swap_lane(lane, place[wire] - LANE_WIRES, notes, out, done)
    for row in range(width - LANE_WIRES):
        wire = home[LANE_WIRES + row]
        other = place[wire] - LANE_WIRES
        if other == row:
            continue
        at = new_op(out, done, PERMUTE_ROWS)
        out[OPS, at, ROW_MASK] = 1 << row | 1 << other
        out[OPS, at, ROW_VALUE] = 1 << row
        out[OPS, at, ROW_OTHER] = 1 << other
        moved = wire_at[LANE_WIRES + row]
        wire_at[LANE_WIRES + row], wire_at[LANE_WIRES + other] = wire, moved
        place[wire], place[moved] = LANE_WIRES + row, LANE_WIRES + other
