"""Trajectory sampler: outcomes of many noisy instances of one circuit.

The outcome of an instance is a function of the circuit, its parameters, its inserted errors, and
(seed, binding, shot): not of the other instances, threads or memory. All of the circuit is run, and
all qubits are sampled jointly; an instance without errors has the outcome of a noiseless run that
drops nothing (`circuit.passes`).
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS, state_bytes
from simulators.circuit.analysis.measurements import TERMINAL, has_mid_circuit_ops
from simulators.circuit.ir import Circuit
from simulators.compiler.arrays import aligned
from simulators.compiler.simd import LANES
from simulators.control import RunControl, ThreadPool
from simulators.engine import RunOptions
from simulators.errors import BadCircuit, Stopped, Unsupported
from simulators.execution.requests import check_threads
from simulators.execution.sampling import gather
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.planning.planner import tile_width
from simulators.statevector.small.gate_kernels import COUNTS
from simulators.statevector.state import PHYSICAL_BYTES
from simulators.statevector.trajectories import prefix_tree, small_kernel
from simulators.statevector.trajectories.error_patterns import (
    ErrorPatterns,
    SortedPatterns,
    least_work,
    sort,
)
from simulators.statevector.trajectories.large import LargeSampler
from simulators.statevector.trajectories.noise_table import AFTER_OP, NoiseTable, check
from simulators.statevector.trajectories.segments import Pieces, divide

_SPARE = 4  # of memory: a quarter is for states
_MOST_SMALL = 64  # states of a small circuit, at most
_RANGES = 8  # of rows, a thread
_LEAST_ROWS = 256  # of a range


class Outcomes(msgspec.Struct, frozen=True, eq=False):
    """Outcomes of the instances, and the work done."""

    indices: NDArray[np.int64]  # [bindings, instances]: basis states, all qubits measured
    source: NDArray[np.int64]  # [num_clbits]: the qubit that each clbit reads, or -1
    operations: int  # of the circuit, done for all distinct beginnings together
    least: int  # those that can't be done without; channels not parted
    states: int  # held at once, by one thread
    passes: int  # over large states

    def records(self, binding: int = 0) -> NDArray[np.uint64]:
        """The classical bits of each instance: see `sampling`."""
        return gather(self.indices[binding], self.source)


class TrajectorySampler:
    """A circuit and what may be inserted into it: planned once, run as often as needed.

    `small=False` forces the passes over tiles, for tests.
    """

    def __init__(
        self, circuit: Circuit, inserts: NoiseTable, options: RunOptions, *, small: bool = True
    ) -> None:
        """Raises Unsupported and BadCircuit."""
        check_threads(options)
        roles = np.empty(circuit.ops.size, np.int64)
        if circuit.conditions_data or has_mid_circuit_ops(circuit, roles, keep=False):
            raise Unsupported(
                "patterns of a circuit that branches",
                hint="measure at the end only",
            )
        check(circuit, inserts)
        self._circuit = circuit
        self._inserts = inserts
        self._options = options
        self._little = small and circuit.num_qubits <= SMALL_QUBITS
        rows = circuit.table.rows[circuit.ops]
        begins = np.cumsum(rows[:, 1:3], axis=0) - rows[:, 1:3]
        final = roles == TERMINAL
        self.source = np.full(circuit.num_clbits, -1, np.int64)
        self.source[circuit.clbits[begins[final, 1]]] = circuit.qubits[begins[final, 0]]
        if self._little:
            at = np.append(inserts.table[:, AFTER_OP] + 1, circuit.ops.size)
        else:
            width = tile_width(circuit.num_qubits, options.precision)
            self._segments = divide(circuit, inserts, width)
            self._pieces = Pieces(circuit, self._segments.order, width)
            at = self._segments.place_at
        # Places: inserts in the order they act.
        self._insert_of = np.lexsort((np.arange(at.size - 1), inserts.table[:, AFTER_OP], at[:-1]))
        self._places = np.empty(at.size - 1, np.int64)
        self._places[self._insert_of] = np.arange(at.size - 1)
        self._place_at = at[np.append(self._insert_of, at.size - 1)].astype(np.int64)

    def run(
        self,
        patterns: ErrorPatterns,
        *,
        seed: int,
        binding: int = 0,
        first: int = 0,
        bindings: NDArray[np.float64] | None = None,
        most_states: int = 0,
        control: RunControl | None = None,
    ) -> Outcomes:
        """Outcomes of all instances, for each row of `bindings`; instance 0 is shot `first`, row 0
        is number `binding`. `most_states`: held at once by a thread, at most (0: as memory allows).
        Raises Stopped and OutOfMemory."""
        rows = sort(patterns, self._places)
        cap = self._cap(rows, most_states)
        params = self._params(bindings)
        control = control or RunControl()
        found = np.zeros((len(params), patterns.count), np.int64)
        least = len(params) * least_work(rows, self._place_at, self._circuit.ops.size)
        if not patterns.count:
            return Outcomes(found, self.source, 0, 0, 0, 0)
        with ThreadPool(self._options.threads, control) as crew:
            if self._little:
                work = _Little(self._circuit, self._inserts, self._insert_of, self._place_at)
                for k, row in enumerate(params):
                    work.run(crew, control, rows, row, (seed, binding + k), first, cap, found[k])
                operations, states = work.stat.sum(axis=0)[0], work.stat.max(axis=0)[1]
                return Outcomes(found, self.source, int(operations), least, int(states), 0)
            states = LocalBackend(crew, control)
            wide = LargeSampler(
                states, self._circuit, self._segments, self._inserts, self._pieces, self._options
            )
            for k, row in enumerate(params):
                key = (seed, binding + k)
                found[k] = wide.run(rows, self._insert_of, self._place_at, row, key, first, cap)
            return Outcomes(found, self.source, wide.operations, least, wide.most_held, wide.passes)

    def _cap(self, rows: SortedPatterns, most: int) -> int:
        """States that may be held at once."""
        if most:
            return most
        deep = 2 * rows.deepest + 1
        if self._little:
            return min(deep, _MOST_SMALL)
        room = self._options.memory_bytes or PHYSICAL_BYTES // _SPARE
        size = state_bytes(self._circuit.num_qubits, self._options.precision)
        return max(1, min(deep, room // size))

    def _params(self, bindings: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """The circuit's parameters in each binding."""
        circuit = self._circuit
        if bindings is None:
            bindings = np.empty((1, 0))
        if bindings.shape[1] != circuit.num_slots or not np.isfinite(bindings).all():
            raise BadCircuit(
                f"{bindings.shape[1]} values for {circuit.num_slots} free parameters",
                hint="give one finite value for each",
            )
        found = np.repeat(circuit.params[None, :], len(bindings), axis=0)
        if circuit.num_slots:
            found[:, circuit.slots[0::2]] = bindings[:, circuit.slots[1::2]]
        return found


