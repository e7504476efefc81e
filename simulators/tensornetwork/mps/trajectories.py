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

Each trajectory has its own truncation; the result's is their mean.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.catalog import builtin_card
from simulators.chain import right_canonical
from simulators.chain.product_state import MatrixProductState, sample_sites, truncation_of
from simulators.chain.right_canonical import Block, Matrix, Pair, Part, Tensor, Values
from simulators.circuit.analysis.measurements import MeasurementLayouts
from simulators.circuit.analysis.profiler import chain_order
from simulators.circuit.ir import num_words
from simulators.circuit.noise import NoiseProgram
from simulators.circuit.passes.components import active_part
from simulators.circuit.passes.light_cone import output_support
from simulators.engine import EngineResult, Request
from simulators.errors import Unsupported
from simulators.execution import outputs, requests, sampling
from simulators.execution.readout import ReadoutStage
from simulators.tensornetwork.mps.canonical_chain import ChainLimits, site_order
from simulators.trajectories import pattern_sampling, prefix_tree
from simulators.trajectories.locations import NoisyCircuit, locate
from simulators.trajectories.noise_table import (
    COUNT,
    FIRST,
    PAULI,
    SET,
    NoiseTable,
    SortedPatterns,
    row_work,
)  # fmt: skip

CARD = builtin_card("mps")
ROWS_AT_ONCE = 1 << 14  # distinct trajectories
MOST_VALUES = 1 << 23  # of all tensors of the trajectories that are run together
_WAITING = 16  # relative to these: parts of trajectories that wait, a layer's products and splits
_PAIRS_AT_ONCE = 256
_SHOTS_AT_ONCE = 8_192
_MOST_CODES = 1 << 62  # numbers of combinations of versions
_SAME = {"complex128": 1e-13, "complex64": 1e-6}  # smaller effects of an operator are rounding
_HINT = "engine='statevector' runs it, where its qubits fit into memory"

Rows = NDArray[np.int64]
Weights = Values | Tensor
_Effect = tuple[list[Tensor], list[Weights], float]  # tensors, weights between them, share kept
_Effects = Sequence[_Effect]


class NoisyChainPlan(msgspec.Struct, frozen=True, eq=False):
    """Noise of a circuit."""

    noise: NoiseProgram

    @property
    def memory_bytes(self) -> int:
        return self.noise.locations.nbytes


def run_noisy(plan: NoisyChainPlan, run: requests.EngineRun) -> EngineResult:
    """Run all bindings of a circuit with noise. Raises Unsupported for outputs that trajectories
    cannot give, and for mid-circuit operations that are no gates."""
    circuit, request = run.circuit, run.request
    requests.check_run(circuit, run.options)
    rows = run.rows()
    requests.check_outputs(CARD, request, bool(circuit.clbits_data))
    pattern_sampling.refuse_outputs(request)
    outputs.terms(request.observables, circuit.num_qubits)
    labels = [label for item in request.observables for label in item.labels]
    support = output_support(request.outputs, labels, circuit)
    part, noise = active_part(circuit, plan.noise, support)
    layouts = MeasurementLayouts.of(part.circuit)
    layout = layouts.state if "expectation" in request.outputs else layouts.clbits
    located = None if layout.branching else locate(part.circuit, noise, local=True)
    if located is None:
        text = "engine 'mps': a measurement, reset or condition before the end of a circuit with"
        text += " noise, or noise that acts on a measured qubit and another one"
        raise Unsupported(text, hint=_HINT)
    own = requests.part_request(part, request, circuit.num_qubits)
    readout = ReadoutStage.of(layouts.clbits, noise.readout, part.operations)
    results = []
    for row in rows:
        bound = replace(row, circuit=located.circuit, params=row.params[part.params], request=own)
        state = _Trajectories(located, bound, layouts)
        results.append(outputs.collect(state, layouts, own, row.key, readout))
    return EngineResult.joined(results)


# Blocks of gates with the errors that may act in them.


