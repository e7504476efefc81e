"""Projected entangled pair state on the graph of a circuit's gates, evolved by simple update.

A site has a tensor [2, bonds]; a bond has weights, the Schmidt values between the two sides of a
tree. A tensor has the root of the weights of each of its bonds, so the network is the tensors
alone. A gate on two neighbours acts on what QR decompositions leave of their tensors, each with all
of the weights of its other bonds; of the product's singular values those below the cutoff go
(Jiang, Weng and Xiang, Phys. Rev. Lett. 101, 090603, 2008). As long as nothing is cut off the state
is exact on any graph. What a cut loses is known on a tree, and estimated where bonds close a loop.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.chain import right_canonical

Tensor = NDArray[np.complexfloating]
Weights = NDArray[np.floating]


class GraphState:
    """State of some qubits, |0...0> at first. near[site]: its bonds, in the order of the axes of
    its tensor; ends[bond]: its two sites."""

    def __init__(
        self, num_qubits: int, ends: list[tuple[int, int]], *, bond: int, cutoff: float, dtype: str
    ) -> None:
        self.ends, self.dtype = ends, dtype
        self.near: list[list[int]] = [[] for _ in range(num_qubits)]
        for number, pair in enumerate(ends):
            for site in pair:
                self.near[site].append(number)
        zero = np.array([1, 0], dtype)
        self.tensors: list[Tensor] = [zero.reshape((2, *(1 for _ in each))) for each in self.near]
        self.weights: list[Weights] = [np.ones(1, zero.real.dtype) for _ in ends]
        self.fidelity = 1.0  # estimate, with the state without cuts
        self._bond, self._cutoff = bond, cutoff
        self._number = {frozenset(pair): number for number, pair in enumerate(ends)}

    @property
    def bond(self) -> int:
        return max((each.size for each in self.weights), default=1)

    @property
    def size(self) -> int:
        return sum(each.size for each in self.tensors)

    def other(self, bond: int, site: int) -> int:
        """The other end of a bond."""
        first, second = self.ends[bond]
        return second if site == first else first

    def apply(self, qubits: tuple[int, ...], matrix: Tensor) -> None:
        """Apply a unitary [2**k, 2**k] to one qubit, or to two that have a bond; the first qubit is
        the lowest bit."""
        matrix = matrix.astype(self.dtype)
        if len(qubits) == 1:
            (site,) = qubits
            self.tensors[site] = np.tensordot(matrix, self.tensors[site], (1, 0))
            return
        number = self._number[frozenset(qubits)]
        (basis, low), (other, high) = (self._reduced(site, number) for site in qubits)
        left, right, size = len(low), len(high), low.shape[2]
        pair = (low.reshape(-1, size) @ high.reshape(-1, size).T).reshape(left, 2, right, 2)
        pair = pair.transpose(0, 2, 3, 1).reshape(-1, 4) @ matrix.T
        pair = pair.reshape(left, right, 2, 2).transpose(0, 3, 1, 2)
        u, values, v = np.linalg.svd(pair.reshape(2 * left, 2 * right), full_matrices=False)
        kept, lost = right_canonical.truncated_rank(values, self._cutoff, self._bond)
        self.fidelity *= 1.0 - lost
        values = values[:kept] / np.linalg.norm(values[:kept])
        self.weights[number] = values
        root = np.sqrt(values)
        self._restore(qubits[0], number, basis, (u[:, :kept] * root).reshape(left, 2, kept))
        back = (v[:kept].T * root).reshape(right, 2, kept)
        self._restore(qubits[1], number, other, back)

    def scaled(self, site: int, *, without: tuple[int, ...] = (), inverse: bool = False) -> Tensor:
        """Tensor of a site, times (`inverse`: divided by) the root of the weights of its bonds but
        some."""
        result = self.tensors[site]
        for axis, bond in enumerate(self.near[site]):
            if bond not in without:
                root = np.sqrt(self.weights[bond])
                root = 1.0 / root if inverse else root
                result = result * root.reshape(-1, *(1 for _ in self.near[site][axis + 1 :]))
        return result

    def _reduced(self, site: int, number: int) -> tuple[Tensor, Tensor]:
        """Isometry [other bonds, k] and matrix [k, 2, bond] of which a site's tensor is made, with
        all of the weights of its other bonds."""
        axis = 1 + self.near[site].index(number)
        tensor = np.moveaxis(self.scaled(site, without=(number,)), (0, axis), (-2, -1))
        shape = tensor.shape
        flat = tensor.reshape(-1, shape[-2] * shape[-1])
        if len(flat) <= flat.shape[1]:
            basis = np.eye(len(flat), dtype=flat.dtype)
        else:
            basis, flat = np.linalg.qr(flat)
        return basis.reshape(*shape[:-2], -1), flat.reshape(-1, *shape[-2:])

    def _restore(self, site: int, number: int, basis: Tensor, matrix: Tensor) -> None:
        """Set the tensor of a site from its isometry and its matrix [k, 2, bond]."""
        axis = 1 + self.near[site].index(number)
        tensor = np.tensordot(basis, matrix, (-1, 0))
        self.tensors[site] = np.ascontiguousarray(np.moveaxis(tensor, (-2, -1), (0, axis)))
        self.tensors[site] = self.scaled(site, without=(number,), inverse=True)
