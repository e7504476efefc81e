"""Counts of a small static circuit in one compiled call: evolve, sample, pack.

For at most COUNTS_QUBITS qubits and 64 clbits; a circuit with mid-circuit operations is not run
here. No plan and no threads; all scratch memory is one buffer, allocated once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import COUNTS_QUBITS
from simulators.circuit.arrays import CircuitArrays
from simulators.circuit.gates import BARRIER, DELAY, DELAY_DT, FIRST_GATE, GATES, MEASURE, RESET
from simulators.compiler import simd
from simulators.compiler.kernel import (
    BYTES,
    INT,
    NAMES,
    device_function,
    inline_function,
    kernel,
    record,
)
from simulators.execution.philox import (
    EIGHT_WORDS,
    LOOK,
    block,
    eight_begun,
    eight_next,
    store_eight,
    uniform,
)
from simulators.statevector.small.gate_kernels import (
    MAX_PIECES,
    GateStep,
    apply,
    masks,
    matrices,
    reach,
    step_at,
)

# Inverse-CDF sampling with a guide table, and packing of outcomes, for small circuits.
#
# With t = u * total, the outcome is the first index whose cumulative probability is greater than t.
# A guide table over the highest bits of u gives the index to start from (Devroye 1986); most of its
# cells lie within one outcome, so most shots need one look-up and no comparison.

CELL_BITS = 12
CELLS = 1 << CELL_BITS
CELLS_ROOM = CELLS + simd.SHORTS  # whole vectors are written
MAP_BITS = 7  # bits of a basis state, or of the measured qubits, that one table of a map takes
MAP = 1 << MAP_BITS
MAPS = 4 * MAP + 2 * COUNTS_QUBITS
APART = 4  # separate tallies: consecutive shots with the same outcome do not wait for each other

_DIRTY = np.uint64(1 << 15)  # a cell in which an outcome ends
_ROOM = 1e-15  # relative tolerance of a cell's border
_FEW = 256
_FINE = np.uint64(4)
_SHIFT = np.uint64(64 - CELL_BITS)
_LOOK = np.uint64(LOOK)
_0, _1, _8 = np.uint64(0), np.uint64(1), np.uint64(8)
_7, _LOW = np.uint64(MAP_BITS), np.uint64(MAP - 1)
_MAP_1, _MAP_2, _MAP_3 = np.uint64(MAP), np.uint64(2 * MAP), np.uint64(3 * MAP)


@device_function
def _build_guide_table(edges, shift, cumulative, table):  # type: ignore[no-untyped-def]
    """Fill table[cell] with the group of 2**shift outcomes of its first draw, and perhaps _DIRTY.
    There are `edges` groups; the last one's end is the total. The loop has no conditional writes: a
    mispredicted branch costs more. Entries at `next_` or after it are not final yet."""
    scale = np.float64(CELLS) / cumulative[(edges << shift) - _1]
    next_ = _0
    for group in range(edges - _1):
        place = cumulative[((group + _1) << shift) - _1] * scale
        low = min(np.uint64(np.int64(place * (1.0 - _ROOM))), np.uint64(CELLS))
        high = min(np.uint64(np.int64(place * (1.0 + _ROOM))) + _1, np.uint64(CELLS))
        simd.fill_short(table, next_, group)
        at = next_ + np.uint64(simd.SHORTS)
        while at < low:
            simd.fill_short(table, at, group)
            at += np.uint64(simd.SHORTS)
        next_ = max(next_, low)
        table[next_] = group | _DIRTY
        table[max(next_, high - _1)] = group | _DIRTY  # high is low + 1, rarely low + 2
        next_ = max(next_, high)
    while next_ < CELLS:
        simd.fill_short(table, next_, edges - _1)
        next_ += np.uint64(simd.SHORTS)


@inline_function
def _sample_direct(word, last, total, cumulative, table):  # type: ignore[no-untyped-def]
    """Outcome of one shot, if each outcome has its cells."""
    entry = np.uint64(table[word >> _SHIFT])
    if entry & _DIRTY:
        t = uniform(word) * total
        entry ^= _DIRTY
        while cumulative[entry] <= t and entry < last:
            entry += _1
    return entry


@inline_function
def _sample_grouped(word, last, total, cumulative, table):  # type: ignore[no-untyped-def]
    """Outcome of one shot, if each group of 16 outcomes has its cells."""
    group = np.uint64(table[word >> _SHIFT])
    t = uniform(word) * total
    if group & _DIRTY:
        group ^= _DIRTY
        while cumulative[(group << _FINE) + np.uint64(15)] <= t and group < last >> _FINE:
            group += _1
    k = group << _FINE
    result = simd.at_most(simd.load(cumulative, k), t)
    result += simd.at_most(simd.load(cumulative, k + _8), t)
    return min(k + np.uint64(result), last)


@inline_function
def _tally_direct(words, k, last, total, cumulative, table, counts):  # type: ignore[no-untyped-def]
    """Count the outcomes of words[k : k + APART], each in a tally of its own."""
    end = last + _1
    begin = _0
    for j in range(k, k + APART):
        counts[_sample_direct(words[j], last, total, cumulative, table) + begin] += 1
        begin += end


@inline_function
def _tally_grouped(words, k, last, total, cumulative, table, counts):  # type: ignore[no-untyped-def]
    """Count the outcomes of words[k : k + APART]."""
    for j in range(k, k + APART):
        counts[_sample_grouped(words[j], last, total, cumulative, table)] += 1


@device_function
def sample(size, cumulative, table, shots, seed, binding, counts, words, control):  # type: ignore[no-untyped-def]
    """Fill counts[k] with the number of shots with outcome k < size (draw 0 of each); incomplete if
    the control flag is set meanwhile. `table`: uint16 [CELLS_ROOM]; `counts`: int64 [max(size,
    APART * 256)]; `words`: scratch, uint64 [EIGHT_WORDS].

    Eight blocks of random numbers are made side by side, while the outcomes of the eight before are
    looked up: the processor has other units for each. Where its registers are too small for that to
    be faster, they are made one after the other."""
    end = np.uint64(size)
    last = end - _1
    total = cumulative[last]
    full = np.uint64(shots >> 2)
    rest = shots & 3
    eights = full if simd.register_bytes() >= (64 if size <= _FEW else 32) else _0
    number = _0
    if size <= _FEW:
        _build_guide_table(end, _0, cumulative, table)
        for k in range(APART * size):
            counts[k] = 0
        while number + _8 <= eights:
            if not number & _LOOK and control[0]:
                return
            x0, x1, x2, x3, key0, key1 = eight_begun(number + _1, seed, binding)
            for k in range(0, EIGHT_WORDS, APART):  # in each of the eight rounds left
                x0, x1, x2, x3, key0, key1 = eight_next(x0, x1, x2, x3, key0, key1)
                if number:
                    _tally_direct(words, k, last, total, cumulative, table, counts)
            store_eight(words, x0, x1, x2, x3)
            number += _8
        if number:
            for k in range(0, EIGHT_WORDS, APART):
                _tally_direct(words, k, last, total, cumulative, table, counts)
        while number < full:
            number += _1
            a, b, c, d = block(number, _0, seed, binding)
            counts[_sample_direct(a, last, total, cumulative, table)] += 1
            counts[_sample_direct(b, last, total, cumulative, table) + end] += 1
            counts[_sample_direct(c, last, total, cumulative, table) + end + end] += 1
            counts[_sample_direct(d, last, total, cumulative, table) + end + end + end] += 1
        if rest:
            a, b, c, d = block(number + _1, _0, seed, binding)
            for _ in range(rest):
                counts[_sample_direct(a, last, total, cumulative, table)] += 1
                a, b = b, c
        for k in range(size):
            counts[k] += counts[k + size] + counts[k + 2 * size] + counts[k + 3 * size]
        return
    _build_guide_table(end >> _FINE, _FINE, cumulative, table)
    for k in range(size):
        counts[k] = 0
    while number + _8 <= eights:
        if not number & _LOOK and control[0]:
            return
        x0, x1, x2, x3, key0, key1 = eight_begun(number + _1, seed, binding)
        for k in range(0, EIGHT_WORDS, APART):
            x0, x1, x2, x3, key0, key1 = eight_next(x0, x1, x2, x3, key0, key1)
            if number:
                _tally_grouped(words, k, last, total, cumulative, table, counts)
        store_eight(words, x0, x1, x2, x3)
        number += _8
    if number:
        for k in range(0, EIGHT_WORDS, APART):
            _tally_grouped(words, k, last, total, cumulative, table, counts)
    while number < full:
        number += _1
        a, b, c, d = block(number, _0, seed, binding)
        counts[_sample_grouped(a, last, total, cumulative, table)] += 1
        counts[_sample_grouped(b, last, total, cumulative, table)] += 1
        counts[_sample_grouped(c, last, total, cumulative, table)] += 1
        counts[_sample_grouped(d, last, total, cumulative, table)] += 1
    if rest:
        a, b, c, d = block(number + _1, _0, seed, binding)
        for _ in range(rest):
            counts[_sample_grouped(a, last, total, cumulative, table)] += 1
            a, b = b, c


@device_function
def record_shots(size, cumulative, table, shots, seed, binding, maps, width, into, control):  # type: ignore[no-untyped-def]
    """Write the clbits of each shot, in order: `width` bytes each of `into`, and up to 7 beyond the
    last. `table`: from `sample`; `maps`: see `readout_map`. The shots are those of `sample`."""
    last = np.uint64(size) - _1
    total = cumulative[last]
    a = b = c = d = _0
    for shot in range(shots):
        if not shot & 3:
            if not np.uint64(shot) & _LOOK and control[0]:
                return
            a, b, c, d = block(np.uint64(shot >> 2) + _1, _0, seed, binding)
        if size <= _FEW:
            result = _sample_direct(a, last, total, cumulative, table)
        else:
            result = _sample_grouped(a, last, total, cumulative, table)
        a, b, c = b, c, d
        bits = maps[result & _LOW] | maps[_MAP_1 + (result >> _7)]
        word = maps[_MAP_2 + (bits & _LOW)] | maps[_MAP_3 + (bits >> _7)]
        simd.put_word(into, shot * width, word)


@device_function
def readout_map(n, source, clbits, maps):  # type: ignore[no-untyped-def]
    """Make the map from measured qubits to clbits; returns (number of measured qubits, whether they
    are 0, 1 .. n - 1).

    `source`: int64, clbit -> qubit or -1, `clbits` of them. Measured qubits are ordered by the
    highest clbit that each writes, so that outcomes ascend. `maps`: uint64 [MAPS]; four tables for
    MAP_BITS bits each: of a basis state to the measured qubits' bits, and of those to the clbits.
    """
    at_qubit = maps[4 * MAP :]  # by qubit: its index among the measured, plus 1; then its clbits
    for q in range(2 * n):
        at_qubit[q] = _0
    bits = 0
    for c in range(clbits - 1, -1, -1):
        if source[c] >= 0:
            if at_qubit[source[c]] == _0:
                bits += 1
                at_qubit[source[c]] = np.uint64(bits)
            at_qubit[n + source[c]] |= _1 << np.uint64(c)
    for q in range(n):
        maps[MAP * (q // MAP_BITS) + (1 << (q % MAP_BITS))] = _0
    plain = bits == n
    for q in range(n):
        if at_qubit[q]:
            place = np.int64(bits - np.int64(at_qubit[q]))
            plain = plain and place == q
            maps[MAP * (q // MAP_BITS) + (1 << (q % MAP_BITS))] = _1 << np.uint64(place)
            at = MAP * (2 + place // MAP_BITS) + (1 << (place % MAP_BITS))
            maps[at] = at_qubit[n + q]
    zero = np.int64(0)  # int64 variable, not a literal: numba would specialise the callee again
    _complete(maps, zero, n)
    _complete(maps, zero + 2 * MAP, np.int64(bits))
    return bits, plain


@device_function
def _complete(maps, first, bits):  # type: ignore[no-untyped-def]
    """Complete two tables from their entries of one bit; they have `bits` bits in all."""
    for table in range(2):
        at = first + MAP * table
        maps[at] = _0
        for k in range(1, 1 << min(MAP_BITS, max(0, bits - MAP_BITS * table))):
            maps[at + k] = maps[at + (k & (k - 1))] | maps[at + (k & -k)]


@device_function
def marginalize(size, bits, maps, weights, into):  # type: ignore[no-untyped-def]
    """Fill into[j] with the sum of the weights of all basis states whose measured bits are j."""
    for j in range(1 << bits):
        into[j] = 0
    for i in range(size):
        into[maps[i & (MAP - 1)] | maps[MAP + (i >> MAP_BITS)]] += weights[i]


@device_function
def gather(bits, maps, counts, width, outcomes, values):  # type: ignore[no-untyped-def]
    """Pack the nonzero counts, ascending; returns their number. Writes up to 8 bytes beyond the
    last of `outcomes`, and one number beyond the last of `values`."""
    result = 0
    for j in range(1 << bits):
        word = maps[2 * MAP + (j & (MAP - 1))] | maps[3 * MAP + (j >> MAP_BITS)]
        simd.put_word(outcomes, result * width, word)
        values[result] = counts[j]
        result += counts[j] != 0
    return result


MAX_CLBITS = 64
ELSEWHERE, STOPPED, NOTHING = -1, -2, -3  # instead of a number of outcomes

SIZE = 1 << COUNTS_QUBITS
_ID = GATES["id"].code
CACHED_QUBITS = 11  # of a state that fits into the first-level cache of most processors: 32 KiB
MOST_STEPS = max(64, MAX_PIECES)  # that are prepared before they are applied
REACHED = 4  # column of a step, after those of `gate_kernels`: see `reach`
_LANE_BITS = np.uint64(simd.LANES - 1)


# Byte offsets of the parts of the buffer.
_GAP = 320  # bytes between states, against cache conflicts
RE = 0
IM = RE + 8 * SIZE + _GAP
_COUNTS = IM + 8 * SIZE + _GAP
_SPREAD = _COUNTS + 8 * SIZE + _GAP
_STEPS = _SPREAD + 8 * SIZE
_MATRICES = _STEPS + 8 * 5 * MOST_STEPS
_SOURCE = _MATRICES + 8 * 8 * MOST_STEPS
_MAPS = _SOURCE + 8 * MAX_CLBITS
_TABLE = _MAPS + 8 * MAPS
OUTCOMES = _TABLE + 2 * CELLS_ROOM
VALUES = OUTCOMES + 8 * (SIZE + 2)
_BYTES = VALUES + 4 * (SIZE + 1)


@record
class CircuitBytes(NamedTuple):
    """Circuit as it is stored: the table of its operations, and the data of a `Circuit`."""

    rows: NAMES
    ops: BYTES
    qubits: BYTES
    clbits: BYTES
    params: BYTES  # with all slots filled
    num_qubits: INT
    num_clbits: INT


@device_function
def scan(circuit, source):  # type: ignore[no-untyped-def]
    """Return masks of measured qubits and of qubits reset at the end, and whether this path can run
    the circuit. Fills source[clbit] = qubit, or -1. A reset of an unused qubit has no effect."""
    rows, ops, qubits, clbits = circuit.rows, circuit.ops, circuit.qubits, circuit.clbits
    for k in range(source.size):
        source[k] = -1
    touched = measured = cleared = np.uint64(0)
    q = c = 0
    for k in range(ops.size):
        op = ops[k]
        code, count = rows[op, 0], rows[op, 1]
        if code >= FIRST_GATE:
            mine = np.uint64(0)
            for j in range(q, q + count):
                mine |= _1 << np.uint64(qubits[j])
            if code != _ID:
                if mine & (measured | cleared):
                    return measured, cleared, False
                touched |= mine
        elif code == MEASURE:
            mine = _1 << np.uint64(qubits[q])
            if mine & cleared:
                return measured, cleared, False
            measured |= mine
            source[clbits[c]] = qubits[q]
        elif code == RESET:
            cleared |= (_1 << np.uint64(qubits[q])) & touched
        elif code != BARRIER and code != DELAY and code != DELAY_DT:
            return measured, cleared, False
        q += count
        c += rows[op, 2]
    return measured, cleared, True


@inline_function
def _mask_of(qubits, at, count):  # type: ignore[no-untyped-def]
    """Mask of an operation's qubits."""
    result = _0
    for j in range(at, at + count):
        result |= _1 << np.uint64(qubits[j])
    return result


