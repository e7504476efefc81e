"""Compiled `gates.unitary` for gates on one and two qubits."""

from __future__ import annotations

import cmath
import math

import numpy as np

from simulators.circuit import gates
from simulators.compiler.kernel import device_function

_FACTORS = [factor for gate in gates.GATES.values() for factor in gate.pieces]
_COUNTS = [0] * gates.FIRST_GATE + [len(gate.pieces) for gate in gates.GATES.values()]

# By code: its first factor and their number; by factor: its patterns and source.
_TABLE = np.zeros((max(len(_COUNTS), len(_FACTORS)), 7), np.int64)
_TABLE[: len(_COUNTS), 0] = np.cumsum(_COUNTS) - np.array(_COUNTS)
_TABLE[: len(_COUNTS), 1] = _COUNTS
_TABLE[: len(_FACTORS), 2:] = [(f.targets, f.mask, f.low, f.high, f.source) for f in _FACTORS]
_SCALES = np.array([factor.scale for factor in _FACTORS])
_FIXED = np.array([factor.matrix for factor in _FACTORS], np.complex128)


@device_function
def _factor(source, scale, params, at):  # type: ignore[no-untyped-def]
    """Compiled `gates.matrix_of` for a factor with parameters."""
    angle = scale * params[at]
    c = complex(math.cos(0.5 * angle), 0.0)
    s = complex(math.sin(0.5 * angle), 0.0)
    if source == gates.ROTATION:
        return c, -1j * s, -1j * s, c
    if source == gates.XY_ROTATION:
        tilt = cmath.exp(1j * params[at + 1])
        return c, -1j * s * tilt.conjugate(), -1j * s * tilt, c
    if source == gates.RY:
        return c, -s, s, c
    if source == gates.P_GATE:
        value = cmath.exp(1j * angle)
        return value, 0j, 0j, value
    skip = 1
    turn = 1.0 + 0j
    if source == gates.U2:
        skip = 0
        c = s = complex(math.sqrt(0.5), 0.0)
    phi, lam = cmath.exp(1j * params[at + skip]), cmath.exp(1j * params[at + skip + 1])
    if source == gates.CU:
        turn = cmath.exp(1j * params[at + 3])
    return turn * c, -turn * s * lam, turn * s * phi, turn * c * phi * lam


@device_function
def gate_matrix(code, count, params, at, out):  # type: ignore[no-untyped-def]
    """Write the matrix of a named gate on `count` qubits, 1 or 2, row by row into `out` (complex);
    its parameters are `params[at:]`."""
    table = _TABLE
    scales = _SCALES
    fixed = _FIXED
    size = 1 << count
    for k in range(size * size):
        out[k] = 0.0
    for k in range(size):
        out[k * size + k] = 1.0
    first = table[code, 0]
    for f in range(first, first + table[code, 1]):
        targets, mask, zero_bits, one_bits = table[f, 2], table[f, 3], table[f, 4], table[f, 5]
        if table[f, 6] == gates.FIXED:
            a, b, c, d = fixed[f, 0], fixed[f, 1], fixed[f, 2], fixed[f, 3]
        else:
            a, b, c, d = _factor(table[f, 6], scales[f], params, at)
        shift = count - targets
        controls = (1 << shift) - 1
        for rest in range(size):
            if rest & controls != controls or rest >> shift & mask:
                continue
            i, j = rest | zero_bits << shift, rest | one_bits << shift
            for k in range(size):
                x, y = out[i * size + k], out[j * size + k]
                if i == j:
                    out[i * size + k] = a * x
                else:
                    out[i * size + k] = a * x + b * y
                    out[j * size + k] = c * x + d * y
