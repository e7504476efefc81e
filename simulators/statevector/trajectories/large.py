"""Trajectories of a wide circuit: states in memory, advanced by sweeps.

A segment is about one sweep. Errors become part of the plan of their segment, so they cost no sweep
of their own; a child is made of a copy of its parent before the segment. Reduced density matrices
of one or two qubits run over fixed blocks, so they have the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.compiler.kernel import (
    I64,
    INT,
    REALS,
    REALS2,
    SINGLES,
    WORD,
    device_function,
    kernel,
)
from simulators.engine import RunOptions
from simulators.execution.rng import uniforms
from simulators.statevector.backend import protocol
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.state import BlockExecutor, State
from simulators.statevector.tiles import driver
from simulators.statevector.trajectories.segments import (
    Given,
    Piece,
    Pieces,
    Segments,
    given,
    ranges,
)
from simulators.trajectories import prefix_tree
from simulators.trajectories.error_patterns import SortedPatterns
from simulators.trajectories.noise_table import QUBITS, NoiseTable
from simulators.trajectories.prefix_tree import (
    ADVANCE,
    CALL,
    CHOOSE_KRAUS,
    FRAME,
    SAMPLE,
)

_BLOCK = 12  # 2**so many groups of amplitudes


@device_function
def _apart(number, bit):  # type: ignore[no-untyped-def]
    """The number with a 0 put in at a bit."""
    low = (np.int64(1) << bit) - 1
    return (number & ~low) << 1 | number & low


@device_function
def _sum(amplitudes, first, second, low, high, into):  # type: ignore[no-untyped-def]
    """Groups low .. high - 1: all amplitudes that differ in these qubits alone; second < 0: one."""
    many = 2 if second < 0 else 4
    for g in range(low, high):
        if second < 0:
            base = _apart(g, first)
        else:
            base = _apart(_apart(g, min(first, second)), max(first, second))
        for a in range(many):
            i = base | np.int64(a & 1) << first
            if second >= 0:
                i |= np.int64(a >> 1) << second
            x, y = np.float64(amplitudes[2 * i]), np.float64(amplitudes[2 * i + 1])
            for b in range(a + 1):
                j = base | np.int64(b & 1) << first
                if second >= 0:
                    j |= np.int64(b >> 1) << second
                u, v = np.float64(amplitudes[2 * j]), np.float64(amplitudes[2 * j + 1])
                into[2 * (many * a + b)] += x * u + y * v
                into[2 * (many * a + b) + 1] += y * u - x * v


@kernel(REALS, SINGLES, INT, INT, INT, INT, INT, REALS2, group="trajectories")
def _blocks(reals, singles, first, second, size, low, high, sums):  # type: ignore[no-untyped-def]
    """Blocks low .. high - 1 of `size` groups: the lower half of each one's matrix."""
    for block in range(low, high):
        if reals.size:
            _sum(reals, first, second, block * size, (block + 1) * size, sums[block])
        else:
            _sum(singles, first, second, block * size, (block + 1) * size, sums[block])


def reduced(
    sweeper: BlockExecutor, state: State, qubits: tuple[int, ...]
) -> NDArray[np.complex128]:
    """The density matrix [2, 2] or [4, 4]; qubits[0] is bit 0 of an index. Its trace is the
    state's norm. Raises Stopped."""
    groups = state.num_qubits - len(qubits)
    unit = min(_BLOCK, groups)
    side = 1 << len(qubits)
    sums = np.zeros((1 << (groups - unit), 2 * side * side))
    second = qubits[1] if len(qubits) > 1 else -1

    def work(first: int, last: int, _thread: int) -> None:
        _blocks(state.reals, state.singles, qubits[0], second, 1 << unit, first, last, sums)

    sweeper.parallel_for(groups, unit, work)
    lower = np.cumsum(sums, axis=0)[-1].view(np.complex128).reshape(side, side)
    found: NDArray[np.complex128] = np.tril(lower) + np.tril(lower, -1).conj().T
    return found


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
    found = np.empty(shots.size, np.int64)

    def find(first: int, last: int, _thread: int) -> None:
        _framed_locate(
            state.reals, state.singles, frame, 1 << unit, first, last, edges, begins, draws, found
        )

    sweeper.parallel_for(state.num_qubits, unit, find)
    indices = np.empty(shots.size, np.int64)
    indices[order] = found
    return indices


