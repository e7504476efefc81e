"""Trajectories of matrix product states: all shots together, layer by layer.

Errors are drawn first, as in the statevector engine and by the same random numbers. An error is
multiplied into the block of gates that holds its gate. A gate on right-canonical tensors with the
values of their bonds (`chain.right_canonical`) is a function of the two tensors, of the values to
their left and of the gate, so trajectories have equal tensors wherever their errors in the past
light cone are equal. Each site holds the distinct versions of its tensor, each trajectory their
numbers, and a layer applies each block once for each distinct combination: an error costs the
blocks of its light cone. Versions of equal shape are split in one call.

The Kraus operator of a channel that is no mixture of Paulis is drawn inside its block, from the
reduced density matrix of its qubits. It is not unitary, so a sweep to its left makes the tensors
right-canonical again, and one to its right renews the weights of the bonds. Each ends where the
operator has no effect beyond rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.chain import right_canonical
from simulators.chain.right_canonical import (
    Block,
    BlockPart,
    BlockProduct,
    Matrix,
    Split,
    SplitLimits,
    Tensor,
    Values,
)
from simulators.execution import philox, requests
from simulators.tensornetwork.mps.canonical_chain import ChainLimits
from simulators.tensornetwork.mps.noisy_blocks import Insert, NoisyBlocks, Step, as_part, steps_of
from simulators.trajectories import prefix_tree
from simulators.trajectories.locations import NoisyCircuit
from simulators.trajectories.noise_table import SET

MOST_VALUES = 1 << 23  # of all tensors of the trajectories that are run together
_WAITING = 16  # relative to these: parts of trajectories that wait, a layer's products and splits
LAYER_GROWTH = 8  # relative to these, too: most that one layer may make of them
_MOST_CODES = 1 << 62  # numbers of combinations of versions
_SAME = {"complex128": 1e-13, "complex64": 1e-6}  # smaller effects of an operator are rounding
_SAME_OF_CUTOFF = 1e-2  # relative to the amplitude that a gate may discard

Rows = NDArray[np.int64]
Weights = Values | Tensor


class ChainEnsemble:
    """States of trajectories (rows): the distinct versions of each site's tensor and of each bond's
    weights, and the numbers of each row's."""

    def __init__(self, num_sites: int, count: int, dtype: str) -> None:
        """Prepare |0...0>."""
        zero = np.array([1, 0], dtype).reshape(1, 2, 1)
        one = np.ones(1, zero.real.dtype)
        self.tensors: list[list[Tensor]] = [[zero] for _ in range(num_sites)]
        self.weights: list[list[Weights]] = [[one] for _ in range(num_sites)]  # left of each site
        self.which = np.zeros((2, num_sites, count), np.int64)  # of tensors, of weights
        self.fidelity = np.ones(count)

    def part(self, rows: Rows) -> ChainEnsemble:
        """Ensemble of some of the rows."""
        result: ChainEnsemble = object.__new__(ChainEnsemble)
        result.fidelity = self.fidelity[rows]
        result.which = np.ascontiguousarray(self.which[:, :, rows])
        result.tensors = [each.copy() for each in self.tensors]
        result.weights = [each.copy() for each in self.weights]
        result.forget()
        return result

    def forget(self) -> None:
        """Forget the versions that no row has."""
        for kind, lists in enumerate(self._lists):
            for site, versions in enumerate(lists):
                if len(versions) > 1:
                    used, numbers = np.unique(self.which[kind, site], return_inverse=True)
                    lists[site] = [versions[k] for k in used.tolist()]
                    self.which[kind, site] = numbers

    @property
    def _lists(self) -> tuple[list[list[Any]], list[list[Any]]]:
        return self.tensors, self.weights

    @property
    def size(self) -> int:
        """Number of values of all tensors."""
        return sum(tensor.size for versions in self.tensors for tensor in versions)

    @property
    def bond(self) -> int:
        return max(int(tensor.shape[2]) for versions in self.tensors for tensor in versions)

    def state(self, row: int) -> tuple[list[Tensor], list[Weights]]:
        """Tensors and weights of one row."""
        tensors, weights = self.which[:, :, row].tolist()
        return (
            [versions[k] for versions, k in zip(self.tensors, tensors, strict=True)],
            [versions[k] for versions, k in zip(self.weights, weights, strict=True)],
        )

    def distinct(
        self, block: Block, variant: NDArray[np.int64], rows: Rows
    ) -> tuple[Rows, NDArray[np.int64]]:
        """One of the rows for each different effect of a block, and the number of each row's
        effect. variant[row]: number of the matrix."""
        sites = range(block.first, block.first + block.count)
        columns = [self.which[0, site] for site in sites if len(self.tensors[site]) > 1]
        if block.count > 1 and len(self.weights[block.first]) > 1:
            columns.append(self.which[1, block.first])
        code, count = variant[rows], int(variant.max(initial=0)) + 1
        for column in columns:
            if count > _MOST_CODES // len(variant):
                code = np.unique(code, return_inverse=True)[1]
                count = len(variant)
            code = code * len(variant) + column[rows]
            count *= len(variant)
        if count == 1:
            return rows[:1], np.zeros(rows.size, np.int64)
        _, firsts, numbers = np.unique(code, return_index=True, return_inverse=True)
        return rows[firsts], numbers

    def store(
        self, block: Block, rows: Rows, numbers: NDArray[np.int64], effects: Sequence[Split]
    ) -> None:
        """Set the tensors of a block's sites, and the weights between them: numbers[k] of `effects`
        for rows[k]. The other rows keep theirs."""
        others = np.setdiff1d(np.arange(self.fidelity.size), rows, assume_unique=True)
        self.fidelity[rows] *= np.array([share for _, _, share in effects])[numbers]

        def replace_versions(lists: list[list[Any]], kind: int, site: int, new: list[Any]) -> None:
            which = self.which[kind, site]
            which[rows] = numbers
            if others.size:
                used, kept = np.unique(which[others], return_inverse=True)
                which[others] = len(new) + kept
                new += [lists[site][k] for k in used.tolist()]
            lists[site] = new

        for k in range(block.count):
            tensors = [each[k] for each, _, _ in effects]
            replace_versions(self.tensors, 0, block.first + k, tensors)
            if k:
                weights: list[Weights] = [each[k - 1] for _, each, _ in effects]
                replace_versions(self.weights, 1, block.first + k, weights)

    def replace(self, rows: Rows, tensors: list[Tensor], weights: list[Weights]) -> None:
        """Set the state of rows that have the same state; unchanged tensors remain shared."""
        old = self.state(int(rows[0]))
        for kind, lists in enumerate(self._lists):
            for site, each in enumerate((tensors, weights)[kind]):
                if each is not old[kind][site]:
                    self.which[kind, site, rows] = len(lists[site])
                    lists[site].append(each)