class _Insert(msgspec.Struct, frozen=True, gc=False):
    """Error in a block. `number`: its row in the noise table; `after`: number of the block's parts
    that act before it; `operators`: on neighbours from site `first` on; several: one is drawn.
    `swapped`: its first qubit is the highest bit."""

    number: int
    after: int
    first: int
    operators: tuple[Matrix, ...]
    swapped: bool = False


_Step = Part | _Insert


class _NoisyBlocks:
    """Blocks of a circuit, and the block of each error."""

    def __init__(
        self, located: NoisyCircuit, params: NDArray[np.float64], sites: tuple[int, ...]
    ) -> None:
        self._table, self._sites = located.table, sites
        rows = located.table.table.tolist()
        operations = dict(_pairs(located))
        joined: dict[int, set[tuple[int, int]]] = {}
        for after, which, _, _, *pair in rows:
            if which != PAULI and pair[1] >= 0 and operations.get(after) != sorted(pair):
                joined.setdefault(after, set()).add((min(pair), max(pair)))
        built = right_canonical.gate_blocks(located.circuit, params, sites, joined)
        self.layers = built.layers
        self._gates, self._singles = built.gates, built.singles
        # Operations on each site, in order, and the block and the number of parts of each.
        self._times: list[list[int]] = [[] for _ in sites]
        self._places: list[list[tuple[Block, int]]] = [[] for _ in sites]
        for block in (block for layer in (*self.layers, built.singles.values()) for block in layer):
            for number, part in enumerate(block.parts):
                for site in range(part.first, part.first + len(part.matrix).bit_length() - 1):
                    self._times[site].append(part.op)
                    self._places[site].append((block, number + 1))
        self.inserts: list[list[tuple[Block, _Insert]]] = [
            self._located(number, row) for number, row in enumerate(rows)
        ]
        self.layers = [*self.layers, [*built.singles.values()]]

    def _located(self, number: int, row: list[int]) -> list[tuple[Block, _Insert]]:
        """Blocks in which an error acts: a Pauli string in one or two."""
        after, which, x, z, *qubits = row
        places = [self._sites[qubit] for qubit in qubits if qubit >= 0]
        if which == PAULI:  # masks refer to the qubits of the location
            letters = [_LETTERS[x >> j & 1, z >> j & 1] for j in range(len(places))]
            return [
                self._on_site(number, after, site, (paulis(1)[letter],))
                for letter, site in zip(letters, places, strict=True)
                if letter
            ]
        members = _members(self._table, which, len(places))
        if len(places) == 1:
            return [self._on_site(number, after, places[0], members)]
        block, parts = self._gates[after, tuple(sorted(places))]
        # Inside the block the two are neighbours, whatever their distance in the chain.
        order = [0, 1] if places[0] < places[1] else [1, 0]
        turned = tuple(right_canonical.on_neighbours(order, each)[2] for each in members)
        first = block.parts[parts - 1].first
        return [(block, _Insert(number, parts, first, turned, places[0] < places[1]))]

    def _on_site(
        self, number: int, after: int, site: int, operators: tuple[Matrix, ...]
    ) -> tuple[Block, _Insert]:
        """Error on one site, after the last part there that acts before it."""
        at = bisect_right(self._times[site], after)
        if at:
            block, parts = self._places[site][at - 1]
        elif self._places[site]:
            block, parts = self._places[site][0][0], 0
        else:
            block, parts = self._singles.setdefault(site, Block(site, 1, [], 0, _ONE)), 0
        return block, _Insert(number, parts, site, operators)


def _pairs(located: NoisyCircuit) -> Iterator[tuple[int, list[int]]]:
    """Number of each operation on two qubits, and its qubits in ascending order."""
    circuit = located.circuit
    counts = circuit.table.rows[circuit.ops, 1]
    begins = np.cumsum(counts) - counts
    for op in np.flatnonzero(counts == 2).tolist():
        yield op, sorted(circuit.qubits[begins[op] : begins[op] + 2].tolist())


