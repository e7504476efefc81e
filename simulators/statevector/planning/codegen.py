"""Code generation for one sweep, and the merging of its diagonal gates."""

import numpy as np

from simulators.compiler.kernel import device_function
from simulators.compiler.simd import count, lowest
from simulators.statevector.planning import fusion as f, tables as t
from simulators.statevector.planning.fusion import P_MASK, P_NUMBERS, P_ONE, P_PARITY, P_ZERO

# Merging of diagonal gates into PHASE operations.
#
# A gate on at most two qubits becomes four factors: of all amplitudes, of those where one qubit is
# 1, where the other is, and where both are. The table of a factor depends on whether its qubits are
# lanes, rows or outside the tile. A gate on more qubits is an operation of its own, with controls.

_NONE = -1


@device_function
def _write_phase(mask, value, number, width, notes, out, done):  # type: ignore[no-untyped-def]
    """Write a phase of all amplitudes whose wires under `mask` have their `value`."""
    at = t.new_op(out, done, t.PHASE)
    ops, rules = out[t.OPS], out[t.RULES]
    rows, lanes, outside = t.parts(mask, notes)
    ops[at, t.ROW_MASK] = rows
    ops[at, t.OUTER_MASK] = outside
    rule = done[t.RULES]
    done[t.RULES] += 1
    rules[rule, t.LANES_MASK] = lanes
    rows, lanes, outside = t.parts(value, notes)
    ops[at, t.ROW_VALUE] = rows
    ops[at, t.OUTER_VALUE] = outside
    rules[rule, t.LANES_VALUE] = lanes
    ops[at, t.AT] = done[t.FLOATS]
    rules[rule, t.RULE_KIND] = t.UNIFORM_PHASE
    rules[rule, t.FIRST_PART] = done[t.PARTS]
    rules[rule, t.END_PART] = done[t.PARTS] + 1
    rules[rule, t.NUMBERS_AT] = done[t.FLOATS]
    rules[rule, t.HEIGHT] = width - t.LANE_WIRES
    out[t.PARTS, done[t.PARTS], t.NUMBERS] = number
    done[t.PARTS] += 1
    done[t.FLOATS] += (2 << (width - t.LANE_WIRES)) + 2 * t.LANES


@device_function
def _term_target(mask, where, first, out, done):  # type: ignore[no-untyped-def]
    """Target of the term with this mask and place; a new one if there is none."""
    terms = out[t.TERM_ROWS]
    for term in range(first, done[t.TERM_ROWS]):
        if terms[term, t.MASK] == mask and terms[term, t.PLACE] == where:
            return t.FIRST_TARGET + term - first
    at = done[t.TERM_ROWS]
    terms[at, t.MASK] = mask
    terms[at, t.PLACE] = where
    done[t.TERM_ROWS] += 1
    return t.FIRST_TARGET + at - first


@device_function
def _factor_target(wire_a, wire_b, fixed, first, notes, out, done):  # type: ignore[no-untyped-def]
    """Target of the factor of amplitudes with 1 at `wire_a`, and at `wire_b` if it is given.
    `fixed`: a wire that is 1 wherever the operation acts."""
    place = notes[t.PLACE_OF]
    if wire_a == fixed:
        wire_a, wire_b = wire_b, _NONE
    elif wire_b == fixed:
        wire_b = _NONE
    if wire_a == _NONE:
        return 0
    at = place[wire_a]
    outside = 0
    if at < 0:
        outside = 1 << (-1 - at)
    if wire_b == _NONE:
        return _term_target(outside, t.SCALAR, first, out, done) if outside else 1 + at
    other = place[wire_b]
    if other < 0:
        outside |= 1 << (-1 - other)
    if at < 0 and other < 0:
        return _term_target(outside, t.SCALAR, first, out, done)
    if at < 0 or other < 0:
        return _term_target(outside, max(at, other), first, out, done)
    return t.PAIRS + t.MOST_WIDTH * max(at, other) + min(at, other)


@device_function
def _crossed_row(mask, fixed, notes):  # type: ignore[no-untyped-def]
    """Row bit of a pair of a row and a lane, as a mask; 0 if the wires are no such pair."""
    rows, lanes, _ = t.parts(mask, notes)
    if fixed >= 0 and mask >> fixed & 1:
        return 0
    return rows if lanes else 0


