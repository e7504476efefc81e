"""Matrix product state in right-canonical form, for unitary gates without a moving center.

Each bond keeps its singular values. A gate multiplies two tensors; the product, weighted with the
values of the bond to its left, is split, and the left tensor is the unweighted product times the
conjugated right one, so there is no division by a small value (Hastings, J. Math. Phys. 50, 095207,
2009). Gates of one layer touch different tensors: those of equal shape are split in one call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

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
_NONE: Matrix = np.eye(4, dtype=complex)
_MOST_JOINED = 1 << 20


class BlockPart(msgspec.Struct, frozen=True, gc=False):
    """Matrix [2**k, 2**k] on neighbouring sites; the first site is the highest bit. `order`: see
    `order_of`."""

    order: int
    first: int
    matrix: Matrix


class Block(msgspec.Struct, gc=False):
    """Matrix [2**count, 2**count] on neighbouring sites, the product of its parts. Parts that share
    a site are in order of action."""

    first: int
    count: int
    parts: list[BlockPart]
    layer: int = 0
    matrix: Matrix = SWAP  # set when all parts are known


class GateBlocks(msgspec.Struct, frozen=True, gc=False):
    """Gates of a circuit: all blocks, layer by layer, then the remaining gates on single sites."""

    layers: list[list[Block]]
    singles: dict[int, Block]  # by site
    phase: complex
    gates: dict[int, tuple[Block, int]]
    """Block of each gate on several qubits, and the number of its parts up to the gate."""


def order_of(operation: int, joined: int = 0) -> int:
    """Order of action of an operation, or of a pair that is joined after it, from 1 on."""
    return operation * _MOST_JOINED + joined


def gate_blocks(
    circuit: Circuit,
    params: NDArray[np.float64],
    sites: tuple[int, ...],
    joined: Mapping[int, Sequence[tuple[int, int]]] | None = None,
) -> GateBlocks:
    """Blocks of all gates of a circuit; `sites`: site of each qubit. Operations that are no gates
    are ignored. `joined`: pairs of qubits that share a block after an operation (-1: before all),
    by an identity on them."""
    builder = _Builder(len(sites))
    phase = 1.0 + 0.0j
    joined = joined or {}

    def join(op: int) -> None:
        for k, pair in enumerate(joined.get(op, ())):
            builder.gate(order_of(op, k + 1), [sites[qubit] for qubit in pair], _NONE)

    join(-1)
    for operation, gate in with_matrices(circuit, params):
        place = operation.place
        if gate is not None:
            if not operation.qubits:
                phase *= complex(gate[0, 0])
            elif len(operation.qubits) == 1:
                builder.single(BlockPart(order_of(place), sites[operation.qubits[0]], gate))
            else:
                builder.gate(order_of(place), [sites[qubit] for qubit in operation.qubits], gate)
        join(place)
    return GateBlocks(builder.layers(), builder.singles, phase, builder.gates)


def product(first: int, count: int, parts: Iterable[BlockPart]) -> Matrix:
    """Product of parts on sites first .. first + count - 1, the first part acting first."""
    result: Matrix = np.eye(1 << count, dtype=complex)
    for part in parts:
        rows = result.reshape(1 << part.first - first, len(part.matrix), -1)
        result = np.matmul(part.matrix, rows).reshape(1 << count, 1 << count)
    return result


def on_neighbours(sites: list[int], gate: NDArray[Any]) -> tuple[list[int], int, Matrix]:
    """First sites of the swaps with the next site that bring these sites together, the first of
    them, and the gate as a matrix on them. `gate`: its first qubit is the lowest bit."""
    swaps, first, axes = _neighbours(sites)
    return swaps, first, _reordered(gate, axes)


def _neighbours(sites: list[int]) -> tuple[list[int], int, tuple[int, ...]]:
    """Swaps and first site as in `on_neighbours`, and the axis of each site's qubit in the gate."""
    count, order = len(sites), sorted(sites)
    first = order[0]
    swaps = [at for k, site in enumerate(order) for at in range(site - 1, first + k - 1, -1)]
    return swaps, first, tuple([count - 1 - sites.index(site) for site in order])


