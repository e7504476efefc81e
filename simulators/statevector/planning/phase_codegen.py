"""Merging of diagonal gates into PHASE operations.

A gate on at most two qubits becomes four factors: of all amplitudes, of those where one qubit is 1,
where the other is, and where both are. The table of a factor depends on whether its qubits are
lanes, rows or outside the tile. A gate on more qubits is an operation of its own, with controls.
"""

from __future__ import annotations

from simulators.compiler.bit_ops import count, lowest
from simulators.compiler.kernel import device_function
from simulators.statevector.planning.fusion import (
    CONTROL_MASK,
    CONTROL_VALUE,
    DIAGONAL,
    DIAGONAL_MASK,
    FIRST,
    KIND,
    LAST,
    TARGET_MASK,
)
from simulators.statevector.planning.real_rotations import P_MASK, P_NUMBERS, P_PARITY, P_ZERO
from simulators.statevector.planning.tables import (
    AT,
    BLOCKS,
    CROSS,
    CROSSED,
    DIAGONAL_RULE,
    ELEMENTS,
    EXPONENTS,
    FIRST_TARGET,
    FIRST_TERM,
    FLOATS,
    FROM,
    HEIGHT,
    HOW,
    LANE_WIRES,
    LANES,
    LANES_MASK,
    LANES_VALUE,
    MASK,
    MEMBERS,
    MOST_CROSS,
    MOST_TERMS,
    MOST_WIDTH,
    NUM_TERMS,
    NUMBERS,
    OPS,
    ORDER,
    OUTER_MASK,
    OUTER_VALUE,
    PAIRS,
    PARTS,
    PIECES,
    PLACE,
    RECIPES,
    ROW_MASK,
    ROW_VALUE,
    SCALAR,
    SPARE,
    STANDS,
    STARTS,
    TAKEN,
    TARGETS,
    TERM_ROWS,
    TO,
    UNIFORM_PHASE,
    WHERE,
    new_op,
    parts,
)
from simulators.statevector.planning.tables import PHASE as PHASE_OP
from simulators.statevector.planning.tables import TERMS as NUM_OP_TERMS

_NONE = -1


@device_function
def _write_phase(mask, value, number, width, notes, out, done):  # type: ignore[no-untyped-def]
    """Write a phase of all amplitudes whose wires under `mask` have their `value`."""
    at = new_op(out, done, PHASE_OP)
    ops, recipes = out[OPS], out[RECIPES]
    rows, lanes, outside = parts(mask, notes)
    ops[at, ROW_MASK] = rows
    ops[at, OUTER_MASK] = outside
    recipe = done[RECIPES]
    done[RECIPES] += 1
    recipes[recipe, LANES_MASK] = lanes
    rows, lanes, outside = parts(value, notes)
    ops[at, ROW_VALUE] = rows
    ops[at, OUTER_VALUE] = outside
    recipes[recipe, LANES_VALUE] = lanes
    ops[at, AT] = done[FLOATS]
    recipes[recipe, HOW] = UNIFORM_PHASE
    recipes[recipe, FROM] = done[PARTS]
    recipes[recipe, TO] = done[PARTS] + 1
    recipes[recipe, WHERE] = done[FLOATS]
    recipes[recipe, HEIGHT] = width - LANE_WIRES
    out[PARTS, done[PARTS], NUMBERS] = number
    done[PARTS] += 1
    done[FLOATS] += (2 << (width - LANE_WIRES)) + 2 * LANES


@device_function
def _term(mask, where, first, out, done):  # type: ignore[no-untyped-def]
    """Target of the term with this mask and place; a new one if there is none."""
    terms = out[TERM_ROWS]
    for t in range(first, done[TERM_ROWS]):
        if terms[t, MASK] == mask and terms[t, PLACE] == where:
            return FIRST_TARGET + t - first
    at = done[TERM_ROWS]
    terms[at, MASK] = mask
    terms[at, PLACE] = where
    done[TERM_ROWS] += 1
    return FIRST_TARGET + at - first


@device_function
def _target(wire_a, wire_b, fixed, first, notes, out, done):  # type: ignore[no-untyped-def]
    """Target of the factor of amplitudes with 1 at `wire_a`, and at `wire_b` if it is given.

    `fixed`: a wire that is 1 wherever the operation acts.
    """
    place = notes[STANDS]
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
        return _term(outside, SCALAR, first, out, done) if outside else 1 + at
    other = place[wire_b]
    if other < 0:
        outside |= 1 << (-1 - other)
    if at < 0 and other < 0:
        return _term(outside, SCALAR, first, out, done)
    if at < 0 or other < 0:
        return _term(outside, max(at, other), first, out, done)
    return PAIRS + MOST_WIDTH * max(at, other) + min(at, other)


