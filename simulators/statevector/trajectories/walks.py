"""Trajectory sampler: outcomes of many noisy instances of one circuit, by walks through rows.

The outcome of an instance is a function of the circuit, its parameters, its inserted errors, and
(seed, binding, shot): not of the other instances, threads or memory. All of the circuit is run, and
all qubits are sampled jointly; an instance without errors has the outcome of a noiseless run that
drops nothing (`circuit.passes`).

The rows of a small circuit are divided into contiguous ranges of about the same work, which threads
take from a shared queue; each range repeats the operations before its first error, so the number of
ranges is limited by a small share of the work. A large state is shared by all threads.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS, state_bytes
from simulators.circuit.analysis.measurements import TERMINAL, has_mid_circuit_ops
from simulators.circuit.gates import UNITARY
from simulators.circuit.ir import Circuit
from simulators.compiler.simd import LANES, aligned
from simulators.engine import TRAJECTORIES, PauliSum, RunControl, RunOptions, ThreadPool
from simulators.errors import Stopped, Unsupported
from simulators.execution.outputs import owners_and_weights, terms
from simulators.execution.requests import check_threads
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.backend.protocol import ShotDraws, StateHandle
from simulators.statevector.planning.planner import tile_width
from simulators.statevector.small.gate_kernels import COUNTS
from simulators.statevector.state import PHYSICAL_BYTES
from simulators.statevector.trajectories import segment_plans, segments, small_kernel
from simulators.statevector.trajectories.segment_plans import insert_matrices
from simulators.statevector.trajectories.segments import ranges
from simulators.statevector.trajectories.states import LocalTrajectoryStates, TrajectoryStates
from simulators.trajectories import noise_table
from simulators.trajectories.noise_table import QUBITS, NoiseTable, SortedPatterns, row_work
from simulators.trajectories.prefix_tree import Advance, RandomDraws, Tree, WalkState, walk

# Trajectories of a wide circuit: states in memory, advanced by sweeps.
#
# A segment is about one sweep. Errors become part of the plan of their segment, so they cost no
# sweep of their own; a child is made of a copy of its parent before the segment.

_MOST_FLOATS = 1 << 23  # cached coefficients of segments without inserts


class Observables(msgspec.Struct, frozen=True, eq=False):
    """Pauli sums in the form of the kernels."""

    strings: NDArray[np.int64]  # [strings, 3]: X mask, Z mask, number of the observable
    coefficients: NDArray[np.float64]  # [strings]
    count: int

    @classmethod
    def of(cls, sums: tuple[PauliSum, ...], num_qubits: int) -> Observables:
        """Convert Pauli sums. Raises Unsupported for strings that do not fit."""
        masks = terms(sums, num_qubits)
        owners, coefficients = owners_and_weights(sums)
        strings = np.array([(x, z, o) for (x, z), o in zip(masks, owners.tolist(), strict=True)])
        return cls(strings.reshape(-1, 3).astype(np.int64), coefficients, len(sums))


class ParamSets(msgspec.Struct, frozen=True, eq=False):
    """Parameters that depend on the set of a row: number `params[k]` is `factors[k] *
    values[set, columns[k]]`."""

    values: NDArray[np.float64]  # [sets, columns]
    params: NDArray[np.int64]
    columns: NDArray[np.int64]
    factors: NDArray[np.float64]

    def of(self, number: int, params: NDArray[np.float64]) -> NDArray[np.float64]:
        """All parameters of the rows of a set; `params`: those that do not depend on it."""
        result = params.copy()
        result[self.params] = self.factors * self.values[number, self.columns]
        return result


ONE_SET = ParamSets(np.zeros((1, 0)), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


_NOTHING = Observables(np.zeros((0, 3), np.int64), np.zeros(0), 0)


class RowOutputs(msgspec.Struct, frozen=True, eq=False):
    """What is computed of rows: the value of each observable, or without any a basis state."""

    first: int  # shot of row 0
    final_x: NDArray[np.int64]  # see `small_kernel.WalkOutputs`
    indices: NDArray[np.int64]  # sampled basis states
    observables: Observables
    values: NDArray[np.float64]  # [rows, observables]

    def of_kernel(self, stat: NDArray[np.int64]) -> small_kernel.WalkOutputs:
        """Arrays for the kernel; `stat`: of one of its calls."""
        strings, coefficients = self.observables.strings, self.observables.coefficients
        return small_kernel.WalkOutputs(
            self.final_x, self.indices, strings, coefficients, self.values, stat
        )


class LargeSampler:
    """One walk through rows, for one binding."""

    def __init__(
        self,
        states: TrajectoryStates,
        num_qubits: int,
        tree: Tree,
        pieces: segment_plans.Pieces,
        options: RunOptions,
    ) -> None:
        self._states = states
        self._num_qubits = num_qubits
        self._inserts = inserts = tree.inserts
        self._pieces = pieces
        self._options = options
        self._tree = tree
        self._floor, self._ceil = tree.floor.tolist(), tree.ceil.tolist()
        self._whole = int(tree.place_at[-1])
        self._drawn = inserts.drawn.tolist()
        self._params = np.empty(0)
        self._draws = RandomDraws.of((0, 0), 0)
        self._numbers: dict[tuple[int, int, bool], NDArray[np.float64]] = {}
        self._room = 0
        self.held: list[StateHandle] = []  # by level
        self.passes = 0
        self.operations = 0

    def run(
        self, rows: SortedPatterns, low: int, high: int, outputs: RowOutputs,
        params: NDArray[np.float64], key: tuple[int, int], cap: int,
        finished: Callable[[NDArray[np.int64]], None],
    ) -> None:  # fmt: skip
        """Compute the outputs of rows low .. high - 1. `finished`: called with some of them when
        they are computed. Raises Stopped and OutOfMemory."""
        self._finished = finished
        self._params = params[self._pieces.params_order]
        self._numbers.clear()
        self._room = _MOST_FLOATS
        self._outputs, self._draws = outputs, RandomDraws.of(key, outputs.first)
        self._strings = [(0, 0), *((x, z) for x, z, _ in outputs.observables.strings.tolist())]
        walk(self._tree, rows, self, self._draws, cap, low, high)

    def finish(self, level: int, rows: NDArray[np.int64]) -> None:
        state, draws, outputs = self.held[level], self._draws, self._outputs
        observables = outputs.observables
        if observables.count:
            each = self._states.backend.expectations(state, self._strings)
            weighted = observables.coefficients * each[1:] / each[0]
            owners = observables.strings[:, 2]
            outputs.values[rows] = np.bincount(owners, weighted, observables.count)
        else:
            frame = int(outputs.final_x[rows[0]])
            key = int(draws.seed), int(draws.binding)
            shots = ShotDraws(key, rows + draws.first)
            outputs.indices[rows] = self._states.sample(state, frame, shots)
        self._finished(rows)

    def advance(self, step: Advance) -> None:
        source, target, begin, end = step.source, step.target, step.begin, step.end
        inserts, positions = step.inserts, step.positions
        room = self.held[target] if target < len(self.held) else None
        if source < 0:
            state = self._states.zero(room, self._num_qubits, self._options)
        elif source == target:
            state = room
        else:
            state = self._states.copied(self.held[source], room)
        if room is None:
            self.held.append(state)
        self.operations += end - begin
        drawn = [self._drawn[insert] for insert, _ in inserts]
        for first, last, low, high in ranges(self._floor, self._ceil, begin, end, positions, drawn):
            members = [
                member
                for (insert, choice), at in zip(inserts[low:high], positions[low:high], strict=True)
                if self._inserts.acts(insert, choice)
                for member in insert_matrices(self._inserts, insert, choice, at)
            ]
            self._range(state, first, last, members)

    def _range(
        self, state: StateHandle, begin: int, end: int, members: list[segment_plans.InsertedMatrix]
    ) -> None:
        """Apply operations begin .. end - 1 with these matrices among them."""
        wide = self._pieces.wide(begin) if begin < end else None
        if wide is not None:  # alone in its segment
            if members:
                self._range(state, begin, begin, members)
            self._states.backend.multiply(state, wide)
            self.passes += 1
            return
        if begin == end and not members:
            return
        zero = self._states.is_zero(state)
        stretch = self._pieces.planned(begin, end, members, zero=zero)
        key = (begin, end, zero)
        floats = None if members else self._numbers.get(key)
        if floats is None:
            floats = stretch.floats(self._params, members)
            if not members and self._room >= floats.size:
                self._room -= floats.size
                self._numbers[key] = floats
        self._states.sweep(state, stretch.stretch, floats, last=end == self._whole)
        self.passes += stretch.stretch.sweeps.live.size

    def probs(self, level: int, insert: int) -> NDArray[np.float64]:
        _, which, _, _, first, second = self._inserts.table[insert].tolist()
        operators = self._inserts.operators
        qubits = (first, second)[: int(operators.sets[which, QUBITS])]
        return operators.probs(which, self._states.reduced(self.held[level], qubits))


_MOST_STATES = 64  # limit of a thread, for a small circuit
_RANGES = 8  # ranges of rows of a thread
_LONG_WORK = 1 << 33  # operations on amplitudes, of a few seconds: more ranges, for the progress
_REPEATED = 0.02  # share of the work that ranges may repeat

_STATES_A_THREAD = 2  # least states of a wide circuit if threads have separate rows

OpenSampler = Callable[[ThreadPool], LargeSampler]


class Walks(ABC):
    """Walks of one circuit, and their statistics, of all walks of an object in this process."""

    operations = 0  # of the circuit, executed for all distinct prefixes together
    least = 0  # those that cannot be avoided; channels do not divide rows
    states = 0  # held at once by one thread
    passes = 0  # over large states
    range_operations: Sequence[int] = ()  # of each range of rows of the last walk

    def __init__(self, tree: Tree, thread_pool: ThreadPool, control: RunControl, cap: int) -> None:
        """Set up. `cap`: limit of the states of a thread, or of all threads (`LargeWalks`)."""
        self._tree = tree
        self._thread_pool = thread_pool
        self.control = control
        self._cap = cap
        self._params = np.zeros(0)
        self._key = (0, 0)
        self._sets = ONE_SET

    def bind(
        self, params: NDArray[np.float64], key: tuple[int, int], sets: ParamSets = ONE_SET
    ) -> None:
        """Set the parameters, seed and binding of later walks. `sets`: of rows with sets."""
        self._params, self._key, self._sets = params, key, sets

    def indices(
        self, rows: SortedPatterns, first: int, final_x: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Sampled basis state of each row of `order`; row 0 is shot `first`. final_x[row]: qubits
        whose bit is inverted before it is sampled. Raises Stopped and OutOfMemory."""
        result = np.zeros(rows.begins.size, np.int64)
        if final_x is None:
            final_x = np.zeros_like(result)
        self.run(rows, RowOutputs(first, final_x, result, _NOTHING, np.zeros((0, 0))))
        return result

    def values(
        self, rows: SortedPatterns, first: int, observables: Observables
    ) -> NDArray[np.float64]:
        """Expectation value of each observable in the state of each row: float64 [rows,
        observables]. Raises Stopped and OutOfMemory."""
        none = np.zeros(0, np.int64)
        result = np.zeros((rows.begins.size, observables.count))
        self.run(rows, RowOutputs(first, none, none, observables, result))
        return result

    @abstractmethod
    def run(self, rows: SortedPatterns, outputs: RowOutputs) -> None:
        """Fill the outputs of all rows. Raises Stopped and OutOfMemory."""

    def _shares(self, rows: SortedPatterns) -> NDArray[np.float64]:
        """Part of the block's trajectories that each row of `order` counts for: float64 [rows].
        Rows with equal patterns are one trajectory, unless their channels draw apart."""
        new = np.ones(rows.order.size, bool)
        if not self._tree.inserts.drawn.any():
            new[1:] = row_work(rows, self._tree.place_at)[1:] > 0
        return new * (rows.begins.size / np.count_nonzero(new))