def _reordered(gate: NDArray[Any], axes: tuple[int, ...]) -> Matrix:
    count = len(axes)
    shaped = gate.reshape((2,) * (2 * count)).transpose(*axes, *(count + a for a in axes))
    return shaped.reshape(1 << count, 1 << count)


class _Builder:
    """Blocks in the order of their first gates; disjoint blocks commute."""

    def __init__(self, num_sites: int) -> None:
        self.singles: dict[int, Block] = {}  # gates that wait for the next block
        self.gates: dict[int, tuple[Block, int]] = {}
        self._blocks: list[Block] = []
        self._open: list[Block | None] = [None] * num_sites  # the last block of each site
        self._layer = [0] * num_sites  # first free layer of each site
        # By gate and axes: the gate, whose id must not be used again, and its matrix. Most circuits
        # have few gates, and most of their blocks are equal.
        self._matrices: dict[tuple[int, tuple[int, ...]], tuple[Matrix, Matrix]] = {}

    def single(self, part: BlockPart) -> None:
        """Add a gate [2, 2], which waits for the next block."""
        self.singles.setdefault(part.first, Block(part.first, 1, [])).parts.append(part)

    def gate(self, order: int, sites: list[int], gate: Matrix) -> None:
        """Add a gate whose qubits are at these sites, the first one being the lowest bit."""
        swaps, first, axes = _neighbours(sites)
        key = id(gate), axes
        entry = self._matrices.get(key)
        if entry is None:
            entry = self._matrices[key] = gate, _reordered(gate, axes)
        matrix = entry[1]
        for site in swaps:
            self._add(BlockPart(order, site, SWAP), 2)
        block = self._add(BlockPart(order, first, matrix), len(sites))
        self.gates[order] = block, len(block.parts)
        for site in reversed(swaps):
            self._add(BlockPart(order, site, SWAP), 2)

    def _add(self, part: BlockPart, count: int) -> Block:
        """Add a part on neighbours, to the block of the same pair if no other came after it."""
        first = part.first
        sites = range(first, first + count)
        block = self._open[first]
        if count != 2 or block is None or block is not self._open[first + 1] or block.count != 2:
            layer = max(self._layer[first : first + count])
            block = Block(first, count, [], layer)
            self._blocks.append(block)
            for site in sites:
                self._open[site] = block
                self._layer[site] = layer + 1
        for site in sites:
            single = self.singles.pop(site, None)
            if single is not None:
                block.parts += single.parts
        block.parts.append(part)
        return block

    def layers(self) -> list[list[Block]]:
        products: dict[tuple[int, ...], Matrix] = {}  # by sites and matrices of the parts
        for block in (*self._blocks, *self.singles.values()):
            first, key = block.first, [block.count]
            for part in block.parts:
                key += (part.first - first, id(part.matrix))
            matrix = products.get(tuple(key))
            if matrix is None:
                matrix = products[tuple(key)] = product(first, block.count, block.parts)
            block.matrix = matrix
        results: list[list[Block]] = [[] for _ in range(max(self._layer, default=0))]
        for block in self._blocks:
            results[block.layer].append(block)
        return results


Tensor = NDArray[np.complexfloating]
Values = NDArray[np.floating]
Places = list[int]

TOGETHER = 96  # splits of at most this many rows are done in one call
_RANDOM_ROWS = (
    128  # matrices with this many rows or more are split in a subspace, if it is large enough
)
_MORE = 1.12  # relative to the previous rank, in a subspace
_LEAST_MORE = 12
_SEED = 0x5EED  # seed of the vectors that span subspaces: they are the same in every run
_SIGNS = 3  # entries in each row of these vectors


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

    def apply_layer(
        self, blocks: Sequence[Block], control: RunControl, share: WorkSharing | None = None
    ) -> None:
        """Apply blocks that share no site."""
        tensors, values = self.tensors, self._values
        products = [
            BlockProduct(tensors[k.first : k.first + k.count], values[k.first], k.matrix)
            for k in blocks
        ]
        limits = SplitLimits(self._cutoff, self._bond)
        splits = split_all(products, limits, control, share)
        for block, (after, between, kept) in zip(blocks, splits, strict=True):
            sites = slice(block.first, block.first + block.count)
            self.size += sum(t.size for t in after) - sum(t.size for t in tensors[sites])
            tensors[sites], values[sites.start + 1 : sites.stop] = after, between
            self.fidelity *= kept
            self.widest = max(self.widest, *(each.size for each in between))

    def apply_single(self, site: int, gate: Matrix) -> None:
        """Apply a unitary gate [2, 2]."""
        result = np.matmul(gate.astype(self._dtype), self.tensors[site])
        self.tensors[site] = np.ascontiguousarray(result)