def _members(table: NoiseTable, which: int, width: int) -> tuple[Matrix, ...]:
    """Operators of a set: one, or those from which one is drawn."""
    sets = table.operators.sets[which]
    at, count, size = int(sets[FIRST]), int(sets[COUNT]), 2 << 2 * width
    data = table.operators.matrices[at : at + count * size].view(np.complex128)
    return tuple(data.reshape(count, 1 << width, 1 << width))


_LETTERS = {(0, 0): 0, (1, 0): 1, (1, 1): 2, (0, 1): 3}
_ONE: Matrix = np.eye(2, dtype=complex)


def _steps(block: Block, inserts: Sequence[_Insert]) -> list[_Step]:
    """Parts of a block and its errors, in order of action."""
    steps: list[_Step] = []
    done = 0
    for insert in sorted(inserts, key=lambda each: (each.after, each.number)):
        steps += block.parts[done : insert.after]
        steps.append(insert)
        done = insert.after
    return [*steps, *block.parts[done:]]


def _part(step: _Step, choice: int = 0) -> Part:
    """Part, or an error as one, with this operator."""
    return step if isinstance(step, Part) else Part(0, step.first, step.operators[choice])


# Trajectories that are run together.


class _Ensemble:
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

    def part(self, rows: Rows) -> _Ensemble:
        """Ensemble of some of the rows."""
        result: _Ensemble = object.__new__(_Ensemble)
        result.fidelity = self.fidelity[rows]
        result.which = np.ascontiguousarray(self.which[:, :, rows])
        result.tensors = [each.copy() for each in self.tensors]
        result.weights = [each.copy() for each in self.weights]
        result.forget()
        return result

    def forget(self) -> None:
        """Forget the versions that no row has."""
        lists: list[list[Any]]
        for kind, lists in enumerate((self.tensors, self.weights)):
            for site, versions in enumerate(lists):
                if len(versions) > 1:
                    used, numbers = np.unique(self.which[kind, site], return_inverse=True)
                    lists[site] = [versions[k] for k in used.tolist()]
                    self.which[kind, site] = numbers

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
        self, block: Block, rows: Rows, numbers: NDArray[np.int64], effects: _Effects
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
                weights = [each[k - 1] for _, each, _ in effects]
                replace_versions(self.weights, 1, block.first + k, weights)

    def replace(self, rows: Rows, tensors: list[Tensor], weights: list[Weights]) -> None:
        """Set the state of rows that have the same state; unchanged tensors remain shared."""
        lists: list[list[Any]]
        old = self.state(int(rows[0]))
        for kind, lists in enumerate((self.tensors, self.weights)):
            for site, each in enumerate((tensors, weights)[kind]):
                if each is not old[kind][site]:
                    self.which[kind, site, rows] = len(lists[site])
                    lists[site].append(each)


class _Variants(msgspec.Struct, gc=False):
    """Errors in one block. `number`: [rows], of the errors of each row in `inserts`; `drawn`: mask
    of the rows of which an operator is drawn."""

    number: NDArray[np.int64]
    inserts: list[list[_Insert]]
    drawn: NDArray[np.bool_]


