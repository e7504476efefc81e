"""Gate fusion, real rotations, and phase gadgets."""

from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import count, lowest

# Gate fusion: multiplies neighbouring lowered gates into one matrix where that costs less.
#
# Matrices span at most three qubits; wider ones cost more than they save. Diagonal gates and
# permutations join matrices that span their qubits anyway. Costs are in units of one sweep.

# Columns of an element, and of a block of them; masks of wires. An element acts only if all wires
# under CONDITION have their VALUE. The other columns belong to the planner: see `lowering`.
KIND, TARGET_MASK, DIAGONAL_MASK, CONTROL_MASK, CONTROL_VALUE = range(5)
IS_REAL, FIRST, LAST, MATRIX, REAL_ROTATION = range(5, 10)
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
# A diagonal element on two wires, with its share of a PHASE: most circuits have few at a time that
# can be merged.
_DIAGONAL_PAIR = 1.0
_DIAGONAL_SHARE = 0.55  # the same if it is left apart wherever possible
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
def _find_runs(elements, size, run_of, last, costs, partner, open_run):  # type: ignore[no-untyped-def]
    """Find runs: diagonal elements on one pair of wires, and those on one of the two in between,
    with no other element on either wire. run_of[e]: first element of its run, or -1; last[run]: its
    last one on both wires; costs[run]: cost of all of them and of the matrices before them, applied
    one by one: float64 [size + 64]. `partner`, `open_run`: scratch, int64 [64]."""
    for wire in range(64):
        partner[wire] = -1
        costs[size + wire] = 0.0
    for e in range(size):
        run_of[e] = -1
        kind = elements[e, KIND]
        mask = elements[e, TARGET_MASK] | elements[e, DIAGONAL_MASK]
        wires = count(mask)
        if wires == 1:
            a = lowest(mask)
            if partner[a] >= 0:
                run_of[e] = open_run[a]
            if kind == DENSE:  # neighbours are multiplied, and most become a real rotation
                costs[size + a] = 0.5 * ONE_WIRE
            continue
        a = b = e - e
        if wires == 2 and kind == DIAGONAL:
            a, b = lowest(mask), lowest(mask & (mask - 1))
        if a == b or partner[a] != b:
            rest = mask
            while rest:
                wire = lowest(rest)
                rest &= rest - 1
                if partner[wire] >= 0:
                    partner[partner[wire]] = -1
                partner[wire] = -1
                if a == b:
                    costs[size + wire] = 0.0
            if a == b:
                continue
            partner[a], partner[b] = b, a
            open_run[a] = open_run[b] = e
            costs[e] = 0.0
        run = open_run[a]
        run_of[e] = run
        last[run] = e
        before = costs[size + a] + costs[size + b]
        if before > 0.0:  # else it merges with the diagonal element before
            costs[run] += before + _DIAGONAL_PAIR
            costs[size + a] = costs[size + b] = 0.0


@device_function
def _join_runs(elements, size, blocks, into, run_of, last, costs):  # type: ignore[no-untyped-def]
    """Join the elements of each run that costs more than one matrix: `fuse` would join only some of
    them, neighbour by neighbour. The last element stands for the block."""
    for e in range(size):
        run = run_of[e]
        if run < 0 or e > last[run] or last[run] == run or costs[run] <= 2 * ONE_WIRE:
            continue
        to = into[e] = last[run]
        if e == run:
            blocks[to, TARGET_MASK] = blocks[to, DIAGONAL_MASK] = 0
            blocks[to, IS_REAL] = 1
        blocks[to, KIND] = DENSE
        blocks[to, TARGET_MASK] |= elements[e, TARGET_MASK]
        blocks[to, DIAGONAL_MASK] |= elements[e, DIAGONAL_MASK]
        blocks[to, CONTROL_MASK] = blocks[to, CONTROL_VALUE] = 0
        blocks[to, IS_REAL] &= elements[e, IS_REAL]
        blocks[to, DIAGONAL_MASK] &= ~blocks[to, TARGET_MASK]


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
def _try(e, chosen, num_near, last, blocks, touched, mover, near, joined):  # type: ignore[no-untyped-def]
    """Saving from joining these blocks with block e, and the block that takes them; `joined`: the
    resulting block."""
    moves, mask = blocks[e, TARGET_MASK], blocks[e, TARGET_MASK] | blocks[e, DIAGONAL_MASK]
    widest = 0 if blocks[e, KIND] == DIAGONAL else mask
    spanned = mask if blocks[e, KIND] == DENSE else 0
    condition, value = blocks[e, CONTROL_MASK], blocks[e, CONTROL_VALUE]
    reals = blocks[e, IS_REAL]
    apart = cost(blocks[e, KIND], moves, condition, reals)
    target = -1
    for c in range(num_near):
        if chosen >> c & 1:
            target = max(target, near[c])
            mine = blocks[near[c], TARGET_MASK] | blocks[near[c], DIAGONAL_MASK]
            if blocks[near[c], KIND] != DIAGONAL and count(mine) > count(widest):
                widest = mine
    fits = blocks[e, KIND] != DIAGONAL or not mask & ~widest
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
    fits = fits and moves and not mask & ~spanned and count(mask) <= MOST_WIRES
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