# Gates on neighbours: new tensors, right-canonical if the state's were, and the singular values of
# the bonds between them. Weights of a bond are its singular values, or a matrix whose products
# with the right tensors have the norms of the state.


def weighted(weights: Values | Tensor, tensor: Tensor) -> Tensor:
    """Product of the weights of a bond and a tensor [bond, ...]."""
    if weights.ndim == 1:
        return np.asarray(weights.reshape(-1, *(1,) * (tensor.ndim - 1)) * tensor)
    return np.tensordot(weights, tensor, (1, 0))


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Product of neighbours' tensors: [left, 2**count, right]; the first one is the highest bit."""
    result = tensors[0]
    for tensor in tensors[1:]:
        result = np.tensordot(result, tensor, (-1, 0))
    return result.reshape(result.shape[0], 1 << len(tensors), result.shape[-1])


class BlockProduct(NamedTuple):
    """Gate [2**k, 2**k] on neighbours: their tensors, and the weights of the bond left of them."""

    tensors: list[Tensor]
    weights: Values | Tensor
    gate: Matrix


class SplitLimits(NamedTuple):
    """Weight that a split may discard, and the largest bond. `rounded`: the rank of a small pair
    is rounded up also where no other pair has its shapes."""

    cutoff: float
    bond: int
    rounded: bool = False


Split = tuple[list[Tensor], list[Values], float]
"""Tensors of a block's sites, the values between them, and the share of the weight kept."""
_AT_ONCE = 256
LEAST_SHARED = 2e6  # `_operations` of a layer, about 1 ms: less is sooner done than sent


class WorkSharing(NamedTuple):
    """Processes that divide work: `simulators.execution.ranks.Ranks.shared`. `alike`: equal
    splits have equal factors in all of them, so that a little work may be done in each."""

    size: int
    alike: bool
    work: Callable[
        [Sequence[float], Callable[[int], tuple[Sequence[NDArray[Any]], list[float]]]],
        list[tuple[Sequence[NDArray[Any]], list[float]]],
    ]


