"""Ensemble of one state for each branch of a dynamic circuit: any width and any backend."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunOptions
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.backend.protocol import (
    CompiledSegment,
    Numbers,
    StateBackend,
    StateHandle,
    equal_up_to_phase,
    sample,
    total,
)
from simulators.statevector.backend.reductions import FINGERPRINT, QUBIT_WEIGHTS
from simulators.statevector.checkpoint import Evolution


class SeparateStates:
    """An `Ensemble` of one state for each branch."""

    def __init__(self, states: StateBackend, num_qubits: int, options: RunOptions) -> None:
        self.states = states
        self._num_qubits = num_qubits
        self._options = options
        self._held: dict[int, StateHandle] = {}
        self._next = 0

    def _take(self, state: StateHandle) -> int:
        self._held[self._next] = state
        self._next += 1
        return self._next - 1

    def clear(self) -> None:
        """See `Ensemble`."""
        self._held.clear()

    def zero(self, way: Evolution | None = None) -> int:
        """See `Ensemble`."""
        return self._take(self.states.zero_state(self._num_qubits, self._options, way))

    def copied(self, ordinals: Numbers) -> Numbers:
        """See `Ensemble`."""
        return np.array([self._take(self.states.copy(self._held[k])) for k in ordinals.tolist()])

    def copy_of(self, state: StateHandle) -> int:
        """See `Ensemble`."""
        return self._take(self.states.copy(state))

    def blank(self, ordinals: Numbers) -> Numbers:
        """See `Ensemble`."""
        return np.array(
            [self._take(self.states.empty_like(self._held[k])) for k in ordinals.tolist()]
        )

    def release(self, ordinals: Numbers) -> None:
        """See `Ensemble`."""
        for number in ordinals.tolist():
            del self._held[number]

    def apply(
        self, ordinals: Numbers, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        """See `Ensemble`."""
        for number in ordinals.tolist():
            self.states.apply(self._held[number], segment, floats)

    def multiply(self, ordinals: Numbers, matrix: PlacedMatrix) -> None:
        """See `Ensemble`."""
        for number in ordinals.tolist():
            self.states.multiply(self._held[number], matrix)

    def probs(self, ordinals: Numbers, qubit: int) -> NDArray[np.float64]:
        """See `Ensemble`."""
        result = np.empty((ordinals.size, 2))
        for k, number in enumerate(ordinals.tolist()):
            self.states.check()
            result[k] = total(
                self.states.block_sums(QUBIT_WEIGHTS, self._held[number], qubit=qubit)
            )
        return result

    def project(
        self,
        ordinals: Numbers,
        into: Numbers,
        *,
        qubit: int,
        outcome: int,
        factors: NDArray[np.float64],
        move: bool,
    ) -> None:
        """See `Ensemble`."""
        for source, target, factor in zip(
            ordinals.tolist(), into.tolist(), factors.tolist(), strict=True
        ):
            self.states.project(
                self._held[source],
                self._held[target],
                qubit=qubit,
                outcome=outcome,
                factor=factor,
                move=move,
            )

    def equals(self, ordinals: Numbers, near: float, tolerance: float) -> Numbers:
        """See `Ensemble`."""
        held = [self._held[number] for number in ordinals.tolist()]
        sums = [total(self.states.block_sums(FINGERPRINT, state)) for state in held]
        sketches = [x * x + y * y for x, y in sums]
        into = np.arange(ordinals.size)
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
        ordinals: Numbers,
        branch_of: Numbers,
        key: tuple[int, int],
        shots: Numbers,
        *,
        draw: int,
        ordered: bool,
    ) -> Numbers:
        """See `Ensemble`."""
        if ordinals.size == 1:
            state = self._held[int(ordinals[0])]
            return sample(self.states, state, key, shots, draw=draw, ordered=ordered)
        result = np.empty(shots.size, np.int64)
        order = np.argsort(branch_of, kind="stable")
        ends = np.cumsum(np.bincount(branch_of, minlength=ordinals.size))[:-1]
        for number, rows in zip(ordinals.tolist(), np.split(order, ends), strict=True):
            result[rows] = sample(self.states, self._held[number], key, shots[rows], draw=draw)
        return result

    def state(self, number: int) -> StateHandle:
        """See `Ensemble`."""
        return self._held[number]
