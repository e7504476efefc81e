"""Merging of diagonal gates into PHASE operations.

A gate on at most two qubits becomes four factors: of all amplitudes, of those where one qubit is 1,
where the other is, and where both are. The table of a factor depends on whether its qubits are
lanes, rows or outside the tile. A gate on more qubits is an operation of its own, with controls.
"""

from __future__ import annotations

from simulators.compiler.bit_ops import count, lowest
from simulators.compiler.kernel import device_function
from simulators.statevector.planning import fusion as f
from simulators.statevector.planning import tables as t
from simulators.statevector.planning.real_rotations import P_MASK, P_NUMBERS, P_PARITY, P_ZERO

_NONE = -1


@device_function
def _write_phase(mask, value, number, width, notes, out, done):  # type: ignore[no-untyped-def]
    """Write a phase of all amplitudes whose wires under `mask` have their `value`."""
    at = t.new_op(out, done, t.PHASE)
    ops, recipes = out[t.OPS], out[t.RECIPES]
    rows, lanes, outside = t.parts(mask, notes)
    ops[at, t.ROW_MASK] = rows
    ops[at, t.OUTER_MASK] = outside
    recipe = done[t.RECIPES]
    done[t.RECIPES] += 1
    recipes[recipe, t.LANES_MASK] = lanes
    rows, lanes, outside = t.parts(value, notes)
    ops[at, t.ROW_VALUE] = rows
    ops[at, t.OUTER_VALUE] = outside
    recipes[recipe, t.LANES_VALUE] = lanes
    ops[at, t.AT] = done[t.FLOATS]
    recipes[recipe, t.HOW] = t.UNIFORM_PHASE
    recipes[recipe, t.FROM] = done[t.PARTS]
    recipes[recipe, t.TO] = done[t.PARTS] + 1
    recipes[recipe, t.WHERE] = done[t.FLOATS]
    recipes[recipe, t.HEIGHT] = width - t.LANE_WIRES
    out[t.PARTS, done[t.PARTS], t.NUMBERS] = number
    done[t.PARTS] += 1
    done[t.FLOATS] += (2 << (width - t.LANE_WIRES)) + 2 * t.LANES


@device_function
def _term(mask, where, first, out, done):  # type: ignore[no-untyped-def]
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
def _target(wire_a, wire_b, fixed, first, notes, out, done):  # type: ignore[no-untyped-def]
    """Target of the factor of amplitudes with 1 at `wire_a`, and at `wire_b` if it is given.

    `fixed`: a wire that is 1 wherever the operation acts.
    """
    place = notes[t.STANDS]
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
        return _term(outside, t.SCALAR, first, out, done) if outside else 1 + at
    other = place[wire_b]
    if other < 0:
        outside |= 1 << (-1 - other)
    if at < 0 and other < 0:
        return _term(outside, t.SCALAR, first, out, done)
    if at < 0 or other < 0:
        return _term(outside, max(at, other), first, out, done)
    return t.PAIRS + t.MOST_WIDTH * max(at, other) + min(at, other)


@device_function
def _crossing(mask, fixed, notes):  # type: ignore[no-untyped-def]
    """Row bit of a pair of a row and a lane, as a mask; 0 if the wires are no such pair."""
    rows, lanes, _ = t.parts(mask, notes)
    if fixed >= 0 and mask >> fixed & 1:
        return 0
    return rows if lanes else 0


@device_function
def _always(b, inputs, notes):  # type: ignore[no-untyped-def]
    """Wires on row bits that are 1 wherever the block acts."""
    blocks, place = inputs[t.BLOCKS], notes[t.STANDS]
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
def _write(b, fixed, first, inputs, notes, out, done):  # type: ignore[no-untyped-def]
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
    to_one = _target(wire_a, _NONE, fixed, first, notes, out, done) if wire_a >= 0 else 0
    to_two = _target(wire_b, _NONE, fixed, first, notes, out, done) if wire_b >= 0 else 0
    to_both = _target(wire_a, wire_b, fixed, first, notes, out, done) if wire_b >= 0 else 0
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
            built[row, t.TARGETS] = to_one
            built[row, t.TARGETS + 1] = to_two
            built[row, t.TARGETS + 2] = to_both


@device_function
def merge_diagonals(size, pivot, width, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Take the diagonal blocks that are ready off the list, at least one, and merge them."""
    blocks, elements = inputs[t.BLOCKS], inputs[t.ELEMENTS]
    after, taken, chosen = notes[t.ORDER], notes[t.TAKEN], notes[t.SPARE]
    moved = crossed = result = 0
    always = -1
    before = -1
    k = after[0]
    while k < size and (moved != pivot or before < 0):
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
            wanted = crossed | _crossing(looks, _NONE, notes)
            common = always & _always(b, inputs, notes)
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
    ops, recipes, place = out[t.OPS], out[t.RECIPES], notes[t.STANDS]
    recipe = done[t.RECIPES]
    done[t.RECIPES] += 1
    first, from_ = done[t.TERM_ROWS], done[t.PARTS]
    crossed = 0
    for k in range(result):
        b = chosen[k]
        crossed |= _crossing(blocks[b, f.DIAGONAL_MASK], fixed, notes)
        _write(b, fixed, first, inputs, notes, out, done)
    if fixed >= 0:
        ops[at, t.ROW_MASK] = ops[at, t.ROW_VALUE] = 1 << (place[fixed] - t.LANE_WIRES)
    ops[at, t.AT] = done[t.FLOATS]
    ops[at, t.CROSS] = crossed
    ops[at, t.FIRST_TERM] = first
    ops[at, t.TERMS] = done[t.TERM_ROWS] - first
    recipes[recipe, t.HOW] = t.DIAGONAL_RULE
    recipes[recipe, t.FROM] = from_
    recipes[recipe, t.TO] = done[t.PARTS]
    recipes[recipe, t.WHERE] = done[t.FLOATS]
    recipes[recipe, t.CROSSED] = crossed
    recipes[recipe, t.HEIGHT] = width - t.LANE_WIRES
    recipes[recipe, t.NUM_TERMS] = done[t.TERM_ROWS] - first
    tables = (2 << (width - t.LANE_WIRES)) + (2 * t.LANES << count(crossed))
    done[t.FLOATS] += tables + 2 * ops[at, t.TERMS]
