"""Gate fusion: multiplies neighbouring lowered gates into one matrix where that costs less.

Matrices span at most three qubits; wider ones cost more than they save. Diagonal gates and
permutations join matrices that span their qubits anyway. Costs are in units of one sweep.
"""

from __future__ import annotations

from simulators.compiler.bit_ops import count
from simulators.compiler.kernel import I64, INT, INTS2, device_function, kernel

# Columns of an element, and of a block of them; masks of wires. An element acts only if all wires
# under CONDITION have their VALUE. The other columns belong to the planner: see `lowering`.
(
    KIND,
    TARGET_MASK,
    DIAGONAL_MASK,
    CONTROL_MASK,
    CONTROL_VALUE,
    IS_REAL,
    FIRST,
    LAST,
    MATRIX,
    REAL_ROTATION,
) = range(10)
COLUMNS = 10
DIAGONAL, PERMUTING, DENSE = range(3)

MOST_WIRES = 3  # wires of a matrix of several elements

# Costs of an operation on all amplitudes, relative to loading and storing them: SWEEP.
SWEEP = 15.0
ONE_WIRE = 2.1  # complex matrix on one wire; doubled for each further wire, halved if real
PERMUTATION = 0.1
LANE_SWAP = 1.2
DIAGONALS = 3.6  # all diagonal elements that can be merged
A_DIAGONAL = 0.3  # each further diagonal element
_SAVED = 0.05  # smaller savings are ignored
_ONE_MORE = 0.2  # overhead of an operation
_MOST_NEAR = 4  # largest number of blocks that an element may join


@device_function
def cost(kind, moves, condition, reals):  # type: ignore[no-untyped-def]
    """Cost of one operation."""
    if kind == DIAGONAL:
        return A_DIAGONAL
    if kind == PERMUTING:
        return PERMUTATION
    work = ONE_WIRE if not reals else 0.5 * ONE_WIRE
    return work * 2.0 ** (count(moves) - 1 - count(condition))


@device_function
def _is_open(b, blocks, touched, mover):  # type: ignore[no-untyped-def]
    """Return whether the block can be delayed until now. `touched`, `mover`: for each wire, the
    last block that touches it, and the last that moves amplitude along it."""
    moves = blocks[b, TARGET_MASK]
    rest = moves | blocks[b, DIAGONAL_MASK]
    wire = 0
    while rest:
        if rest & 1 and (mover[wire] > b or (moves >> wire & 1 and touched[wire] > b)):
            return False
        rest >>= 1
        wire += 1
    return True


@device_function
def _near(mask, moves, into, touched, mover, near):  # type: ignore[no-untyped-def]
    """Blocks next to an element, and the last block that it must follow."""
    result = 0
    last = -1
    wire = 0
    while mask >> wire:
        if mask >> wire & 1:
            last = max(last, touched[wire] if moves >> wire & 1 else mover[wire])
            for k in range(2):
                b = touched[wire] if k else mover[wire]
                is_listed = b < 0 or into[b] != b
                for c in range(result):
                    is_listed = is_listed or near[c] == b
                if not is_listed and result < _MOST_NEAR:
                    near[result] = b
                    result += 1
        wire += 1
    return result, last


