"""Gates as steps: the pieces of each operation placed on the circuit's qubits, with numbers.

A step is a row of integers (kind, mask, zero, one) and eight floats. It takes all basis states
whose bits under `mask` equal `zero` or `one`, as pairs, and multiplies each pair by the 2x2 matrix
of the floats (re, im of the four elements, row by row). `mask` holds controls and targets alike.
"""

from __future__ import annotations

import math

import numpy as np

from simulators.circuit.gates import (
    EULER_HALF,
    EULER_PHASE,
    FIRST_GATE,
    FIXED,
    GATES,
    PHASE_TURN,
    REAL_TURN,
    ROTATION,
    TILTED,
    Piece,
)
from simulators.jit import inner, part

KIND, MASK, ZERO, ONE = range(4)
MAX_PIECES = max(len(gate.pieces) for gate in GATES.values())

_PIECES = [piece for gate in GATES.values() for piece in gate.pieces]
_COUNTS = [0] * FIRST_GATE + [len(gate.pieces) for gate in GATES.values()]

COUNTS = np.array(_COUNTS, np.int64)  # pieces of each code

# Two tables side by side: of a code, its first piece and their number; of a piece, its patterns.
_TABLE = np.zeros((max(len(_COUNTS), len(_PIECES)), 8), np.int64)
_TABLE[: len(_COUNTS), 0] = np.cumsum(COUNTS) - COUNTS
_TABLE[: len(_COUNTS), 1] = COUNTS
_TABLE[: len(_PIECES), 2:] = [(p.targets, p.mask, p.zero, p.one, p.kind, p.source) for p in _PIECES]


def _floats(piece: Piece) -> list[float]:
    parts = [(complex(x).real, complex(x).imag) for x in piece.matrix]
    return [piece.scale] + [x for pair in parts for x in pair]


_NUMBERS = np.array([_floats(piece) for piece in _PIECES])
_R = 0.5**0.5
_1 = np.uint64(1)


@part
def _matrix(source, c, s, params, at, floats, row):  # type: ignore[no-untyped-def]
    """`gates.matrix_of`, compiled: [[c, -s e^(i lam)], [s e^(i phi), c e^(i (phi + lam))]].

    c, s: cosine and sine of half the angle.
    """
    phi_x = lam_x = gamma_x = 1.0
    phi_y = lam_y = gamma_y = 0.0
    if source == ROTATION:
        phi_x = lam_x = 0.0
        phi_y = -1.0
        lam_y = 1.0
    elif source == TILTED:  # phi = tilt - pi/2 = -lam
        phi_x = lam_x = math.sin(params[at + 1])
        lam_y = math.cos(params[at + 1])
        phi_y = -lam_y
    elif source != REAL_TURN:
        skip = 1
        if source == EULER_HALF:
            c = s = _R
            skip = 0
        phi_x = math.cos(params[at + skip])
        phi_y = math.sin(params[at + skip])
        lam_x = math.cos(params[at + skip + 1])
        lam_y = math.sin(params[at + skip + 1])
    floats[row, 0] = c
    floats[row, 1] = 0.0
    floats[row, 2] = -s * lam_x
    floats[row, 3] = -s * lam_y
    floats[row, 4] = s * phi_x
    floats[row, 5] = s * phi_y
    floats[row, 6] = c * (phi_x * lam_x - phi_y * lam_y)
    floats[row, 7] = c * (phi_x * lam_y + phi_y * lam_x)
    if source == EULER_PHASE:
        gamma_x = math.cos(params[at + 3])
        gamma_y = math.sin(params[at + 3])
        for k in range(0, 8, 2):
            x = floats[row, k]
            y = floats[row, k + 1]
            floats[row, k] = x * gamma_x - y * gamma_y
            floats[row, k + 1] = x * gamma_y + y * gamma_x


@inner
def matrices(code, params, at_param, floats, row):  # type: ignore[no-untyped-def]
    """Write the numbers of one operation's steps from `row` on; returns the row after them."""
    table = _TABLE  # named once: every mention of a constant array is compiled anew
    numbers = _NUMBERS
    first = table[code, 0]
    known = 0.0  # the last angle, its cosine and sine: pieces of an operation differ in its sign
    c = 1.0
    s = 0.0
    for piece in range(first, first + table[code, 1]):
        source = table[piece, 7]
        if source == FIXED:
            for k in range(8):
                floats[row, k] = numbers[piece, 1 + k]
        else:
            angle = numbers[piece, 0] * params[at_param]
            if source != PHASE_TURN:
                angle *= 0.5
            if angle == -known:
                s = -s
            elif angle != known:
                c = math.cos(angle)
                s = math.sin(angle)
            known = angle
            if source == PHASE_TURN:
                floats[row, 0] = c
                floats[row, 1] = s
            else:
                _matrix(source, c, s, params, at_param, floats, row)
        row += 1
    return row


@inner
def masks(code, qubits, at_qubit, count, ints, row):  # type: ignore[no-untyped-def]
    """Write the patterns of one operation's steps from `row` on; returns the row after them."""
    table = _TABLE
    first = table[code, 0]
    for piece in range(first, first + table[code, 1]):
        targets = table[piece, 2]
        start = at_qubit + count - targets
        mask = np.uint64(0)
        for j in range(at_qubit, start):
            mask |= _1 << np.uint64(qubits[j])
        zero = mask
        one = mask
        for j in range(targets):
            bit = _1 << np.uint64(qubits[start + j])
            if (table[piece, 3] >> j) & 1:
                mask |= bit
            if (table[piece, 4] >> j) & 1:
                zero |= bit
            if (table[piece, 5] >> j) & 1:
                one |= bit
        ints[row, 0] = table[piece, 6]
        ints[row, 1] = mask
        ints[row, 2] = zero
        ints[row, 3] = one
        row += 1
    return row


@part
def place(code, qubits, at_qubit, count, params, at_param, ints, floats, row):  # type: ignore[no-untyped-def]
    """Write the steps of one operation from `row` on; returns the row after them."""
    matrices(code, params, at_param, floats, row)
    return masks(code, qubits, at_qubit, count, ints, row)
