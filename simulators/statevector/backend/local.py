"""Backend for states of one process."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.circuit.ir import Circuit
from simulators.engine import PASSES, PauliSum, RunControl, RunOptions, ThreadPool
from simulators.statevector import state as states
from simulators.statevector.backend import pauli_sums, protocol, reductions
from simulators.statevector.backend.gate_list import GateList
from simulators.statevector.backend.matrix import PlacedMatrix, multiply
from simulators.statevector.checkpoint import Checkpointer, Evolution
from simulators.statevector.dynamic import stacked_states
from simulators.statevector.dynamic.separate_states import SeparateStates
from simulators.statevector.dynamic.stacked_states import MOST_QUBITS, StackedStates
from simulators.statevector.gradient import adjoint
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.planning.tables import SweepTable
from simulators.statevector.state import State
from simulators.statevector.tiles import sweep_kernel

_ONLY = np.zeros(1, np.int64)  # number of a state that is alone in its array


class LocalBackend:
    """Backend for states of this process alone."""

    is_root = True

    def __init__(
        self, thread_pool: ThreadPool, control: RunControl, checkpointer: Checkpointer | None = None
    ) -> None:
        """Set up. `checkpointer`: checkpoints of a long run."""
        self.sweeper = states.BlockExecutor(thread_pool, control)
        self.check = control.check
        self.expect = control.expect
        self._checkpointer = checkpointer or Checkpointer()

    def for_width(self, _num_qubits: int) -> LocalBackend:
        return self

    def max_live_states(self, num_qubits: int, options: RunOptions) -> int:
        """Number of states that fit into the given memory, by default a quarter of the
        machine's."""
        room = options.memory_bytes or states.PHYSICAL_BYTES // 4
        return max(1, room // state_bytes(num_qubits, options.precision))

    def zero_state(
        self, num_qubits: int, options: RunOptions, way: Evolution | None = None
    ) -> State:
        state = State.zero(num_qubits, options)
        self._checkpointer.begin(way)
        if self._checkpointer.is_kept and self._checkpointer.restore(state.amplitudes) is not None:
            state.changed()
        return state

    def copy(self, state: State) -> State:
        result = self.empty_like(state)
        result.amplitudes[:] = state.amplitudes
        result.live = state.live
        return result

    def empty_like(self, state: State) -> State:
        try:
            return State(states.like(state.amplitudes))
        except MemoryError as error:
            raise states.out_of_memory(state.amplitudes.nbytes) from error

    def ensemble(
        self, num_qubits: int, options: RunOptions, *, branching: bool
    ) -> protocol.Ensemble:
        """Make an ensemble: narrow states of many branches are rows of one array."""
        if not branching or num_qubits > MOST_QUBITS:
            return SeparateStates(self, num_qubits, options)
        max_states = min(options.max_branches, self.max_live_states(num_qubits, options))
        return StackedStates(self, self.sweeper, num_qubits, options.precision, max(1, max_states))

    def apply(
        self, state: State, segment: protocol.CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        if isinstance(segment, GateList):
            state.changed()
            stacked_states.apply_steps_to_stack(
                self.sweeper, state, state.num_qubits, _ONLY, segment, floats
            )
        else:
            self.apply_sweeps(state, cast("SegmentPlan", segment).sweeps, floats)

    def apply_sweeps(self, state: State, passes: SweepTable, floats: NDArray[np.float64]) -> None:
        """Apply the passes of a table that no earlier attempt of the run has done."""
        end, checkpointer = len(passes.live), self._checkpointer
        begin = checkpointer.skip_done(end)
        step = 1 if checkpointer.is_kept else max(1, end)
        self.sweeper.passed(begin, before=True)
        for first in range(begin, end, step):
            last = min(first + step, end)
            norms = last == end
            sweep_kernel.apply(
                self.sweeper, state, passes, floats, first=first, last=last, norms=norms
            )
            if checkpointer.is_kept:
                checkpointer.sweep_done(state.amplitudes)

    def multiply(self, state: State, matrix: PlacedMatrix) -> None:
        skipped = self._checkpointer.skip_done(1)
        self.sweeper.passed(1, before=bool(skipped))
        if skipped:
            return
        state.changed()
        multiply(self.sweeper, state, matrix)
        self.check()
        self._checkpointer.sweep_done(state.amplitudes)

    def block_sums(
        self, item: reductions.BlockSum, state: State, other: State | None = None
    ) -> NDArray[np.float64]:
        return reductions.block_sums(self.sweeper, item, state, other)

    def project(
        self, state: State, into: State, item: reductions.Projection, factor: float
    ) -> None:
        reductions.project(self.sweeper, state, into, item, factor)

    def locate_samples(self, state: State, draws: reductions.SortedDraws) -> NDArray[np.int64]:
        result = np.empty(draws.values.size, np.int64)
        reductions.locate_samples(self.sweeper, state, draws, result)
        return result

    def distribution(
        self, state: State, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        table = np.zeros(1 << wires.size)
        reductions.accumulate(self.sweeper, state, wires, table)
        return reductions.nonzero_outcomes(table, state)

    def expectations(self, state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        values = np.empty(len(strings))
        places = state.basis_indices
        for group in pauli_sums.pauli_groups(strings):
            sums = np.empty((places.size, group.strings.zs.size))
            flip = int(group.strings.x) >> min(states.BLOCK_QUBITS, state.num_qubits)
            pauli_sums.string_sums(self.sweeper, state, state, places, flip, group, sums)
            values[group.members] = np.cumsum(sums, axis=0)[-1]
        return values

    def gather_statevector(self, state: State) -> protocol.Amplitudes:
        return state.amplitudes

    def amplitudes(self, state: State, indices: NDArray[np.int64]) -> protocol.Amplitudes:
        return state.amplitudes[indices]

    def plan_gradients(
        self, circuit: Circuit, params: NDArray[np.float64], observables: tuple[PauliSum, ...]
    ) -> protocol.GradientFunction:
        plan = adjoint.plan_adjoint(circuit, params)
        self.expect(plan.passes * len(observables), PASSES)

        def gradients(state: State, keep: bool) -> NDArray[np.float64]:
            other = self.empty_like(state)
            result = np.zeros((len(observables), plan.num_slots))
            for number, item in enumerate(observables):
                last = number == len(observables) - 1
                moving = state if last and not keep else self.copy(state)
                result[number] = adjoint.gradient(self.sweeper, plan, moving, other, item)
            return result

        return gradients
