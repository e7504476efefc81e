"""Gate set: names, arities, Clifford flags, and the action of each gate.

A gate is a short list of two-level factors (two-level unitaries, Nielsen and Chuang, sect. 4.5). A
factor acts on its target qubits, the last ones of the operation; those before them are controls
that must be 1. It selects the basis states whose target bits under `mask` equal `zero` or `one`,
and applies a 2x2 matrix to each such pair. If both patterns are equal, the factor is a phase. So
engines need one kernel for pairs and one for phases. Pattern bit j belongs to target j, as in
Qiskit's little-endian matrices. Matrices follow Qiskit's definitions; a test compares each of them.
"""

from __future__ import annotations

import cmath
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

ANY = -1  # as an arity: any number of qubits

# Codes of operations that are no named gates; gates are numbered from FIRST_GATE.
(
    BARRIER, DELAY, DELAY_DT, MEASURE, RESET, IF, ELSE, END_BLOCK, WHILE, FOR, SWITCH, CASE,
    DEFAULT, BREAK, CONTINUE, STORE, UNITARY,
) = range(17)  # fmt: skip
FIRST_GATE = 17
UNKNOWN = -1
MAX_UNITARY_QUBITS = 10  # a matrix of 16 MiB

# Angles at which a gate is a Clifford gate: none, all, multiples of a quarter, of a half turn. An
# angle counts as a multiple within ANGLE_TOLERANCE: radians up to a few turns, relative beyond, and
# at most LARGEST_TOLERANCE, else every huge angle would be one.
NEVER, ALWAYS, QUARTERS, HALVES = range(4)
QUARTER_TURN = math.pi / 2
ANGLE_TOLERANCE, LARGEST_TOLERANCE = 1e-12, 1e-9

# Kinds of action of a piece, in ascending cost.
PHASE, PERMUTATION, REAL, COMPLEX = range(4)

# Sources of a piece's matrix.
FIXED, ROTATION, XY_ROTATION, RY, P_GATE, U3, U2, CU = range(8)


class TwoLevelFactor(msgspec.Struct, frozen=True):
    """One 2x2 action on the pairs (zero, one) of the target bits under `mask`."""

    targets: int
    mask: int
    low: int
    high: int
    kind: int
    source: int = FIXED
    scale: float = 1.0  # factor of the angle
    matrix: tuple[complex, complex, complex, complex] = (1, 0, 0, 1)  # FIXED only; row by row


class Gate(msgspec.Struct, frozen=True):
    """One operation name; `qubits` may be ANY."""

    name: str
    code: int
    qubits: int
    params: int
    clifford_angles: int  # angles at which it is a Clifford gate: NEVER .. HALVES
    controls: int  # leading qubits that act as controls; ANY: all but the last
    pieces: tuple[TwoLevelFactor, ...]

    @property
    def clifford(self) -> bool:
        """True if it is a Clifford gate whatever its angles are."""
        return self.clifford_angles == ALWAYS

    @property
    def diagonal(self) -> bool:
        """True if the gate multiplies each basis state by a number."""
        return all(piece.kind == PHASE for piece in self.pieces)


_R = math.sqrt(0.5)
_T = cmath.exp(0.25j * math.pi)
_SX = (0.5 + 0.5j, 0.5 - 0.5j, 0.5 - 0.5j, 0.5 + 0.5j)
_SXDG = (0.5 - 0.5j, 0.5 + 0.5j, 0.5 + 0.5j, 0.5 - 0.5j)


def _phase(value: complex, targets: int = 1, pattern: int = -1) -> TwoLevelFactor:
    mask = (1 << targets) - 1
    pattern &= mask
    return TwoLevelFactor(targets, mask, pattern, pattern, PHASE, matrix=(value, 0, 0, value))


def _turn(scale: float, targets: int = 1, pattern: int = -1) -> TwoLevelFactor:
    mask = (1 << targets) - 1
    pattern &= mask
    return TwoLevelFactor(targets, mask, pattern, pattern, PHASE, P_GATE, scale)


def _one_qubit_factor(kind: int, *matrix: complex) -> TwoLevelFactor:
    a, b, c, d = matrix
    return TwoLevelFactor(1, 1, 0, 1, kind, matrix=(a, b, c, d))


def _pair(
    zero_bits: int,
    one_bits: int,
    kind: int,
    matrix: tuple[complex, complex, complex, complex] = (1, 0, 0, 1),
    *,
    source: int = FIXED,
    scale: float = 1.0,
    targets: int = 2,
    mask: int = 0,
) -> TwoLevelFactor:
    return TwoLevelFactor(
        targets, mask or (1 << targets) - 1, zero_bits, one_bits, kind, source, scale, matrix
    )


