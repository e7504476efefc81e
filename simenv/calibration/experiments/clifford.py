"""Clifford groups in native gates, and the roles of native gates.

Roles of the native gates of a device in characterization circuits (`NativeSet`): a virtual Z
rotation, a quarter turn about X, a half turn about X, and an entangling Clifford gate. All other
gates of a circuit are products of these.

An element of a Clifford group of one or two qubits is represented by the images of all Pauli
strings, as signed numbers. A Pauli number has base-4 digits I, X, Y, Z, the first qubit is the
lowest digit; bit `SIGN` is a minus. Group elements are written with the fewest quarter turns, and
the fewest entangling gates (Corcoles et al., Phys. Rev. A 87, 030301). One-qubit elements have one
quarter turn on average.
"""

from __future__ import annotations

import functools
import math
from itertools import product

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
    NativeOperation("cz"), NativeOperation("ecr"), NativeOperation("cx"),
    NativeOperation("rzz", (_HALF_PI,)), NativeOperation("rxx", (_HALF_PI,)),
    NativeOperation("cp", (math.pi,)), NativeOperation("iswap"),
)  # fmt: skip


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


SIGN = 16
Images = NDArray[np.uint8]  # [..., 4^n]
# Steps of a word in order of time: ("z", qubit, quarters), ("quarter", qubit, 0), ("entangler", 0,
# 0).
Step = tuple[str, int, int]

_PAULIS = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])


class CliffordGroup(msgspec.Struct, frozen=True, eq=False):
    """All elements of a group, up to a phase."""

    num_qubits: int
    images: Images  # [elements, 4^n]
    sequences: tuple[tuple[Step, ...], ...]
    element_of_key: NDArray[np.int32]  # element of each key, see `_keys`; -1: none

    def find(self, images: Images) -> NDArray[np.int32]:
        """Numbers of elements by their images [..., 4^n]."""
        return np.asarray(self.element_of_key[_keys(images)])

    def pauli_x(self, bits: int) -> Images:
        """Images under X on the qubits of a bit mask."""
        matrix: Matrix = np.eye(1, dtype=np.complex128)
        for qubit in range(self.num_qubits):
            matrix = np.kron(_PAULIS[bits >> qubit & 1], matrix)
        return conjugation(matrix)


def conjugation(matrix: Matrix) -> Images:
    """Images of all Pauli strings under P -> U P U^+: uint8 [4^n]. U is a Clifford gate."""
    size = len(matrix)
    paulis = _PAULIS
    if size == 4:
        paulis = np.array([np.kron(b, a) for b in _PAULIS for a in _PAULIS])
    moved = matrix @ paulis @ matrix.conj().T
    overlaps = np.einsum("aij,bji->ab", paulis, moved).real / size
    images = np.abs(overlaps).argmax(axis=0)
    signs = overlaps[images, np.arange(len(paulis))] < 0
    return np.asarray(images + SIGN * signs, np.uint8)


def compose(first: Images, then: Images) -> Images:
    """Images under `first` followed by `then`; arrays [..., 4^n] of equal leading shape."""
    moved = np.take_along_axis(then, (first & (SIGN - 1)).astype(np.intp), axis=-1)
    return np.asarray(moved ^ (first & SIGN))


def inverse(images: Images) -> Images:
    """Images under the inverse elements."""
    places = (images & (SIGN - 1)).astype(np.intp)
    result = np.zeros_like(images)
    indices = np.broadcast_to(np.arange(images.shape[-1], dtype=np.uint8), images.shape)
    np.put_along_axis(result, places, indices | (images & SIGN), axis=-1)
    return result


def _keys(images: Images) -> NDArray[np.int64]:
    """Key of an element: the images of X and Z of each qubit as one number."""
    generators = (1, 3) if images.shape[-1] == 4 else (1, 3, 4, 12)
    key = np.zeros(images.shape[:-1], np.int64)
    for generator in generators:
        key = key * 2 * SIGN + images[..., generator]
    return key


