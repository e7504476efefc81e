"""Matrix product state in mixed canonical form, with gates and Kraus operators.

Tensors left of the center are left-canonical, those right of it right-canonical, so the center has
the norm of the state, and a split at the center discards the least weight (Schollwoeck, Annals of
Physics 326, 96, 2011, sections 4 and 7). An operation that is not unitary acts at the center.
Tensors are immutable: a copy of a state shares them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.chain.gate_blocks import SWAP, on_neighbours
from simulators.chain.right_canonical import truncated_rank
from simulators.tensornetwork.mps.gate_fusion import Matrix

Tensor = NDArray[np.complexfloating]


class CanonicalChain:
    """State of some qubits: tensors [left, 2, right], one a site."""

    __slots__ = ("_bond", "_center", "_cutoff", "fidelity", "sites", "tensors")

    def __init__(self, sites: tuple[int, ...], *, bond: int, cutoff: float, dtype: str) -> None:
        """Prepare |0...0>. `sites`: site of each qubit; `bond`: the largest bond kept; `cutoff`:
        the weight that a split may discard."""
        zero = np.array([1, 0], dtype).reshape(1, 2, 1)
        self.tensors: list[Tensor] = [zero] * len(sites)
        self.sites = sites
        self._center = 0
        self._bond, self._cutoff = bond, cutoff
        self.fidelity = 1.0  # estimate, with the state without truncation

    def copy(self) -> CanonicalChain:
        """An independent state with the same tensors."""
        result: CanonicalChain = object.__new__(CanonicalChain)
        result.tensors = self.tensors.copy()
        result.sites = self.sites
        result._center = self._center
        result._bond, result._cutoff = self._bond, self._cutoff
        result.fidelity = self.fidelity
        return result

    @property
    def bond(self) -> int:
        """Largest bond of the chain."""
        return max(int(tensor.shape[2]) for tensor in self.tensors)

    def normalise(self) -> None:
        """Divide by the norm."""
        center = self.tensors[self._center]
        self.tensors[self._center] = center / np.linalg.norm(center)

    def apply(self, qubits: tuple[int, ...], matrix: Matrix, *, unitary: bool = True) -> None:
        """Apply a matrix [2**k, 2**k] to qubits, the first one being the lowest bit."""
        matrix = matrix.astype(self.tensors[0].dtype)
        places = [self.sites[qubit] for qubit in qubits]
        if len(places) == 1:
            site = places[0]
            if not unitary:
                self.move_center(site)
            tensor = self.tensors[site]
            self.tensors[site] = np.ascontiguousarray(np.matmul(matrix, tensor))
            return
        swaps, block = on_neighbours(places, matrix)
        for site in swaps:
            self._block(site, 2, SWAP)
        self._block(block.first, block.count, block.matrix)
        for site in reversed(swaps):
            self._block(site, 2, SWAP)

    def reduced(self, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
        """Density matrix [2**k, 2**k] of one or two qubits; qubits[0] is the lowest bit. Its trace
        is the norm of the state. Moves the center."""
        places = [self.sites[qubit] for qubit in qubits]
        first, last = min(places), max(places)
        self.move_center(first)
        tensor = self.tensors[first]
        if first == last:
            single: Matrix = np.einsum("lpr,lqr->pq", tensor, tensor.conj())
            return single.astype(np.complex128)
        carried = np.einsum("lpr,lqs->pqrs", tensor, tensor.conj())
        for site in range(first + 1, last):
            tensor = self.tensors[site]
            half = np.tensordot(carried, tensor, (2, 0))  # [p, q, s, a, r]
            carried = np.tensordot(half, tensor.conj(), ((2, 3), (0, 1)))
        tensor = self.tensors[last]
        half = np.tensordot(carried, tensor, (2, 0))
        pair = np.tensordot(half, tensor.conj(), ((2, 4), (0, 2)))  # [p, q, a, b]: low, low*, high
        axes = (2, 0, 3, 1) if places[0] == first else (0, 2, 1, 3)
        return pair.transpose(axes).reshape(4, 4).astype(np.complex128)

    def move_center(self, site: int) -> None:
        """Make a site the center, by QR decompositions."""
        tensors = self.tensors
        while self._center < site:
            k = self._center
            left, _, right = tensors[k].shape
            q, r = np.linalg.qr(tensors[k].reshape(left * 2, right))
            tensors[k] = q.reshape(left, 2, -1)
            tensors[k + 1] = np.tensordot(r, tensors[k + 1], (1, 0))
            self._center += 1
        while self._center > site:
            k = self._center
            left, _, right = tensors[k].shape
            q, r = np.linalg.qr(tensors[k].reshape(left, 2 * right).conj().T)
            tensors[k] = np.ascontiguousarray(q.conj().T).reshape(-1, 2, right)
            tensors[k - 1] = np.tensordot(tensors[k - 1], r.conj().T, (2, 0))
            self._center -= 1

    def _block(self, first: int, count: int, matrix: Matrix) -> None:
        """Apply a matrix to neighbours, of which the first one is the highest bit."""
        last = first + count - 1
        self.move_center(min(max(self._center, first), last))
        block = self.tensors[first]
        for site in range(first + 1, last + 1):
            block = np.tensordot(block, self.tensors[site], (-1, 0))
        left, right = block.shape[0], block.shape[-1]
        block = np.matmul(matrix, block.reshape(left, 1 << count, right)).astype(block.dtype)
        for site in range(first, last):
            u, values, v = np.linalg.svd(block.reshape(left * 2, -1), full_matrices=False)
            kept, lost = truncated_rank(values, self._cutoff, self._bond)
            self.fidelity *= 1.0 - lost
            self.tensors[site] = np.ascontiguousarray(u[:, :kept]).reshape(left, 2, kept)
            block = values[:kept, None] * v[:kept]
            left = kept
        self.tensors[last] = block.reshape(left, 2, right)
        self._center = last
