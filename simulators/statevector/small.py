"""Counts of a small circuit in one compiled call: evolve, sample, gather. No plan, no threads.

Invariant: for at most SMALL_QUBITS qubits and 64 clbits, of circuits that need no branching; a
circuit that does is noticed on the way and handed back. Sampling is the inverse of the cumulative
distribution in its one form: with t = u * total, the outcome is the first index whose cumulative
probability is greater than t. Up to 64 outcomes the draws below each edge are counted (vector code,
no branches); above that a guide table says where to begin to look. Both are that same form.
"""

from __future__ import annotations

import numpy as np

from simulators.catalog import SMALL_QUBITS
from simulators.circuit.gates import FIRST_GATE, GATES, IF, MEASURE, RESET
from simulators.jit import (
    F64,
    I64,
    INT,
    NAMES,
    REALS,
    REALS2,
    U8,
    U16,
    U32,
    WORD,
    WORDS2,
    kernel,
    part,
)
from simulators.philox import fill
from simulators.statevector.amplitudes import apply
from simulators.statevector.steps import MAX_PIECES, place

BRANCHING, STOPPED, NOTHING = -1, -2, -3  # instead of a number of outcomes

_SIZE = 1 << SMALL_QUBITS
_DRAWS = 1024  # shots drawn at a time: stays in the first cache
_CELLS = 4  # guide cells per outcome, a power of two
_FEW = 64
_ID = GATES["id"].code
_1 = np.uint64(1)


@part
def _evolve(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, params, size, control, re, im, ints, floats, source
):
    """Run all operations: 0, BRANCHING, STOPPED or NOTHING. source[clbit] = qubit, or -1."""
    for k in range(size):
        re[k] = 0.0
        im[k] = 0.0
    re[0] = 1.0
    for k in range(source.size):
        source[k] = -1
    touched = measured = cleared = np.uint64(0)  # qubits: acted on; measured; reset after that
    start = np.int64(0)  # typed: a literal would compile what it is passed to a second time
    q = c = p = start
    for k in range(ops.size):
        if control[0]:
            return STOPPED
        op = ops[k]
        code, count = rows[op, 0], rows[op, 1]
        if code >= FIRST_GATE:
            if code != _ID:
                mine = np.uint64(0)
                for j in range(q, q + count):
                    mine |= _1 << np.uint64(qubits[j])
                if mine & (measured | cleared):
                    return BRANCHING
                touched |= mine
                found = place(code, qubits, q, count, params, p, ints, floats, start)
                for s in range(found):
                    kind, mask, zero, one = ints[s, 0], ints[s, 1], ints[s, 2], ints[s, 3]
                    apply(re, im, size, kind, mask, zero, one, floats, s)
        elif code == MEASURE:
            mine = _1 << np.uint64(qubits[q])
            if mine & cleared:
                return BRANCHING
            measured |= mine
            source[clbits[c]] = qubits[q]
        elif code == RESET:
            mine = _1 << np.uint64(qubits[q])
            if mine & touched:
                cleared |= mine
        elif code >= IF:
            return BRANCHING
        q += count
        c += rows[op, 2]
        p += rows[op, 3]
    return 0 if measured else NOTHING


@part
def _sample(size, cumulative, guide, draws, shots, seed, binding, counts):  # type: ignore[no-untyped-def]
    total = cumulative[size - 1]
    cells = _CELLS * size
    few = size <= _FEW
    if not few:
        j = 0
        for g in range(cells):
            edge = np.float64(g) / np.float64(cells) * total
            while cumulative[j] <= edge and j < size - 1:
                j += 1
            guide[g] = j
    for i in range(size):
        counts[i] = 0
    scale = np.float64(cells) / total
    draw = np.uint64(0)
    done = np.int64(0)
    while done < shots:
        now = min(_DRAWS, shots - done)
        fill(seed, binding, draw, done, now, total, draws)
        if few:
            before = 0
            for i in range(size - 1):
                edge = cumulative[i]
                here = 0
                for s in range(now):
                    here += draws[s] < edge
                counts[i] += here - before
                before = here
            counts[size - 1] += now - before
        else:
            for s in range(now):
                t = draws[s]
                k = guide[max(np.int64(t * scale) - 1, 0)]
                while cumulative[k] <= t and k < size - 1:
                    k += 1
                counts[k] += 1
        done += now