def _numbered(num_qubits: int, images: Images) -> NDArray[np.int32]:
    index_table = np.full((2 * SIGN) ** (2 * num_qubits), -1, np.int32)
    index_table[_keys(images)] = np.arange(len(images))
    return index_table


@functools.cache
def one_qubit_group() -> CliffordGroup:
    """All 24 elements as Z (quarter Z)^k with k <= 2, fewest quarter turns first."""
    entries: dict[bytes, tuple[Step, ...]] = {}
    for count in range(3):
        for turns in product(range(4), repeat=count + 1):
            matrix = z_turn(turns[0])
            word: list[Step] = [("z", 0, turns[0])]
            for turn in turns[1:]:
                matrix = z_turn(turn) @ x_turn(1) @ matrix
                word += [("quarter", 0, 0), ("z", 0, turn)]
            key = conjugation(matrix).tobytes()
            entries.setdefault(key, tuple(step for step in word if step[0] != "z" or step[2]))
    images = np.array([np.frombuffer(key, np.uint8) for key in entries])
    return CliffordGroup(1, images, tuple(entries.values()), _numbered(1, images))


@functools.cache
def two_qubit_group(entangler: NativeOperation) -> CliffordGroup:
    """All 11,520 elements as L (E L')^k: L is any pair of one-qubit elements, k is minimal, and L'
    is one of the cheapest that lead to a new coset of local elements."""
    group_1q = one_qubit_group()
    costs = np.array([sum(step[0] == "quarter" for step in word) for word in group_1q.sequences])
    locals_ = np.array([_pair(a, b) for b in group_1q.images for a in group_1q.images])
    local_words = tuple(
        group_1q.sequences[a] + tuple((kind, 1, value) for kind, _, value in group_1q.sequences[b])
        for b in range(24)
        for a in range(24)
    )
    cheapest = np.argsort(np.add.outer(costs, costs).ravel(), kind="stable")
    gate = conjugation(entangler_matrix(entangler))
    cosets: dict[bytes, tuple[Images, tuple[Step, ...]]] = {}
    level: list[tuple[Images, tuple[Step, ...]]] = [(np.arange(16, dtype=np.uint8), ())]
    cosets[_coset(level[0][0])] = level[0]
    while level:
        following: list[tuple[Images, tuple[Step, ...]]] = []
        for images, word in level:
            for number in cheapest.tolist():
                longer = compose(compose(images, locals_[number]), gate)
                key = _coset(longer)
                if key not in cosets:
                    cosets[key] = longer, (*word, *local_words[number], ("entangler", 0, 0))
                    following.append(cosets[key])
        level = following
    images = np.concatenate(
        [compose(np.broadcast_to(rep, locals_.shape), locals_) for rep, _ in cosets.values()]
    )
    spelled = tuple(head + tail for _, head in cosets.values() for tail in local_words)
    return CliffordGroup(2, images, spelled, _numbered(2, images))


def _coset(images: Images) -> bytes:
    """Common key of the elements that differ by local elements after them: letters of each qubit in
    the order of their first appearance, without signs."""
    result = np.zeros(16, np.uint8)
    for shift in (0, 2):
        letters = images >> shift & 3
        names = dict.fromkeys(letters.tolist())
        names.pop(0, None)
        renamed = np.zeros(4, np.uint8)
        renamed[list(names)] = np.arange(1, len(names) + 1)
        result |= renamed[letters] << shift
    return result.tobytes()


def _pair(first: Images, second: Images) -> Images:
    """Images of pairs of Pauli numbers under one element on each qubit."""
    low, high = np.arange(16) & 3, np.arange(16) >> 2
    a, b = first[low], second[high]
    return np.asarray(((a & 3) | (b & 3) << 2 | ((a ^ b) & SIGN)).astype(np.uint8))
