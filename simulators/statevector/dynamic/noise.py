"""Noise of dynamic circuits: a location splits the shots of a branch like a hidden measurement.

Whether a shot has an error, and which one, are draws of the location and the shot, independent of
the state; the Kraus operator of a channel's rest is drawn from the reduced density matrix of its
qubits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from noise_models.channel import paulis
from simulators.circuit.noise import Readout
from simulators.dynamic.instructions import Measure
from simulators.execution.readout import FIRST_DRAW
from simulators.statevector.backend.matrix import by_columns, place
from simulators.statevector.backend.protocol import Numbers, StateBackend, StateHandle
from simulators.statevector.dynamic.branches import Branches, Budget
from simulators.statevector.program import Noise
from simulators.trajectories import prefix_tree
from simulators.trajectories.pattern_sampling import location_draws


def reduced_density(
    states: StateBackend, state: StateHandle, qubits: tuple[int, ...]
) -> NDArray[np.complex128]:
    """Density matrix of one or two qubits of a state, [2^q, 2^q]; qubits[0] is bit 0 of an index.
    It is computed from the expectation values of their Paulis, which any backend has."""
    strings = []
    for index in range(4 ** len(qubits)):
        letters = [index >> 2 * j & 3 for j in range(len(qubits))]
        x = sum(1 << q for q, letter in zip(qubits, letters, strict=True) if letter in (1, 2))
        z = sum(1 << q for q, letter in zip(qubits, letters, strict=True) if letter >= 2)
        strings.append((x, z))
    values = states.expectations(state, strings)
    result: NDArray[np.complex128] = np.tensordot(values, paulis(len(qubits)), 1) / 2 ** len(qubits)
    return result


class NoiseSplitter:
    """Errors of branches; `key` is (seed, binding)."""

    def __init__(self, budget: Budget, key: tuple[int, int]) -> None:
        self._budget = budget
        self._key = key

    def split(self, item: Noise, branches: Branches, passes: Sequence[int]) -> Branches:
        """Branches with the errors of their shots applied. Raises TooManyBranches."""
        return self.struck(item, branches, passes)[0]

    def struck(
        self, item: Noise, branches: Branches, passes: Sequence[int]
    ) -> tuple[Branches, Numbers]:
        """The result of `split`, and the error of each row: 0 for none, then Paulis, then
        operators."""
        shots = branches.shots_or_weights.astype(np.int64, copy=False)
        location = item.location
        hit, error = location.struck(self._key, shots, passes)
        kinds = np.zeros(shots.size, np.int64)
        if not hit.size:
            return branches, kinds
        kinds[hit] = 1 + error
        probs = np.zeros((0, 0))
        if len(location.kraus):
            rest = hit[error == len(item.paulis)]
            probs = self._odds(item, branches, rest)
            number = prefix_tree.FIRST_DRAW + location.number
            draws = location_draws(self._key, number, passes, shots[rest])
            kinds[rest] += location.choose(probs[branches.branch_of[rest]], draws)
        return self._apply(item, branches, kinds, probs), kinds

    def _odds(self, item: Noise, branches: Branches, rows: Numbers) -> NDArray[np.float64]:
        """Probability of each Kraus operator in the state of each branch that needs it."""
        location = item.location
        result = np.zeros((len(branches), len(location.kraus)))
        for branch in np.unique(branches.branch_of[rows]).tolist():
            ensemble = branches.ensemble
            state = ensemble.state(int(branches.states[branch]))
            rho = reduced_density(ensemble.states, state, location.qubits)
            result[branch] = location.weights(rho)
        return result

    def _apply(
        self, item: Noise, branches: Branches, kinds: Numbers, probs: NDArray[np.float64]
    ) -> Branches:
        """Apply error kinds[row] to each row: the first kind of a branch takes its state over, the
        others get copies."""
        ensemble, size = branches.ensemble, len(branches)
        count = 1 + len(item.paulis) + len(item.location.kraus)
        cell = kinds * size + branches.branch_of
        present = (np.bincount(cell, minlength=count * size) > 0).reshape(count, size)
        copies = present & (np.cumsum(present, axis=0) > 1)
        states = np.tile(branches.states, (count, 1))
        if copies.any():
            self._budget.grow(int(copies.sum()))
            states[copies] = ensemble.copied(states[copies])
        for kind in np.flatnonzero(present[1:].any(axis=1)).tolist():
            branch_ids = np.flatnonzero(present[kind + 1])
            if kind < len(item.paulis):
                ensemble.multiply(states[kind + 1, branch_ids], item.paulis[kind])
                continue
            operator = kind - len(item.paulis)
            for branch in branch_ids.tolist():
                matrix = item.location.kraus[operator] / np.sqrt(probs[branch, operator])
                columns = by_columns(matrix.tobytes(), len(item.location.qubits))
                dense = place(columns, list(item.location.qubits))
                ensemble.multiply(states[kind + 1, branch : branch + 1], dense)
        number = np.cumsum(present.ravel()) - 1
        return Branches(
            ensemble, states[present], number[cell], branches.records, branches.shots_or_weights
        )


class RecordedReadout:
    """Readout error of measurements whose outcome is used before the end: the recorded bit flips,
    the state does not."""

    def __init__(self, readout: Readout, key: tuple[int, int]) -> None:
        self._readout = readout
        self._key = key

    def flip(self, item: Measure, branches: Branches, passes: Sequence[int]) -> None:
        """Flip the recorded bit of each shot with its probability."""
        p01, p10 = self._readout.flips(item.qubit, item.op)
        if not (p01 or p10):
            return
        shots = branches.shots_or_weights.astype(np.int64, copy=False)
        draws = location_draws(self._key, FIRST_DRAW + item.op, passes, shots)
        column = branches.records[:, item.clbit >> 6]
        place_ = np.uint64(item.clbit & 63)
        ones = (column >> place_) & np.uint64(1) == 1
        flipped = draws < np.where(ones, p10, p01)
        column ^= flipped.astype(np.uint64) << place_
