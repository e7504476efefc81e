"""Trajectories of a wide circuit: states in memory, advanced by sweeps.

A segment is about one sweep. Errors become part of the plan of their segment, so they cost no sweep
of their own; a child is made of a copy of its parent before the segment.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import (
    I64,
    INT,
    REALS,
    SINGLES,
    kernel,
)
from simulators.engine import RunOptions
from simulators.execution.rng import uniforms
from simulators.statevector.backend import protocol
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.state import BlockExecutor, State
from simulators.statevector.tiles import driver
from simulators.statevector.trajectories.reduced_density import reduced
from simulators.statevector.trajectories.segments import (
    Given,
    Piece,
    Pieces,
    given,
    ranges,
)
from simulators.trajectories.error_patterns import SortedPatterns
from simulators.trajectories.noise_table import QUBITS
from simulators.trajectories.tree_walk import Advance, Draws, Tree, walk

_BLOCK = 12  # 2**so many groups of amplitudes


@kernel(REALS, SINGLES, INT, INT, INT, INT, REALS, group="trajectories")
def _framed_sums(reals, singles, frame, size, low, high, sums):  # type: ignore[no-untyped-def]
    """Norms of blocks low .. high - 1 of `size` amplitudes, of which k is that of k ^ frame."""
    for block in range(low, high):
        total = 0.0
        for k in range(block * size, (block + 1) * size):
            i = 2 * (k ^ frame)
            if reals.size:
                total += reals[i] * reals[i] + reals[i + 1] * reals[i + 1]
            else:
                x, y = np.float64(singles[i]), np.float64(singles[i + 1])
                total += x * x + y * y
        sums[block] = total


@kernel(REALS, SINGLES, INT, INT, INT, INT, REALS, I64, REALS, I64, group="trajectories")
def _framed_locate(reals, singles, frame, size, low, high, edges, begins, draws, found):  # type: ignore[no-untyped-def]
    """found[s] = the basis state of each of the ascending draws, those of block b being
    begins[b] .. begins[b + 1] - 1; edges[b]: the sum of all blocks before."""
    for block in range(low, high):
        last = (block + 1) * size - 1
        k = np.int64(block * size - 1)
        edge = edges[block]
        for s in range(begins[block], begins[block + 1]):
            while k < block * size or (edge <= draws[s] and k < last):
                k += 1
                i = 2 * (k ^ frame)
                if reals.size:
                    edge += reals[i] * reals[i] + reals[i + 1] * reals[i + 1]
                else:
                    x, y = np.float64(singles[i]), np.float64(singles[i + 1])
                    edge += x * x + y * y
            found[s] = k


def sample_framed(
    sweeper: BlockExecutor,
    state: State,
    frame: int,
    key: tuple[int, int],
    shots: NDArray[np.int64],
) -> NDArray[np.int64]:
    """As `protocol.sample`, where amplitude k is that of basis state k ^ frame. Raises Stopped."""
    unit = min(_BLOCK, state.num_qubits)
    sums = np.empty(1 << (state.num_qubits - unit))

    def add(first: int, last: int, _thread: int) -> None:
        _framed_sums(state.reals, state.singles, frame, 1 << unit, first, last, sums)

    sweeper.parallel_for(state.num_qubits, unit, add)
    ends = np.cumsum(sums)
    draws = np.empty(shots.size)
    uniforms(*key, 0, shots, draws)
    draws = np.minimum(draws * ends[-1], np.nextafter(ends[-1], 0.0))
    order = np.argsort(draws, kind="stable")
    draws = draws[order]
    begins = np.zeros(ends.size + 1, np.int64)
    begins[1:] = np.searchsorted(draws, ends, side="left")
    edges = np.concatenate(([0.0], ends[:-1]))
    result = np.empty(shots.size, np.int64)

    def find(first: int, last: int, _thread: int) -> None:
        _framed_locate(
            state.reals, state.singles, frame, 1 << unit, first, last, edges, begins, draws, result
        )

    sweeper.parallel_for(state.num_qubits, unit, find)
    indices = np.empty(shots.size, np.int64)
    indices[order] = result
    return indices


_MOST_FLOATS = 1 << 23  # numbers of segments without inserts that are kept


class Observation(msgspec.Struct, frozen=True, eq=False):
    """Pauli strings (x, z), and what takes their values in the state of some rows."""

    strings: list[tuple[int, int]]
    observe: Callable[[NDArray[np.int64], NDArray[np.float64]], None]


class RowShare(msgspec.Struct, frozen=True, eq=False):
    """Sorted rows low .. high - 1, and arrays of all rows."""

    low: int
    high: int
    final_x: NDArray[np.int64]  # see `small_kernel.run`
    found: NDArray[np.int64]  # basis states


class LargeSampler:
    """One walk through rows, for one binding."""

    def __init__(
        self,
        states: LocalBackend,
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
        self._draws = Draws(0, 0, 0)
        self._share = RowShare(0, 0, np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._observation: Observation | None = None
        self._numbers: dict[tuple[int, int, bool], NDArray[np.float64]] = {}
        self._room = 0
        self._held: list[State] = []
        self.passes = 0
        self.operations = 0

    @property
    def most_held(self) -> int:
        """States there were at once."""
        return len(self._held)

    def run(
        self,
        rows: SortedPatterns,
        share: RowShare,
        params: NDArray[np.float64],
        draws: Draws,
        cap: int,
        observation: Observation | None = None,
    ) -> None:
        """Basis states of some rows; what is observed, instead. Raises
        Stopped and OutOfMemory."""
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
            self._observation.observe(rows, self._states.expectations(state, strings))
            return
        frame = int(share.final_x[rows[0]])
        key, shots = (draws.seed, draws.binding), rows + draws.first
        if frame:
            share.found[rows] = sample_framed(self._states.sweeper, state, frame, key, shots)
        else:
            share.found[rows] = protocol.sample(self._states, state, key, shots)

    def advance(self, step: Advance) -> None:
        """See `tree_walk.NodeStates`."""
        source, target, begin, end = step.source, step.target, step.begin, step.end
        inserts, positions = step.inserts, step.positions
        if target == len(self._held):
            if source < 0:
                self._held.append(self._states.zero_state(self._num_qubits, self._options))
            else:
                self._held.append(self._states.empty_like(self._held[source]))
        state = self._held[target]
        if source < 0:
            state.amplitudes[:] = 0.0
            state.amplitudes[0] = 1.0
            state.changed()
            state.live = 0
        elif source != target:
            state.changed()
            np.copyto(state.amplitudes, self._held[source].amplitudes)
            state.live = self._held[source].live
        self.operations += end - begin
        drawn = [self._drawn[insert] for insert, _ in inserts]
        for first, last, low, high in ranges(self._floor, self._ceil, begin, end, positions, drawn):
            members = [
                member
                for (insert, choice), at in zip(inserts[low:high], positions[low:high], strict=True)
                for member in given(self._inserts, insert, choice, at)
            ]
            self._range(state, first, last, members)

    def _range(self, state: State, begin: int, end: int, members: list[Given]) -> None:
        """Operations begin .. end - 1 with these matrices among them."""
        wide = self._pieces.wide(begin) if begin < end else None
        if wide is not None:  # alone in its segment
            if members:
                self._range(state, begin, begin, members)
            self._states.multiply(state, wide)
            self.passes += 1
            return
        if begin == end and not members:
            return
        zero = state.live == 0  # then it is |0...0>, but for a factor
        stretch = self._pieces.planned(begin, end, members, zero=zero)
        floats = self._floats(begin, end, members, stretch, zero)
        last = end == self._whole
        driver.apply(self._states.sweeper, state, stretch.stretch.sweeps, floats, norms=last)
        self.passes += stretch.stretch.sweeps.live.size

    def _floats(
        self, begin: int, end: int, members: list[Given], piece: Piece, zero: bool
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

    def odds(self, level: int, insert: int) -> NDArray[np.float64]:
        """See `tree_walk.NodeStates`."""
        _, which, _, _, one, two = self._inserts.table[insert].tolist()
        operators = self._inserts.operators
        qubits = (one, two)[: int(operators.sets[which, QUBITS])]
        return operators.odds(which, reduced(self._states.sweeper, self._held[level], qubits))
