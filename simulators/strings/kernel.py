"""Compiled propagation of Pauli strings, backwards through a program.

Strings are columns of `keys`, words of x and then of z bits. The hash of a string is the exclusive
or of a random word for each of its bits, so it is linear: that of a partner costs one more. A table
with open addressing has entries of 32 bits of the hash and the number of the string, plus 1. Equal
hashes count as equal strings: with 10^7 strings and 10^10 lookups the probability of one error is
below .01, and it changes one coefficient.

A mix changes strings at their places: for the first string of a component that it meets, it looks
up the others, changes all of them and appends those that are missing. Strings that only receive
are multiplied when their turn comes, so what they receive earlier is divided by their factor. Each
new coefficient below eps is cut: dropped, or, with a seed, kept as +-eps with the probability that
keeps its mean. Strings whose coefficients fell below eps go when they are an eighth of all, or with
the next relabelling.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import lowest_bit, prefetch
from simulators.execution.philox import block, uniform
from simulators.strings import program
from simulators.strings.local_maps import ACTIVE, STAYS

_WORDS, _NUM_QUBITS = program.WORDS, program.NUM_QUBITS
_STEPS, _NUM_STEPS, _STEP = program.STEPS, program.NUM_STEPS, program.STEP
_GATES, _GATE, _OWNERS = program.GATES_AT, program.GATE, program.OWNERS
_MIXES, _LABELS, _LETTER = program.MIXES, program.LABELS, program.LETTER
_OTHERS, _PASSIVE = program.OTHERS, program.PASSIVE_AT
_LAYERS = program.LAYERS
_STAYS, _ACTIVE = STAYS, ACTIVE

# Integers of a run's state: the next step, the next string in it, the strings before it; all
# strings, those below eps, the largest number; the limit of their number, whether it raised eps;
# 1 for unbiased cuts; draws so far; number of mixes, for the first factor of a relabelling; strings
# of I and Z at the end; whether the table must be filled; strings that all steps passed over.
(
    STEP, AT, BEFORE, COUNT, SMALL, PEAK, MOST, RAISED, UNBIASED, DRAWN, NUM_MIXES, DIAGONAL, STALE,
    WORK, STATE,
) = range(15)  # fmt: skip
EPS, LOST, VALUE, OLD = range(4)  # eps, sum of all cuts, value; then scratch
STATE_SIZE, MEASURES_SIZE = STATE + 16, OLD + 16


def words_size(num_words: int) -> int:
    """Size of the array of words."""
    return SCOPE + 16 + 5 * num_words


# Words: key of the random numbers, draw, four numbers; then the union of all supports, the hashes
# of 16 products of letters, and a string before and after a layer.
SEED, BINDING, DRAW, NUMBERS = range(4)
SCOPE = 7

DONE, FULL, STOPPED = range(3)
_RAISE = 1.4  # factor of eps where there are too many strings
_LOOK_LAYERS = 63  # the same of strings that pass through many layers
_LOOK = 4_095  # strings between two reads of the control flag
_PASS = 8  # time of a layer of relabellings, relative to a mix
_AHEAD = 64  # strings whose lookups are loaded beforehand: a power of two
_CACHED = 2**14  # entries of a table that fits into a cache
_FEW = 64  # with fewer strings, none are removed between relabellings
_1, _32 = np.uint64(1), np.uint64(32)
_LOW = np.uint64(2**32 - 1)


@device_function
def _find(table, cells, hashed):  # type: ignore[no-untyped-def]
    """Number of the string with this hash, or -1."""
    mask = np.uint64(table.size - 1)
    slot, tag = hashed & mask, hashed >> _32
    while True:
        entry = table[slot]
        if entry == 0:
            return np.int64(-1)
        if entry >> _32 == tag:
            number = np.int64(entry & _LOW) - 1
            if cells[number, 0] == hashed:
                return number
        slot = (slot + _1) & mask


@device_function
def _insert(table, hashed, number):  # type: ignore[no-untyped-def]
    mask = np.uint64(table.size - 1)
    slot = hashed & mask
    while table[slot] != 0:
        slot = (slot + _1) & mask
    table[slot] = (hashed >> _32) << _32 | np.uint64(number + 1)


@device_function
def _fill(table, cells, count):  # type: ignore[no-untyped-def]
    table[:] = 0
    for number in range(count):
        _insert(table, cells[number, 0], number)


@device_function
def _cut(value, state, measures, words):  # type: ignore[no-untyped-def]
    """What stays of a coefficient below eps."""
    if value == 0.0:
        return 0.0
    measures[LOST] += abs(value)
    if state[UNBIASED] == 0:
        return 0.0
    number = state[DRAWN]
    state[DRAWN] += 1
    if number & 3 == 0:
        a, b, c, d = block(np.uint64(number // 4) + _1, words[DRAW], words[SEED], words[BINDING])
        words[NUMBERS] = a
        words[NUMBERS + 1] = b
        words[NUMBERS + 2] = c
        words[NUMBERS + 3] = d
    if uniform(words[NUMBERS + (number & 3)]) * measures[EPS] < abs(value):
        return measures[EPS] if value > 0.0 else -measures[EPS]
    return 0.0


@device_function
def _compact(num_words, keys, cells, values, state, measures, words):  # type: ignore[no-untyped-def]
    """Cut the strings below eps. The table must be filled afterwards."""
    out = 0
    for i in range(state[COUNT]):
        value = values[i, 1]
        if abs(value) < measures[EPS] or value == 0.0:
            value = _cut(value, state, measures, words)
            if value == 0.0:
                continue
        if out != i:
            for w in range(2 * num_words):
                keys[w, out] = keys[w, i]
            cells[out, 0] = cells[i, 0]
        values[out, 1] = value
        out += 1
    state[COUNT] = out
    state[SMALL] = 0


@device_function
def _change(values, i, value, state, eps):  # type: ignore[no-untyped-def]
    state[SMALL] += np.int64(abs(value) < eps) - np.int64(abs(values[i, 1]) < eps)
    values[i, 1] = value


@device_function
def _append(keys, cells, values, table, state, num_words, i, delta, a, b, hashed, value):  # type: ignore[no-untyped-def]
    """Append the string i times the letters `delta` on qubits a and b."""
    number = state[COUNT]
    for w in range(2 * num_words):
        keys[w, number] = keys[w, i]
    if delta & 1:
        keys[a >> 6, number] ^= _1 << np.uint64(a & 63)
    if delta & 2:
        keys[num_words + (a >> 6), number] ^= _1 << np.uint64(a & 63)
    if delta & 4:
        keys[b >> 6, number] ^= _1 << np.uint64(b & 63)
    if delta & 8:
        keys[num_words + (b >> 6), number] ^= _1 << np.uint64(b & 63)
    cells[number, 0] = hashed
    values[number, 1] = value
    _insert(table, hashed, number)
    state[COUNT] = number + 1


@device_function
def _letters_hash(random, num_words, delta, a, b):  # type: ignore[no-untyped-def]
    """Hash of the letters `delta` on qubits a and b."""
    result = np.uint64(0)
    if delta & 1:
        result ^= random[a]
    if delta & 2:
        result ^= random[64 * num_words + a]
    if delta & 4:
        result ^= random[b]
    if delta & 8:
        result ^= random[64 * num_words + b]
    return result


@device_function
def _in_scope(words, qubit):  # type: ignore[no-untyped-def]
    return (words[SCOPE + (qubit >> 6)] >> np.uint64(qubit & 63)) & _1 != 0


@device_function
def _extend_scope(words, qubit):  # type: ignore[no-untyped-def]
    words[SCOPE + (qubit >> 6)] |= _1 << np.uint64(qubit & 63)


@device_function
def _fetch(  # type: ignore[no-untyped-def]
    ints, keys, cells, table, words, step, first, last, entries
):
    """Begin to load what the lookups of some strings of a mix will read: entries of the table, or,
    if these are in the cache, the strings in them."""
    num_words = ints[_WORDS]
    a, b, mix = ints[step + 1], ints[step + 2], ints[step + 3]
    x_of_a, z_of_a, shift_a = a >> 6, num_words + (a >> 6), np.uint64(a & 63)
    other = max(a, b)
    x_of_b, z_of_b, shift_b = other >> 6, num_words + (other >> 6), np.uint64(other & 63)
    letters, hashes = ints[_MIXES] + 16 * _LETTER * mix, SCOPE + num_words
    mask = np.uint64(table.size - 1)
    for i in range(first, last):
        letter = np.int64((keys[x_of_a, i] >> shift_a) & _1)
        letter |= np.int64((keys[z_of_a, i] >> shift_a) & _1) << 1
        if b >= 0:
            letter |= np.int64((keys[x_of_b, i] >> shift_b) & _1) << 2
            letter |= np.int64((keys[z_of_b, i] >> shift_b) & _1) << 3
        row = letters + _LETTER * letter
        if ints[row] != _ACTIVE:
            continue
        active = ints[row + 1]
        for k in range(active + ints[row + 2]):
            target = ints[row + (_OTHERS + k if k < active else _PASSIVE + k - active)]
            hashed = cells[i, 0] ^ words[hashes + (letter ^ target)]
            slot = np.int64(hashed & mask)
            if entries:
                prefetch(table, slot)
                continue
            entry = table[slot]
            if entry >> _32 == hashed >> _32 and entry != 0:
                prefetch(cells, 2 * (np.int64(entry & _LOW) - 1))


@device_function
def _mix(  # type: ignore[no-untyped-def]
    ints, reals, random, keys, cells, values, table, state, measures, words, control, step
):
    """Apply a mix to the strings from state[AT] on; DONE, FULL or STOPPED."""
    num_words = ints[_WORDS]
    a, b, mix = ints[step + 1], ints[step + 2], ints[step + 3]
    x_of_a, z_of_a, shift_a = a >> 6, num_words + (a >> 6), np.uint64(a & 63)
    is_pair = b >= 0
    last = max(a, b)
    x_of_b, z_of_b, shift_b = last >> 6, num_words + (last >> 6), np.uint64(last & 63)
    letters, matrix = ints[_MIXES] + 16 * _LETTER * mix, 256 * mix
    hashes = SCOPE + num_words
    for delta in range(16 if is_pair else 4):
        words[hashes + delta] = _letters_hash(random, num_words, delta, a, b)
    eps, before = measures[EPS], state[BEFORE]
    fetches = table.size > _CACHED
    for i in range(state[AT], before):
        if i & _LOOK == 0 and control[0]:
            state[AT] = i
            return STOPPED
        if fetches and (i & _AHEAD - 1 == 0 or i == state[AT]):
            begin, end = i & -_AHEAD, min(before, (i & -_AHEAD) + _AHEAD)
            if i == state[AT]:
                _fetch(ints, keys, cells, table, words, step, i, end, True)
            _fetch(ints, keys, cells, table, words, step, end, min(before, end + _AHEAD), True)
            _fetch(ints, keys, cells, table, words, step, max(i, begin), end, False)
        letter = np.int64((keys[x_of_a, i] >> shift_a) & _1)
        letter |= np.int64((keys[z_of_a, i] >> shift_a) & _1) << 1
        if is_pair:
            letter |= np.int64((keys[x_of_b, i] >> shift_b) & _1) << 2
            letter |= np.int64((keys[z_of_b, i] >> shift_b) & _1) << 3
        row = letters + _LETTER * letter
        kind = ints[row]
        if kind == _STAYS:
            continue
        if kind != _ACTIVE:
            _change(values, i, values[i, 1] * reals[matrix + 17 * letter], state, eps)
            continue
        hashed = cells[i, 0]
        active, passive = ints[row + 1], ints[row + 2]
        is_first = True
        for k in range(active):
            delta = letter ^ ints[row + _OTHERS + k]
            number = _find(table, cells, hashed ^ words[hashes + delta])
            if number >= 0 and number < i:
                is_first = False
                break
            state[STATE + k] = number
            measures[OLD + k] = values[number, 1] if number >= 0 else 0.0
        if not is_first:
            continue
        if state[COUNT] + active + passive > cells.shape[0]:
            state[AT] = i
            return FULL
        own = values[i, 1]
        for k in range(-1, active + passive):
            target = letter
            if k >= 0:
                target = ints[row + (_OTHERS + k if k < active else _PASSIVE + k - active)]
            value = own * reals[matrix + 16 * letter + target]
            for j in range(active):
                source = ints[row + _OTHERS + j]
                value += measures[OLD + j] * reals[matrix + 16 * source + target]
            if k < 0:
                _change(values, i, value, state, eps)
                continue
            hashed_target = hashed ^ words[hashes + (letter ^ target)]
            if k < active:
                number = state[STATE + k]
            elif value == 0.0:
                continue
            else:
                number = _find(table, cells, hashed_target)
                if number > i and number < before:
                    value /= reals[matrix + 17 * target]
                if number >= 0:
                    value += values[number, 1]
            if number >= 0:
                _change(values, number, value, state, eps)
                continue
            if abs(value) < eps:
                value = _cut(value, state, measures, words)
                if value == 0.0:
                    continue
            _append(
                keys, cells, values, table, state, num_words, i, letter ^ target, a, b,
                hashed_target, value,
            )  # fmt: skip
    return DONE


@device_function
def _relabel(  # type: ignore[no-untyped-def]
    ints, reals, random, keys, cells, values, state, measures, words, control, step
):
    """Apply layers of relabellings to all strings, and cut; False if the run was stopped. The table
    must be filled afterwards, if letters moved or strings went."""
    num_words, width = ints[_WORDS], ints[_NUM_QUBITS]
    factors = 256 * state[NUM_MIXES]
    old = SCOPE + num_words + 16
    new = old + 2 * num_words
    for w in range(num_words):
        words[SCOPE + w] = 0
    out = 0
    for i in range(state[COUNT]):
        if i & _LOOK_LAYERS == 0 and control[0]:
            return False
        value, hashed = values[i, 1], cells[i, 0]
        for w in range(2 * num_words):
            words[new + w] = keys[w, i]
        for layer in range(ints[step + 1], ints[step + 2]):
            owners = ints[_OWNERS] + width * layer
            for w in range(2 * num_words):
                words[old + w] = words[new + w]
            for w in range(num_words):
                support = words[old + w] | words[old + num_words + w]
                while support != 0:
                    qubit = 64 * w + lowest_bit(support)
                    support &= support - _1
                    gate = ints[owners + qubit]
                    if gate < 0:
                        continue
                    gate = ints[_GATES] + _GATE * gate
                    a, b, label = ints[gate], ints[gate + 1], ints[gate + 2]
                    x, z = old + (a >> 6), old + num_words + (a >> 6)
                    shift = np.uint64(a & 63)
                    letter = np.int64((words[x] >> shift) & _1)
                    letter |= np.int64((words[z] >> shift) & _1) << 1
                    if b >= 0:
                        if qubit == b and letter != 0:
                            continue  # done with a, which is before b
                        x, z = old + (b >> 6), old + num_words + (b >> 6)
                        shift = np.uint64(b & 63)
                        letter |= np.int64((words[x] >> shift) & _1) << 2
                        letter |= np.int64((words[z] >> shift) & _1) << 3
                    value *= reals[factors + 16 * label + letter]
                    delta = letter ^ ints[ints[_LABELS] + 16 * label + letter]
                    if delta == 0:
                        continue
                    hashed ^= _letters_hash(random, num_words, delta, a, b)
                    words[new + (a >> 6)] ^= np.uint64(delta & 1) << np.uint64(a & 63)
                    words[new + num_words + (a >> 6)] ^= np.uint64(delta >> 1 & 1) << np.uint64(
                        a & 63
                    )
                    if b >= 0:
                        words[new + (b >> 6)] ^= np.uint64(delta >> 2 & 1) << np.uint64(b & 63)
                        words[new + num_words + (b >> 6)] ^= np.uint64(delta >> 3) << np.uint64(
                            b & 63
                        )
        if abs(value) < measures[EPS] or value == 0.0:
            value = _cut(value, state, measures, words)
            if value == 0.0:
                continue
        for w in range(2 * num_words):
            keys[w, out] = words[new + w]
        for w in range(num_words):
            words[SCOPE + w] |= words[new + w] | words[new + num_words + w]
        cells[out, 0] = hashed
        values[out, 1] = value
        out += 1
    if ints[step + 3] or out < state[COUNT]:
        state[STALE] = 1
    state[COUNT] = out
    state[SMALL] = 0
    return True


@kernel("I64 REALS U64 WORDS2 WORDS2 REALS2 U64 I64 REALS U64 I64 -> INT", group="pauli")
def propagate(  # type: ignore[no-untyped-def]
    ints, reals, random, keys, cells, values, table, state, measures, words, control
):
    """Continue a run at state[STEP] and state[AT]: DONE with its value, FULL where the arrays must
    grow, or STOPPED. `cells` [strings, 2]: hash and coefficient, of which `values` is a view.
    `random`: words of all x and then of all z bits."""
    num_words = ints[_WORDS]
    if state[STALE]:
        _fill(table, cells, state[COUNT])
        state[STALE] = 0
    while state[STEP] < ints[_NUM_STEPS]:
        if control[0]:
            return STOPPED
        step = ints[_STEPS] + _STEP * state[STEP]
        if ints[step] == _LAYERS:
            state[WORK] += _PASS * (ints[step + 2] - ints[step + 1]) * state[COUNT]
            if not _relabel(
                ints, reals, random, keys, cells, values, state, measures, words, control, step
            ):
                return STOPPED
        else:
            a, b = ints[step + 1], ints[step + 2]
            if _in_scope(words, a) or (b >= 0 and _in_scope(words, b)):
                if state[BEFORE] < 0:
                    state[BEFORE], state[AT] = state[COUNT], 0
                    state[WORK] += state[COUNT]
                result = _mix(
                    ints, reals, random, keys, cells, values, table, state, measures, words,
                    control, step,
                )  # fmt: skip
                if result != DONE:
                    return result
                state[BEFORE] = -1
                if b >= 0:
                    _extend_scope(words, a)
                    _extend_scope(words, b)
            if state[COUNT] > _FEW and 8 * state[SMALL] > state[COUNT]:
                _compact(num_words, keys, cells, values, state, measures, words)
                state[STALE] = 1
        while state[COUNT] > state[MOST]:
            measures[EPS] *= _RAISE
            state[RAISED] = 1
            _compact(num_words, keys, cells, values, state, measures, words)
            state[STALE] = 1
        if state[STALE]:
            _fill(table, cells, state[COUNT])
            state[STALE] = 0
        state[PEAK] = max(state[PEAK], state[COUNT])
        state[STEP] += 1
    total, diagonal = 0.0, 0
    for i in range(state[COUNT]):
        is_diagonal = True
        for w in range(num_words):
            is_diagonal &= keys[w, i] == 0
        if is_diagonal:
            total += values[i, 1]
            diagonal += 1
    measures[VALUE] = total
    state[DIAGONAL] = diagonal
    return DONE