_X = _one_qubit_factor(PERMUTATION, 0, 1, 1, 0)
_Y = _one_qubit_factor(COMPLEX, 0, -1j, 1j, 0)
_H = _one_qubit_factor(REAL, _R, _R, _R, -_R)
_RX = TwoLevelFactor(1, 1, 0, 1, COMPLEX, ROTATION)
_RY = TwoLevelFactor(1, 1, 0, 1, REAL, RY)
_RZ = (_turn(-0.5, 1, 0), _turn(0.5, 1, 1))
_U = TwoLevelFactor(1, 1, 0, 1, COMPLEX, U3)
_BOTH = (0, 3), (1, 2)  # pairs of equal and of different bits

# name: (qubits, params, when it is Clifford, controls, pieces)
_GATES: dict[str, tuple[int, int, int, int, tuple[TwoLevelFactor, ...]]] = {
    "id": (1, 0, ALWAYS, 0, ()),
    "h": (1, 0, ALWAYS, 0, (_H,)),
    "x": (1, 0, ALWAYS, 0, (_X,)),
    "y": (1, 0, ALWAYS, 0, (_Y,)),
    "z": (1, 0, ALWAYS, 0, (_phase(-1),)),
    "s": (1, 0, ALWAYS, 0, (_phase(1j),)),
    "sdg": (1, 0, ALWAYS, 0, (_phase(-1j),)),
    "t": (1, 0, NEVER, 0, (_phase(_T),)),
    "tdg": (1, 0, NEVER, 0, (_phase(_T.conjugate()),)),
    "sx": (1, 0, ALWAYS, 0, (_one_qubit_factor(COMPLEX, *_SX),)),
    "sxdg": (1, 0, ALWAYS, 0, (_one_qubit_factor(COMPLEX, *_SXDG),)),
    "p": (1, 1, QUARTERS, 0, (_turn(1.0),)),
    "u1": (1, 1, QUARTERS, 0, (_turn(1.0),)),
    "r": (1, 2, QUARTERS, 0, (TwoLevelFactor(1, 1, 0, 1, COMPLEX, XY_ROTATION),)),
    "rx": (1, 1, QUARTERS, 0, (_RX,)),
    "ry": (1, 1, QUARTERS, 0, (_RY,)),
    "rz": (1, 1, QUARTERS, 0, _RZ),
    "u": (1, 3, QUARTERS, 0, (_U,)),
    "u3": (1, 3, QUARTERS, 0, (_U,)),
    "u2": (1, 2, QUARTERS, 0, (TwoLevelFactor(1, 1, 0, 1, COMPLEX, U2),)),
    "global_phase": (0, 1, ALWAYS, 0, (_turn(1.0, 0),)),
    "cx": (2, 0, ALWAYS, 1, (_X,)),
    "cy": (2, 0, ALWAYS, 1, (_Y,)),
    "cz": (2, 0, ALWAYS, 1, (_phase(-1),)),
    "ch": (2, 0, NEVER, 1, (_H,)),
    "cs": (2, 0, NEVER, 1, (_phase(1j),)),
    "csdg": (2, 0, NEVER, 1, (_phase(-1j),)),
    "csx": (2, 0, NEVER, 1, (_one_qubit_factor(COMPLEX, *_SX),)),
    "cp": (2, 1, HALVES, 1, (_turn(1.0),)),
    "cu1": (2, 1, HALVES, 1, (_turn(1.0),)),
    "crx": (2, 1, HALVES, 1, (_RX,)),
    "cry": (2, 1, HALVES, 1, (_RY,)),
    "crz": (2, 1, HALVES, 1, _RZ),
    "cu3": (2, 3, HALVES, 1, (_U,)),
    "cu": (2, 4, HALVES, 1, (TwoLevelFactor(1, 1, 0, 1, COMPLEX, CU),)),
    "swap": (2, 0, ALWAYS, 0, (_pair(1, 2, PERMUTATION, (0, 1, 1, 0)),)),
    "iswap": (2, 0, ALWAYS, 0, (_pair(1, 2, COMPLEX, (0, 1j, 1j, 0)),)),
    "dcx": (2, 0, ALWAYS, 0, (
        _pair(1, 3, PERMUTATION, (0, 1, 1, 0)),
        _pair(2, 3, PERMUTATION, (0, 1, 1, 0)),
    )),
    "ecr": (2, 0, ALWAYS, 0, (
        _pair(0, 1, PERMUTATION, (0, 1, 1, 0), mask=1),
        _pair(0, 2, COMPLEX, (_R, 1j * _R, 1j * _R, _R)),
        _pair(1, 3, COMPLEX, (_R, -1j * _R, -1j * _R, _R)),
    )),
    "rxx": (2, 1, QUARTERS, 0, tuple(_pair(a, b, COMPLEX, source=ROTATION) for a, b in _BOTH)),
    "ryy": (2, 1, QUARTERS, 0, (
        _pair(0, 3, COMPLEX, source=ROTATION, scale=-1.0),
        _pair(1, 2, COMPLEX, source=ROTATION),
    )),
    "rzz": (2, 1, QUARTERS, 0, tuple(_turn(s, 2, k) for k, s in enumerate((-0.5, 0.5, 0.5, -0.5)))),
    "rzx": (2, 1, QUARTERS, 0, (
        _pair(0, 2, COMPLEX, source=ROTATION),
        _pair(1, 3, COMPLEX, source=ROTATION, scale=-1.0),
    )),
    "xx_minus_yy": (2, 2, HALVES, 0, (_pair(0, 3, COMPLEX, source=XY_ROTATION),)),
    "xx_plus_yy": (2, 2, HALVES, 0, (_pair(1, 2, COMPLEX, source=XY_ROTATION),)),
    "ccx": (3, 0, NEVER, 2, (_X,)),
    "ccz": (3, 0, NEVER, 2, (_phase(-1),)),
    "cswap": (3, 0, NEVER, 1, (_pair(1, 2, PERMUTATION, (0, 1, 1, 0)),)),
    "rccx": (3, 0, NEVER, 0, (
        _phase(-1, 3, 0b101),
        _pair(0b011, 0b111, COMPLEX, (0, -1j, 1j, 0), targets=3),
    )),
    "c3sx": (4, 0, NEVER, 3, (_one_qubit_factor(COMPLEX, *_SX),)),
    "rcccx": (4, 0, NEVER, 0, (
        _phase(1j, 4, 0b0011),
        _phase(-1j, 4, 0b1011),
        _pair(0b0111, 0b1111, REAL, (0, 1, -1, 0), targets=4),
    )),
    "mcx": (ANY, 0, NEVER, ANY, (_X,)),
    "mcphase": (ANY, 1, NEVER, ANY, (_turn(1.0),)),
}  # fmt: skip

