"""Matrix product state in canonical form: limits, gate fusion, evolution, states of a walk."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import builtin_card
from simulators.chain import product_state, right_canonical
from simulators.chain.product_state import LEAST_CUTOFF, ROUNDING, MatrixProductState, truncation_of
from simulators.circuit.ir import Circuit
from simulators.engine import OPERATIONS, RunOptions
from simulators.errors import TruncatedState
from simulators.execution.ranks import Ranks

# Limits of a chain of tensors: its options, the weight it may discard and the memory it may
# use.

CARD = builtin_card("mps")
_WORKSPACE = 4  # relative to the tensors: a layer's products and splits, and samples


class ChainLimits(msgspec.Struct, frozen=True):
    bond: int  # largest bond kept
    cutoff: float  # weight that a gate may discard
    tolerance: float  # weight that all gates may discard
    memory_bytes: int  # 0: not known
    dtype: str

    @classmethod
    def of(cls, options: RunOptions) -> ChainLimits:
        dtype = options.dtype
        values = [CARD.value(options.settings, name) for name in ("bond", "cutoff", "tolerance")]
        bond, cutoff, tolerance = values
        return cls(
            int(bond), max(float(cutoff), LEAST_CUTOFF[dtype]), float(tolerance),
            options.memory_bytes, dtype,
        )  # fmt: skip

    def empty(self, num_qubits: int, order: tuple[int, ...] | None) -> CanonicalChain:
        """Chain of |0...0>; `order`: see `site_order`."""
        sites = site_order(max(1, num_qubits), order)
        return CanonicalChain(sites, bond=self.bond, cutoff=self.cutoff, dtype=self.dtype)

    def check_weight(self, lost: float, where: str = "") -> None:
        """Raise TruncatedState if more weight was discarded than allowed; what rounding loses is
        always allowed."""
        if lost > max(self.tolerance, ROUNDING):
            raise TruncatedState(
                f"engine 'mps' had to cut off {lost:.1e} of the weight{where}, with bonds of up to"
                f" {self.bond}; {self.tolerance:.1e} is allowed",
                hint="engine='mps' with a larger option bond keeps more, with tolerance=1 it"
                " goes on and result.truncation says what it lost",
            )

    def check_size(self, values: int) -> None:
        """Raise OutOfMemory if tensors of this size exceed the memory of the run."""
        need = _WORKSPACE * values * np.dtype(self.dtype).itemsize
        product_state.check_memory("mps", need, self.memory_bytes)


# Fusion of gates on the same one or two qubits before they reach a matrix product state.

Matrix = NDArray[np.complexfloating]
Apply = Callable[[tuple[int, ...], Matrix], None]  # qubits; matrix, its first qubit the lowest bit


class GateFusion:
    """Waiting gates: at most one block of one or two qubits for each qubit."""

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._blocks: dict[int, tuple[tuple[int, ...], Matrix]] = {}  # by each of its qubits

    def copy(self, apply: Apply) -> GateFusion:
        result = GateFusion(apply)
        result._blocks = self._blocks.copy()
        return result

    def take(self, qubits: tuple[int, ...], gate: Matrix) -> None:
        """Add a gate [2**k, 2**k], its first qubit the lowest bit."""
        if len(qubits) > 2:
            self.flush(qubits)
            self._apply(qubits, gate)
            return
        held = {self._blocks[q][0] for q in qubits if q in self._blocks}
        owner = next((block for block in held if set(qubits) <= set(block)), None)
        if owner is not None:
            _, before = self._blocks[owner[0]]
            self._keep(owner, _widened(gate, qubits, owner) @ before)
            return
        for block in sorted(held):
            if len(block) == 2:
                self._drop(block[0])
        for qubit in qubits:
            if qubit in self._blocks:
                single, before = self._blocks.pop(qubit)
                gate = gate @ _widened(before, single, qubits)
        self._keep(qubits, gate)

    def flush(self, qubits: tuple[int, ...] | None = None) -> None:
        """Apply all waiting gates, or those of some qubits."""
        for qubit in list(self._blocks) if qubits is None else qubits:
            self._drop(qubit)

    def _keep(self, qubits: tuple[int, ...], gate: Matrix) -> None:
        for qubit in qubits:
            self._blocks[qubit] = qubits, gate

    def _drop(self, qubit: int) -> None:
        if qubit not in self._blocks:
            return
        qubits, gate = self._blocks[qubit]
        for each in qubits:
            del self._blocks[each]
        self._apply(qubits, gate)


def _widened(gate: Matrix, qubits: tuple[int, ...], onto: tuple[int, ...]) -> Matrix:
    """Gate on `qubits` as one on `onto`, which contains them."""
    if qubits == onto:
        return gate
    if len(qubits) == 1:
        high, low = (_ONE, gate) if qubits[0] == onto[0] else (gate, _ONE)
        return np.asarray(high[:, None, :, None] * low[None, :, None, :]).reshape(4, 4)
    return gate.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)


_ONE: Matrix = np.eye(2, dtype=complex)


# Matrix product state in mixed canonical form, with gates and Kraus operators.
#
# Tensors left of the center are left-canonical, those right of it right-canonical, so the center
# has the norm of the state, and a split at the center discards the least weight (Schollwoeck,
# Annals of Physics 326, 96, 2011, sections 4 and 7). An operation that is not unitary acts at the
# center. Tensors are immutable: a copy of a state shares them.

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
        result: CanonicalChain = object.__new__(CanonicalChain)
        result.tensors = self.tensors.copy()
        result.sites = self.sites
        result._center = self._center
        result._bond, result._cutoff = self._bond, self._cutoff
        result.fidelity = self.fidelity
        return result

    @property
    def bond(self) -> int:
        return max(int(tensor.shape[2]) for tensor in self.tensors)

    def normalise(self) -> None:
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
        swaps, first, matrix = right_canonical.on_neighbours(places, matrix)
        for site in swaps:
            self._block(site, 2, right_canonical.SWAP)
        self._block(first, len(places), matrix)
        for site in reversed(swaps):
            self._block(site, 2, right_canonical.SWAP)

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
            q, r = _qr(tensors[k].reshape(left * 2, right))
            tensors[k] = q.reshape(left, 2, -1)
            tensors[k + 1] = _joined(r, tensors[k + 1])
            self._center += 1
        while self._center > site:
            k = self._center
            left, _, right = tensors[k].shape
            q, r = _qr(tensors[k].reshape(left, 2 * right).conj().T)
            tensors[k] = np.ascontiguousarray(q.conj().T).reshape(-1, 2, right)
            tensors[k - 1] = _joined(tensors[k - 1], r.conj().T)
            self._center -= 1

    def _block(self, first: int, count: int, matrix: Matrix) -> None:
        """Apply a matrix to neighbours, of which the first one is the highest bit."""
        last = first + count - 1
        self.move_center(min(max(self._center, first), last))
        block = self.tensors[first]
        for site in range(first + 1, last + 1):
            block = _joined(block, self.tensors[site])
        left, right = block.shape[0], block.shape[-1]
        block = np.matmul(matrix, block.reshape(left, 1 << count, right)).astype(block.dtype)
        for site in range(first, last):
            u, values, v = np.linalg.svd(block.reshape(left * 2, -1), full_matrices=False)
            kept, lost = right_canonical.truncated_rank(values, self._cutoff, self._bond)
            self.fidelity *= 1.0 - lost
            self.tensors[site] = np.ascontiguousarray(u[:, :kept]).reshape(left, 2, kept)
            block = values[:kept, None] * v[:kept]
            left = kept
        self.tensors[last] = block.reshape(left, 2, right)
        self._center = last


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Contract the last axis of a tensor with the first axis of another one."""
    shape = *first.shape[:-1], *second.shape[1:]
    flat = first.reshape(-1, first.shape[-1]) @ second.reshape(second.shape[0], -1)
    return np.asarray(flat.reshape(shape))


