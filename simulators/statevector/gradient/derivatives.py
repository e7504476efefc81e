"""What a parameter does to a piece of a gate, as four numbers.

With U the 2x2 matrix of a piece, the derivative of <O> by one of its parameters is

    2 Im <b| G |a>,   G = i (dU/dparameter) U^-1, which is Hermitian,

where a is the state after the piece and b is O of the final state, taken back to there. Let p, q, r
and s be conj(b0) a0, conj(b1) a1, conj(b0) a1 and conj(b1) a0, summed over all pairs (0, 1) that
the piece acts on. Then four sums, Im p, Im q, Im (r + s), Re (r - s), are enough whatever G is;
`weights` says how the derivative is made of them.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.gates import (
    EULER_HALF,
    EULER_PHASE,
    FIXED,
    PHASE_TURN,
    REAL_TURN,
    ROTATION,
    TILTED,
    Piece,
    matrix_of,
)

Matrix = NDArray[np.complex128]


def weights(piece: Piece, params: tuple[float, ...], which: int) -> NDArray[np.float64]:
    """Of the four sums, for parameter number `which` of the operation; all 0 if it has no part."""
    if piece.source == FIXED:
        return np.zeros(4)
    if piece.source == PHASE_TURN:
        return np.array([-2.0 * piece.scale, 0.0, 0.0, 0.0])
    unitary = np.array(matrix_of(piece, params)).reshape(2, 2)
    g = 1j * _derivative(piece, params, which) @ unitary.conj().T
    return 2.0 * np.array([g[0, 0].real, g[1, 1].real, g[0, 1].real, g[0, 1].imag])


def _derivative(piece: Piece, params: tuple[float, ...], which: int) -> Matrix:
    """Of `gates.matrix_of`, element by element."""
    half = 0.5 * piece.scale
    if piece.source == EULER_HALF:
        theta, phi, lam, gamma, names = 0.5 * math.pi, params[0], params[1], 0.0, "pl"
    elif piece.source in (ROTATION, REAL_TURN, TILTED):
        tilt = {ROTATION: 0.0, REAL_TURN: 0.5 * math.pi}.get(piece.source)
        if tilt is None:
            tilt = params[1]
        theta, phi, gamma, names = piece.scale * params[0], tilt - 0.5 * math.pi, 0.0, "tx"
        lam = -phi
    else:
        theta, phi, lam, names = piece.scale * params[0], params[1], params[2], "tplg"
        gamma = params[3] if piece.source == EULER_PHASE else 0.0
    c, s = math.cos(0.5 * theta), math.sin(0.5 * theta)
    turn, up, down = cmath.exp(1j * gamma), cmath.exp(1j * phi), cmath.exp(1j * lam)
    by = {
        "t": [-half * s, -half * c * down, half * c * up, -half * s * up * down],
        "p": [0, 0, 1j * s * up, 1j * c * up * down],
        "l": [0, -1j * s * down, 0, 1j * c * up * down],
        "x": [0, 1j * s * down, 1j * s * up, 0],  # phi = -lam
        "g": [1j * c, -1j * s * down, 1j * s * up, 1j * c * up * down],
    }
    return turn * np.array(by[names[which]]).reshape(2, 2)
