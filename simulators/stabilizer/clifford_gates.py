"""Conversion of Clifford gates to stim's instructions, from an operation and its angles.

Angles count as multiples of pi/2 within the tolerance of `gates`. Gates without a name in stim
become the instructions of their tableau. Global phases are dropped: they change no outcome.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import stim
from numpy.typing import NDArray

from simulators.circuit.gates import ANGLE_TOLERANCE, LARGEST_TOLERANCE, QUARTER_TURN, unitary

_MATRIX_TOLERANCE = 1e-10  # tolerance of each element
_WIDEST = 4  # widest gate whose tableau is computed

Instruction = tuple[str, tuple[int, ...]]  # stim's name, and indices of the gate's qubits

_NAMED: dict[str, tuple[Instruction, ...]] = {
    "id": (),
    "h": (("H", (0,)),),
    "x": (("X", (0,)),),
    "y": (("Y", (0,)),),
    "z": (("Z", (0,)),),
    "s": (("S", (0,)),),
    "sdg": (("S_DAG", (0,)),),
    "sx": (("SQRT_X", (0,)),),
    "sxdg": (("SQRT_X_DAG", (0,)),),
    "cx": (("CX", (0, 1)),),
    "cy": (("CY", (0, 1)),),
    "cz": (("CZ", (0, 1)),),
    "swap": (("SWAP", (0, 1)),),
    "iswap": (("ISWAP", (0, 1)),),
}
# Rotations by 0, 1, 2, 3 quarter turns.
_Z_TURNS = ("", "S", "Z", "S_DAG")
_TURNS: dict[str, tuple[str, str, str, str]] = {
    "rz": _Z_TURNS,
    "p": _Z_TURNS,
    "u1": _Z_TURNS,
    "rx": ("", "SQRT_X", "X", "SQRT_X_DAG"),
    "ry": ("", "SQRT_Y", "Y", "SQRT_Y_DAG"),
}


def quarters(angle: float) -> int | None:
    """Number of quarter turns of an angle, from 0 to 7 (a rotation by a full turn is -1); None if
    it is no multiple."""
    count = round(angle / QUARTER_TURN)
    if abs(angle - count * QUARTER_TURN) > min(
        LARGEST_TOLERANCE, ANGLE_TOLERANCE * max(1, abs(count))
    ):
        return None
    return count % 8


def instructions(
    name: str, num_qubits: int, turns: tuple[int, ...]
) -> tuple[Instruction, ...] | None:
    """Gate with these quarter turns in stim's instructions; None if it is no Clifford gate."""
    if name == "global_phase":
        return ()
    result = _NAMED.get(name)
    if result is not None:
        return result
    if name in _TURNS:
        turn = _TURNS[name][turns[0] % 4]
        return ((turn, (0,)),) if turn else ()
    return _of_turns(name, num_qubits, turns) if num_qubits <= _WIDEST else None


@functools.lru_cache(maxsize=4096)
def _of_turns(name: str, num_qubits: int, turns: tuple[int, ...]) -> tuple[Instruction, ...] | None:
    return of_matrix(unitary(name, tuple(count * QUARTER_TURN for count in turns), num_qubits))


def of_matrix(matrix: NDArray[np.complex128]) -> tuple[Instruction, ...] | None:
    """Gate with this matrix [2**k, 2**k] in stim's instructions; None if it is no Clifford gate."""
    num_qubits = len(matrix).bit_length() - 1
    if num_qubits > _WIDEST:
        return None
    try:
        tableau = stim.Tableau.from_unitary_matrix(matrix, endian="little")
    except ValueError:
        return None
    if not _alike(tableau.to_unitary_matrix(endian="little"), matrix):  # stim's own check is weaker
        return None
    if num_qubits == 1:
        single = _single_qubit().get(str(tableau))
        return ((single, (0,)),) if single else ()
    results: list[Instruction] = []
    for item in tableau.to_circuit("elimination"):
        targets = tuple(target.value for target in item.targets_copy())
        step = 2 if stim.gate_data(item.name).is_two_qubit_gate else 1
        results += [(item.name, targets[k : k + step]) for k in range(0, len(targets), step)]
    return tuple(results)


def _alike(candidate: NDArray[np.complex64], matrix: NDArray[np.complex128]) -> bool:
    """Return whether `matrix` equals `candidate` up to a global phase, after the rounding of
    `candidate` is undone.

    The elements of a Clifford gate's matrix have one size, and are quarter turns apart.
    """
    first = candidate[np.flatnonzero(np.abs(candidate[:, 0]) > 0.1)[0], 0]
    turns = (candidate / first).astype(np.complex128)
    exact = np.round(turns.real) + 1j * np.round(turns.imag)
    exact /= math.sqrt(np.count_nonzero(exact[:, 0]))
    overlap = complex(np.vdot(exact, matrix))
    if not overlap:
        return False
    return bool(np.abs(exact * (overlap / abs(overlap)) - matrix).max() <= _MATRIX_TOLERANCE)


@functools.lru_cache(maxsize=1)
def _single_qubit() -> dict[str, str]:
    """Names in stim of the 24 one-qubit tableaus; "" for the identity."""
    return {
        str(data.tableau): "" if name == "I" else name
        for name, data in sorted(stim.gate_data().items(), reverse=True)
        if data.is_unitary and data.is_single_qubit_gate
    }
