"""Where states live, and all that is done with a whole one: in this process, or over ranks.

Invariant: the walk through a circuit and its outputs are written against `States` alone. Numbers
that decide what happens next are the same bits in every process, so all of them decide alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.catalog import state_bytes
from simulators.control import Control, Crew
from simulators.engine import RunOptions
from simulators.errors import OutOfMemory
from simulators.statevector.backend import pauli, reductions, sampling
from simulators.statevector.backend.gate_list import Passes, apply_gates
from simulators.statevector.backend.matrix import Dense, multiply
from simulators.statevector.backend.protocol import Amplitudes
from simulators.statevector.checkpoint import Journey, Way
from simulators.statevector.planning.tables import Sweeps
from simulators.statevector.state import BLOCK_QUBITS, PHYSICAL_BYTES, State, Sweeper, like
from simulators.statevector.tiles import driver


class LocalStates:
    """States of this process alone."""

    first = True

    def __init__(self, crew: Crew, control: Control, journey: Journey | None = None) -> None:
        """`journey`: what is kept of a long run."""
        self.sweeper = Sweeper(crew, control)
        self.check = control.check
        self.expect = control.expect
        self._journey = journey or Journey()

    def for_width(self, _num_qubits: int) -> LocalStates:
        """See `States`."""
        return self

    def most(self, num_qubits: int, options: RunOptions) -> int:
        """A quarter of the machine's memory, if no other amount is given."""
        room = options.memory_bytes or PHYSICAL_BYTES // 4
        return max(1, room // state_bytes(num_qubits, options.precision))

    def zero(self, num_qubits: int, options: RunOptions, way: Way | None = None) -> State:
        """See `States`."""
        state = State.zero(num_qubits, options)
        self._journey.begin(way)
        if self._journey.is_kept and self._journey.taken(state.amplitudes) is not None:
            state.changed()
        return state

    def copied(self, state: State) -> State:
        """See `States`."""
        found = self.blank(state)
        found.amplitudes[:] = state.amplitudes
        found.live = state.live
        return found

    def blank(self, state: State) -> State:
        """See `States`."""
        try:
            return State(like(state.amplitudes))
        except MemoryError as error:
            raise no_room(state) from error

    def apply(self, state: State, passes: Passes | Sweeps, floats: NDArray[np.float64]) -> None:
        """See `States`."""
        if isinstance(passes, Passes):
            apply_gates(self.sweeper, state, passes, floats)
            return
        end, journey = len(passes.live), self._journey
        begin = journey.skipped(end)
        step = 1 if journey.is_kept else max(1, end)
        self.sweeper.passed(begin)
        for first in range(begin, end, step):
            last = min(first + step, end)
            norms = last == end
            driver.apply(self.sweeper, state, passes, floats, first=first, last=last, norms=norms)
            if journey.is_kept:
                journey.passed(state.amplitudes)

    def multiply(self, state: State, matrix: Dense) -> None:
        """See `States`."""
        self.sweeper.passed(1)
        if self._journey.skipped(1):
            return
        state.changed()
        multiply(self.sweeper, state, matrix)
        self.check()
        self._journey.passed(state.amplitudes)

    def block_sums(
        self,
        what: int,
        state: State,
        other: State | None = None,
        *,
        qubit: int = 0,
        turn: complex = 1.0,
    ) -> NDArray[np.float64]:
        """See `States`."""
        return reductions.block_sums(self.sweeper, what, state, other, qubit=qubit, turn=turn)

    def project(
        self,
        state: State,
        into: State,
        *,
        qubit: int,
        outcome: int,
        factor: float,
        move: bool,
    ) -> None:
        """See `States`."""
        reductions.project(
            self.sweeper, state, into, qubit=qubit, outcome=outcome, factor=factor, move=move
        )

    def walk(
        self,
        state: State,
        edges: NDArray[np.float64],
        begins: NDArray[np.int64],
        draws: NDArray[np.float64],
    ) -> NDArray[np.int64]:
        """See `States`."""
        found = np.empty(draws.size, np.int64)
        sampling.locate_samples(self.sweeper, state, edges, begins, draws, found)
        return found

    def distribution(
        self, state: State, wires: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """See `States`."""
        table = np.zeros(1 << wires.size)
        sampling.accumulate(self.sweeper, state, wires, table)
        return sampling.likely(table, state)

    def expectations(self, state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        """See `States`."""
        values = np.empty(len(strings))
        numbers = state.numbers
        for group in pauli.groups(strings):
            sums = np.empty((numbers.size, group.zs.size))
            flip = group.x >> min(BLOCK_QUBITS, state.num_qubits)
            pauli.string_sums(self.sweeper, state, state, numbers, flip, group, sums)
            values[group.members] = np.cumsum(sums, axis=0)[-1]
        return values

    def whole(self, state: State) -> Amplitudes:
        """See `States`."""
        return state.amplitudes


def no_room(state: State) -> OutOfMemory:
    """There is no memory for another such state."""
    return OutOfMemory(
        f"no memory for another state of {state.amplitudes.nbytes / 2**30:.2f} GiB",
        hint="give RunOptions.memory_bytes, so that the shots run in groups that fit",
    )
