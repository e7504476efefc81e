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
from simulators.control import RunControl, ThreadPool
from simulators.engine import RunOptions
from simulators.errors import BadCircuit, Unsupported
from simulators.execution.requests import check_threads
from simulators.execution.sampling import gather
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.planning.planner import tile_width
from simulators.statevector.state import PHYSICAL_BYTES
from simulators.statevector.trajectories.large import LargeSampler
from simulators.statevector.trajectories.segments import Pieces, divide
from simulators.statevector.trajectories.states import LocalTrajectoryStates, TrajectoryStates
from simulators.statevector.trajectories.walks import LargeWalks, SmallWalks, Walks
from simulators.trajectories.error_patterns import ErrorPatterns, sort
from simulators.trajectories.noise_table import AFTER_OP, MOST_QUBITS, NoiseTable, check, too_wide
from simulators.trajectories.tree_walk import Tree

_SPARE = 4  # share of memory: a quarter is for states
_UNTILED_QUBITS = 8  # largest width without tiles: the planner of passes needs more qubits


class Outcomes(msgspec.Struct, frozen=True, eq=False):
    """Outcomes of the instances, and the work done."""

    indices: NDArray[np.int64]  # [bindings, instances]: basis states, all qubits measured
    source: NDArray[np.int64]  # [num_clbits]: the qubit that each clbit reads, or -1
    operations: int  # operations executed for all distinct prefixes together
    least: int  # operations that cannot be avoided; channels do not divide rows
    states: int  # states held at once by one thread
    passes: int  # passes over large states

    def records(self, binding: int = 0) -> NDArray[np.uint64]:
        """Classical bits of each instance: see `sampling`."""
        return gather(self.indices[binding], self.source)


class TrajectorySampler:
    """Circuit with its possible inserts: planned once, run many times.

    `small=False` forces the passes over tiles, for tests, from 9 qubits on.
    """

    def __init__(
        self,
        circuit: Circuit,
        inserts: NoiseTable,
        options: RunOptions,
        *,
        small: bool = True,
        checked: bool = False,
        tile_wires: int = 0,
    ) -> None:
        """Set up. `checked`: the inserts are known to fit, as those of `locations.locate`.
        `tile_wires`: of a wide circuit's passes; 0: fitted to a processor's caches. Raises
        Unsupported and BadCircuit."""
        check_threads(options)
        roles = np.empty(circuit.ops.size, np.int64)
        if circuit.conditions_data or has_mid_circuit_ops(circuit, roles, keep=False):
            raise Unsupported(
                "patterns of a circuit that branches",
                hint="measure at the end only",
            )
        if not checked:
            check(circuit, inserts)
        elif circuit.num_qubits > MOST_QUBITS:
            raise too_wide(circuit)
        self._circuit = circuit
        self._inserts = inserts
        self._options = options
        self._small = circuit.num_qubits <= (SMALL_QUBITS if small else _UNTILED_QUBITS)
        rows = circuit.table.rows[circuit.ops]
        begins = np.cumsum(rows[:, 1:3], axis=0) - rows[:, 1:3]
        final = roles == TERMINAL
        self.source = np.full(circuit.num_clbits, -1, np.int64)
        self.source[circuit.clbits[begins[final, 1]]] = circuit.qubits[begins[final, 0]]
        if self._small:
            at = np.append(inserts.table[:, AFTER_OP] + 1, circuit.ops.size)
            self._tree = Tree.of(inserts, at)
        else:
            width = tile_wires or tile_width(circuit.num_qubits, options.precision)
            self._segments = divide(circuit, inserts, width)
            self._pieces = Pieces(circuit, self._segments.order, width)
            at = self._segments.place_at
            self._tree = Tree.of(inserts, at, self._segments.floor, self._segments.ceil)
        self.places = self._tree.places  # number of each insert in order of action

    @property
    def table(self) -> NoiseTable:
        """Table of the possible inserts."""
        return self._inserts

    @property
    def shared_before(self) -> NDArray[np.int64]:
        """See `Tree.shared_before`."""
        return self._tree.shared_before

    @property
    def operations_before(self) -> NDArray[np.int64]:
        """Operations before each place, and those of the circuit: int64 [places + 1]."""
        return self._tree.place_at

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
        is number `binding`. `most_states`: limit of the states held at once by a thread (0: as
        memory allows). Raises Stopped and OutOfMemory."""
        rows = sort(patterns, self.places)
        params = self._params(bindings)
        control = control or RunControl()
        result = np.zeros((len(params), patterns.count), np.int64)
        if not patterns.count:
            return Outcomes(result, self.source, 0, 0, 0, 0)
        with ThreadPool(self._options.threads, control) as thread_pool:
            memory = self._options.memory_bytes
            walk = self.open(thread_pool, control, most_states, memory_bytes=memory)
            for k, row in enumerate(params):
                walk.bind(row, (seed, binding + k))
                result[k] = walk.indices(rows, first)
        return Outcomes(result, self.source, walk.operations, walk.least, walk.states, walk.passes)

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
            tree = self._tree
            noise = self._inserts, tree.insert_of, tree.place_at
            return SmallWalks(self._circuit, *noise, thread_pool, control, most_states)
        width = self._circuit.num_qubits

        def open_sampler(own: ThreadPool) -> LargeSampler:
            held = states or LocalTrajectoryStates(LocalBackend(own, control))
            return LargeSampler(held, width, self._tree, self._pieces, self._options)

        room = memory_bytes or PHYSICAL_BYTES // _SPARE
        cap = most_states or max(1, room // state_bytes(width, self._options.precision))
        return LargeWalks(open_sampler, self._tree, thread_pool, control, cap)

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
        result = np.repeat(circuit.params[None, :], len(bindings), axis=0)
        if circuit.num_slots:
            result[:, circuit.slots[0::2]] = bindings[:, circuit.slots[1::2]]
        return result
