"""Selection of the tile qubits of each sweep, and pairing of real matrices."""

import numpy as np

from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import count
from simulators.statevector.planning import fusion as f, tables as t
from simulators.statevector.planning.codegen import restore, write_sweep

# Pairing of real one-qubit matrices: their Kronecker product costs less than both separately.
#
# This does not hold for complex matrices. A tile must hold both qubits, so pairs are made last.

_FAR = 12  # operations within which a partner is searched for
_NONE = -1
_R1, _R2 = t.REAL + 1, t.REAL + 2


@device_function
def _is_free(ops, o):  # type: ignore[no-untyped-def]
    """Return whether the operation is a real matrix of one wire, without conditions."""
    return ops[o, t.KIND] == _R1 and ops[o, t.ROW_MASK] == 0 and ops[o, t.OUTER_MASK] == 0


@device_function
def _bits(ops, o):  # type: ignore[no-untyped-def]
    """Row bits that an operation acts on; all of a PHASE."""
    kind = ops[o, t.KIND]
    if kind == t.PHASE:
        return -1
    if kind == t.SWAP_LANE_ROW:
        return 1 << ops[o, t.B]
    result = ops[o, t.ROW_MASK]
    if kind != t.PERMUTE_ROWS:
        num_bits = (kind - 1) % t.REAL + 1
        result |= 1 << ops[o, t.A]
        if num_bits > 1:
            result |= 1 << ops[o, t.B]
        if num_bits > 2:
            result |= 1 << ops[o, t.C]
    return result


@device_function
def _partner(ops, o, last):  # type: ignore[no-untyped-def]
    """Next free operation that o can be joined with, or none; and whether o moves to its place:
    operations between them may act on one of the two bits."""
    mine = ops[o, t.A]
    between = np.int64(0)
    for other in range(o + 1, min(last, o + 1 + _FAR)):
        bit = ops[other, t.A]
        if _is_free(ops, other) and bit != mine:
            if not between >> bit & 1:
                return other, False
            if not between >> mine & 1:
                return other, True
        between |= _bits(ops, other)
    return _NONE, False


@device_function
def pair(first, out, done):  # type: ignore[no-untyped-def]
    """Make pairs among the operations from `first` on."""
    ops, rules = out[t.OPS], out[t.RULES]
    last = done[t.OPS]
    o = first
    while o < last:
        other, goes = _partner(ops, o, last) if _is_free(ops, o) else (_NONE, False)
        if other == _NONE:
            o += 1
            continue
        low, high = (o, other) if ops[o, t.A] < ops[other, t.A] else (other, o)
        rule = done[t.RULES]
        done[t.RULES] += 1
        rules[rule, t.RULE_KIND] = t.KRONECKER_PAIR
        rules[rule, t.FIRST_PART] = ops[low, t.AT]
        rules[rule, t.END_PART] = ops[high, t.AT]
        rules[rule, t.NUMBERS_AT] = done[t.FLOATS]
        low_bit, high_bit = ops[low, t.A], ops[high, t.A]
        at, gone = (other, o) if goes else (o, other)
        ops[at, t.KIND] = _R2
        ops[at, t.A], ops[at, t.B] = low_bit, high_bit
        ops[at, t.AT] = done[t.FLOATS]
        done[t.FLOATS] += 16
        last -= 1
        for k in range(gone, last):
            for c in range(t.OP_COLUMNS):
                ops[k, c] = ops[k + 1, c]
        if not goes:
            o += 1
    done[t.OPS] = last


# Selection of the tile qubits and the gates of each sweep.
#
# Gates that share no qubit, or share it only diagonally, commute; so a sweep may take a gate if no
# gate left behind blocks it. A tile grows qubit by qubit towards the highest score: work done per
# cost of the sweep over the nonzero part of the state.

_START = 3e4  # amplitudes that are swept in the time to plan and begin a pass
_WINDOW = 1000  # skipped blocks before the search ends: keeps planning linear


