"""Pairing of real one-qubit matrices: their Kronecker product costs less than both separately.

This does not hold for complex matrices. A tile must hold both qubits, so pairs are made last.
"""

from __future__ import annotations

import numpy as np

from simulators.compiler.kernel import device_function
from simulators.statevector.planning import tables as t

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
    ops, recipes = out[t.OPS], out[t.RECIPES]
    last = done[t.OPS]
    o = first
    while o < last:
        other, goes = _partner(ops, o, last) if _is_free(ops, o) else (_NONE, False)
        if other == _NONE:
            o += 1
            continue
        low, high = (o, other) if ops[o, t.A] < ops[other, t.A] else (other, o)
        recipe = done[t.RECIPES]
        done[t.RECIPES] += 1
        recipes[recipe, t.HOW] = t.KRONECKER_PAIR
        recipes[recipe, t.FROM] = ops[low, t.AT]
        recipes[recipe, t.TO] = ops[high, t.AT]
        recipes[recipe, t.WHERE] = done[t.FLOATS]
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