def split_all(
    products: Sequence[BlockProduct],
    limits: SplitLimits,
    control: RunControl,
    share: WorkSharing | None = None,
) -> list[Split]:
    """Apply gates on disjoint blocks, or on blocks of different states. Small pairs of equal
    shapes are split in one call; the result of a block does not depend on the others."""
    groups: dict[object, list[int]] = {}
    if share is not None and share.alike and sum(map(_operations, products)) < LEAST_SHARED:
        share = None
    pieces = 1 if share is None else share.size
    for number, (tensors, weights, _) in enumerate(products):
        shapes = (
            (tensors[0].shape, tensors[1].shape, weights.shape) if len(tensors) == 2 else number
        )
        groups.setdefault(shapes, []).append(number)
    batches: list[tuple[list[int], bool]] = []
    for numbers in groups.values():
        tensors = products[numbers[0]].tensors
        small = 2 * min(tensors[0].shape[0], tensors[-1].shape[2]) <= TOGETHER
        alike = small and (limits.rounded or len(numbers) > 1)
        step = min(_AT_ONCE, -(-len(numbers) // pieces)) if small else 1
        batches += [(numbers[at : at + step], alike) for at in range(0, len(numbers), step)]

    def split(batch: int) -> list[Split]:
        control.check()
        numbers, alike = batches[batch]
        items = [products[number] for number in numbers]
        if len(items[0].tensors) == 2:
            return split_pairs(items, limits.cutoff, limits.bond, alike=alike)
        return [split_block(items[0], limits.cutoff, limits.bond)]

    results: list[Split] = [([], [], 1.0)] * len(products)
    if share is None:
        for batch, (numbers, _) in enumerate(batches):
            for number, each in zip(numbers, split(batch), strict=True):
                results[number] = each
        return results

    def arrays(batch: int) -> tuple[list[NDArray[Any]], list[float]]:
        splits = split(batch)
        flat = [array for tensors, values, _ in splits for array in (*tensors, *values)]
        return flat, [kept for _, _, kept in splits]

    costs = [sum(map(_operations, (products[k] for k in numbers))) for numbers, _ in batches]
    for (numbers, _), (flat, kept) in zip(batches, share.work(costs, arrays), strict=True):
        rest = iter(flat)
        for number, one in zip(numbers, kept, strict=True):
            count = len(products[number].tensors)
            tensors, values = ([next(rest) for _ in range(n)] for n in (count, count - 1))
            results[number] = tensors, values, one
    return results


def _operations(item: BlockProduct) -> float:
    """Operations of a split, up to a factor."""
    rows = int(item.tensors[0].shape[0]) << len(item.tensors) - 1
    columns = 2 * int(item.tensors[-1].shape[2])
    return float(rows * columns * min(rows, columns))


def split_pairs(
    pairs: Sequence[BlockProduct], cutoff: float, bond: int, *, alike: bool
) -> list[Split]:
    """Apply gates to pairs of the same shapes. `alike`: ranks are rounded up to a few sizes, so
    that shapes stay alike; the result of a pair does not depend on the others."""
    count = len(pairs)
    left, _, middle = pairs[0].tensors[0].shape
    right = pairs[0].tensors[1].shape[2]
    left_tensors, right_tensors = (
        np.array([each.tensors[side] for each in pairs]) for side in (0, 1)
    )
    left_tensors = left_tensors.reshape(count, 2 * left, middle)
    right_tensors = right_tensors.reshape(count, middle, 2 * right)
    gates = np.array([each.gate for each in pairs], left_tensors.dtype)
    weights = np.array([each.weights for each in pairs])
    theta = np.matmul(
        gates[:, None], np.matmul(left_tensors, right_tensors).reshape(count, left, 4, right)
    ).reshape(count, 2 * left, 2 * right)
    values, lost, factors = _split(theta, weights, middle, cutoff)
    squares = np.square(values, dtype=np.float64)
    behind = np.cumsum(squares[:, ::-1], axis=1)[:, ::-1] + lost[:, None]
    total = behind[:, 0]
    needed = np.count_nonzero(behind > cutoff * total[:, None], axis=1)
    results: list[Split | None] = [None] * count
    for kept, places in _by_rank(needed, min(bond, values.shape[1]), alike=alike).items():
        cut = behind[places, kept] if kept < values.shape[1] else lost[places]
        shares = (1.0 - cut / total[places]).tolist()
        lefts, rows = factors(places, kept)
        norms = np.sqrt(squares[places, :kept].sum(axis=1))
        kept_values = values[places, :kept] / norms[:, None].astype(values.dtype)
        for at, place in enumerate(places):
            tensors = [lefts[at].reshape(left, 2, kept), rows[at].reshape(kept, 2, right)]
            results[place] = tensors, [kept_values[at]], shares[at]
    return results  # type: ignore[return-value]  # every place has a rank


Factors = Callable[[Places, int], tuple[Tensor, Tensor]]
"""Of the splits at some places: the products with the conjugated right vectors, as many as are
kept, and these vectors."""


def _split(
    theta: Tensor, weights: Values | Tensor, rank: int, cutoff: float
) -> tuple[Values, NDArray[np.float64], Factors]:
    """Singular values [n, k] of products [n, rows, columns] with their weights, the missing weight
    [n], and their factors. `rank`: of the bond before."""
    count = len(theta)
    matrices = _weighted_rows(weights, theta)
    least = min(matrices.shape[1:])
    size = int(_MORE * rank) + _LEAST_MORE
    if count == 1 and least >= _RANDOM_ROWS and 5 * size < 4 * least:
        basis = row_space(matrices[0], size)
        inside = theta[0] @ basis
        projected = _weighted_rows(weights, inside[None])[0]
        squares, mixing = np.linalg.eigh(projected.conj().T @ projected)
        weight = float(np.linalg.norm(projected)) ** 2
        lost = max(0.0, float(np.linalg.norm(matrices[0])) ** 2 - weight)
        if lost <= 0.5 * cutoff * weight:

            def in_subspace(_: Places, kept: int) -> tuple[Tensor, Tensor]:
                first = mixing[:, : -kept - 1 : -1]
                rows = np.ascontiguousarray((basis @ first).conj().T)
                return (inside @ first)[None], rows[None]

            return np.sqrt(np.maximum(squares[::-1], 0.0))[None], np.array([lost]), in_subspace
    values, vectors = full_split(matrices)

    def factors(places: Places, kept: int) -> tuple[Tensor, Tensor]:
        rows = np.ascontiguousarray(vectors[places, :kept])
        return np.matmul(theta[places], rows.conj().transpose(0, 2, 1)), rows

    return values, np.zeros(count), factors


def _weighted_rows(weights: Values | Tensor, theta: Tensor) -> Tensor:
    """Products of weights [n, left] or [n, new, left] and matrices [n, 2 * left, columns]."""
    count, _, columns = theta.shape
    left = weights.shape[-1]
    sites = theta.reshape(count, left, 2 * columns)
    item = weights[:, :, None] * sites if weights.ndim == 2 else np.matmul(weights, sites)
    return np.asarray(item.reshape(count, -1, columns))


def split_block(block: BlockProduct, cutoff: float, bond: int) -> Split:
    """Apply a gate to a block, whose last site is split off first."""
    product = joined(block.tensors)
    theta = np.matmul(block.gate.astype(product.dtype), product)
    return split_theta(theta, block.weights, cutoff, bond)


def split_theta(theta: Tensor, weights: Values | Tensor, cutoff: float, bond: int) -> Split:
    """Split a product of tensors [left, 2**count, right], whose last site is split off first."""
    left, size, right = theta.shape
    tensors: list[Tensor] = []
    values_between: list[Values] = []
    share = 1.0
    for _ in range(size.bit_length() - 2):
        theta = theta.reshape(-1, 2 * right)
        item = weighted(weights, theta.reshape(left, -1)).reshape(-1, 2 * right)
        values, vectors = (each[0] for each in full_split(item[None]))
        kept, lost = truncated_rank(values, cutoff, bond)
        share *= 1.0 - lost
        vectors, values = np.ascontiguousarray(vectors[:kept]), values[:kept]
        theta = theta @ vectors.conj().T
        tensors.append(vectors.reshape(kept, 2, right))
        values_between.append(values / np.linalg.norm(values))
        right = kept
    tensors.append(theta.reshape(left, 2, right))
    return tensors[::-1], values_between[::-1], share


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


def row_space(matrix: Tensor, size: int) -> Tensor:
    """Orthonormal columns [columns, size] that span nearly the same space as the rows of a matrix:
    those of the conjugated matrix times the matrix times sparse vectors of random signs (Halko,
    Martinsson and Tropp, SIAM Review 53, 217, 2011; Martinsson and Tropp, Acta Numerica 29, 403,
    2020, section 9)."""
    image = np.zeros((len(matrix), size), matrix.dtype)
    for places, signs in zip(*_sparse_signs(matrix.shape[1], size), strict=True):
        image += matrix[:, places] * signs
    return np.linalg.qr(matrix.conj().T @ image)[0]


@functools.lru_cache(maxsize=64)
def _sparse_signs(rows: int, columns: int) -> tuple[NDArray[np.intp], NDArray[np.int8]]:
    """Rows and values of the entries of a matrix of so many rows and columns: [n, columns], n in
    each column."""
    random = np.random.default_rng(_SEED)
    count = -(-_SIGNS * rows // columns)
    turns = [random.permutation(rows) for _ in range(-(-count * columns // rows))]
    places = np.concatenate(turns)[: count * columns].reshape(count, columns)
    return places, random.choice(np.array([-1, 1], np.int8), places.shape)


def _by_rank(needed: NDArray[np.intp], max_rank: int, *, alike: bool) -> dict[int, Places]:
    """Indices by the number of values they keep: a few sizes, so that shapes stay alike."""
    entries: dict[int, Places] = {}
    for place, rank in enumerate(needed.tolist()):
        step = max(1, (1 << max(0, rank.bit_length() - 1)) // 4)
        rounded = -(-rank // step) * step if alike else rank
        entries.setdefault(max(1, min(rounded, max_rank)), []).append(place)
    return entries