class _Variants(msgspec.Struct, gc=False):
    """Errors in one block. `number`: [rows], of the errors of each row in `inserts`; `drawn`: mask
    of the rows of which an operator is drawn."""

    number: NDArray[np.int64]
    inserts: list[list[Insert]]
    drawn: NDArray[np.bool_]


class ChainEvolution:
    """Evolution of trajectories through the blocks of a circuit, for one binding."""

    def __init__(
        self,
        located: NoisyCircuit,
        run: requests.BindingRun,
        limits: ChainLimits,
        sites: tuple[int, ...],
    ) -> None:
        self._circuit = NoisyBlocks(located, run.params, sites)
        self._table, self._key = located.table, run.key
        self._draw_ids = located.table.draw_locations
        self._limits, self._control = limits, run.control
        self._sites = sites
        self._matrices: dict[tuple[int, tuple[int, ...]], Matrix] = {}
        room = limits.memory_bytes // (_WAITING * np.dtype(limits.dtype).itemsize)
        self._most_values = min(MOST_VALUES, room) if limits.memory_bytes else MOST_VALUES
        self._same = max(_SAME[limits.dtype], _SAME_OF_CUTOFF * limits.cutoff**0.5)

    def ended(
        self,
        errors: Sequence[Sequence[int]],
        shots: NDArray[np.int64],
        progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[tuple[Rows, ChainEnsemble]]:
        """Final states of trajectories, in parts: their numbers and their ensemble. `errors`: of
        each trajectory, as rows of the noise table; `shots`: of each one of which an operator is
        drawn. `progress`: called with the number of trajectories that are done, in parts. Raises
        OutOfMemory and TruncatedState."""
        self._matrices.clear()
        ensemble = ChainEnsemble(len(self._sites), len(errors), self._limits.dtype)
        waiting = [(np.arange(len(errors)), ensemble, 0)]
        layers = self._circuit.layers
        while waiting:
            rows, ensemble, first = waiting.pop()
            variants = self._variants([errors[row] for row in rows.tolist()])
            for number in range(first, len(layers)):
                most = self._most_after(ensemble, layers[number], variants)
                is_early = most > LAYER_GROWTH * self._most_values and rows.size > 1
                if not is_early:
                    self._apply(ensemble, layers[number], variants, shots[rows])
                    self._limits.check_weight(1.0 - float(ensemble.fidelity.min()))
                    progress(rows.size / len(layers))
                if is_early or (ensemble.size > self._most_values and rows.size > 1):
                    half = np.arange(rows.size) < rows.size // 2
                    for mine in (~half, half):
                        chosen = np.flatnonzero(mine)
                        following = number + (not is_early)
                        waiting.append((rows[chosen], ensemble.part(chosen), following))
                    break
                if rows.size == 1:
                    self._limits.check_size(ensemble.size)
            else:
                yield rows, ensemble

    def _most_after(
        self, ensemble: ChainEnsemble, layer: list[Block], variants: dict[int, _Variants]
    ) -> int:
        """Bound of the size of an ensemble after a layer: each row of which an operator is drawn
        may then have a chain of its own."""
        drawn = [own.drawn for block in layer if (own := variants.get(id(block))) is not None]
        rows = int(np.count_nonzero(np.any(drawn, axis=0))) if drawn else 0
        tensors, _ = ensemble.state(0) if rows else ([], [])
        return ensemble.size + rows * sum(each.size for each in tensors)

    def _variants(self, errors: Sequence[Sequence[int]]) -> dict[int, _Variants]:
        """Errors of each row in each block, by the block's identity; blocks without any are left
        out."""
        by_block: dict[int, dict[int, list[Insert]]] = {}
        for row, entries in enumerate(errors):
            for entry in entries:
                for block, insert in self._circuit.inserts(entry):
                    by_block.setdefault(id(block), {}).setdefault(row, []).append(insert)
        results = {}
        for key, by_row in by_block.items():
            result = _Variants(np.zeros(len(errors), np.int64), [[]], np.zeros(len(errors), bool))
            numbers: dict[tuple[int, ...], int] = {}
            for row, inserts in by_row.items():
                own = tuple(each.number for each in inserts)
                number = numbers.setdefault(own, len(result.inserts))
                if number == len(result.inserts):
                    result.inserts.append(inserts)
                result.number[row] = number
                result.drawn[row] = any(len(each.operators) > 1 for each in inserts)
            results[key] = result
        return results

    def _apply(
        self,
        ensemble: ChainEnsemble,
        layer: list[Block],
        variants: dict[int, _Variants],
        shots: NDArray[np.int64],
    ) -> None:
        """Apply blocks that share no site."""
        every = np.arange(ensemble.fidelity.size)
        none = _Variants(np.zeros_like(every), [[]], np.zeros(every.size, bool))
        products: list[BlockProduct] = []
        stores = []
        for block in layer:
            own = variants.get(id(block), none)
            rows = np.flatnonzero(~own.drawn) if own is not none else every
            if not rows.size:
                continue
            firsts, numbers = ensemble.distinct(block, own.number, rows)
            stores.append((block, rows, numbers, len(products), len(products) + firsts.size))
            sites = range(block.first, block.first + block.count)
            for row in firsts.tolist():
                matrix = self._matrix(block, own.inserts[own.number[row]])
                tensors = [ensemble.tensors[s][ensemble.which[0, s, row]] for s in sites]
                weights = ensemble.weights[block.first][ensemble.which[1, block.first, row]]
                products.append(BlockProduct(tensors, weights, matrix))
        limits = SplitLimits(self._limits.cutoff, self._limits.bond, rounded=True)
        effects = right_canonical.split_all(products, limits, self._control)
        for block, rows, numbers, begin, end in stores:
            ensemble.store(block, rows, numbers, effects[begin:end])
        drawn = [block for block in layer if variants.get(id(block), none).drawn.any()]
        for block in drawn:
            self._draw(ensemble, block, variants[id(block)], shots)
        if drawn:
            ensemble.forget()

    def _matrix(self, block: Block, inserts: list[Insert]) -> Matrix:
        """Matrix of a block with errors of which none is drawn."""
        if not inserts:
            return block.matrix
        key = id(block), tuple(each.number for each in inserts)
        if key not in self._matrices:
            self._control.check()
            self._matrices[key] = right_canonical.product(
                block.first, block.count, [as_part(each) for each in steps_of(block, inserts)]
            )
        return self._matrices[key]

    def _draw(
        self, ensemble: ChainEnsemble, block: Block, variants: _Variants, shots: NDArray[np.int64]
    ) -> None:
        """Apply a block to the rows of which an operator is drawn in it."""
        groups: dict[tuple[int, bytes], list[int]] = {}
        for row in np.flatnonzero(variants.drawn).tolist():
            key = int(variants.number[row]), ensemble.which[:, :, row].tobytes()
            groups.setdefault(key, []).append(row)
        for (number, _), members in groups.items():
            self._control.check()
            rows = np.array(members)
            tensors, weights = ensemble.state(members[0])
            end = block.first + block.count
            theta = right_canonical.joined(tensors[block.first : end])
            state = right_canonical.weighted(weights[block.first], theta)
            rho = np.einsum("apr,aqr->pq", state, state.conj()).astype(np.complex128)
            steps = steps_of(block, variants.inserts[number])
            for part, matrix in self._drawn_matrices(block, steps, rho, rows, shots):
                scale = np.einsum("ij,jk,ik->", matrix, rho, matrix.conj()).real
                product = np.matmul(matrix / np.sqrt(scale), theta).astype(self._limits.dtype)
                own, values, share = right_canonical.split_theta(
                    product, weights[block.first], self._limits.cutoff, self._limits.bond
                )
                new_tensors = [*tensors[: block.first], *own, *tensors[end:]]
                new_weights = [*weights[: block.first + 1], *values, *weights[end:]]
                _restore(new_tensors, new_weights, block.first, end, self._same)
                ensemble.replace(part, new_tensors, new_weights)
                ensemble.fidelity[part] *= share

    def _drawn_matrices(
        self,
        block: Block,
        steps: list[Step],
        rho: NDArray[np.complex128],
        rows: Rows,
        shots: NDArray[np.int64],
    ) -> list[tuple[Rows, Matrix]]:
        """Product of the steps, with the operators that are drawn for each row, in order. `rho`:
        density matrix of the block's sites before it."""
        branches = [(rows, np.eye(len(rho), dtype=complex))]
        for step in steps:
            if isinstance(step, BlockPart) or len(step.operators) == 1:
                one = right_canonical.product(block.first, block.count, [as_part(step)])
                branches = [(part, one @ matrix) for part, matrix in branches]
                continue
            width = len(step.operators[0])
            shape = (1 << step.first - block.first, width, -1)
            shape = (*shape[:2], len(rho) // (shape[0] * width))
            which = int(self._table.table[step.number, SET])
            draw = prefix_tree.FIRST_DRAW + int(self._draw_ids[step.number])
            results = []
            for part, matrix in branches:
                now = (matrix @ rho @ matrix.conj().T).reshape(*shape, *shape)
                own = np.einsum("aibajb->ij", now)
                if step.swapped:
                    own = own.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)
                edges = np.cumsum(self._table.operators.probs(which, own))
                draws = np.empty(part.size)
                philox.uniforms(*self._key, draw, shots[part], draws)
                # Never an operator of zero weight, despite rounding.
                last = int(np.searchsorted(edges, edges[-1]))
                chosen = np.minimum(np.searchsorted(edges, draws * edges[-1], "right"), last)
                for choice in np.unique(chosen).tolist():
                    one = right_canonical.product(block.first, block.count, [as_part(step, choice)])
                    results.append((part[chosen == choice], one @ matrix))
            branches = results
        return branches


def _restore(
    tensors: list[Tensor], weights: list[Weights], first: int, end: int, same: float
) -> None:
    """Make tensors right-canonical after an operator on sites first .. end - 1 that is not unitary,
    and renew the weights of the bonds. A sweep ends where nothing changes by more than `same`."""
    for site in range(first, -1, -1):
        left, _, right = tensors[site].shape
        flat = tensors[site].reshape(left, 2 * right)
        if np.abs(flat @ flat.conj().T - np.eye(left)).max() < same:
            break
        q, r = np.linalg.qr(flat.conj().T)
        tensors[site] = np.ascontiguousarray(q.conj().T).reshape(-1, 2, right)
        if site:
            carried = np.ascontiguousarray(r.conj().T)
            weights[site] = right_canonical.weighted(weights[site], carried)
            tensors[site - 1] = np.tensordot(tensors[site - 1], carried, (2, 0))
    for site in range(end - 1, len(tensors) - 1):
        right = tensors[site].shape[2]
        state = right_canonical.weighted(weights[site], tensors[site]).reshape(-1, right)
        before = right_canonical.weighted(weights[site + 1], np.eye(right, dtype=complex))
        if np.abs(state.conj().T @ state - before.conj().T @ before).max() < same:
            break
        weights[site + 1] = np.asarray(np.linalg.qr(state, mode="r"))