@device_function
def scan(blocks, work, after, size, tile, everything, candidates):  # type: ignore[no-untyped-def]
    """Work of a pass with this tile, and the number of ways to widen it. `after`: a list of the
    remaining blocks, after[k + 1] follows k. `candidates`: wires that are missing for blocks that
    could be taken."""
    moved = seen = left = result = 0
    total = 0.0
    k = after[0]
    while k < size and moved != everything and left < _WINDOW:
        moves = blocks[k, f.TARGET_MASK]
        mask = moves | blocks[k, f.DIAGONAL_MASK]
        fits = not (moves & seen) and not (mask & moved)
        lacks = moves & ~tile
        if fits and not lacks:
            total += work[k]
        else:
            if fits and result < candidates.size:
                is_listed = False
                for c in range(result):
                    is_listed = is_listed or candidates[c] == lacks
                if not is_listed:
                    candidates[result] = lacks
                    result += 1
            moved |= moves
            seen |= mask
            left += 1
        k = after[k + 1]
    return total, result


@device_function
def _worth(total, wires, width):  # type: ignore[no-untyped-def]
    """Work per cost of the pass; `wires`: wires along which the state is not 0."""
    amplitudes = 2.0 ** max(wires, width)
    return total / ((f.SWEEP + total) * amplitudes + f.SWEEP * _START)


@device_function
def choose(  # type: ignore[no-untyped-def]
    blocks, work, after, size, lanes, width, live, num_wires, candidates, spare
):
    """Tile of the next pass: `lanes`, and the wires that gain work; not filled up."""
    everything = (1 << num_wires) - 1
    tile = best = lanes
    total, result = scan(blocks, work, after, size, tile, everything, candidates)
    top = _worth(total, count(live | tile), width)
    while result and count(tile) < width:
        wide = max(count(live | tile), width)
        gain = -1.0
        chosen = tile
        for c in range(result):
            wider = tile | candidates[c]
            more = count(wider) - count(tile)
            if more + count(tile) > width:
                continue
            reached, _ = scan(blocks, work, after, size, wider, everything, spare)
            rate = (reached - total) / more
            rate /= 2.0 ** (max(count(live | wider), width) - wide)
            if rate > gain:
                gain = rate
                chosen = wider
        if chosen == tile:
            break
        tile = chosen
        total, result = scan(blocks, work, after, size, tile, everything, candidates)
        worth = _worth(total, count(live | tile), width)
        if worth >= top:
            top = worth
            best = tile
    return best


@device_function
def take(blocks, size, tile, everything, notes):  # type: ignore[no-untyped-def]
    """Take the blocks of a pass with this tile off the list, in order; returns their number."""
    after, taken = notes[t.AFTER], notes[t.TAKEN]
    moved = seen = left = result = 0
    before = -1
    k = after[0]
    while k < size and moved != everything and left < _WINDOW:
        moves = blocks[k, f.TARGET_MASK]
        mask = moves | blocks[k, f.DIAGONAL_MASK]
        if not (moves & seen) and not (mask & moved) and not (moves & ~tile):
            taken[result] = k
            result += 1
            after[before + 1] = after[k + 1]
        else:
            moved |= moves
            seen |= mask
            left += 1
            before = k
        k = after[k + 1]
    return result


@device_function
def filled(tile, live, width, num_wires):  # type: ignore[no-untyped-def]
    """Fill up the tile to `width` wires: the lowest live ones first."""
    for round_ in range(2):
        for wire in range(num_wires):
            bit = 1 << wire
            if count(tile) < width and (round_ or bit & live):
                tile |= bit
    return tile


_CANDIDATES = 16  # candidate extensions of a tile
_MOST_OPS = 12  # operations of one block, and half of those that restore lanes


@kernel("I64 INT INT I64 I64", group="wide")
def sorted_members(block_of, size, blocks, starts, members):  # type: ignore[no-untyped-def]
    """Fill members[starts[b] : starts[b + 1]] with the elements of each block, in order."""
    for b in range(blocks + 1):
        starts[b] = 0
    for e in range(size):
        starts[block_of[e] + 1] += 1
    for b in range(blocks):
        starts[b + 1] += starts[b]
    for e in range(size):
        b = block_of[e]
        members[starts[b]] = e
        starts[b] += 1
    for b in range(blocks, 0, -1):
        starts[b] = starts[b - 1]
    starts[0] = 0


