"""Ensemble of one state for each branch of a dynamic circuit: any width and any backend."""

from __future__ import annotations

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from simulators.engine import RunOptions
from simulators.statevector.backend import protocol, reductions
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.backend.protocol import CompiledSegment, Numbers, ShotDraws
from simulators.statevector.backend.reductions import Projection
from simulators.statevector.checkpoint import Evolution


class SeparateStates:
    """An `Ensemble` of one state for each branch."""

    def __init__(self, states: protocol.StateBackend, num_qubits: int, options: RunOptions) -> None:
        self.states = states
        self._num_qubits = num_qubits
        self._options = options
        self._held: dict[int, protocol.StateHandle] = {}
        self._next = 0

    def _take(self, state: protocol.StateHandle) -> int:
        self._held[self._next] = state
        self._next += 1
        return self._next - 1

    def clear(self) -> None:
        self._held.clear()

    def zero(self, way: Evolution | None = None) -> int:
        return self._take(self.states.zero_state(self._num_qubits, self._options, way))

    def copied(self, ordinals: Numbers) -> Numbers:
        return np.array([self._take(self.states.copy(self._held[k])) for k in ordinals.tolist()])

    def copy_of(self, state: protocol.StateHandle) -> int:
        return self._take(self.states.copy(state))

    def blank(self, ordinals: Numbers) -> Numbers:
        held = self._held
        return np.array([self._take(self.states.empty_like(held[k])) for k in ordinals.tolist()])

    def release(self, ordinals: Numbers) -> None:
        for number in ordinals.tolist():
            del self._held[number]

    def apply(
        self, ordinals: Numbers, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        for number in ordinals.tolist():
            self.states.apply(self._held[number], segment, floats)

    def multiply(self, ordinals: Numbers, matrix: PlacedMatrix) -> None:
        for number in ordinals.tolist():
            self.states.multiply(self._held[number], matrix)

    def probs(self, ordinals: Numbers, qubit: int) -> NDArray[np.float64]:
        result = np.empty((ordinals.size, 2))
        for k, number in enumerate(ordinals.tolist()):
            self.states.check()
            weights = reductions.BlockSum(reductions.QUBIT_WEIGHTS, qubit)
            result[k] = protocol.total(self.states.block_sums(weights, self._held[number]))
        return result

    def project(
        self, ordinals: Numbers, into: Numbers, item: Projection, factors: NDArray[np.float64]
    ) -> None:
        for source, target, factor in zip(
            ordinals.tolist(), into.tolist(), factors.tolist(), strict=True
        ):
            self.states.project(self._held[source], self._held[target], item, factor)

    def equals(self, ordinals: Numbers, near: float, tolerance: float) -> Numbers:
        held = [self._held[number] for number in ordinals.tolist()]
        item = reductions.BlockSum(reductions.FINGERPRINT)
        sums = [protocol.total(self.states.block_sums(item, state)) for state in held]
        sketches = [x * x + y * y for x, y in sums]
        into = np.arange(ordinals.size)
        kept: list[int] = []
        for at in np.argsort(sketches, kind="stable").tolist():
            for other in reversed(kept):
                if sketches[at] - sketches[other] > near:
                    kept.append(at)
                    break
                if protocol.equal_up_to_phase(self.states, held[other], held[at], tolerance):
                    into[at] = other
                    break
            else:
                kept.append(at)
        return into

    def sample(self, ordinals: Numbers, branch_of: Numbers, draws: ShotDraws) -> Numbers:
        if ordinals.size == 1:
            return protocol.sample(self.states, self._held[int(ordinals[0])], draws)
        result = np.empty(draws.shots.size, np.int64)
        order = np.argsort(branch_of, kind="stable")
        ends = np.cumsum(np.bincount(branch_of, minlength=ordinals.size))[:-1]
        for number, rows in zip(ordinals.tolist(), np.split(order, ends), strict=True):
            own = replace(draws, shots=draws.shots[rows], ordered=True)
            result[rows] = protocol.sample(self.states, self._held[number], own)
        return result

    def state(self, number: int) -> protocol.StateHandle:
        return self._held[number]