_MOST_FLOATS = 1 << 23  # numbers of segments without inserts that are kept


@kernel(REALS, I64, INT, INT, I64, INT, I64, INT, INT, WORD, WORD, I64, group="trajectories")
def _choose(  # type: ignore[no-untyped-def]
    odds, order, low, high, begins, depth, chosen, location, first, seed, binding, work
):
    """`prefix_tree.choose`, for callers in Python."""
    prefix_tree.choose(
        odds, odds.size, order, low, high, begins, depth, chosen, location, first, seed, binding,
        work,
    )  # fmt: skip


Observe = Callable[[NDArray[np.int64], State], None]


class LargeSampler:
    """One walk through rows, for one binding."""

    def __init__(
        self,
        states: LocalBackend,
        circuit: Circuit,
        segments: Segments,
        inserts: NoiseTable,
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
        self._locations = inserts.draw_locations
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

    def expectations(self, state: State, strings: list[tuple[int, int]]) -> NDArray[np.float64]:
        """<state|P|state> of each string (x, z), of a state of any norm."""
        return self._states.expectations(state, strings)

    def run(
        self,
        rows: SortedPatterns,
        insert_of: NDArray[np.int64],
        place_at: NDArray[np.int64],
        params: NDArray[np.float64],
        key: tuple[int, int],
        first: int,
        cap: int,
        final_x: NDArray[np.int64],
        observe: Observe | None = None,
    ) -> NDArray[np.int64]:
        """The basis state of each row; row 0 is shot `first`. Raises Stopped and OutOfMemory.

        final_x[row]: see `small_kernel.run`. `observe` is called with rows and their state instead.
        """
        self._params = params[self._pieces.params_order]
        self._numbers.clear()
        self._room = _MOST_FLOATS
        order, begins, entries = rows.order.copy(), rows.begins, rows.entries
        chosen = np.zeros_like(entries)
        drawn = self._inserts.drawn[insert_of].astype(np.int64)
        floor, ceil = self._segments.floor, self._segments.ceil
        frames = np.zeros((prefix_tree.frames_of(rows.deepest), FRAME), np.int64)
        call = np.zeros(CALL, np.int64)
        found = np.zeros(order.size, np.int64)
        room = np.empty(order.size, np.int64)
        top = prefix_tree.start(frames, 0, order.size)
        while True:
            top = prefix_tree.next_call(
                frames, top, cap, order, begins, entries, chosen, place_at, drawn, floor, ceil, call
            )
            what, source, target, begin, end, one, last, low, high = call.tolist()
            if what == ADVANCE:
                places = entries[one:last]
                wanted = [*zip(insert_of[places].tolist(), chosen[one:last].tolist(), strict=True)]
                self._advance(source, target, begin, end, wanted, place_at[places].tolist())
            elif what == CHOOSE_KRAUS:
                insert = int(insert_of[entries[begins[order[low]] + one]])
                odds = self._odds(self._held[target], insert)
                location = int(self._locations[insert])
                _choose(odds, order, low, high, begins, one, chosen, location, first, *key, room)
            elif what == SAMPLE:
                here, state = np.sort(order[low:high]), self._held[target]
                frame = int(final_x[here[0]])
                if observe is not None:
                    observe(here, state)
                elif frame:
                    sweeper = self._states.sweeper
                    found[here] = sample_framed(sweeper, state, frame, key, here + first)
                else:
                    found[here] = protocol.sample(self._states, state, key, here + first)
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
        found = self._numbers.get(key)
        if found is None:
            found = piece.floats(self._params, members)
            if self._room >= found.size:
                self._room -= found.size
                self._numbers[key] = found
        return found

    def _odds(self, state: State, insert: int) -> NDArray[np.float64]:
        """Probability of each operator of a channel, in this state."""
        _, which, _, _, one, two = self._inserts.table[insert].tolist()
        operators = self._inserts.operators
        qubits = (one, two)[: int(operators.sets[which, QUBITS])]
        return operators.odds(which, reduced(self._states.sweeper, state, qubits))