@device_function
def _controls_on_rows(b, inputs, notes):  # type: ignore[no-untyped-def]
    """Wires on row bits that are 1 wherever the block acts."""
    blocks, place = inputs[t.BLOCKS], notes[t.PLACE_OF]
    result = 0
    rest = blocks[b, f.CONTROL_MASK] & blocks[b, f.CONTROL_VALUE]
    while rest:
        wire = lowest(rest)
        if place[wire] >= t.LANE_WIRES:
            result |= 1 << wire
        rest &= rest - 1
    return result


@device_function
def _acts(pieces, p, ones):  # type: ignore[no-untyped-def]
    """Return 1 if the piece acts where these of its wires are 1, else 0."""
    result = ones & pieces[p, P_MASK]
    if pieces[p, P_PARITY]:
        return int(count(result) & 1 == int(pieces[p, P_ZERO] != 0))
    return int(result == pieces[p, P_ZERO])


@device_function
def _write_factors(b, fixed, first, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write the parts of one block of a PHASE."""
    elements, pieces, built = inputs[t.ELEMENTS], inputs[t.PIECES], out[t.PARTS]
    starts, members = notes[t.STARTS], notes[t.MEMBERS]
    wire_a = wire_b = _NONE
    looks = inputs[t.BLOCKS, b, f.DIAGONAL_MASK]
    if looks:
        wire_a = lowest(looks)
        looks &= looks - 1
        if looks:
            wire_b = lowest(looks)
    to_a = _factor_target(wire_a, _NONE, fixed, first, notes, out, done) if wire_a >= 0 else 0
    to_b = _factor_target(wire_b, _NONE, fixed, first, notes, out, done) if wire_b >= 0 else 0
    to_both = _factor_target(wire_a, wire_b, fixed, first, notes, out, done) if wire_b >= 0 else 0
    for m in range(starts[b], starts[b + 1]):
        e = members[m]
        for p in range(elements[e, f.FIRST], elements[e, f.LAST]):
            f0 = _acts(pieces, p, 0)
            f1 = f2 = f3 = 0
            if wire_a >= 0:
                f1 = _acts(pieces, p, 1 << wire_a)
            if wire_b >= 0:
                f2 = _acts(pieces, p, 1 << wire_b)
                f3 = _acts(pieces, p, 1 << wire_a | 1 << wire_b)
            row = done[t.PARTS]
            done[t.PARTS] += 1
            built[row, t.NUMBERS] = pieces[p, P_NUMBERS]
            built[row, t.EXPONENTS] = f0
            built[row, t.EXPONENTS + 1] = f1 - f0 if wire_a >= 0 else 0
            built[row, t.EXPONENTS + 2] = f2 - f0 if wire_b >= 0 else 0
            built[row, t.EXPONENTS + 3] = f3 + f0 - f1 - f2 if wire_b >= 0 else 0
            built[row, t.TARGETS] = to_a
            built[row, t.TARGETS + 1] = to_b
            built[row, t.TARGETS + 2] = to_both


@device_function
def merge_diagonals(size, targets, width, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Take the diagonal blocks that are ready off the list, at least one, and merge them.
    `targets`: wires that any block of the pass changes."""
    blocks, elements = inputs[t.BLOCKS], inputs[t.ELEMENTS]
    after, taken, chosen = notes[t.ORDER], notes[t.TAKEN], notes[t.TEMPORARY]
    moved = crossed = result = 0
    always = -1
    before = -1
    k = after[0]
    while k < size and (moved != targets or before < 0):
        b = taken[k]
        moves, looks = blocks[b, f.TARGET_MASK], blocks[b, f.DIAGONAL_MASK]
        ready = blocks[b, f.KIND] == f.DIAGONAL and not looks & moved
        if ready and count(looks) > 2:
            p = elements[notes[t.MEMBERS, notes[t.STARTS, b]], f.FIRST]
            _write_phase(
                looks, blocks[b, f.CONTROL_VALUE], inputs[t.PIECES, p, P_NUMBERS], width, notes,
                out, done,
            )  # fmt: skip
        elif ready:
            wanted = crossed | _crossed_row(looks, _NONE, notes)
            common = always & _controls_on_rows(b, inputs, notes)
            ready = result < t.MOST_TERMS // 3 and (count(wanted) <= t.MOST_CROSS or common != 0)
            if ready:
                chosen[result] = b
                result += 1
                crossed = wanted
                always = common
        if ready:
            after[before + 1] = after[k + 1]
        else:
            moved |= moves
            before = k
        k = after[k + 1]
    if not result:
        return
    fixed = lowest(always) if always else _NONE
    at = t.new_op(out, done, t.PHASE)
    ops, rules, place = out[t.OPS], out[t.RULES], notes[t.PLACE_OF]
    rule = done[t.RULES]
    done[t.RULES] += 1
    first, first_part = done[t.TERM_ROWS], done[t.PARTS]
    crossed = 0
    for k in range(result):
        b = chosen[k]
        crossed |= _crossed_row(blocks[b, f.DIAGONAL_MASK], fixed, notes)
        _write_factors(b, fixed, first, inputs, notes, out, done)
    if fixed >= 0:
        ops[at, t.ROW_MASK] = ops[at, t.ROW_VALUE] = 1 << (place[fixed] - t.LANE_WIRES)
    ops[at, t.AT] = done[t.FLOATS]
    ops[at, t.CROSS] = crossed
    ops[at, t.FIRST_TERM] = first
    ops[at, t.TERMS] = done[t.TERM_ROWS] - first
    rules[rule, t.RULE_KIND] = t.DIAGONAL_RULE
    rules[rule, t.FIRST_PART] = first_part
    rules[rule, t.END_PART] = done[t.PARTS]
    rules[rule, t.NUMBERS_AT] = done[t.FLOATS]
    rules[rule, t.CROSSED] = crossed
    rules[rule, t.HEIGHT] = width - t.LANE_WIRES
    rules[rule, t.NUM_TERMS] = done[t.TERM_ROWS] - first
    tables = (2 << (width - t.LANE_WIRES)) + (2 * t.LANES << count(crossed))
    done[t.FLOATS] += tables + 2 * ops[at, t.TERMS]


# Code generation for one sweep: operations in an order with few phases and few lane swaps.
#
# Gates whose qubits are row bits come first, then those that need a lane swap. Only if neither is
# left, all diagonal gates that are ready become one PHASE operation.

_FAR = 1 << 40


@device_function
def _swap_lane(lane, row, notes, out, done):  # type: ignore[no-untyped-def]
    """Write the exchange of a lane bit and a row bit."""
    at = t.new_op(out, done, t.SWAP_LANE_ROW)
    out[t.OPS, at, t.A] = lane
    out[t.OPS, at, t.A + 1] = row
    t.exchange(lane, row, notes)


@device_function
def _set_conditions(out, at, mask, value, notes):  # type: ignore[no-untyped-def]
    """Let an operation act only where the wires under `mask` have their `value`."""
    rows, _, outside = t.parts(mask, notes)
    out[t.OPS, at, t.ROW_MASK] = rows
    out[t.OPS, at, t.OUTER_MASK] = outside
    rows, _, outside = t.parts(value, notes)
    out[t.OPS, at, t.ROW_VALUE] = rows
    out[t.OPS, at, t.OUTER_VALUE] = outside


@device_function
def _write_permutation(piece, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write a gate that exchanges rows."""
    at = t.new_op(out, done, t.PERMUTE_ROWS)
    pieces = inputs[t.PIECES]
    _set_conditions(out, at, pieces[piece, P_MASK], pieces[piece, P_ZERO], notes)
    rows, _, _ = t.parts(pieces[piece, P_ONE], notes)
    out[t.OPS, at, t.ROW_OTHER] = rows


@device_function
def _block_indices(mask, wires, num_wires):  # type: ignore[no-untyped-def]
    """Convert a set of wires to their indices in a block."""
    result = 0
    for k in range(num_wires):
        if mask >> wires[k] & 1:
            result |= 1 << k
    return result


@device_function
def _add_part(entry_row, mask, zero, gap, part_rows, done):  # type: ignore[no-untyped-def]
    """Add a two-level factor of a block, which acts on the patterns `zero` and `zero ^ gap` of the
    bits under `mask`; `entry_row`: of its numbers."""
    row = done[t.PARTS]
    done[t.PARTS] += 1
    part_rows[row, t.NUMBERS] = entry_row
    part_rows[row, t.PART_MASK] = mask
    part_rows[row, t.ZERO] = zero
    part_rows[row, t.ONE] = zero ^ gap


@device_function
def _write_matrices(b, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write a block's matrices, one for each value of its unconditional diagonal wires."""
    blocks, elements, pieces = inputs[t.BLOCKS], inputs[t.ELEMENTS], inputs[t.PIECES]
    rules, built = out[t.RULES], out[t.PARTS]
    starts, members = notes[t.STARTS], notes[t.MEMBERS]
    place, wires = notes[t.PLACE_OF], notes[t.TEMPORARY]
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
                    built[row, t.ZERO + c] = _block_indices(1 << pieces[p, c], wires, num_wires)
                continue
            mask = _block_indices(pieces[p, P_MASK], wires, num_wires)
            zero_bits, one_bits = pieces[p, P_ZERO], pieces[p, P_ONE]
            if pieces[p, P_PARITY]:  # as two parts: one of the wires, and none or both
                one_bits = pieces[p, P_MASK] & ~zero_bits
                _add_part(
                    pieces[p, P_NUMBERS], mask, _block_indices(one_bits, wires, num_wires), 0,
                    built, done,
                )  # fmt: skip
                one_bits = zero_bits
            _add_part(
                pieces[p, P_NUMBERS], mask, _block_indices(zero_bits, wires, num_wires),
                _block_indices(one_bits ^ zero_bits, wires, num_wires), built, done,
            )  # fmt: skip
    reals = blocks[b, f.IS_REAL]
    rule = done[t.RULES]
    done[t.RULES] += 1
    rules[rule, t.RULE_KIND] = t.REAL_ROTATION_RULE if blocks[b, f.REAL_ROTATION] else t.BLOCK
    rules[rule, t.DERIVED] = blocks[b, f.REAL_ROTATION]
    rules[rule, t.FIRST_PART] = at_part
    rules[rule, t.END_PART] = done[t.PARTS]
    rules[rule, t.NUMBERS_AT] = done[t.FLOATS]
    rules[rule, t.MOVED] = size
    if not blocks[b, f.REAL_ROTATION]:
        rules[rule, t.FREE] = num_wires - size
    rules[rule, t.REAL_NUMBERS] = reals
    for pattern in range(1 << (num_wires - size)):
        value = blocks[b, f.CONTROL_VALUE]
        for k in range(size, num_wires):
            if pattern >> (k - size) & 1:
                value |= 1 << wires[k]
        at = t.new_op(out, done, (t.REAL if reals else t.DENSE) + size)
        for k in range(size):
            out[t.OPS, at, t.A + k] = place[wires[k]] - t.LANE_WIRES
        _set_conditions(out, at, condition | free, value, notes)
        out[t.OPS, at, t.AT] = done[t.FLOATS]
        done[t.FLOATS] += (1 if reals else 2) << (2 * size)


@device_function
def _bring_to_rows(block, width, size, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Swap lanes until all wires of a block are on row bits. The wires that become lanes are those
    with the latest next use in this sweep."""
    blocks = inputs[t.BLOCKS]
    after, taken, wire_at, place, uses = (
        notes[t.ORDER], notes[t.TAKEN], notes[t.WIRE_AT], notes[t.PLACE_OF], notes[t.TEMPORARY],
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
def write_sweep(size, width, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Write the operations of the `size` blocks of the pass. A block is ready if those before it
    that are left change none of its wires, and use none that it changes."""
    blocks = inputs[t.BLOCKS]
    after, taken = notes[t.ORDER], notes[t.TAKEN]
    for k in range(size + 1):
        after[k] = k
    targets = np.int64(0)
    for k in range(size):
        targets |= blocks[taken[k], f.TARGET_MASK]
    while after[0] < size:
        moved = seen = 0
        wanted = before = -1
        k = after[0]
        while k < size and (moved != targets or not targets):
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
                    _write_matrices(b, inputs, notes, out, done)
                elif kind == f.PERMUTING:
                    first = notes[t.MEMBERS, notes[t.STARTS, b]]
                    _write_permutation(inputs[t.ELEMENTS, first, f.FIRST], inputs, notes, out, done)
                after[before + 1] = after[k + 1]
            else:
                moved |= moves
                seen |= mask
                before = k
            k = after[k + 1]
        if wanted >= 0:
            _bring_to_rows(wanted, width, size, inputs, notes, out, done)
        elif after[0] < size:
            merge_diagonals(size, targets, width, inputs, notes, out, done)


@device_function
def restore(width, notes, out, done):  # type: ignore[no-untyped-def]
    """Move every wire of a tile back to its place."""
    home, wire_at, place = notes[t.HOME], notes[t.WIRE_AT], notes[t.PLACE_OF]
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
