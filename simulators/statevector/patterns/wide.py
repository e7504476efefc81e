"""Patterns of a large circuit: the walk tells, and passes over tiles do it.

A segment is about one pass. Inserts go into the plan of their segment, so they cost no pass of
their own; a child is made of a copy of its parent, which has not gone through the segment yet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import RunOptions
from simulators.jit import I64, INT, REALS, WORD, kernel
from simulators.statevector import numbers
from simulators.statevector.patterns import walk
from simulators.statevector.patterns.densities import reduced
from simulators.statevector.patterns.inserts import QUBITS, Inserts
from simulators.statevector.patterns.pieces import Given, Piece, Pieces, given
from simulators.statevector.patterns.rows import Rows
from simulators.statevector.patterns.segments import Segments, ranges
from simulators.statevector.patterns.walk import ADVANCE, CALL, DRAW, FRAME, SAMPLE
from simulators.statevector.state import State
from simulators.statevector.states import LocalStates
from simulators.statevector.tiles import sweeping

_MOST_FLOATS = 1 << 23  # numbers of segments without inserts that are kept


@kernel(REALS, I64, INT, INT, I64, INT, I64, INT, INT, WORD, WORD, I64, group="trajectories")
def _choose(  # type: ignore[no-untyped-def]
    odds, order, low, high, begins, depth, chosen, insert, first, seed, binding, work
):
    """`walk.choose`, for callers in Python."""
    walk.choose(
        odds, odds.size, order, low, high, begins, depth, chosen, insert, first, seed, binding,
        work,
    )  # fmt: skip


class Wide:
    """One walk through rows, for one binding."""

    def __init__(
        self,
        states: LocalStates,
        circuit: Circuit,
        segments: Segments,
        inserts: Inserts,
        pieces: Pieces,
        options: RunOptions,
    ) -> None:
        self._states = states
        self._num_qubits = circuit.num_qubits
        self._segments = segments
        self._inserts = inserts
        self._pieces = pieces
        self._options = options
        self._floor, self._ceil = segments.floor.tolist(), segments.ceil.tolist()
        self._whole = segments.order.size
        self._drawn = inserts.drawn.tolist()
        self._params = np.empty(0)
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
        rows: Rows,
        insert_of: NDArray[np.int64],
        place_at: NDArray[np.int64],
        params: NDArray[np.float64],
        key: tuple[int, int],
        first: int,
        cap: int,
    ) -> NDArray[np.int64]:
        """The basis state of each row; row 0 is shot `first`. Raises Stopped and OutOfMemory."""
        self._params = params[self._pieces.params_order]
        self._numbers.clear()
        self._room = _MOST_FLOATS
        order, begins, entries = rows.order.copy(), rows.begins, rows.entries
        chosen = np.zeros_like(entries)
        drawn = self._inserts.drawn[insert_of].astype(np.int64)
        floor, ceil = self._segments.floor, self._segments.ceil
        frames = np.zeros((walk.frames_of(rows.deepest), FRAME), np.int64)
        call = np.zeros(CALL, np.int64)
        found = np.zeros(order.size, np.int64)
        room = np.empty(order.size, np.int64)
        top = walk.start(frames, 0, order.size)
        while True:
            top = walk.next_call(
                frames, top, cap, order, begins, entries, chosen, place_at, drawn, floor, ceil, call
            )
            what, source, target, begin, end, one, last, low, high = call.tolist()
            if what == ADVANCE:
                places = entries[one:last]
                wanted = [*zip(insert_of[places].tolist(), chosen[one:last].tolist(), strict=True)]
                self._advance(source, target, begin, end, wanted, place_at[places].tolist())
            elif what == DRAW:
                insert = int(insert_of[entries[begins[order[low]] + one]])
                odds = self._odds(self._held[target], insert)
                _choose(odds, order, low, high, begins, one, chosen, insert, first, *key, room)
            elif what == SAMPLE:
                here = np.sort(order[low:high])
                shots = here + first
                found[here] = numbers.sample(self._states, self._held[target], key, shots)
            else:
                return found

    def _advance(
        self,
        source: int,
        target: int,
        begin: int,
        end: int,
        inserts: list[tuple[int, int]],
        positions: list[int],
    ) -> None:
        """See `walk`; inserts with the operators they have."""
        if target == len(self._held):
            if source < 0:
                self._held.append(self._states.zero(self._num_qubits, self._options))
            else:
                self._held.append(self._states.blank(self._held[source]))
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
        sweeping.apply(self._states.sweeper, state, stretch.stretch.sweeps, floats, norms=last)
        self.passes += stretch.stretch.sweeps.live.size

    def _floats(
        self, begin: int, end: int, members: list[Given], piece: Piece, zero: bool
    ) -> NDArray[np.float64]:
        if members:
            return piece.floats(self._params, members)
        key = (begin, end, zero)
        found = self._numbers.get(key)
        if found is None:
            found = piece.floats(self._params, members)
            if self._room >= found.size:
                self._room -= found.size
                self._numbers[key] = found
        return found

    def _odds(self, state: State, insert: int) -> NDArray[np.float64]:
        """Of each operator of a channel, in this state."""
        _, which, _, _, one, two = self._inserts.table[insert].tolist()
        operators = self._inserts.operators
        qubits = (one, two)[: int(operators.sets[which, QUBITS])]
        return operators.odds(which, reduced(self._states.sweeper, state, qubits))
