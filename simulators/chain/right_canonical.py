"""Matrix product state in right-canonical form, for unitary gates without a moving center.

Each bond keeps its singular values. A gate multiplies two tensors; the product, weighted with the
values of the bond to its left, is split, and the left tensor is the unweighted product times the
conjugated right one, so there is no division by a small value (Hastings, J. Math. Phys. 50, 095207,
2009). Gates of one layer touch different tensors: those of equal shape are split in one call.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit, with_matrices
from simulators.engine import RunControl

# Blocks of gates for a chain of tensors, in layers of blocks that share no site.
#
# Gates on one qubit wait for the next gate on a pair, gates on the same pair are multiplied, and
# gates between distant sites become swaps of neighbours, there and back. Blocks of one layer act on
# different sites, so that their tensors can be split together.

Matrix = NDArray[np.complex128]

SWAP: Matrix = np.eye(4, dtype=complex)[[0, 2, 1, 3]]


class Block(msgspec.Struct, gc=False):
    """Matrix [2**count, 2**count] on neighbouring sites; the first site is the highest bit."""

    first: int
    count: int
    layer: int
    matrix: Matrix


class GateBlocks(msgspec.Struct, frozen=True, gc=False):
    """Gates of a circuit: all blocks, layer by layer, then the remaining gates on single sites."""

    layers: list[list[Block]]
    singles: dict[int, Matrix]  # by site
    phase: complex


def gate_blocks(
    circuit: Circuit, params: NDArray[np.float64], sites: tuple[int, ...]
) -> GateBlocks:
    """Blocks of all gates of a circuit; `sites`: site of each qubit. Operations that are no gates
    are ignored."""
    builder = _Builder(len(sites))
    phase = 1.0 + 0.0j
    for operation, gate in with_matrices(circuit, params):
        if gate is None:
            continue
        if not operation.qubits:
            phase *= complex(gate[0, 0])
        elif len(operation.qubits) == 1:
            builder.single(sites[operation.qubits[0]], gate)
        else:
            builder.gate([sites[qubit] for qubit in operation.qubits], gate)
    return GateBlocks(builder.layers(), builder.singles, phase)


def on_neighbours(sites: list[int], gate: NDArray[Any]) -> tuple[list[int], Block]:
    """First sites of the swaps with the next site that bring these sites together, and the gate as
    a block on them. `gate`: its first qubit is the lowest bit."""
    count, order = len(sites), sorted(sites)
    first = order[0]
    swaps = [at for k, site in enumerate(order) for at in range(site - 1, first + k - 1, -1)]
    axes = [count - 1 - sites.index(site) for site in order]  # of each site's qubit
    shaped = gate.reshape((2,) * (2 * count)).transpose(*axes, *(count + a for a in axes))
    return swaps, Block(first, count, 0, shaped.reshape(1 << count, 1 << count))


class _Builder:
    """Blocks in the order of their first gates; disjoint blocks commute."""

    def __init__(self, num_sites: int) -> None:
        self.singles: dict[int, Matrix] = {}
        self._blocks: list[Block] = []
        self._open: list[Block | None] = [None] * num_sites  # the last block of each site
        self._layer = [0] * num_sites  # first free layer of each site

    def single(self, site: int, gate: Matrix) -> None:
        """Add a gate [2, 2], which waits for the next block."""
        before = self.singles.get(site)
        self.singles[site] = gate if before is None else gate @ before

    def gate(self, sites: list[int], gate: Matrix) -> None:
        """Add a gate whose qubits are at these sites, the first one being the lowest bit."""
        swaps, block = on_neighbours(sites, gate)
        for site in swaps:
            self._pair(site, SWAP)
        if block.count == 2:
            self._pair(block.first, block.matrix)
        else:
            self._block(block.first, block.count, block.matrix)
        for site in reversed(swaps):
            self._pair(site, SWAP)

    def _pair(self, site: int, gate: Matrix) -> None:
        """Add a gate on a site and the next one."""
        high, low = self.singles.pop(site, None), self.singles.pop(site + 1, None)
        if high is not None or low is not None:
            high = _ONE if high is None else high
            low = _ONE if low is None else low
            both = (high[:, None, :, None] * low[None, :, None, :]).reshape(4, 4)
            gate = gate @ both
        before = self._open[site]
        if before is not None and before is self._open[site + 1] and before.count == 2:
            before.matrix = gate @ before.matrix
            return
        self._append(site, 2, gate)

    def _block(self, first: int, count: int, gate: Matrix) -> None:
        """Add a gate on more than two neighbours."""
        for k in range(count):
            single = self.singles.pop(first + k, None)
            if single is not None:
                shaped = gate.reshape((1 << count) << k, 2, -1)
                gate = np.einsum("apb,pq->aqb", shaped, single).reshape(1 << count, 1 << count)
        self._append(first, count, gate)

    def _append(self, first: int, count: int, gate: Matrix) -> None:
        layer = max(self._layer[first : first + count])
        block = Block(first, count, layer, gate)
        self._blocks.append(block)
        for site in range(first, first + count):
            self._open[site] = block
            self._layer[site] = layer + 1

    def layers(self) -> list[list[Block]]:
        results: list[list[Block]] = [[] for _ in range(max(self._layer, default=0))]
        for block in self._blocks:
            results[block.layer].append(block)
        return results


_ONE: Matrix = np.eye(2, dtype=complex)


Tensor = NDArray[np.complexfloating]
Values = NDArray[np.floating]
Places = list[int]

_TOGETHER = 96  # splits of at most this many rows are done in one call
_RANDOM_ROWS = (
    128  # matrices with this many rows or more are split in a subspace, if it is large enough
)
_MORE = 1.12  # relative to the previous rank, in a subspace
_LEAST_MORE = 12
_SEED = 0x5EED  # seed of the vectors that span subspaces: they are the same in every run


class RightCanonicalChain:
    """State of sites 0 .. n - 1: tensors [left, 2, right], all but the first right-canonical."""

    def __init__(self, num_sites: int, *, bond: int, cutoff: float, dtype: str) -> None:
        """Prepare |0...0>. `bond`: the largest bond kept; `cutoff`: the weight that a split may
        discard."""
        zero = np.array([1, 0], dtype).reshape(1, 2, 1)
        self.tensors: list[Tensor] = [zero] * num_sites
        self.fidelity = 1.0  # estimate, with the state without truncation
        self.size = 2 * num_sites  # values of all tensors
        self.widest = 1  # largest bond so far
        unit = np.ones(1, zero.real.dtype)
        self._values: list[Values] = [unit] * (num_sites + 1)  # of the bond left of each site
        self._bond, self._cutoff, self._dtype = bond, cutoff, zero.dtype

    def apply_layer(self, blocks: list[Block], control: RunControl) -> None:
        """Apply blocks that share no site."""
        groups: dict[tuple[int, int, int], list[Block]] = {}
        for block in blocks:
            if block.count > 2:
                control.check()
                self._apply_wide(block)
                continue
            left, _, middle = self.tensors[block.first].shape
            right = self.tensors[block.first + 1].shape[2]
            groups.setdefault((left, middle, right), []).append(block)
        for (left, _, right), group in groups.items():
            if 2 * min(left, right) > _TOGETHER:
                for block in group:
                    control.check()
                    self._apply_pairs([block])
            else:
                control.check()
                self._apply_pairs(group)

    def apply_single(self, site: int, gate: Matrix) -> None:
        """Apply a unitary gate [2, 2]."""
        result = np.matmul(gate.astype(self._dtype), self.tensors[site])
        self.tensors[site] = np.ascontiguousarray(result)

    def _apply_pairs(self, group: list[Block]) -> None:
        """Apply gates on pairs whose tensors have the same shapes."""
        tensors, count = self.tensors, len(group)
        firsts = [block.first for block in group]
        left, _, middle = tensors[firsts[0]].shape
        right = tensors[firsts[0] + 1].shape[2]
        left_tensors = np.array([tensors[k] for k in firsts]).reshape(count, 2 * left, middle)
        right_tensors = np.array([tensors[k + 1] for k in firsts]).reshape(count, middle, 2 * right)
        gates = np.array([block.matrix for block in group], self._dtype)
        theta = np.matmul(
            gates[:, None], np.matmul(left_tensors, right_tensors).reshape(count, left, 4, right)
        )
        weights = np.array([self._values[k] for k in firsts])
        weighted = (weights[:, :, None, None] * theta).reshape(count, 2 * left, 2 * right)
        theta = theta.reshape(count, 2 * left, 2 * right)
        values, vectors, lost = self._split(weighted, middle)
        squares = np.square(values, dtype=np.float64)
        behind = np.cumsum(squares[:, ::-1], axis=1)[:, ::-1] + lost[:, None]
        total = behind[:, 0]
        needed = np.count_nonzero(behind > self._cutoff * total[:, None], axis=1)
        for kept, places in _by_rank(needed, min(self._bond, values.shape[1])).items():
            cut = behind[places, kept] if kept < values.shape[1] else lost[places]
            share = 1.0 - cut / total[places]
            self.fidelity *= float(np.prod(share))
            self.widest = max(self.widest, kept)
            rows = np.ascontiguousarray(vectors[places, :kept])
            lefts = np.matmul(theta[places], rows.conj().transpose(0, 2, 1))
            norms = np.sqrt(squares[places, :kept].sum(axis=1))
            kept_values = values[places, :kept] / norms[:, None].astype(values.dtype)
            for at, place in enumerate(places):
                site = firsts[place]
                self.size += 2 * (left + right) * (kept - middle)
                tensors[site] = lefts[at].reshape(left, 2, kept)
                tensors[site + 1] = rows[at].reshape(kept, 2, right)
                self._values[site + 1] = kept_values[at]

    def _split(self, matrices: Tensor, rank: int) -> tuple[Values, Tensor, NDArray[np.float64]]:
        """Singular values [n, k], right vectors [n, k, columns] and the missing weight [n]. `rank`:
        of the bond before."""
        count, rows, columns = matrices.shape
        least = min(rows, columns)
        size = int(_MORE * rank) + _LEAST_MORE
        if count == 1 and least >= _RANDOM_ROWS and 5 * size < 4 * least:
            values, vectors, lost = subspace_split(matrices[0], size)
            if lost <= 0.5 * self._cutoff * float(np.square(values, dtype=np.float64).sum()):
                return values[None], vectors[None], np.array([lost])
        values, vectors = full_split(matrices)
        return values, vectors, np.zeros(count)

    def _apply_wide(self, block: Block) -> None:
        """Apply a gate on more than two neighbours: its last site is split off first."""
        first, count = block.first, block.count
        sites = range(first, first + count)
        self.size -= sum(self.tensors[site].size for site in sites)
        theta = self.tensors[first]
        for site in range(first + 1, first + count):
            theta = np.tensordot(theta, self.tensors[site], (-1, 0))
        left, right = theta.shape[0], theta.shape[-1]
        gate = block.matrix.astype(self._dtype)
        theta = np.matmul(gate, theta.reshape(left, 1 << count, right))
        for site in range(first + count - 1, first, -1):
            rows = theta.size // (2 * right)
            theta = theta.reshape(rows, 2 * right)
            weights = self._values[first][:, None]
            weighted = (weights * theta.reshape(left, -1)).reshape(rows, 2 * right)
            values, vectors = (each[0] for each in full_split(weighted[None]))
            kept, lost = truncated_rank(values, self._cutoff, self._bond)
            self.fidelity *= 1.0 - lost
            vectors, values = np.ascontiguousarray(vectors[:kept]), values[:kept]
            theta = theta @ vectors.conj().T
            self.tensors[site] = vectors.reshape(kept, 2, right)
            self._values[site] = values / np.linalg.norm(values)
            self.widest = max(self.widest, kept)
            right = kept
        self.tensors[first] = theta.reshape(left, 2, right)
        self.size += sum(self.tensors[site].size for site in sites)


def truncated_rank(values: Values, cutoff: float, bond: int) -> tuple[int, float]:
    """Number of singular values kept, at most `bond`, and the share of the weight that is lost;
    `cutoff`: the share that may be."""
    weights = np.square(values, dtype=np.float64)
    behind = np.cumsum(weights[::-1])[::-1]  # weight of each value and those after it
    needed = int(np.count_nonzero(behind > cutoff * behind[0]))
    kept = max(1, min(needed, bond))
    return kept, float(behind[kept] / behind[0]) if kept < behind.size else 0.0


def full_split(matrices: Tensor) -> tuple[Values, Tensor]:
    """Singular values, descending, and right singular vectors of each matrix of a stack."""
    try:
        _, values, vectors = np.linalg.svd(matrices, full_matrices=False)
    except np.linalg.LinAlgError:  # rare: LAPACK's divide and conquer does not converge
        gram = np.matmul(matrices.conj().transpose(0, 2, 1), matrices)
        squares, columns = np.linalg.eigh(gram)
        least = min(matrices.shape[1:])
        values = np.sqrt(np.maximum(squares, 0.0))[:, ::-1][:, :least]
        vectors = columns.conj().transpose(0, 2, 1)[:, ::-1][:, :least]
    return values, vectors


def subspace_split(matrix: Tensor, size: int) -> tuple[Values, Tensor, float]:
    """Singular values and right vectors of `full_split` in a subspace of `size` row vectors, and
    the weight outside of it. The subspace is that of the conjugated matrix times the matrix times
    random vectors (Halko, Martinsson and Tropp, SIAM Review 53, 217, 2011); inside it the split is
    exact."""
    image = matrix @ _random_vectors(matrix.shape[1], size, matrix.dtype)
    basis = np.linalg.qr(matrix.conj().T @ image)[0]
    projected = matrix @ basis
    squares, columns = np.linalg.eigh(projected.conj().T @ projected)
    lost = float(np.linalg.norm(matrix) ** 2 - np.linalg.norm(projected) ** 2)
    values = np.sqrt(np.maximum(squares[::-1], 0.0))
    vectors = (basis @ columns[:, ::-1]).conj().T
    return values, vectors, max(0.0, lost)


@functools.lru_cache(maxsize=64)
def _random_vectors(rows: int, columns: int, dtype: np.dtype[np.complexfloating]) -> Tensor:
    random = np.random.default_rng(_SEED).standard_normal((rows, columns))
    result: Tensor = random.astype(dtype)
    return result


def _by_rank(needed: NDArray[np.intp], max_rank: int) -> dict[int, Places]:
    """Indices by the number of values they keep: a few sizes, so that shapes stay alike."""
    entries: dict[int, Places] = {}
    for place, rank in enumerate(needed.tolist()):
        step = max(1, (1 << max(0, rank.bit_length() - 1)) // 4)
        rounded = -(-rank // step) * step if len(needed) > 1 else rank
        entries.setdefault(max(1, min(rounded, max_rank)), []).append(place)
    return entries
