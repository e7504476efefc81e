"""Matrix product state after evolution: samples, expectation values, amplitudes.

Tensors have shape [left, 2, right], one a qubit, from qubit 0. All but the last are left-canonical,
so all tensors left of a qubit contract to the identity. The norm is what truncation left.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.control import RunControl
from simulators.execution.rng import uniforms

Tensor = NDArray[np.complexfloating]

SITES_A_DRAW = 32  # one uniform decides so many qubits: 53 bits leave 21 for the rarest outcome
_LATER_DRAWS = 2**33  # group g of qubits has draw 2**33 + g, but the first has draw 0
_PAULIS = {
    (0, 0): np.eye(2, dtype=complex),
    (1, 0): np.array([[0, 1], [1, 0]], complex),
    (0, 1): np.array([[1, 0], [0, -1]], complex),
    (1, 1): np.array([[0, -1j], [1j, 0]]),
}


class MatrixProductState(msgspec.Struct, frozen=True, eq=False):
    """A state of `len(tensors)` qubits."""

    tensors: tuple[Tensor, ...]
    truncation: float  # 1 - the estimated fidelity with the state wanted
    phase: complex = 1.0  # of the whole state

    @property
    def bond(self) -> int:
        """The largest bond there is."""
        return max((tensor.shape[2] for tensor in self.tensors), default=1)

    def sample(
        self, shots: NDArray[np.int64], key: tuple[int, int], control: RunControl
    ) -> NDArray[np.uint8]:
        """Bits of these shots: uint8 [shots, qubits].

        From the highest qubit down, each shot by its own uniform numbers; shots that agree so far
        share one vector, so the work grows with distinct beginnings, not with shots. Up to
        `SITES_A_DRAW` qubits this is the inverse sampling of the statevector engine.
        """
        bits = np.zeros((shots.size, len(self.tensors)), np.uint8)
        draws = np.empty(shots.size)
        group = np.zeros(shots.size, np.int64)  # of shots with equal bits so far
        vectors = np.ones((1, 1), self.tensors[0].dtype) if self.tensors else np.ones((1, 1))
        low, weight = np.zeros(1), np.ones(1)
        for step, site in enumerate(range(len(self.tensors) - 1, -1, -1)):
            control.check()
            if step % SITES_A_DRAW == 0:
                number = step // SITES_A_DRAW
                uniforms(*key, _LATER_DRAWS + number if number else 0, shots, draws)
                low, weight = np.zeros(len(vectors)), np.ones(len(vectors))
            tensor = self.tensors[site]
            left, _, right = tensor.shape
            both = (vectors @ tensor.reshape(left * 2, right).T).reshape(-1, left, 2)
            odds = np.square(both.real).sum(axis=1) + np.square(both.imag).sum(axis=1)
            edge = low + weight * (odds[:, 0] / odds.sum(axis=1))
            bit = (draws >= edge[group]).astype(np.int64)
            bits[:, site] = bit
            child = 2 * group + bit
            present = np.bincount(child, minlength=2 * len(vectors)) > 0
            group = (np.cumsum(present) - 1)[child]
            kept = np.flatnonzero(present)
            parent, value = kept >> 1, kept & 1
            vectors = both[parent, :, value] / np.sqrt(odds[parent, value])[:, None]
            above = low + weight
            low = np.where(value == 1, edge[parent], low[parent])
            weight = np.where(value == 1, above[parent] - edge[parent], edge[parent] - low)
        return bits

    def means(self, strings: list[tuple[int, int]], control: RunControl) -> NDArray[np.float64]:
        """Expectation value of each Pauli string (x, z).

        Strings are taken in order of their letters, and share what they have in common from their
        first qubit on.
        """
        rights = self._rights()
        norm = rights[0].ravel()[0].real
        found = np.empty(len(strings))
        spelled = sorted((_spell(x, z), number) for number, (x, z) in enumerate(strings))
        path: list[Tensor] = []  # after each letter of the string before
        before: tuple[int, tuple[tuple[int, int], ...]] = (-1, ())
        for (first, letters), number in spelled:
            control.check()
            same = 0
            if first == before[0]:
                while same < min(len(letters), len(before[1])) and (
                    letters[same] == before[1][same]
                ):
                    same += 1
            del path[same:]
            for place in range(same, len(letters)):
                tensor = self.tensors[first + place]
                left = path[-1] if path else np.eye(tensor.shape[0], dtype=tensor.dtype)
                path.append(_carry(left, tensor, _PAULIS[letters[place]]))
            last = path[-1] if path else np.ones((1, 1))
            end = rights[first + len(letters)] if letters else rights[0]
            found[number] = np.sum(last * end).real / norm
            before = first, letters
        return found

    def state(self) -> NDArray[np.complexfloating]:
        """All amplitudes, normalised: [2**qubits], qubit 0 the lowest bit."""
        found = np.ones((1, 1), self.tensors[0].dtype if self.tensors else complex)
        for tensor in self.tensors:
            grown = np.tensordot(found, tensor, (1, 0))  # [index, bit, right]
            found = grown.transpose(1, 0, 2).reshape(-1, tensor.shape[2])
        amplitudes = found[:, 0] * np.asarray(self.phase, found.dtype)
        normal: NDArray[np.complexfloating] = amplitudes / np.linalg.norm(amplitudes)
        return normal

    def _rights(self) -> list[Tensor]:
        """rights[k]: what lies at and right of qubit k, contracted with itself: [left, left]."""
        found: list[Tensor] = [np.ones((1, 1), complex)]
        for tensor in reversed(self.tensors):
            half = np.tensordot(tensor, found[-1], (2, 1))  # [l, p, r*]
            found.append(np.tensordot(tensor.conj(), half, ((1, 2), (1, 2))))
        return found[::-1]


def _carry(left: Tensor, tensor: Tensor, pauli: NDArray[np.complex128]) -> Tensor:
    """One qubit further: [right*, right]."""
    turned = np.tensordot(pauli, tensor, (1, 1))  # [p, l, r]
    half = np.tensordot(left, turned, (1, 1))  # [l*, p, r]
    carried: Tensor = np.tensordot(tensor.conj(), half, ((0, 1), (0, 1)))
    return carried


def _spell(x: int, z: int) -> tuple[int, tuple[tuple[int, int], ...]]:
    """A string's first qubit, and its letters from there to its last one."""
    support = x | z
    if not support:
        return 0, ()
    first, last = (support & -support).bit_length() - 1, support.bit_length()
    return first, tuple((x >> q & 1, z >> q & 1) for q in range(first, last))