@kernel("INTS2 INT INTS2 I64 INTS2 REALS INT -> INT", group="wide")
def fuse(elements, size, blocks, block_of, scratch, costs, eager):  # type: ignore[no-untyped-def]
    """Divide elements into blocks, in an order in which they may be applied; returns the number of
    blocks. block_of[element]; members of a block act in the order of the elements. `scratch`: int64
    [7, elements + 64]; `costs`: float64, as many. `eager`: also multiply diagonal elements on two
    wires to matrices on one of these."""
    into, touched, mover = scratch[0], scratch[1], scratch[2]
    near, joined = scratch[3][:_MOST_NEAR], scratch[4][:COLUMNS]
    _find_runs(elements, size, scratch[5], scratch[6], costs, touched, mover)
    for e in range(size):
        into[e] = block_of[e] = e
        for c in range(COLUMNS):
            blocks[e, c] = elements[e, c]
    _join_runs(elements, size, blocks, into, scratch[5], scratch[6], costs)
    for e in range(size):  # a matrix that moves nothing: its neighbours are multiplied to it
        if (
            eager
            and into[e] == e
            and blocks[e, KIND] == DIAGONAL
            and count(blocks[e, DIAGONAL_MASK]) == 2
        ):
            blocks[e, KIND] = DENSE
    for wire in range(64):
        touched[wire] = mover[wire] = -1
    for e in range(size):
        if into[e] != e:
            continue
        moves = blocks[e, TARGET_MASK]
        mask = moves | blocks[e, DIAGONAL_MASK]
        target, best = e, e - e  # no literal 0: numba would specialise for another type
        if count(mask) <= MOST_WIRES:
            result, last = _near(mask, moves, into, touched, mover, near)
            top = _SAVED
            for chosen in range(1, 1 << result):
                saved, _ = _try(e, chosen, result, last, blocks, touched, mover, near, joined)
                if saved > top:
                    top, best = saved, chosen
        if best:
            _, target = _try(e, best, result, last, blocks, touched, mover, near, joined)
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
    for b in range(size):
        if not blocks[b, TARGET_MASK]:
            blocks[b, KIND] = DIAGONAL
    return _numbered(size, blocks, into, block_of, touched)


# Factoring of one-qubit unitaries into real rotations and phases.
#
# U = diag(a, b) R diag(1, d) with R real (ZYZ decomposition). Real arithmetic costs half of complex
# arithmetic; the phases cost nothing if a neighbouring diagonal gate absorbs them, before the first
# gate on |0>, or after the last gate.

# Columns of a piece; NUMBERS: the row of its numbers. PARITY: see `fusion`; for a phase of
# two wires that acts on one parity, that of ZERO.
P_MASK, P_ZERO, P_ONE, P_NUMBERS, P_PARITY = range(5)

# Rows of numbers of a factored matrix, from its own on: d, a, b.
ROWS = 3

_NOTHING, _PHASES, _OTHER = range(3)  # neighbour of a block on a wire


@device_function
def _one_wire(mask):  # type: ignore[no-untyped-def]
    return mask != 0 and mask & (mask - 1) == 0


@kernel("INTS2 INT -> REAL", group="wide")
def fused_cost(blocks, size):  # type: ignore[no-untyped-def]
    """Estimated cost of blocks before they are divided into sweeps. Matrices on one wire become
    real between diagonal neighbours, which most have: they count half."""
    total = 0.0
    before = -1
    for b in range(size):
        kind, moves = blocks[b, KIND], blocks[b, TARGET_MASK]
        if kind == DENSE:
            alone = _one_wire(moves) and blocks[b, DIAGONAL_MASK] == 0
            total += cost(kind, moves, blocks[b, CONTROL_MASK], int(alone or blocks[b, IS_REAL]))
        elif count(blocks[b, DIAGONAL_MASK]) == 2 and blocks[b, DIAGONAL_MASK] != before:
            total += _DIAGONAL_SHARE
        before = blocks[b, DIAGONAL_MASK]
    return total


@device_function
def _can_turn(blocks, b):  # type: ignore[no-untyped-def]
    alone = _one_wire(blocks[b, TARGET_MASK]) and blocks[b, DIAGONAL_MASK] == 0
    return blocks[b, KIND] == DENSE and alone and not blocks[b, IS_REAL]


@device_function
def _note(blocks, b, beside):  # type: ignore[no-untyped-def]
    """Record block b as the neighbour of later blocks on its wires."""
    mask = blocks[b, TARGET_MASK] | blocks[b, DIAGONAL_MASK]
    kind = _PHASES if blocks[b, KIND] == DIAGONAL else _OTHER
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
    while not blocks[b, TARGET_MASK] >> wire & 1:
        wire += 1
    return wire