class _Little:
    """The compiled walk, and room for it."""

    def __init__(
        self,
        circuit: Circuit,
        inserts: NoiseTable,
        insert_of: NDArray[np.int64],
        place_at: NDArray[np.int64],
    ) -> None:
        self._kernels = small_kernel
        self._circuit = circuit
        self._inserts = inserts
        self._insert_of = insert_of
        self._place_at = place_at
        codes = circuit.table.rows[circuit.ops, 0]
        many = int(COUNTS[codes].sum())
        self._laid = np.zeros((circuit.ops.size + 1, 4), np.int64)
        self._steps = np.zeros((many, 4), np.uint64)
        self._numbers = np.zeros((many, 8))
        sizes = [len(data) // 8 for data in circuit.matrices]
        ends = np.cumsum([0, *sizes])
        self._matrix_at = np.where(circuit.table.matrix >= 0, ends[circuit.table.matrix], -1)
        self._given = np.frombuffer(b"".join(circuit.matrices), np.float64).copy()
        self._same = np.arange(circuit.ops.size + 1)
        self._drawn = inserts.drawn[insert_of].astype(np.int64)
        self.stat = np.zeros((0, 2), np.int64)

    def run(
        self,
        crew: ThreadPool,
        control: RunControl,
        rows: SortedPatterns,
        params: NDArray[np.float64],
        key: tuple[int, int],
        first: int,
        cap: int,
        found: NDArray[np.int64],
    ) -> None:
        """All rows, in ranges that threads share. Raises Stopped."""
        circuit, kernels = self._circuit, self._kernels
        size = max(1 << circuit.num_qubits, LANES)
        kernels.lay(
            circuit.table.rows, circuit.ops, circuit.qubits, params, self._matrix_at, self._laid,
            self._steps, self._numbers,
        )  # fmt: skip
        total = rows.order.size
        grain = total if crew.size == 1 else max(_LEAST_ROWS, -(-total // (_RANGES * crew.size)))
        stat = np.zeros((-(-total // grain), 2), np.int64)
        order, chosen = rows.order.copy(), np.zeros_like(rows.entries)
        rooms: dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        operators = self._inserts.operators

        def work(low: int, high: int, thread: int) -> None:
            if thread not in rooms:
                states = aligned(16 * cap * (size + LANES)).view(np.float64)
                work_ = np.empty(kernels.WORK + size)
                rooms[thread] = states.reshape(2 * cap, size + LANES), work_
            done = kernels.run(
                np.zeros((prefix_tree.frames_of(rows.deepest), prefix_tree.FRAME), np.int64),
                low, high, cap,
                circuit.num_qubits, order, rows.begins, rows.entries, chosen, self._place_at,
                self._drawn, self._insert_of, self._same, self._inserts.table, operators.sets,
                operators.matrices, operators.effects, self._laid, self._steps, self._numbers,
                circuit.qubits, self._given, first, *key, control.flag, *rooms[thread],
                np.zeros((1, 8)), np.empty(total + prefix_tree.CALL + 2, np.int64), found,
                stat[low // grain],
            )  # fmt: skip
            if done == kernels.STOPPED:
                raise Stopped("the run was stopped", hint="whoever stopped it can submit it again")

        crew.run(work, total, grain)
        self.stat = np.concatenate((self.stat, stat))