@device_function
def _evolve(circuit, control, re, im, steps, floats):  # type: ignore[no-untyped-def]
    """Apply all gates to |0...0>; False if it was stopped.

    Operations that leave a qubit alone act on each half of a state by itself. If a state is larger
    than the cache, as many as possible are applied to one half, then to the other."""
    rows, ops, qubits, n = circuit.rows, circuit.ops, circuit.qubits, circuit.num_qubits
    size = 1 << n
    for i in range(max(size, simd.LANES)):
        re[i] = 0.0
        im[i] = 0.0
    re[0] = 1.0
    start = np.int64(0)  # int64 variable, not a literal: numba would specialise the callee again
    q = p = k = start
    reached = start + 1
    halved = (np.uint64(size) - _1 & ~_LANE_BITS) if n > CACHED_QUBITS else _0
    while k < ops.size:
        if control[0]:
            return False
        number, touched = start, _0
        while k < ops.size and number + MAX_PIECES <= MOST_STEPS:
            op = ops[k]
            code, count = rows[op, 0], rows[op, 1]
            if code >= FIRST_GATE:
                mine = _mask_of(qubits, q, count)
                if halved and number and not halved & ~(touched | mine):
                    break
                touched |= mine
                matrices(code, circuit.params, p, floats, number)
                reached = max(reached, reach(qubits, q, count))
                first = number
                number = masks(code, qubits, q, count, steps, number)
                for s in range(first, number):
                    steps[s, REACHED] = np.uint64(reached)
            q += count
            p += rows[op, 3]
            k += 1
        bit = halved & ~touched
        while bit & (bit - _1):  # the highest: the halves lie in the longest pieces
            bit &= bit - _1
        for half in range(2 if bit else 1):
            chosen = bit if half else _0
            for s in range(number):
                if chosen < steps[s, REACHED]:
                    kind, mask, zero_bits, one_bits = step_at(steps, s)
                    step = GateStep(kind, mask | bit, zero_bits | chosen, one_bits | chosen)
                    apply(re, im, steps[s, REACHED], step, floats, s)
    return True