@device_function
def _try(e, chosen, num_near, last, elements, blocks, touched, mover, near, joined):  # type: ignore[no-untyped-def]
    """Saving from joining these blocks, and the block that takes them; `joined`: the resulting
    block."""
    moves, mask = elements[e, TARGET_MASK], elements[e, TARGET_MASK] | elements[e, DIAGONAL_MASK]
    widest = 0 if elements[e, KIND] == DIAGONAL else mask
    spanned = mask if elements[e, KIND] == DENSE else 0
    condition, value = elements[e, CONTROL_MASK], elements[e, CONTROL_VALUE]
    reals = elements[e, IS_REAL]
    apart = cost(elements[e, KIND], moves, condition, reals)
    target = -1
    for c in range(num_near):
        if chosen >> c & 1:
            target = max(target, near[c])
            mine = blocks[near[c], TARGET_MASK] | blocks[near[c], DIAGONAL_MASK]
            if blocks[near[c], KIND] != DIAGONAL and count(mine) > count(widest):
                widest = mine
    fits = elements[e, KIND] != DIAGONAL or not mask & ~widest
    for c in range(num_near):
        if not chosen >> c & 1:
            continue
        b = near[c]
        mine = blocks[b, TARGET_MASK] | blocks[b, DIAGONAL_MASK]
        fits = fits and (b == target or _is_open(b, blocks, touched, mover))
        mask |= mine
        if blocks[b, KIND] == DIAGONAL:
            fits = fits and not mine & ~widest
        elif blocks[b, KIND] == DENSE:
            spanned |= mine
        moves |= blocks[b, TARGET_MASK]
        condition &= blocks[b, CONTROL_MASK] & ~(value ^ blocks[b, CONTROL_VALUE])
        value &= condition
        reals &= blocks[b, IS_REAL]
        apart += cost(
            blocks[b, KIND], blocks[b, TARGET_MASK], blocks[b, CONTROL_MASK], blocks[b, IS_REAL]
        )
        apart += _ONE_MORE
    fits = fits and not mask & ~spanned and count(mask) <= MOST_WIRES
    if fits and target < last:
        fits = _is_open(target, blocks, touched, mover)
        target = -1
    if not fits:
        return -1.0, -1
    condition &= ~moves
    joined[KIND] = DENSE
    joined[TARGET_MASK] = moves
    joined[DIAGONAL_MASK] = mask & ~moves
    joined[CONTROL_MASK] = condition
    joined[CONTROL_VALUE] = value & condition
    joined[IS_REAL] = reals
    return apart - cost(DENSE, moves, condition, reals), target


@device_function
def _numbered(size, blocks, into, block_of, new_ids):  # type: ignore[no-untyped-def]
    """Compact the remaining blocks, and update the block of each element."""
    kept = 0
    for b in range(size):
        new_ids[b] = kept
        if into[b] == b:
            for c in range(COLUMNS):
                blocks[kept, c] = blocks[b, c]
            kept += 1
    for e in range(size):
        b = into[e]
        while into[b] != b:
            b = into[b]
        block_of[e] = new_ids[b]
    return kept


@kernel(INTS2, INT, INTS2, I64, INTS2, returns=INT, group="wide")
def fuse(elements, size, blocks, block_of, scratch):  # type: ignore[no-untyped-def]
    """Divide elements into blocks, in an order in which they may be applied; returns the number of
    blocks. block_of[element]; members of a block act in the order of the elements. `scratch`: int64
    [5, elements + 64]."""
    into, touched, mover = scratch[0], scratch[1], scratch[2]
    near, joined = scratch[3][:_MOST_NEAR], scratch[4][:COLUMNS]
    for wire in range(64):
        touched[wire] = mover[wire] = -1
    for e in range(size):
        into[e] = block_of[e] = e
        for c in range(COLUMNS):
            blocks[e, c] = elements[e, c]
        moves = elements[e, TARGET_MASK]
        mask = moves | elements[e, DIAGONAL_MASK]
        target, best = e, e - e  # no literal 0: numba would specialise for another type
        if count(mask) <= MOST_WIRES:
            result, last = _near(mask, moves, into, touched, mover, near)
            top = _SAVED
            for chosen in range(1, 1 << result):
                saved, _ = _try(
                    e, chosen, result, last, elements, blocks, touched, mover, near, joined
                )
                if saved > top:
                    top, best = saved, chosen
        if best:
            _, target = _try(e, best, result, last, elements, blocks, touched, mover, near, joined)
            if target < 0:
                target = e
            for c in range(IS_REAL + 1):
                blocks[target, c] = joined[c]
            for c in range(result):
                if best >> c & 1:
                    into[near[c]] = target
            into[e] = target
            moves, mask = joined[TARGET_MASK], joined[TARGET_MASK] | joined[DIAGONAL_MASK]
        wire = 0
        while mask >> wire:
            if mask >> wire & 1:
                touched[wire] = max(touched[wire], target)
                if moves >> wire & 1:
                    mover[wire] = max(mover[wire], target)
            wire += 1
    return _numbered(size, blocks, into, block_of, touched)