GATES: dict[str, Gate] = {
    name: Gate(name, FIRST_GATE + k, *row) for k, (name, row) in enumerate(_GATES.items())
}

# Markers of blocks and stores, in the order of their codes from IF on.
_MARKERS = (
    *("if", "else", "end", "while", "for", "switch", "case", "default", "break", "continue"),
    "store",
)
# Operations that are no named gates: (code, qubits, clbits, params).
OTHERS: dict[str, tuple[int, int, int, int]] = {
    "barrier": (BARRIER, ANY, 0, 0),
    "delay": (DELAY, 1, 0, 1),
    "delay_dt": (DELAY_DT, 1, 0, 1),
    "measure": (MEASURE, 1, 1, 0),
    "reset": (RESET, 1, 0, 0),
    **{name: (IF + k, 0, 0, 0) for k, name in enumerate(_MARKERS)},
    "unitary": (UNITARY, ANY, 0, 0),  # given by its own matrix
}

NAMES: dict[int, str] = {row[0]: name for name, row in OTHERS.items()} | {
    gate.code: name for name, gate in GATES.items()
}


def matrix_of(
    piece: TwoLevelFactor, params: tuple[float, ...]
) -> tuple[complex, complex, complex, complex]:
    """Matrix 2x2 of a piece (row by row) for the operation's parameters, in radians."""
    if piece.source == FIXED:
        return piece.matrix
    angle = piece.scale * params[0]
    c, s = math.cos(0.5 * angle), math.sin(0.5 * angle)
    if piece.source == ROTATION:
        return c, -1j * s, -1j * s, c
    if piece.source == XY_ROTATION:
        tilt = cmath.exp(1j * params[1])
        return c, -1j * s / tilt, -1j * s * tilt, c
    if piece.source == RY:
        return c, -s, s, c
    if piece.source == P_GATE:
        value = cmath.exp(1j * angle)
        return value, 0, 0, value
    if piece.source == U2:
        phi, lam, gamma, c, s = params[0], params[1], 0.0, _R, _R
    else:
        phi, lam = params[1], params[2]
        gamma = params[3] if piece.source == CU else 0.0
    turn = cmath.exp(1j * gamma)
    return (
        turn * c,
        -turn * s * cmath.exp(1j * lam),
        turn * s * cmath.exp(1j * phi),
        turn * c * cmath.exp(1j * (phi + lam)),
    )


def unitary(name: str, params: tuple[float, ...] = (), qubits: int = 0) -> NDArray[np.complex128]:
    """Matrix [2**n, 2**n] of a gate; `qubits` is required if the gate takes any number."""
    gate = GATES[name]
    count = gate.qubits if gate.qubits != ANY else qubits
    size = 1 << count
    result = np.eye(size, dtype=np.complex128)
    for piece in gate.pieces:
        shift = count - piece.targets
        controls = (1 << shift) - 1
        a, b, c, d = matrix_of(piece, params)
        step = np.eye(size, dtype=np.complex128)
        for rest in range(size):
            if rest & controls != controls or (rest >> shift) & piece.mask:
                continue
            i, j = rest | piece.low << shift, rest | piece.high << shift
            if i == j:
                step[i, i] = a
            else:
                step[i, i], step[i, j], step[j, i], step[j, j] = a, b, c, d
        result = step @ result
    return result
