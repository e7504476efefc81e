"""Native gates of a device, by the roles that characterization circuits need.

Roles: a virtual Z rotation, a quarter turn about X, a half turn about X, and an entangling Clifford
gate. All other gates of a circuit are products of these.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.errors import InfeasibleError
from simenv.model.devices import DeviceInfo

Matrix = NDArray[np.complex128]
_HALF_PI = math.pi / 2.0


class NativeOperation(msgspec.Struct, frozen=True):
    """A native gate with its parameters in radians."""

    name: str
    params: tuple[float, ...] = ()


class NativeSet(msgspec.Struct, frozen=True):
    """Gates by role; the name of `half` is "" if a half turn is two quarter turns."""

    z: str
    quarter: NativeOperation
    half: NativeOperation | None
    entangler: NativeOperation | None


_Z = ("rz", "p", "u1")
_QUARTERS = (
    NativeOperation("sx"),
    NativeOperation("rx", (_HALF_PI,)),
    NativeOperation("r", (_HALF_PI, 0.0)),
    NativeOperation("u2", (-_HALF_PI, _HALF_PI)),
    NativeOperation("u3", (_HALF_PI, -_HALF_PI, _HALF_PI)),
    NativeOperation("u", (_HALF_PI, -_HALF_PI, _HALF_PI)),
)
_HALVES = (
    NativeOperation("x"),
    NativeOperation("rx", (math.pi,)),
    NativeOperation("r", (math.pi, 0.0)),
    NativeOperation("u3", (math.pi, -_HALF_PI, _HALF_PI)),
    NativeOperation("u", (math.pi, -_HALF_PI, _HALF_PI)),
)
_ENTANGLERS = (
    NativeOperation("cz"),
    NativeOperation("ecr"),
    NativeOperation("cx"),
    NativeOperation("rzz", (_HALF_PI,)),
    NativeOperation("rxx", (_HALF_PI,)),
    NativeOperation("cp", (math.pi,)),
    NativeOperation("iswap"),
)


def native_set(info: DeviceInfo) -> NativeSet:
    """Roles of a device's gates. Raises InfeasibleError if Z or a quarter turn is missing."""
    names = {gate.name for gate in info.gates}
    z = next((name for name in _Z if name in names), "")
    quarter = next((each for each in _QUARTERS if each.name in names), None)
    if not z or quarter is None:
        raise InfeasibleError(
            f"device {info.name}: native gates {', '.join(sorted(names)) or 'none'}",
            hint=f"experiments need one of {', '.join(_Z)} and one of"
            f" {', '.join(each.name for each in _QUARTERS)}",
        )
    half = next((each for each in _HALVES if each.name in names), None)
    return NativeSet(z, quarter, half, next((e for e in _ENTANGLERS if e.name in names), None))


_X = np.array([[0, 1], [1, 0]], np.complex128)
_ZM = np.diag([1.0, -1.0]).astype(np.complex128)
_I = np.eye(2, dtype=np.complex128)


def _turn(generator: NDArray[np.complexfloating], angle: float) -> Matrix:
    """exp(-i angle G / 2) for G^2 = 1."""
    identity = np.eye(len(generator))
    return np.asarray(math.cos(angle / 2.0) * identity - 1j * math.sin(angle / 2.0) * generator)


def z_turn(quarters: int) -> Matrix:
    """Rotation about Z by a number of quarter turns."""
    return _turn(_ZM, quarters * _HALF_PI)


def x_turn(quarters: int) -> Matrix:
    """Rotation about X by a number of quarter turns."""
    return _turn(_X, quarters * _HALF_PI)


def entangler_matrix(gate: NativeOperation) -> Matrix:
    """Matrix [4, 4] of an entangling gate; its first qubit is bit 0. Raises ValueError."""
    first_z, second_x = np.kron(_I, _ZM), np.kron(_X, _I)
    both_x, both_z = np.kron(_X, _X), np.kron(_ZM, _ZM)
    name = gate.name
    if name in ("cz", "cp"):
        return np.diag([1, 1, 1, -1]).astype(np.complex128)
    if name == "cx":
        return np.asarray(0.5 * (np.eye(4) + first_z + (np.eye(4) - first_z) @ second_x))
    if name == "ecr":  # X on the first qubit after a ZX rotation by -pi/2
        return np.asarray(_turn(first_z @ second_x, -_HALF_PI) @ np.kron(_I, _X))
    if name == "rzz":
        return _turn(both_z, gate.params[0])
    if name == "rxx":
        return _turn(both_x, gate.params[0])
    if name == "iswap":
        swapped = np.zeros((4, 4), np.complex128)
        swapped[[0, 3], [0, 3]], swapped[[1, 2], [2, 1]] = 1.0, 1j
        return swapped
    raise ValueError(f"no matrix of the entangling gate {name!r}")