@part
def _gather(n, size, source, wires, place_of, counts, table, width, outcomes, values):  # type: ignore[no-untyped-def]
    """Counts of basis states to counts of classical outcomes; returns how many are not 0.

    Measured qubits are put in the order of the highest clbit each writes: so outcomes ascend.
    """
    for q in range(n):
        place_of[q] = -1
    many = 0
    for c in range(source.size - 1, -1, -1):
        if source[c] >= 0 and place_of[source[c]] < 0:
            many += 1
            place_of[source[c]] = n - many
            wires[n - many] = source[c]
    low = n - many
    for j in range(1 << many):
        table[j] = 0
    for i in range(size):
        if counts[i]:
            j = 0
            for k in range(many):
                j |= ((i >> wires[low + k]) & 1) << k
            table[j] += counts[i]
    found = 0
    for j in range(1 << many):
        if table[j]:
            key = np.uint64(0)
            for c in range(source.size):
                if source[c] >= 0:
                    bit = np.uint64(j >> (place_of[source[c]] - low)) & _1
                    key |= bit << np.uint64(c)
            for b in range(width):
                outcomes[found * width + b] = np.uint8(key >> np.uint64(8 * b))
            values[found] = table[j]
            found += 1
    return found


@kernel(
    NAMES, U16, U16, U16, F64, INT, INT, INT, INT, WORD, WORD, I64, REALS, I64, WORDS2, REALS2, U8,
    U32, returns=INT,
)  # fmt: skip
def count(  # type: ignore[no-untyped-def]
    rows, ops, qubits, clbits, params, n, num_clbits, width, shots, seed, binding, control,
    reals, numbers, ints, floats, outcomes, values,
):  # fmt: skip
    """Fill `outcomes` (rows of `width` bytes, ascending) and `values`; returns how many, or < 0.

    Scratch: `Scratch` below. BRANCHING: the circuit needs it; STOPPED: the control flag;
    NOTHING: no measurement.
    """
    size = 1 << n
    re, im = reals[:_SIZE], reals[_SIZE : 2 * _SIZE]
    draws = reals[2 * _SIZE :]
    counts, guide = numbers[:_SIZE], numbers[_SIZE : (1 + _CELLS) * _SIZE]
    spare = numbers[(1 + _CELLS) * _SIZE :]
    source, wires, place_of = spare[:num_clbits], spare[64:128], spare[128:]
    state = _evolve(rows, ops, qubits, clbits, params, size, control, re, im, ints, floats, source)
    if state != 0:
        return state
    total = 0.0
    for i in range(size):
        total += re[i] * re[i] + im[i] * im[i]
        re[i] = total
    _sample(size, re, guide, draws, shots, seed, binding, counts)
    return _gather(n, size, source, wires, place_of, counts, guide, width, outcomes, values)


class Scratch:
    """Arrays that `count` works in, made once per engine; about 270 kB.

    `outcomes` and `values` have views as bytes beside them: cutting those is three times as fast.
    """

    __slots__ = (
        "floats",
        "ints",
        "numbers",
        "outcome_bytes",
        "outcomes",
        "reals",
        "value_bytes",
        "values",
    )

    def __init__(self) -> None:
        self.reals = np.empty(2 * _SIZE + _DRAWS)
        self.numbers = np.empty((1 + _CELLS) * _SIZE + 192, np.int64)
        self.ints = np.empty((MAX_PIECES, 4), np.uint64)
        self.floats = np.empty((MAX_PIECES, 8))
        self.outcomes = np.empty(8 * _SIZE, np.uint8)
        self.values = np.empty(_SIZE, np.uint32)
        self.outcome_bytes = self.outcomes.data
        self.value_bytes = self.values.data.cast("B")