def _qr(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """QR decomposition. A single column, as at a cut without entanglement, is only normalised."""
    if matrix.shape[1] > 1:
        q, r = np.linalg.qr(matrix)
        return q, r
    norm = np.linalg.norm(matrix).astype(matrix.dtype).reshape(1, 1)
    return matrix / norm, norm


# States of a walk: a canonical chain with its waiting gates.


class ChainNode:
    """State with its waiting gates; a copy shares the immutable tensors."""

    def __init__(self, chain: CanonicalChain, fusion: GateFusion | None = None) -> None:
        self.chain = chain
        self.fusion = GateFusion(chain.apply) if fusion is None else fusion.copy(chain.apply)

    def copy(self) -> ChainNode:
        return ChainNode(self.chain.copy(), self.fusion)

    def state(self) -> MatrixProductState:
        """State with all gates; converts the node's own chain to its canonical form."""
        self.fusion.flush()
        chain = self.chain
        chain.move_center(0)
        return MatrixProductState(tuple(chain.tensors), chain.sites, truncation_of(chain.fidelity))


# Evolution of a circuit's gates into a matrix product state.


def site_order(num_qubits: int, order: tuple[int, ...] | None) -> tuple[int, ...]:
    """Site of each qubit; without an order, the highest qubit is at the first site, so that sites
    are sampled in the order of the statevector engine."""
    return tuple(range(num_qubits - 1, -1, -1)) if order is None else order


def evolve(
    circuit: Circuit,
    params: NDArray[np.float64],
    order: tuple[int, ...] | None,
    limits: ChainLimits,
    ranks: Ranks,
) -> MatrixProductState:
    """State after all gates, in all ranks; measurements are ignored. Raises TruncatedState,
    OutOfMemory. `order`: site of each qubit, see `profiler`."""
    share = None
    if ranks.size > 1:
        share = right_canonical.WorkSharing(ranks.size, ranks.alike, ranks.shared)
    sites = site_order(circuit.num_qubits, order)
    blocks = right_canonical.gate_blocks(circuit, params, sites)
    chain = right_canonical.RightCanonicalChain(
        len(sites), bond=limits.bond, cutoff=limits.cutoff, dtype=limits.dtype
    )
    ranks.control.expect(sum(map(len, blocks.layers)), OPERATIONS)
    for number, layer in enumerate(blocks.layers):
        chain.apply_layer(layer, ranks.control, share)
        ranks.control.advance(OPERATIONS, len(layer))
        limits.check_size(chain.size)
        limits.check_weight(
            1.0 - chain.fidelity, f" in {(number + 1) / len(blocks.layers):.0%} of its gates"
        )
    for site, block in blocks.singles.items():
        chain.apply_single(site, block.matrix)
    ranks.agree()
    return MatrixProductState(
        tuple(chain.tensors), sites, truncation_of(chain.fidelity), blocks.phase
    )