@kernel("INTS3 INT INTS2 REALS INT INT INT I64 INTS2 I64 INTS3 I64 -> INT", group="wide")
def partition_into_sweeps(  # type: ignore[no-untyped-def]
    inputs, size, notes, work, num_wires, width, live, starts, places, lives, out, done
):
    """Write the table of all passes of `size` blocks; returns the number of passes, or -1: `out`
    has too few rows. `inputs`, `notes`, `out`, `done`: see `tables`. `live`: wires along which the
    state is not 0 at the beginning. `starts`, `places`, `lives`: see `SweepTable`."""
    blocks, after = inputs[t.BLOCKS], notes[t.AFTER]
    candidates, none = notes[t.TEMPORARY][:_CANDIDATES], notes[t.TEMPORARY][:0]
    everything, lanes = (1 << num_wires) - 1, (1 << t.LANE_WIRES) - 1
    for k in range(t.COUNTERS):
        done[k] = 0
    for k in range(size + 1):
        after[k] = k
    passes = 0
    starts[0] = 0
    while after[0] < size:
        tile = choose(blocks, work, after, size, lanes, width, live, num_wires, candidates, none)
        result = take(blocks, size, tile, everything, notes)
        full = max(done[t.OPS], max(done[t.RULES], done[t.PARTS]))
        if full + _MOST_OPS * (result + 2) > out.shape[1]:
            return -1
        tile = filled(tile, live, width, num_wires)
        for k in range(result):
            live |= blocks[notes[t.TAKEN, k], f.TARGET_MASK]
        t.enter(tile, num_wires, places, passes, notes)
        write_sweep(result, width, inputs, notes, out, done)
        restore(width, notes, out, done)
        pair(starts[passes], out, done)
        lives[passes] = live
        passes += 1
        starts[passes] = done[t.OPS]
    return passes


@kernel("INTS2 INT REAL INT REALS", group="wide")
def block_weights(blocks, size, done, seed, work):  # type: ignore[no-untyped-def]
    """Cost of each block, plus `done` for its completion; reduced by up to a third, unless `seed`
    is 0: other weights lead to other plans."""
    word = seed
    for b in range(size):
        kind = blocks[b, f.KIND]
        work[b] = done + f.cost(
            kind, blocks[b, f.TARGET_MASK], blocks[b, f.CONTROL_MASK], blocks[b, f.IS_REAL]
        )
        if seed:
            word = (word * 1103515245 + 12345) & 0x7FFFFFFF
            work[b] *= 1.0 - np.float64(word >> 16) / (3 << 15)


@device_function
def _price(ops, o):  # type: ignore[no-untyped-def]
    """Cost of one operation on a full state."""
    kind = ops[o, t.KIND]
    if kind == t.SWAP_LANE_ROW:
        return f.LANE_SWAP
    if kind == t.PERMUTE_ROWS:
        return f.PERMUTATION
    part_ = 0.5 ** (count(ops[o, t.ROW_MASK]) + count(ops[o, t.OUTER_MASK]))
    if kind == t.PHASE:
        return f.DIAGONALS * part_
    if kind > t.REAL:
        return 0.5 * f.ONE_WIRE * 2.0 ** (kind - t.REAL - 1) * part_
    return f.ONE_WIRE * 2.0 ** (kind - 1) * part_


@kernel("INTS2 I64 I64 INTS2 INT INT INT -> REAL", group="wide")
def plan_cost(ops, starts, lives, places, passes, width, num_wires):  # type: ignore[no-untyped-def]
    """Cost of a sweep table; SWEEP is loading and storing the full state once."""
    total = 0.0
    for p in range(passes):
        alive = lives[p]
        for k in range(width):
            alive |= 1 << places[p, k]
        work = f.SWEEP
        for o in range(starts[p], starts[p + 1]):
            work += _price(ops, o)
        total += work * 2.0 ** (count(alive) - num_wires)
    return total
