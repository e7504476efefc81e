"""Trajectories of a wide circuit: states in memory, advanced by sweeps.

A segment is about one sweep. Errors become part of the plan of their segment, so they cost no sweep
of their own; a child is made of a copy of its parent before the segment.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.engine import RunOptions
from simulators.statevector.backend.protocol import StateHandle
from simulators.statevector.trajectories.segments import (
    InsertedMatrix,
    Piece,
    Pieces,
    insert_matrices,
    ranges,
)
from simulators.statevector.trajectories.states import TrajectoryStates
from simulators.trajectories.error_patterns import SortedPatterns
from simulators.trajectories.noise_table import QUBITS
from simulators.trajectories.tree_walk import Advance, RandomDraws, Tree, walk

_MOST_FLOATS = 1 << 23  # cached coefficients of segments without inserts


class Observation(msgspec.Struct, frozen=True, eq=False):
    """Pauli strings (x, z), and the receiver of their values in the state of some rows."""

    strings: list[tuple[int, int]]
    observe: Callable[[NDArray[np.int64], NDArray[np.float64]], None]


class RowShare(msgspec.Struct, frozen=True, eq=False):
    """Sorted rows low .. high - 1, and arrays of all rows."""

    low: int
    high: int
    final_x: NDArray[np.int64]  # see `small_kernel.run`
    outcomes: NDArray[np.int64]  # outcomes as basis states


class LargeSampler:
    """One walk through rows, for one binding."""

    def __init__(
        self,
        states: TrajectoryStates,
        num_qubits: int,
        tree: Tree,
        pieces: Pieces,
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
        self._draws = RandomDraws(0, 0, 0)
        self._share = RowShare(0, 0, np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._observation: Observation | None = None
        self._numbers: dict[tuple[int, int, bool], NDArray[np.float64]] = {}
        self._room = 0
        self._held: list[StateHandle] = []
        self.passes = 0
        self.operations = 0

    @property
    def most_held(self) -> int:
        """Largest number of states held at once."""
        return len(self._held)

    def run(
        self,
        rows: SortedPatterns,
        share: RowShare,
        params: NDArray[np.float64],
        draws: RandomDraws,
        cap: int,
        observation: Observation | None = None,
    ) -> None:
        """Compute the basis states of some rows, or the values of the observation. Raises Stopped
        and OutOfMemory."""
        self._params = params[self._pieces.params_order]
        self._numbers.clear()
        self._room = _MOST_FLOATS
        self._share, self._draws, self._observation = share, draws, observation
        walk(self._tree, rows, self, draws, cap, share.low, share.high)

    def finish(self, level: int, rows: NDArray[np.int64]) -> None:
        """See `tree_walk.NodeStates`."""
        state, draws, share = self._held[level], self._draws, self._share
        if self._observation is not None:
            strings = self._observation.strings
            self._observation.observe(rows, self._states.backend.expectations(state, strings))
            return
        frame = int(share.final_x[rows[0]])
        key, shots = (draws.seed, draws.binding), rows + draws.first
        share.outcomes[rows] = self._states.sample(state, frame, key, shots)

    def advance(self, step: Advance) -> None:
        """See `tree_walk.NodeStates`."""
        source, target, begin, end = step.source, step.target, step.begin, step.end
        inserts, positions = step.inserts, step.positions
        room = self._held[target] if target < len(self._held) else None
        if source < 0:
            state = self._states.zero(room, self._num_qubits, self._options)
        elif source == target:
            state = room
        else:
            state = self._states.copied(self._held[source], room)
        if room is None:
            self._held.append(state)
        self.operations += end - begin
        drawn = [self._drawn[insert] for insert, _ in inserts]
        for first, last, low, high in ranges(self._floor, self._ceil, begin, end, positions, drawn):
            members = [
                member
                for (insert, choice), at in zip(inserts[low:high], positions[low:high], strict=True)
                for member in insert_matrices(self._inserts, insert, choice, at)
            ]
            self._range(state, first, last, members)

    def _range(
        self, state: StateHandle, begin: int, end: int, members: list[InsertedMatrix]
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
        floats = self._floats(begin, end, members, stretch, zero)
        self._states.sweep(state, stretch.stretch, floats, last=end == self._whole)
        self.passes += stretch.stretch.sweeps.live.size

    def _floats(
        self, begin: int, end: int, members: list[InsertedMatrix], piece: Piece, zero: bool
    ) -> NDArray[np.float64]:
        if members:
            return piece.floats(self._params, members)
        key = (begin, end, zero)
        result = self._numbers.get(key)
        if result is None:
            result = piece.floats(self._params, members)
            if self._room >= result.size:
                self._room -= result.size
                self._numbers[key] = result
        return result

    def probs(self, level: int, insert: int) -> NDArray[np.float64]:
        """See `tree_walk.NodeStates`."""
        _, which, _, _, first, second = self._inserts.table[insert].tolist()
        operators = self._inserts.operators
        qubits = (first, second)[: int(operators.sets[which, QUBITS])]
        return operators.probs(which, self._states.reduced(self._held[level], qubits))
