"""Trajectory sampler: outcomes of many noisy instances of one circuit.

The outcome of an instance is a function of the circuit, its parameters, its inserted errors, and
(seed, binding, shot): not of the other instances, threads or memory. All of the circuit is run, and
all qubits are sampled jointly; an instance without errors has the outcome of a noiseless run that
drops nothing (`circuit.passes`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import SMALL_QUBITS, state_bytes
from simulators.circuit.analysis.measurements import TERMINAL, has_mid_circuit_ops
from simulators.circuit.ir import Circuit
from simulators.engine import RunControl, RunOptions, ThreadPool
from simulators.errors import Unsupported
from simulators.execution.requests import check_threads
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.planning.planner import tile_width
from simulators.statevector.state import PHYSICAL_BYTES
from simulators.statevector.trajectories import walks
from simulators.statevector.trajectories.segments import Pieces, divide
from simulators.statevector.trajectories.states import LocalTrajectoryStates, TrajectoryStates
from simulators.trajectories.noise_table import AFTER_OP, MOST_QUBITS, NoiseTable, too_wide
from simulators.trajectories.prefix_tree import Tree

_SPARE = 4  # share of memory: a quarter is for states
_UNTILED_QUBITS = 8  # largest width without tiles: the planner of passes needs more qubits


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
        tile_wires: int = 0,
    ) -> None:
        """Set up. `inserts`: as those of `locations.locate`, before the measurements of their
        qubits. `tile_wires`: of a wide circuit's passes; 0: fitted to a processor's caches. Raises
        Unsupported."""
        check_threads(options)
        roles = np.empty(circuit.ops.size, np.int64)
        if circuit.conditions_data or has_mid_circuit_ops(circuit, roles, keep=False):
            raise Unsupported("patterns of a circuit that branches", hint="measure at the end only")
        if circuit.num_qubits > MOST_QUBITS:
            raise too_wide(circuit)
        self.circuit = circuit
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
        return self._tree.shared_before

    @property
    def operations_before(self) -> NDArray[np.int64]:
        """Operations before each place, and those of the circuit: int64 [places + 1]."""
        return self._tree.place_at

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
    ) -> walks.ProcessWalks:
        """Walks of this circuit, which share states and plans. `most_states`: limit of a thread; 0:
        as many as fit into `memory_bytes` (0: a quarter of the machine's). `states`: of a wide
        circuit, for a pool of one thread; None: in this process."""
        if self._small:
            return walks.SmallWalks(self.circuit, self._tree, thread_pool, control, most_states)
        width = self.circuit.num_qubits

        def open_sampler(own: ThreadPool) -> walks.LargeSampler:
            held = states or LocalTrajectoryStates(LocalBackend(own, control))
            return walks.LargeSampler(held, width, self._tree, self._pieces, self._options)

        room = memory_bytes or PHYSICAL_BYTES // _SPARE
        cap = most_states or max(1, room // state_bytes(width, self._options.precision))
        return walks.LargeWalks(open_sampler, self._tree, thread_pool, control, cap)
