"""States of all branches of a dynamic circuit, behind one protocol.

`SeparateStates` holds one `State` for each branch, of any width, in one process or over ranks;
`stacked_states.StackedStates` holds narrow states as rows of one array.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunOptions
from simulators.statevector.backend.gate_list import GateList
from simulators.statevector.backend.matrix import Dense
from simulators.statevector.backend.protocol import StateBackend, equal_up_to_phase, sample, total
from simulators.statevector.backend.reductions import FINGERPRINT, QUBIT_WEIGHTS
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.planning.tables import SweepTable
from simulators.statevector.state import State

Numbers = NDArray[np.int64]


class Ensemble(Protocol):
    """States, each of which has a number. Every method may raise Stopped and OutOfMemory."""

    @property
    def states(self) -> StateBackend:
        """Backend of the states."""

    def clear(self) -> None:
        """Forget all states."""

    def zero(self, way: Evolution | None = None) -> int:
        """A new state |0...0>; `way`: see `StateBackend.zero`."""

    def copied(self, numbers: Numbers) -> Numbers:
        """New states, equal to these."""

    def blank(self, numbers: Numbers) -> Numbers:
        """Room for as many new states, which may hold anything."""

    def release(self, numbers: Numbers) -> None:
        """Give the room of these states to later ones."""

    def apply(
        self, numbers: Numbers, passes: GateList | SweepTable, floats: NDArray[np.float64]
    ) -> None:
        """Apply a stretch of gates to each of these states."""

    def multiply(self, numbers: Numbers, matrix: Dense) -> None:
        """Apply a matrix to each of these states."""

    def odds(self, numbers: Numbers, qubit: int) -> NDArray[np.float64]:
        """Weights of the outcomes 0 and 1 of a qubit: float64 [states, 2]."""

    def project(
        self,
        numbers: Numbers,
        into: Numbers,
        *,
        qubit: int,
        outcome: int,
        factors: NDArray[np.float64],
        move: bool,
    ) -> None:
        """State into[k] becomes the part of state numbers[k] with that outcome, times factors[k].

        `move`: the qubit ends in |0>.
        """

    def equals(self, numbers: Numbers, near: float, tolerance: float) -> Numbers:
        """Index into `numbers` of the state that represents each state: int64 [states].

        Two states are equal if their distance is at most `tolerance`, up to a global phase. Only
        states whose sketches differ by at most `near` are compared.
        """

    def sample(
        self,
        numbers: Numbers,
        branch_of: Numbers,
        key: tuple[int, int],
        shots: Numbers,
        *,
        draw: int,
        ordered: bool,
    ) -> Numbers:
        """Basis state that each shot finds, shot k in state numbers[branch_of[k]]: int64 [shots].

        Without `ordered`, where there is one state, in any order. See `numbers.sample`.
        """

    def state(self, number: int) -> State:
        """One state."""


class SeparateStates:
    """An `Ensemble` of one `State` for each branch."""

    def __init__(self, states: StateBackend, num_qubits: int, options: RunOptions) -> None:
        self.states = states
        self._num_qubits = num_qubits
        self._options = options
        self._held: dict[int, State] = {}
        self._next = 0

    def _take(self, state: State) -> int:
        self._held[self._next] = state
        self._next += 1
        return self._next - 1

    def clear(self) -> None:
        """See `Ensemble`."""
        self._held.clear()

    def zero(self, way: Evolution | None = None) -> int:
        """See `Ensemble`."""
        return self._take(self.states.zero_state(self._num_qubits, self._options, way))

    def copied(self, numbers: Numbers) -> Numbers:
        """See `Ensemble`."""
        return np.array([self._take(self.states.copy(self._held[k])) for k in numbers.tolist()])

    def blank(self, numbers: Numbers) -> Numbers:
        """See `Ensemble`."""
        return np.array(
            [self._take(self.states.empty_like(self._held[k])) for k in numbers.tolist()]
        )

    def release(self, numbers: Numbers) -> None:
        """See `Ensemble`."""
        for number in numbers.tolist():
            del self._held[number]

    def apply(
        self, numbers: Numbers, passes: GateList | SweepTable, floats: NDArray[np.float64]
    ) -> None:
        """See `Ensemble`."""
        for number in numbers.tolist():
            self.states.apply(self._held[number], passes, floats)

    def multiply(self, numbers: Numbers, matrix: Dense) -> None:
        """See `Ensemble`."""
        for number in numbers.tolist():
            self.states.multiply(self._held[number], matrix)

    def odds(self, numbers: Numbers, qubit: int) -> NDArray[np.float64]:
        """See `Ensemble`."""
        found = np.empty((numbers.size, 2))
        for k, number in enumerate(numbers.tolist()):
            self.states.check()
            found[k] = total(self.states.block_sums(QUBIT_WEIGHTS, self._held[number], qubit=qubit))
        return found

    def project(
        self,
        numbers: Numbers,
        into: Numbers,
        *,
        qubit: int,
        outcome: int,
        factors: NDArray[np.float64],
        move: bool,
    ) -> None:
        """See `Ensemble`."""
        for source, target, factor in zip(
            numbers.tolist(), into.tolist(), factors.tolist(), strict=True
        ):
            self.states.project(
                self._held[source],
                self._held[target],
                qubit=qubit,
                outcome=outcome,
                factor=factor,
                move=move,
            )

    def equals(self, numbers: Numbers, near: float, tolerance: float) -> Numbers:
        """See `Ensemble`."""
        held = [self._held[number] for number in numbers.tolist()]
        sums = [total(self.states.block_sums(FINGERPRINT, state)) for state in held]
        sketches = [x * x + y * y for x, y in sums]
        into = np.arange(numbers.size)
        kept: list[int] = []
        for at in np.argsort(sketches, kind="stable").tolist():
            for other in reversed(kept):
                if sketches[at] - sketches[other] > near:
                    kept.append(at)
                    break
                if equal_up_to_phase(self.states, held[other], held[at], tolerance):
                    into[at] = other
                    break
            else:
                kept.append(at)
        return into

    def sample(
        self,
        numbers: Numbers,
        branch_of: Numbers,
        key: tuple[int, int],
        shots: Numbers,
        *,
        draw: int,
        ordered: bool,
    ) -> Numbers:
        """See `Ensemble`."""
        if numbers.size == 1:
            state = self._held[int(numbers[0])]
            return sample(self.states, state, key, shots, draw=draw, ordered=ordered)
        found = np.empty(shots.size, np.int64)
        order = np.argsort(branch_of, kind="stable")
        ends = np.cumsum(np.bincount(branch_of, minlength=numbers.size))[:-1]
        for number, rows in zip(numbers.tolist(), np.split(order, ends), strict=True):
            found[rows] = sample(self.states, self._held[number], key, shots[rows], draw=draw)
        return found

    def state(self, number: int) -> State:
        """See `Ensemble`."""
        return self._held[number]
