"""Factoring of one-qubit unitaries into real rotations and phases.

U = diag(a, b) R diag(1, d) with R real (ZYZ decomposition). Real arithmetic costs half of complex
arithmetic; the phases cost nothing if a neighbouring diagonal gate absorbs them, before the first
gate on |0>, or after the last gate.
"""

from __future__ import annotations

from simulators.compiler.kernel import I64, INT, INTS2, device_function, kernel
from simulators.statevector.planning import fusion as f

# Columns of a piece; NUMBERS: the row of its numbers. PARITY: see `phase_gadgets`; for a phase of
# two wires that acts on one parity, that of ZERO.
P_MASK, P_ZERO, P_ONE, P_NUMBERS, P_PARITY = range(5)

# Rows of numbers of a factored matrix, from its own on: d, a, b.
ROWS = 3

_NOTHING, _PHASES, _OTHER = range(3)  # neighbour of a block on a wire


@device_function
def _one_wire(mask):  # type: ignore[no-untyped-def]
    return mask != 0 and mask & (mask - 1) == 0


@device_function
def _can_turn(blocks, b):  # type: ignore[no-untyped-def]
    alone = _one_wire(blocks[b, f.TARGET_MASK]) and blocks[b, f.DIAGONAL_MASK] == 0
    return blocks[b, f.KIND] == f.DENSE and alone and not blocks[b, f.IS_REAL]


@device_function
def _note(blocks, b, beside):  # type: ignore[no-untyped-def]
    """Record block b as the neighbour of later blocks on its wires."""
    mask = blocks[b, f.TARGET_MASK] | blocks[b, f.DIAGONAL_MASK]
    kind = _PHASES if blocks[b, f.KIND] == f.DIAGONAL else _OTHER
    if kind == _PHASES and _one_wire(mask):
        return  # merges with any neighbour
    wire = 0
    while mask >> wire:
        if mask >> wire & 1:
            beside[wire] = kind
        wire += 1


@device_function
def _wire(blocks, b):  # type: ignore[no-untyped-def]
    wire = 0
    while not blocks[b, f.TARGET_MASK] >> wire & 1:
        wire += 1
    return wire


@device_function
def _phase(blocks, at, elements, size, pieces, piece, last, bit):  # type: ignore[no-untyped-def]
    """Write a diagonal block on one wire, of these pieces."""
    for c in range(f.COLUMNS):
        elements[size, c] = 0
    elements[size, f.KIND] = f.DIAGONAL
    elements[size, f.DIAGONAL_MASK] = bit
    elements[size, f.CONTROL_MASK] = elements[size, f.CONTROL_VALUE] = (
        bit if last == piece + 1 else 0
    )
    elements[size, f.FIRST] = piece
    elements[size, f.LAST] = last
    elements[size, f.MATRIX] = -1
    for c in range(f.COLUMNS):
        blocks[at, c] = elements[size, c]
    for p in range(piece, last):
        pieces[p, P_MASK] = bit
        pieces[p, P_PARITY] = 0


@kernel(INTS2, INT, I64, INTS2, INT, INTS2, INT, INT, INT, INT, INTS2, I64, I64, I64, group="wide")
def factor_real_rotations(  # type: ignore[no-untyped-def]
    blocks, num_blocks, block_of, elements, size, pieces, piece, number, zero, unseen, into, sides,
    beside, sizes,
):  # fmt: skip
    """Write the blocks with separate phases to `into`; elements and pieces are appended for these.

    `number`: the first free row of numbers. `zero`, `unseen`: the segment begins as |0>, its last
    phases have no effect. `sides`: scratch, int64 [blocks]; `beside`: int64 [64]. `sizes`:
    resulting numbers of blocks, elements, pieces and rows of numbers.
    """
    for w in range(64):
        beside[w] = _NOTHING
    for b in range(num_blocks):
        sides[b] = 0
        if _can_turn(blocks, b):
            left = beside[_wire(blocks, b)]
            if left == _PHASES or (left == _NOTHING and zero):
                sides[b] = 1 if left == _NOTHING else 2
        _note(blocks, b, beside)
    for w in range(64):
        beside[w] = _NOTHING
    for b in range(num_blocks - 1, -1, -1):
        if _can_turn(blocks, b):
            right = beside[_wire(blocks, b)]
            if sides[b] and (right == _PHASES or (right == _NOTHING and unseen)):
                sides[b] += 4 if right == _NOTHING else 8
            else:
                sides[b] = 0
        _note(blocks, b, beside)
    at = 0
    elements_before = size
    for b in range(num_blocks):
        bit = blocks[b, f.TARGET_MASK]
        if sides[b] & 2:
            pieces[piece, P_ZERO] = pieces[piece, P_ONE] = bit
            pieces[piece, P_NUMBERS] = number
            _phase(into, at, elements, size, pieces, piece, piece + 1, bit)
            block_of[size] = at
            size += 1
            piece += 1
            at += 1
        for c in range(f.COLUMNS):
            into[at, c] = blocks[b, c]
        if sides[b]:
            into[at, f.REAL_ROTATION] = number
            into[at, f.IS_REAL] = 1
        sides[b] |= at << 4
        at += 1
        if sides[b] & 8:
            for k in range(2):
                pieces[piece + k, P_ZERO] = pieces[piece + k, P_ONE] = bit if k else 0
                pieces[piece + k, P_NUMBERS] = number + 1 + k
            _phase(into, at, elements, size, pieces, piece, piece + 2, bit)
            block_of[size] = at
            size += 1
            piece += 2
            at += 1
        if sides[b] & 15:
            number += ROWS
    for e in range(elements_before):
        block_of[e] = sides[block_of[e]] >> 4
    sizes[0], sizes[1], sizes[2], sizes[3] = at, size, piece, number