@device_function
def _phase(blocks, at, elements, size, pieces, piece, last, bit):  # type: ignore[no-untyped-def]
    """Write a diagonal block on one wire, of these pieces."""
    for c in range(COLUMNS):
        elements[size, c] = 0
    elements[size, KIND] = DIAGONAL
    elements[size, DIAGONAL_MASK] = bit
    elements[size, CONTROL_MASK] = elements[size, CONTROL_VALUE] = bit if last == piece + 1 else 0
    elements[size, FIRST] = piece
    elements[size, LAST] = last
    elements[size, MATRIX] = -1
    for c in range(COLUMNS):
        blocks[at, c] = elements[size, c]
    for p in range(piece, last):
        pieces[p, P_MASK] = bit
        pieces[p, P_PARITY] = 0


@kernel("INTS2 I64 INTS2 INTS2 I64 INT INT INTS2 I64 I64", group="wide")
def factor_real_rotations(  # type: ignore[no-untyped-def]
    blocks, block_of, elements, pieces, sizes, zero, unseen, into, sides, beside
):
    """Write the blocks with separate phases to `into`; elements and pieces are appended for these.
    `sizes`: numbers of blocks, elements, pieces and rows of numbers, before and after. `zero`,
    `unseen`: the segment begins as |0>, its last phases have no effect. `sides`: scratch, int64
    [blocks]; `beside`: int64 [64]."""
    num_blocks, size, piece, number = sizes[0], sizes[1], sizes[2], sizes[3]
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
        bit = blocks[b, TARGET_MASK]
        if sides[b] & 2:
            pieces[piece, P_ZERO] = pieces[piece, P_ONE] = bit
            pieces[piece, P_NUMBERS] = number
            _phase(into, at, elements, size, pieces, piece, piece + 1, bit)
            block_of[size] = at
            size += 1
            piece += 1
            at += 1
        for c in range(COLUMNS):
            into[at, c] = blocks[b, c]
        if sides[b]:
            into[at, REAL_ROTATION] = number
            into[at, IS_REAL] = 1
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


# Merging of phase gadgets: CX, phases on the target, CX becomes one parity phase.
#
# Many circuits write rzz this way. As a parity phase it moves no amplitude, and any number of them
# merges into one diagonal operation.

_MOST_APART = 256  # largest number of elements between the two CX


@device_function
def _is_cx(elements, e):  # type: ignore[no-untyped-def]
    moves, looks = elements[e, TARGET_MASK], elements[e, DIAGONAL_MASK]
    is_single = moves & (moves - 1) == 0 and looks != 0 and looks & (looks - 1) == 0
    return elements[e, KIND] == PERMUTING and is_single and elements[e, CONTROL_VALUE] == looks


@kernel("INTS2 INT INTS2 I64 I64 -> INT", group="wide")
def merge_phase_gadgets(elements, size, pieces, opened, moved):  # type: ignore[no-untyped-def]
    """Remove such CX; returns the number of remaining elements. `opened`, `moved`: scratch, int64
    [64]: for each wire, the CX on it after which only phases on it alone followed, and the last
    element that moves amplitude along it."""
    for wire in range(64):
        opened[wire] = moved[wire] = -1
    for e in range(size):
        moves, looks = elements[e, TARGET_MASK], elements[e, DIAGONAL_MASK]
        cx = _is_cx(elements, e)
        alone = elements[e, KIND] == DIAGONAL and looks & (looks - 1) == 0
        mask = moves | looks
        before = -1
        wire = 0
        while mask >> wire:
            bit = mask >> wire & 1
            if bit and cx and moves >> wire & 1:
                before = opened[wire]
                opened[wire] = e
            elif bit and not alone:
                opened[wire] = -1
            wire += 1
        last = -1
        wire = 0
        while mask >> wire:
            if looks >> wire & 1:
                last = max(last, moved[wire])
            if moves >> wire & 1:
                moved[wire] = e
            wire += 1
        if before <= last or elements[before, DIAGONAL_MASK] != looks or e - before > _MOST_APART:
            continue
        elements[before, KIND] = elements[e, KIND] = -1
        wire = 0
        while not moves >> wire & 1:
            wire += 1
        opened[wire] = -1
        for d in range(before + 1, e):
            if elements[d, KIND] == DIAGONAL and elements[d, DIAGONAL_MASK] == moves:
                elements[d, DIAGONAL_MASK] = mask
                elements[d, CONTROL_MASK] = elements[d, CONTROL_VALUE] = 0
                for p in range(elements[d, FIRST], elements[d, LAST]):
                    pieces[p, P_MASK] = mask
                    pieces[p, P_PARITY] = 1
    kept = 0
    for e in range(size):
        if elements[e, KIND] >= 0:
            for c in range(COLUMNS):
                elements[kept, c] = elements[e, c]
            kept += 1
    return kept