class SmallWalks(Walks):
    """Walks by the compiled walk, with its buffers."""

    def __init__(
        self, circuit: Circuit, tree: Tree, thread_pool: ThreadPool, control: RunControl, cap: int
    ) -> None:
        super().__init__(tree, thread_pool, control, cap or _MOST_STATES)
        self._circuit = circuit
        codes = circuit.table.rows[circuit.ops, 0]
        num_steps = int(COUNTS[codes].sum()) + int((codes == UNITARY).sum())
        sizes = [len(data) // 8 for data in circuit.matrices]
        ends = np.cumsum([0, *sizes])
        self._matrix_of = np.where(circuit.table.matrix >= 0, ends[circuit.table.matrix], -1)
        self._gates = small_kernel.GateArrays(
            circuit.num_qubits, np.zeros(circuit.ops.size + 1, small_kernel.OPERATION),
            np.zeros((num_steps, 4), np.uint64), np.zeros((num_steps, 8)), circuit.qubits,
            np.frombuffer(b"".join(circuit.matrices), np.float64).copy(),
        )  # fmt: skip
        same = np.arange(circuit.ops.size + 1)
        self._arrays = tree.arrays._replace(floor=same, ceil=same)
        self._varied = np.zeros(0, small_kernel.VARIED)
        self._states: dict[int, NDArray[np.float64]] = {}

    def bind(
        self, params: NDArray[np.float64], key: tuple[int, int], sets: ParamSets = ONE_SET
    ) -> None:
        super().bind(params, key, sets)
        circuit = self._circuit
        rows = circuit.table.rows[circuit.ops]
        ends = rows[:, 3].cumsum()
        owners = np.searchsorted(ends, sets.params, side="right")
        self._varied = np.empty(owners.size, small_kernel.VARIED)
        self._varied["operation"], self._varied["code"] = owners, rows[owners, 0]
        self._varied["first_param"] = (ends - rows[:, 3])[owners]
        self._varied["param"], self._varied["column"] = sets.params, sets.columns
        small_kernel.lay(circuit.table.rows, circuit.ops, params, self._matrix_of, self._gates)

    def run(self, rows: SortedPatterns, outputs: RowOutputs) -> None:
        circuit, tree = self._circuit, self._tree
        size = max(1 << circuit.num_qubits, LANES)
        parts = self._thread_pool.size
        is_long = rows.order.size * circuit.ops.size << circuit.num_qubits > _LONG_WORK
        cuts, least = cut_rows(rows, tree.place_at, parts * _RANGES if is_long else parts)
        shares = np.diff(cuts) * (rows.begins.size / rows.order.size)
        if is_long:
            shares = np.add.reduceat(self._shares(rows), cuts[:-1])
        stat = np.zeros((cuts.size - 1, 2), np.int64)
        ordered, operators, cap = tree.row_arrays(rows), tree.inserts.operators, self._cap
        inserts = small_kernel.OperatorArrays(
            tree.inserts.table, operators.sets, operators.matrices, operators.effects
        )
        draws = RandomDraws.of(self._key, outputs.first)

        def work(begin: int, end: int, thread: int) -> None:
            if thread not in self._states:
                states = aligned(16 * cap * (size + LANES)).view(np.float64)
                self._states[thread] = states.reshape(cap, 2, size + LANES)
            params, gates = np.zeros(0), self._gates
            if rows.sets.size:  # of this thread
                params, gates = self._params.copy(), gates._replace(floats=gates.floats.copy())
            sets = small_kernel.SetArrays(
                rows.sets, self._sets.values, self._sets.factors, self._varied, params
            )
            # Without sets and flags an instance has the bits of its circuit, step by step.
            lazy = circuit.num_qubits if rows.sets.size or len(tree.flags) else 0
            unapplied = np.zeros((cap, lazy, small_kernel.PENDING))
            scratch = small_kernel.WalkScratch.of(self._states[thread], unapplied, rows.order.size)
            for number in range(begin, end):
                done = small_kernel.run(
                    WalkState.of(rows.deepest), ordered, self._arrays, inserts, gates, sets,
                    outputs.of_kernel(stat[number]), scratch, draws, cuts[number],
                    cuts[number + 1], self.control.flag,
                )  # fmt: skip
                if done == small_kernel.STOPPED:
                    raise Stopped()
                self.control.advance(TRAJECTORIES, float(shares[number]))

        self._thread_pool.run(work, cuts.size - 1, 1)
        self.range_operations = stat[:, 0].tolist()
        self.operations += sum(self.range_operations)
        self.states = max(self.states, int(stat[:, 1].max()))
        self.least += least


class LargeWalks(Walks):
    """Walks with states in memory, advanced by sweeps. If the patterns are many circuits of work,
    threads take ranges of rows, each with states of its own; else all threads share each sweep."""

    def __init__(
        self, open_sampler: OpenSampler, tree: Tree, thread_pool: ThreadPool, control: RunControl,
        cap: int,
    ) -> None:  # fmt: skip
        super().__init__(tree, thread_pool, control, cap)
        self._open = open_sampler
        self._samplers: dict[int, LargeSampler] = {}

    def run(self, rows: SortedPatterns, outputs: RowOutputs) -> None:
        cuts, _ = cut_rows(
            rows, self._tree.shared_before, self._thread_pool.size, most_repeated=True
        )
        self.least += int(row_work(rows, self._tree.place_at).sum())
        threads = min(self._thread_pool.size, cuts.size - 1)
        if self._cap < _STATES_A_THREAD * threads:
            cuts, threads = cuts[[0, -1]], 1
        cap = min(self._cap // threads, 2 * rows.deepest + 1)
        done = np.zeros(cuts.size - 1, np.int64)
        shares = np.zeros(rows.begins.size)
        shares[rows.order] = self._shares(rows)

        def finished(own: NDArray[np.int64]) -> None:
            self.control.advance(TRAJECTORIES, float(shares[own].sum()))

        def work(begin: int, end: int, thread: int) -> None:
            shared = threads == 1  # one sampler of all threads together
            key = -1 if shared else thread
            if key not in self._samplers:
                thread_pool = self._thread_pool if shared else ThreadPool(1, self.control)
                self._samplers[key] = self._open(thread_pool)
            sampler = self._samplers[key]
            for number in range(begin, end):
                before = sampler.operations
                low, high = int(cuts[number]), int(cuts[number + 1])
                for first, last in _set_ranges(rows, low, high):
                    params = self._params
                    if rows.sets.size:
                        params = self._sets.of(int(rows.sets[rows.order[first]]), params)
                    sampler.run(rows, first, last, outputs, params, self._key, cap, finished)
                done[number] = sampler.operations - before

        if threads == 1:
            work(0, 1, 0)
        else:
            self._thread_pool.run(work, cuts.size - 1, 1)
        self.range_operations = done.tolist()
        samplers = self._samplers.values()
        self.operations = sum(sampler.operations for sampler in samplers)
        self.states = max(len(sampler.held) for sampler in samplers)
        self.passes = sum(sampler.passes for sampler in samplers)


def _set_ranges(rows: SortedPatterns, low: int, high: int) -> list[tuple[int, int]]:
    """Ranges of sorted rows low .. high - 1 that have one set of parameters each."""
    if not rows.sets.size:
        return [(low, high)]
    sets = rows.sets[rows.order[low:high]]
    inner = (np.flatnonzero(sets[1:] != sets[:-1]) + low + 1).tolist()
    return list(itertools.pairwise([low, *inner, high]))


def cut_rows(
    rows: SortedPatterns, done: NDArray[np.int64], threads: int, *, most_repeated: bool = False
) -> tuple[NDArray[np.int64], int]:
    """Bounds of ranges of rows of about the same work, and the operations of all distinct rows. A
    range repeats the operations before its first error. `done`: see `row_work`. `most_repeated`:
    one range if more than `_REPEATED` of the work would be repeated; else each thread has at least
    one."""
    sums = np.cumsum(row_work(rows, done))
    least, full = int(sums[-1]), max(1, int(done[-1]))
    ranges = min(_RANGES * threads, int(_REPEATED * least / full))
    if threads == 1 or (most_repeated and ranges < threads):
        return np.array([0, sums.size]), least
    ranges -= ranges % threads  # equal numbers for each thread: ranges are about the same work
    return _cuts(sums, max(threads, ranges)), least


def rank_cuts(rows: SortedPatterns, done: NDArray[np.int64], ranks: int) -> NDArray[np.int64]:
    """Bounds of the rows of each rank; only some ranks have rows if all of them would repeat more
    than a small share of the work."""
    sums = np.cumsum(row_work(rows, done))
    useful = int(_REPEATED * sums[-1] / max(1, int(done[-1])))
    result = _cuts(sums, min(ranks, max(1, useful)))
    return np.append(result, np.full(ranks + 1 - result.size, sums.size))


def _cuts(sums: NDArray[np.int64], ranges: int) -> NDArray[np.int64]:
    inner = np.searchsorted(sums, np.arange(1, ranges) * int(sums[-1]) / ranges)
    return np.unique(np.concatenate(([0], inner, [sums.size])))


# Circuit with its possible inserts.

_SPARE = 4  # share of memory: a quarter is for states
_TILE_BITS = 4  # smaller tiles make more sweeps, between which trajectories part later
_UNTILED_QUBITS = 8  # largest width without tiles: the planner of passes needs more qubits


class TrajectorySampler:
    """Circuit with its possible inserts: planned once, run many times. `small=False` forces the
    passes over tiles, for tests, from 9 qubits on."""

    def __init__(
        self,
        circuit: Circuit,
        inserts: NoiseTable,
        options: RunOptions,
        *,
        small: bool = True,
        tile_wires: int = 0,
    ) -> None:
        """Set up. `inserts`: as those of `locations.locate`, before the measurements of their
        qubits. `tile_wires`: of a wide circuit's passes; 0: fitted to a processor's caches. Raises
        Unsupported."""
        check_threads(options)
        roles = np.empty(circuit.ops.size, np.int64)
        if circuit.conditions_data or has_mid_circuit_ops(circuit, roles, keep=False):
            raise Unsupported("patterns of a circuit that branches", hint="measure at the end only")
        if circuit.num_qubits > noise_table.MOST_QUBITS:
            hint = f"at most {noise_table.MOST_QUBITS}"
            raise Unsupported(f"inserts in a circuit of {circuit.num_qubits} qubits", hint=hint)
        self.circuit = circuit
        self.table = inserts
        self._options = options
        self._small = circuit.num_qubits <= (SMALL_QUBITS if small else _UNTILED_QUBITS)
        rows = circuit.table.rows[circuit.ops]
        begins = np.cumsum(rows[:, 1:3], axis=0) - rows[:, 1:3]
        final = roles == TERMINAL
        self.source = np.full(circuit.num_clbits, -1, np.int64)
        self.source[circuit.clbits[begins[final, 1]]] = circuit.qubits[begins[final, 0]]
        if self._small:
            at = np.append(inserts.table[:, noise_table.AFTER_OP] + 1, circuit.ops.size)
            self._tree = Tree.of(inserts, at)
        else:
            width = tile_wires or tile_width(
                circuit.num_qubits, options.precision, tile_bits=_TILE_BITS
            )
            parts = segments.divide(circuit, inserts, width)
            self._pieces = segment_plans.Pieces(circuit, parts.order, width)
            self._tree = Tree.of(inserts, parts.place_at, parts.floor, parts.ceil)
        self.places = self._tree.places  # number of each insert in order of action
        self.operations_before = self._tree.place_at  # [places + 1]; the last: all operations

    @property
    def shared_before(self) -> NDArray[np.int64]:
        return self._tree.shared_before

    def forget_segments(self) -> None:
        """Free the plans of segments, which the next run makes again."""
        if not self._small:
            self._pieces.forget()

    def open(
        self,
        thread_pool: ThreadPool,
        control: RunControl,
        most_states: int = 0,
        *,
        memory_bytes: int = 0,
        states: TrajectoryStates | None = None,
    ) -> Walks:
        """Walks of this circuit, which share states and plans. `most_states`: limit of a thread; 0:
        as many as fit into `memory_bytes` (0: a quarter of the machine's). `states`: of a wide
        circuit, for a pool of one thread; None: in this process."""
        if self._small:
            return SmallWalks(self.circuit, self._tree, thread_pool, control, most_states)
        width = self.circuit.num_qubits

        def open_sampler(own: ThreadPool) -> LargeSampler:
            held = states or LocalTrajectoryStates(LocalBackend(own, control))
            return LargeSampler(held, width, self._tree, self._pieces, self._options)

        room = memory_bytes or PHYSICAL_BYTES // _SPARE
        cap = most_states or max(1, room // state_bytes(width, self._options.precision))
        return LargeWalks(open_sampler, self._tree, thread_pool, control, cap)
