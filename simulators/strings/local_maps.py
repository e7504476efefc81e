"""Maps of the Heisenberg picture on one qubit or two, in the forms in which strings take them.

A map is a real matrix whose row l is the image of letter l. Letters are numbered x + 2 z, so that
the product of two of them has the number k ^ l: I, X, Z, Y; on a pair, that of the first qubit plus
4 times that of the second. Each map becomes at most one mix and one relabelling, in this order.

A relabelling sends each letter to one letter, with a factor: Clifford gates, Pauli channels. A mix
sends letters to sums: rotations, relaxation, any channel. Its letters are of three kinds: active,
whose images have more than one letter; passive, which are only multiplied; and those that stay as
they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import from_unitary

Map = NDArray[np.float64]  # [4, 4] or [16, 16]

_ZERO = 1e-13  # magnitude of an entry that counts as zero
_ORDER = np.array([0, 1, 3, 2])  # of I, X, Z, Y among I, X, Y, Z
_PAIR_ORDER = (_ORDER[None, :] + 4 * _ORDER[:, None]).ravel()
_EXCHANGED = np.arange(16).reshape(4, 4).T.ravel()  # number of a pair's letters, qubits exchanged
_MOST_MIXED = 4  # letters of a gate's mix; a gate with more is decomposed

STAYS, PASSIVE, ACTIVE = range(3)


def map_of(ptm: NDArray[np.float64]) -> Map:
    """Map of a Pauli transfer matrix, whose index is that of I, X, Y, Z, and of the second qubit
    times 4."""
    order = _ORDER if len(ptm) == 4 else _PAIR_ORDER
    result: Map = ptm[np.ix_(order, order)]
    return np.where(np.abs(result) < _ZERO, 0.0, result)


def exchanged(one: Map) -> Map:
    """Map of a pair whose qubits are exchanged."""
    result: Map = one[np.ix_(_EXCHANGED, _EXCHANGED)]
    return result


def is_relabelling(one: Map) -> bool:
    """Return whether each letter has one letter as its image, or vanishes, and no two the same."""
    there = one != 0.0
    return bool((there.sum(axis=1) <= 1).all() and (there.sum(axis=0) <= 1).all())


class Mix(msgspec.Struct, frozen=True, eq=False):
    """Letters that a map mixes. `others[l]`: the other active letters of a component, which are
    mixed with l; `passive[l]`: the passive letters of its image."""

    matrix: Map
    kinds: NDArray[np.int64]  # [letters]
    others: tuple[tuple[int, ...], ...]
    passive: tuple[tuple[int, ...], ...]


def mix_of(one: Map) -> Mix:
    """Mix of a map that keeps the identity."""
    size = len(one)
    there = one != 0.0
    off = there & ~np.eye(size, dtype=np.bool_)
    # A letter that only receives is passive, unless it vanishes itself: see `kernel`.
    active = off.any(axis=1) | (~there.any(axis=1) & off.any(axis=0))
    root = list(range(size))

    def find(letter: int) -> int:
        while root[letter] != letter:
            letter = root[letter]
        return letter

    for source, target in np.argwhere(off & active[None, :]).tolist():
        root[find(source)] = find(target)
    kinds = np.where(active, ACTIVE, np.where(one.diagonal() == 1.0, STAYS, PASSIVE))
    others: list[tuple[int, ...]] = []
    passive: list[tuple[int, ...]] = []
    for letter in range(size):
        own = [k for k in range(size) if active[k] and find(k) == find(letter)]
        others.append(tuple(k for k in own if k != letter) if active[letter] else ())
        reached = there[own].any(axis=0) & ~active if active[letter] else np.zeros(size, np.bool_)
        passive.append(tuple(np.flatnonzero(reached).tolist()))
    return Mix(one, kinds, tuple(others), tuple(passive))


class Relabelling(msgspec.Struct, frozen=True, eq=False):
    """Image of each letter, and its factor; `moves`: some letter becomes another one."""

    images: NDArray[np.int64]
    factors: NDArray[np.float64]

    @property
    def moves(self) -> bool:
        return bool((self.images != np.arange(self.images.size)).any())


def relabelling_of(one: Map) -> Relabelling:
    """Form of a map that is a relabelling."""
    images = np.abs(one).argmax(axis=1)
    factors = one[np.arange(len(one)), images]
    return Relabelling(np.where(factors == 0.0, np.arange(len(one)), images), factors)


class Parts(msgspec.Struct, frozen=True, eq=False):
    """A map as a mix and then a relabelling, in the order in which strings take them."""

    mix: Mix | None
    relabelling: Relabelling | None


def parts_of(one: Map) -> Parts:
    """Parts of a map: on one qubit, the relabelling is the Clifford gate that leaves least to the
    mix."""
    if is_relabelling(one):
        found = relabelling_of(one)
        changes = found.moves or (found.factors != 1.0).any()
        return Parts(None, found if changes else None)
    if len(one) == 16:
        return Parts(mix_of(one), None)
    rests = one @ _CLIFFORDS.transpose(0, 2, 1)
    least = np.abs(rests * (1.0 - np.eye(4))).sum(axis=(1, 2)) - 1e-9 * np.einsum("kii", rests)
    number = int(least.argmin())
    chosen, rest = _CLIFFORDS[number], rests[number]
    rest = np.where(np.abs(rest) < _ZERO, 0.0, rest)
    if is_relabelling(rest):
        return Parts(None, relabelling_of(rest @ chosen))
    return Parts(mix_of(rest), relabelling_of(chosen) if number else None)


def _cliffords() -> NDArray[np.float64]:
    """Maps of the 24 Clifford gates on one qubit, the identity first."""
    result = [np.eye(4)]
    for order in itertools.permutations(range(1, 4)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            one = np.zeros((4, 4))
            one[0, 0] = 1.0
            one[[1, 2, 3], order] = signs
            if np.linalg.det(one) > 0.0 and not np.array_equal(one, result[0]):
                result.append(one)
    return np.array(result)


_CLIFFORDS = _cliffords()


def gate_maps(matrix: NDArray[np.complex128]) -> Sequence[tuple[int, Map]]:
    """Maps of a gate in the order of the circuit: each on both of its qubits (-1), or on its first
    (0) or second (1) one. A gate on two qubits that mixes many letters becomes rotations about XX,
    YY and ZZ between gates on one (Zhang, Vala, Sastry, Whaley, Phys. Rev. A 67, 042313, 2003)."""
    one = map_of(from_unitary(matrix).ptm)
    if len(one) == 4:
        return [(0, one)]
    if is_relabelling(one) or _most_mixed(one) <= _MOST_MIXED:
        return [(-1, one)]
    from qiskit.synthesis import TwoQubitWeylDecomposition  # here: importing it takes 0.3 s

    parts = TwoQubitWeylDecomposition(matrix, fidelity=None)
    before = [(0, np.asarray(parts.K2r)), (1, np.asarray(parts.K2l))]
    after = [(0, np.asarray(parts.K1r)), (1, np.asarray(parts.K1l))]
    middle = [
        (-1, np.cos(angle) * np.eye(4) + 1j * np.sin(angle) * np.kron(pauli, pauli))
        for angle, pauli in zip((parts.a, parts.b, parts.c), _PAULIS, strict=True)
        if abs(angle) > _ZERO
    ]
    steps: list[tuple[int, NDArray[np.complex128]]] = [*before, *middle, *after]
    return [(side, map_of(from_unitary(each).ptm)) for side, each in steps]


_PAULIS = (
    np.array([[0, 1], [1, 0]], np.complex128),
    np.array([[0, -1j], [1j, 0]]),
    np.diag([1.0 + 0j, -1.0]),
)


def _most_mixed(one: Map) -> int:
    """Letters of the largest component of a mix."""
    return max(1 + len(others) for others in mix_of(one).others)