@device_function
def _crossing(mask, fixed, notes):  # type: ignore[no-untyped-def]
    """Row bit of a pair of a row and a lane, as a mask; 0 if the wires are no such pair."""
    rows, lanes, _ = parts(mask, notes)
    if fixed >= 0 and mask >> fixed & 1:
        return 0
    return rows if lanes else 0


@device_function
def _always(b, inputs, notes):  # type: ignore[no-untyped-def]
    """Wires on row bits that are 1 wherever the block acts."""
    blocks, place = inputs[BLOCKS], notes[STANDS]
    result = 0
    rest = blocks[b, CONTROL_MASK] & blocks[b, CONTROL_VALUE]
    while rest:
        wire = lowest(rest)
        if place[wire] >= LANE_WIRES:
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
    elements, pieces, built = inputs[ELEMENTS], inputs[PIECES], out[PARTS]
    starts, members = notes[STARTS], notes[MEMBERS]
    wire_a = wire_b = _NONE
    looks = inputs[BLOCKS, b, DIAGONAL_MASK]
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
        for p in range(elements[e, FIRST], elements[e, LAST]):
            f0 = _acts(pieces, p, 0)
            f1 = f2 = f3 = 0
            if wire_a >= 0:
                f1 = _acts(pieces, p, 1 << wire_a)
            if wire_b >= 0:
                f2 = _acts(pieces, p, 1 << wire_b)
                f3 = _acts(pieces, p, 1 << wire_a | 1 << wire_b)
            row = done[PARTS]
            done[PARTS] += 1
            built[row, NUMBERS] = pieces[p, P_NUMBERS]
            built[row, EXPONENTS] = f0
            built[row, EXPONENTS + 1] = f1 - f0 if wire_a >= 0 else 0
            built[row, EXPONENTS + 2] = f2 - f0 if wire_b >= 0 else 0
            built[row, EXPONENTS + 3] = f3 + f0 - f1 - f2 if wire_b >= 0 else 0
            built[row, TARGETS] = to_one
            built[row, TARGETS + 1] = to_two
            built[row, TARGETS + 2] = to_both


@device_function
def merge_diagonals(size, pivot, width, inputs, notes, out, done):  # type: ignore[no-untyped-def]
    """Take the diagonal blocks that are ready off the list, at least one, and merge them."""
    blocks, elements = inputs[BLOCKS], inputs[ELEMENTS]
    after, taken, chosen = notes[ORDER], notes[TAKEN], notes[SPARE]
    moved = crossed = result = 0
    always = -1
    before = -1
    k = after[0]
    while k < size and (moved != pivot or before < 0):
        b = taken[k]
        moves, looks = blocks[b, TARGET_MASK], blocks[b, DIAGONAL_MASK]
        ready = blocks[b, KIND] == DIAGONAL and not looks & moved
        if ready and count(looks) > 2:
            p = elements[notes[MEMBERS, notes[STARTS, b]], FIRST]
            _write_phase(
                looks, blocks[b, CONTROL_VALUE], inputs[PIECES, p, P_NUMBERS], width, notes, out,
                done,
            )  # fmt: skip
        elif ready:
            wanted = crossed | _crossing(looks, _NONE, notes)
            common = always & _always(b, inputs, notes)
            ready = result < MOST_TERMS // 3 and (count(wanted) <= MOST_CROSS or common != 0)
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
    at = new_op(out, done, PHASE_OP)
    ops, recipes, place = out[OPS], out[RECIPES], notes[STANDS]
    recipe = done[RECIPES]
    done[RECIPES] += 1
    first, from_ = done[TERM_ROWS], done[PARTS]
    crossed = 0
    for k in range(result):
        b = chosen[k]
        crossed |= _crossing(blocks[b, DIAGONAL_MASK], fixed, notes)
        _write(b, fixed, first, inputs, notes, out, done)
    if fixed >= 0:
        ops[at, ROW_MASK] = ops[at, ROW_VALUE] = 1 << (place[fixed] - LANE_WIRES)
    ops[at, AT] = done[FLOATS]
    ops[at, CROSS] = crossed
    ops[at, FIRST_TERM] = first
    ops[at, NUM_OP_TERMS] = done[TERM_ROWS] - first
    recipes[recipe, HOW] = DIAGONAL_RULE
    recipes[recipe, FROM] = from_
    recipes[recipe, TO] = done[PARTS]
    recipes[recipe, WHERE] = done[FLOATS]
    recipes[recipe, CROSSED] = crossed
    recipes[recipe, HEIGHT] = width - LANE_WIRES
    recipes[recipe, NUM_TERMS] = done[TERM_ROWS] - first
    tables = (2 << (width - LANE_WIRES)) + (2 * LANES << count(crossed))
    done[FLOATS] += tables + 2 * ops[at, NUM_OP_TERMS]