@kernel("U8 CircuitBytes I64 INT INT WORD WORD INT -> INT", group="small")
def count(buffer, stored, control, width, shots, seed, binding, evolved):  # type: ignore[no-untyped-def]
    """Count shots.

    Fills the buffer's OUTCOMES (rows of `width` bytes, ascending) and VALUES (uint32); returns
    their number, or a negative code. `evolved`: the state is already in the buffer, from RE and IM
    on. ELSEWHERE: the circuit branches, or needs another path; STOPPED: the control flag; NOTHING:
    no measurement.
    """
    n, num_clbits = stored.num_qubits, stored.num_clbits
    size = 1 << n
    circuit = CircuitArrays(
        stored.rows,
        simd.read_short(stored.ops, 0, len(stored.ops) // 2),
        simd.read_short(stored.qubits, 0, len(stored.qubits) // 2),
        simd.read_short(stored.clbits, 0, len(stored.clbits) // 2),
        simd.read_reals(stored.params, 0, len(stored.params) // 8),
        n,
        num_clbits,
    )
    source = simd.as_numbers(buffer, _SOURCE, num_clbits)
    measured, _, fits = scan(circuit, source)
    if not fits:
        return ELSEWHERE
    if not measured:
        return NOTHING
    re, im = simd.as_reals(buffer, RE, SIZE), simd.as_reals(buffer, IM, SIZE)
    steps = simd.as_words(buffer, _STEPS, 5 * MOST_STEPS).reshape(MOST_STEPS, 5)
    floats = simd.as_reals(buffer, _MATRICES, 8 * MOST_STEPS).reshape(MOST_STEPS, 8)
    if not evolved and not _evolve(circuit, control, re, im, steps, floats):
        return STOPPED
    total = 0.0
    for i in range(size):
        total += re[i] * re[i] + im[i] * im[i]
        re[i] = total
    counts, maps = simd.as_numbers(buffer, _COUNTS, SIZE), simd.as_words(buffer, _MAPS, MAPS)
    short = simd.as_short(buffer, _TABLE, CELLS_ROOM)
    words = simd.as_words(buffer, _SPREAD, EIGHT_WORDS)  # the table below is filled later
    sample(size, re, short, shots, seed, binding, counts, words, control)
    if control[0]:
        return STOPPED
    bits, plain = readout_map(n, source, num_clbits, maps)
    outcomes, values = buffer[OUTCOMES:], simd.as_tallies(buffer, VALUES, SIZE + 1)
    if plain:
        return gather(bits, maps, counts, width, outcomes, values)
    table = simd.as_numbers(buffer, _SPREAD, SIZE)
    marginalize(size, bits, maps, counts, table)
    return gather(bits, maps, table, width, outcomes, values)


def scratch() -> NDArray[np.uint8]:
    """Allocate the buffer for `count`; one thread at a time may use it."""
    return simd.aligned(_BYTES)
