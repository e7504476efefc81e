"""Gates as products of Pauli rotations exp(-i angle/2 P), up to a global phase.

A gate on up to four qubits that is diagonal where each of them is seen along X, Y or Z is a product
of commuting rotations: controlled phases, rotations about one axis or two, Toffoli gates. A gate on
one qubit is three rotations at most, one on two qubits rotations about XX, YY and ZZ between gates
on one (Zhang, Vala, Sastry, Whaley, Phys. Rev. A 67, 042313, 2003).
"""

from __future__ import annotations

import cmath
import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulators.circuit import gates
from simulators.circuit.gates import LARGEST_TOLERANCE, QUARTER_TURN
from simulators.circuit.ir import Circuit, Operation, matrix

_WIDEST = 4  # qubits of a named gate
_ZERO = 1e-10  # magnitude of an entry that counts as zero
Matrix = NDArray[np.complex128]


class Rotation(NamedTuple):
    """exp(-i angle/2 P) of the Pauli string P, whose letters are bits of two masks: bit j for the
    j-th qubit of the gate, both bits for Y."""

    x: int
    z: int
    angle: float  # radians

    @property
    def quarters(self) -> int:
        """Number of quarter turns, 0 to 3; -1: it is no Clifford gate."""
        count = round(self.angle / QUARTER_TURN)
        return count % 4 if abs(self.angle - count * QUARTER_TURN) < LARGEST_TOLERANCE else -1


Rotations = tuple[Rotation, ...]
_Spelling = tuple[tuple[str, tuple[float, ...], tuple[int, ...]], ...]
_T = 0.25 * math.pi
_HALF_RCCX: _Spelling = (("h", (), (2,)), ("t", (), (2,)), ("cx", (), (1, 2)), ("tdg", (), (2,)))
_TURN_3: _Spelling = (("h", (), (3,)), ("t", (), (3,)), ("cx", (), (2, 3)), ("tdg", (), (3,)))
_MIDDLE_3: _Spelling = tuple(
    step
    for control in (0, 1, 0, 1)
    for step in (("cx", (), (control, 3)), ("p", (_T if control == 0 else -_T,), (3,)))
)
# Gates on three and four qubits by others: name, angles and qubits of each.
_SPELLED: dict[str, _Spelling] = {
    "cswap": (("cx", (), (2, 1)), ("ccx", (), (0, 1, 2)), ("cx", (), (2, 1))),
    "rccx": (
        *_HALF_RCCX, ("cx", (), (0, 2)), ("t", (), (2,)), ("cx", (), (1, 2)), ("tdg", (), (2,)),
        ("h", (), (2,)),
    ),
    "rcccx": (*_TURN_3, ("h", (), (3,)), *_MIDDLE_3, *_TURN_3, ("h", (), (3,))),
}  # fmt: skip


def rotations_of(circuit: Circuit, operation: Operation) -> Rotations | None:
    """Rotations of a gate, in their order; None for a gate on more than four qubits, and for a
    matrix on more than two."""
    count = len(operation.qubits)
    if operation.code != gates.UNITARY:
        return _of_name(operation.name, operation.params, count) if count <= _WIDEST else None
    return _of_matrix(matrix(circuit, operation)) if count <= 2 else None


@functools.lru_cache(maxsize=4096)
def _of_name(name: str, params: tuple[float, ...], count: int) -> Rotations | None:
    if not count or name == "id":
        return ()
    if name not in _SPELLED:
        return _of_matrix(gates.unitary(name, params, count))
    result: list[Rotation] = []
    for other, angles, qubits in _SPELLED[name]:
        for x, z, angle in _of_name(other, angles, len(qubits)) or ():
            places = list(enumerate(qubits))
            moved = [sum((mask >> j & 1) << qubit for j, qubit in places) for mask in (x, z)]
            result.append(Rotation(moved[0], moved[1], angle))
    return tuple(result)


def _of_matrix(one: Matrix) -> Rotations | None:
    count = len(one).bit_length() - 1
    for axes in itertools.product("ZXY", repeat=count):
        frame = functools.reduce(np.kron, [_FRAMES[axis] for axis in reversed(axes)])
        seen = frame.conj().T @ one @ frame
        if np.abs(seen - np.diag(seen.diagonal())).max() < _ZERO:
            return _diagonal(seen.diagonal(), axes)
    if count == 1:
        return _single(one)
    return _pair(one) if count == 2 else None


_FRAMES = {
    "Z": np.eye(2, dtype=np.complex128),
    "X": np.array([[1, 1], [1, -1]]) * math.sqrt(0.5),
    "Y": np.array([[1, 1], [1j, -1j]]) * math.sqrt(0.5),
}


def _diagonal(factors: NDArray[np.complex128], axes: tuple[str, ...]) -> Rotations:
    """Rotations about strings of the axes: the Walsh-Hadamard transform of the phases."""
    phases = np.angle(factors / factors[0])
    index = np.arange(len(factors))
    result = []
    for string in range(1, len(factors)):
        signs = 1 - 2 * (np.bitwise_count(index & string) & 1).astype(np.int64)
        angle = -2.0 * float(signs @ phases) / len(factors)
        x = sum(1 << j for j, axis in enumerate(axes) if string >> j & 1 and axis != "Z")
        z = sum(1 << j for j, axis in enumerate(axes) if string >> j & 1 and axis != "X")
        result.append(Rotation(x, z, angle))
    return _without_nothing(result)


def _single(one: Matrix) -> Rotations:
    """Rotations about Z, Y and Z."""
    special = one / cmath.sqrt(complex(np.linalg.det(one)))
    first, second = cmath.phase(special[0, 0]), cmath.phase(special[1, 0])
    tilt = 2.0 * math.atan2(abs(special[1, 0]), abs(special[0, 0]))
    return _without_nothing(
        [Rotation(0, 1, -first - second), Rotation(1, 1, tilt), Rotation(0, 1, second - first)]
    )


def _pair(one: Matrix) -> Rotations:
    from qiskit.synthesis import TwoQubitWeylDecomposition  # here: importing it takes 0.3 s

    parts = TwoQubitWeylDecomposition(one, fidelity=None)
    result: list[Rotation] = []
    for low, high, middle in (
        (parts.K2r, parts.K2l, (parts.a, parts.b, parts.c)),
        (parts.K1r, parts.K1l, ()),
    ):
        for qubit, local in enumerate((low, high)):
            turns = _of_matrix(np.asarray(local)) or ()
            result += [Rotation(x << qubit, z << qubit, angle) for x, z, angle in turns]
        strings = zip(((3, 0), (3, 3), (0, 3)), middle, strict=False)
        result += [Rotation(x, z, -2.0 * angle) for (x, z), angle in strings]
    return _without_nothing(result)


def _without_nothing(rotations: list[Rotation]) -> Rotations:
    return tuple(rotation for rotation in rotations if rotation.quarters)