class _Evolution:
    """Evolution of trajectories through the blocks of a circuit, for one binding."""

    def __init__(
        self,
        located: NoisyCircuit,
        run: requests.BindingRun,
        limits: ChainLimits,
        sites: tuple[int, ...],
    ) -> None:
        self._circuit = _NoisyBlocks(located, run.params, sites)
        self._table, self._key = located.table, run.key
        self._draw_ids = located.table.draw_locations
        self._limits, self._control = limits, run.control
        self._sites = sites
        self._matrices: dict[tuple[int, tuple[int, ...]], Matrix] = {}
        room = limits.memory_bytes // (_WAITING * np.dtype(limits.dtype).itemsize)
        self._most_values = min(MOST_VALUES, room) if limits.memory_bytes else MOST_VALUES
        self.effects = 0  # of blocks, on all distinct versions

    def ended(
        self, errors: Sequence[Sequence[int]], shots: NDArray[np.int64]
    ) -> Iterator[tuple[Rows, _Ensemble]]:
        """Final states of trajectories, in parts: their numbers and their ensemble. `errors`: of
        each trajectory, as rows of the noise table; `shots`: of each one of which an operator is
        drawn. Raises OutOfMemory and TruncatedState."""
        ensemble = _Ensemble(len(self._sites), len(errors), self._limits.dtype)
        waiting = [(np.arange(len(errors)), ensemble, 0)]
        layers = self._circuit.layers
        while waiting:
            rows, ensemble, first = waiting.pop()
            variants = self._variants([errors[row] for row in rows.tolist()])
            for number in range(first, len(layers)):
                self._apply(ensemble, layers[number], variants, shots[rows])
                self._limits.check_weight(1.0 - float(ensemble.fidelity.min()))
                if ensemble.size > self._most_values and rows.size > 1:
                    half = np.arange(rows.size) < rows.size // 2
                    for mine in (~half, half):
                        chosen = np.flatnonzero(mine)
                        waiting.append((rows[chosen], ensemble.part(chosen), number + 1))
                    break
                if rows.size == 1:
                    self._limits.check_size(ensemble.size)
            else:
                yield rows, ensemble

    def _variants(self, errors: Sequence[Sequence[int]]) -> dict[int, _Variants]:
        """Errors of each row in each block, by the block's identity; blocks without any are left
        out."""
        by_block: dict[int, dict[int, list[_Insert]]] = {}
        for row, entries in enumerate(errors):
            for entry in entries:
                for block, insert in self._circuit.inserts[entry]:
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
        ensemble: _Ensemble,
        layer: list[Block],
        variants: dict[int, _Variants],
        shots: NDArray[np.int64],
    ) -> None:
        """Apply blocks that share no site."""
        every = np.arange(ensemble.fidelity.size)
        none = _Variants(np.zeros_like(every), [[]], np.zeros(every.size, bool))
        groups: dict[object, list[tuple[Pair, int]]] = {}
        effects: list[Any] = []
        stores = []
        for block in layer:
            own = variants.get(id(block), none)
            rows = np.flatnonzero(~own.drawn) if own is not none else every
            if not rows.size:
                continue
            firsts, numbers = ensemble.distinct(block, own.number, rows)
            stores.append((block, rows, numbers, len(effects), len(effects) + firsts.size))
            sites = range(block.first, block.first + block.count)
            for row in firsts.tolist():
                matrix = self._matrix(block, own.inserts[own.number[row]])
                tensors = [ensemble.tensors[s][ensemble.which[0, s, row]] for s in sites]
                weights = ensemble.weights[block.first][ensemble.which[1, block.first, row]]
                if block.count == 2:
                    pair = Pair(tensors[0], tensors[1], weights, matrix)
                    key = tensors[0].shape, tensors[1].shape, weights.shape
                    groups.setdefault(key, []).append((pair, len(effects)))
                    effects.append(None)
                else:
                    theta = np.matmul(matrix, right_canonical.joined(tensors))
                    theta = theta.astype(self._limits.dtype)
                    effects.append(self._split(theta, weights))
        for group in groups.values():
            for number, effect in self._pairs(group):
                effects[number] = effect
        for block, rows, numbers, begin, end in stores:
            ensemble.store(block, rows, numbers, effects[begin:end])
        self.effects += len(effects)
        drawn = [block for block in layer if variants.get(id(block), none).drawn.any()]
        for block in drawn:
            self._draw(ensemble, block, variants[id(block)], shots)
        if drawn:
            ensemble.forget()

    def _pairs(self, group: list[tuple[Pair, int]]) -> Iterator[tuple[int, _Effect]]:
        """Effects of gates on pairs of the same shapes, with their numbers."""
        pair, _ = group[0]
        alike = 2 * min(pair.left.shape[0], pair.right.shape[2]) <= right_canonical.TOGETHER
        step = _PAIRS_AT_ONCE if alike else 1
        for at in range(0, len(group), step):
            self._control.check()
            part = group[at : at + step]
            splits = right_canonical.split_pairs(
                [each for each, _ in part], self._limits.cutoff, self._limits.bond, alike=alike
            )
            for (_, number), (left, right, values, share) in zip(part, splits, strict=True):
                yield number, ([left, right], [values], share)

    def _split(self, theta: Tensor, weights: Weights) -> _Effect:
        limits = self._limits
        tensors, values, share = right_canonical.split_block(
            theta, weights, limits.cutoff, limits.bond
        )
        return tensors, [*values], share

    def _matrix(self, block: Block, inserts: list[_Insert]) -> Matrix:
        """Matrix of a block with errors of which none is drawn."""
        if not inserts:
            return block.matrix
        key = id(block), tuple(each.number for each in inserts)
        if key not in self._matrices:
            self._matrices[key] = right_canonical.product(
                block.first, block.count, [_part(each) for each in _steps(block, inserts)]
            )
        return self._matrices[key]

    def _draw(
        self, ensemble: _Ensemble, block: Block, variants: _Variants, shots: NDArray[np.int64]
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
            steps = _steps(block, variants.inserts[number])
            for part, matrix in self._drawn_matrices(block, steps, rho, rows, shots):
                scale = np.einsum("ij,jk,ik->", matrix, rho, matrix.conj()).real
                product = np.matmul(matrix / np.sqrt(scale), theta).astype(self._limits.dtype)
                own, values, share = self._split(product, weights[block.first])
                new_tensors = [*tensors[: block.first], *own, *tensors[end:]]
                new_weights = [*weights[: block.first + 1], *values, *weights[end:]]
                _restore(new_tensors, new_weights, block.first, end)
                ensemble.replace(part, new_tensors, new_weights)
                ensemble.fidelity[part] *= share
                self.effects += 1

    def _drawn_matrices(
        self,
        block: Block,
        steps: list[_Step],
        rho: NDArray[np.complex128],
        rows: Rows,
        shots: NDArray[np.int64],
    ) -> list[tuple[Rows, Matrix]]:
        """Product of the steps, with the operators that are drawn for each row, in order. `rho`:
        density matrix of the block's sites before it."""
        branches = [(rows, np.eye(len(rho), dtype=complex))]
        for step in steps:
            if isinstance(step, Part) or len(step.operators) == 1:
                one = right_canonical.product(block.first, block.count, [_part(step)])
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
                sampling.uniforms(*self._key, draw, shots[part], draws)
                # Never an operator of zero weight, despite rounding.
                last = int(np.searchsorted(edges, edges[-1]))
                chosen = np.minimum(np.searchsorted(edges, draws * edges[-1], "right"), last)
                for choice in np.unique(chosen).tolist():
                    one = right_canonical.product(block.first, block.count, [_part(step, choice)])
                    results.append((part[chosen == choice], one @ matrix))
            branches = results
        return branches


def _restore(tensors: list[Tensor], weights: list[Weights], first: int, end: int) -> None:
    """Make tensors right-canonical after an operator on sites first .. end - 1 that is not unitary,
    and renew the weights of the bonds. Each sweep ends where nothing changes beyond rounding."""
    same = _SAME[tensors[0].dtype.name]
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
        before = right_canonical.weighted(weights[site + 1], np.eye(right))
        if np.abs(state.conj().T @ state - before.conj().T @ before).max() < same:
            break
        weights[site + 1] = np.linalg.qr(state, mode="r")


# Outputs of trajectories.


class _Trajectories(outputs.FinalState):
    """Trajectories of one binding."""

    def __init__(
        self, located: NoisyCircuit, run: requests.BindingRun, layouts: MeasurementLayouts
    ) -> None:
        self.num_qubits = located.circuit.num_qubits
        self._errors, self._drawn = located.errors, located.table.drawn
        self._source = layouts.clbits.source
        self._control = run.control
        self._sites = site_order(self.num_qubits, chain_order(located.circuit))
        limits = ChainLimits.of(run.options)
        self._evolution = _Evolution(located, run, limits, self._sites)
        self._lost = 0.0  # discarded weight, summed over shots
        self._shots = self._patterns = 0
        self._bond = 1

    def _ended(
        self, first: int, last: int, key: outputs.SeedKey
    ) -> Iterator[tuple[list[Rows], _Ensemble]]:
        """Final states of shots first .. last - 1, in parts: the shots of each row, counted from
        `first`, and the ensemble."""
        places = np.arange(self._drawn.size)
        patterns = pattern_sampling.draw_patterns(self._errors, first, last, key, places)
        rows = pattern_sampling.sort_places(patterns, places.size)
        errors, members = self._classes(rows)
        self._shots += last - first
        for begin in range(0, len(errors), ROWS_AT_ONCE):
            part = slice(begin, begin + ROWS_AT_ONCE)
            own = members[part]
            shots = np.array([first + each[0] for each in own], np.int64)
            for numbers, ensemble in self._evolution.ended(errors[part], shots):
                ended = [own[k] for k in numbers.tolist()]
                lost = map(truncation_of, ensemble.fidelity.tolist())
                self._lost += sum(
                    each.size * weight for each, weight in zip(ended, lost, strict=True)
                )
                self._bond = max(self._bond, ensemble.bond)
                yield ended, ensemble
        self.truncation = self._lost / self._shots
        self.remark = f"bond {self._bond}, {self._patterns} error patterns"

    def _classes(self, rows: SortedPatterns) -> tuple[list[list[int]], list[Rows]]:
        """Errors and shots of each trajectory: one for each pattern, and one for each shot of which
        an operator is drawn."""
        errors: list[list[int]] = []
        begins: list[int] = []
        alone = False
        entries = rows.entries.tolist()
        new = row_work(rows, np.arange(rows.end + 1)) > 0
        self._patterns += int(np.count_nonzero(new))
        for number, (row, is_new) in enumerate(zip(rows.order.tolist(), new.tolist(), strict=True)):
            if is_new:
                at = end = int(rows.begins[row])
                while entries[end] != rows.end:
                    end += 1
                own = entries[at:end]
                alone = any(self._drawn[each] for each in own)
            if is_new or alone:
                errors.append(own)
                begins.append(number)
        return errors, [np.sort(each) for each in np.split(rows.order, begins[1:])]

    def sample(self, shots: int, key: outputs.SeedKey) -> Iterator[outputs.Batch]:
        """Sample as `FinalState.sample`; shots in ascending order."""
        for first, last in pattern_sampling.shot_blocks(self._errors, shots):
            records = np.zeros((last - first, num_words(self._source.size)), np.uint64)
            for members, ensemble in self._ended(first, last, key):
                own = np.concatenate(members)
                row_of = np.repeat(np.arange(len(members)), [each.size for each in members])
                for low in range(0, own.size, _SHOTS_AT_ONCE):
                    batch = own[low : low + _SHOTS_AT_ONCE]
                    which = ensemble.which[0][:, row_of[low : low + _SHOTS_AT_ONCE]]
                    bits = sample_sites(ensemble.tensors, which, first + batch, key, self._control)
                    bits = np.ascontiguousarray(bits[list(self._sites)].T)
                    records[batch] = sampling.select_bits(bits, self._source)
            yield records, None

    def estimates(
        self, strings: outputs.PauliStrings, request: Request, key: outputs.SeedKey
    ) -> tuple[tuple[float, float], ...]:
        """Estimates as `FinalState.estimates`: means over trajectories."""
        count = len(request.observables)
        owners, weights = outputs.owners_and_weights(request.observables)
        moments = pattern_sampling.Moments(count)
        for first, last in pattern_sampling.shot_blocks(self._errors, request.shots):
            values = np.zeros((last - first, count))
            for members, ensemble in self._ended(first, last, key):
                known: dict[bytes, NDArray[np.float64]] = {}
                for row, own in enumerate(members):
                    state = ensemble.which[0, :, row].tobytes()
                    if state not in known:
                        tensors = tuple(ensemble.state(row)[0])
                        chain = MatrixProductState(tensors, self._sites, 0.0)
                        each = chain.means(strings, self._control)
                        known[state] = np.bincount(owners, weights * each, count)
                    values[own] = known[state]
            moments.add(values)
        return moments.estimates()
