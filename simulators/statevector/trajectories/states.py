"""States of a walk of trajectories: a protocol, and its implementation in this process."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import LANES, exchange_1, load, splat, store
from simulators.engine import RunOptions
from simulators.statevector.backend import protocol
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.backend.protocol import StateBackend, StateHandle
from simulators.statevector.backend.reductions import SortedDraws
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.state import BlockExecutor, State
from simulators.statevector.tiles import sweep_kernel

# Reduced density matrices of one or two qubits of a wide state.
#
# Sums run over fixed blocks, so they have the same bits for any number of threads.

_BLOCK = 12  # log2 of the groups of amplitudes in a block


@device_function
def _apart(number, bit):  # type: ignore[no-untyped-def]
    """Insert a 0 at a bit of the number."""
    low = (np.int64(1) << bit) - 1
    return (number & ~low) << 1 | number & low


@device_function
def _sum(amplitudes, first, second, low, high, into):  # type: ignore[no-untyped-def]
    """Sum groups low .. high - 1: the amplitudes that differ in these qubits only; second < 0: one
    qubit."""
    side = 2 if second < 0 else 4
    for g in range(low, high):
        if second < 0:
            base = _apart(g, first)
        else:
            base = _apart(_apart(g, min(first, second)), max(first, second))
        for a in range(side):
            i = base | np.int64(a & 1) << first
            if second >= 0:
                i |= np.int64(a >> 1) << second
            x, y = np.float64(amplitudes[2 * i]), np.float64(amplitudes[2 * i + 1])
            for b in range(a + 1):
                j = base | np.int64(b & 1) << first
                if second >= 0:
                    j |= np.int64(b >> 1) << second
                u, v = np.float64(amplitudes[2 * j]), np.float64(amplitudes[2 * j + 1])
                into[2 * (side * a + b)] += x * u + y * v
                into[2 * (side * a + b) + 1] += y * u - x * v


@device_function
def _add_lanes(total, cross, into, at, lanes):  # type: ignore[no-untyped-def]
    """Add an entry whose parts are in lanes: re + re and im + im; im - re, one after the other."""
    store(lanes, np.uint64(0), total)
    for k in range(LANES):
        into[at] += lanes[k]
    store(lanes, np.uint64(0), cross)
    for k in range(0, LANES, 2):
        into[at + 1] += lanes[k] - lanes[k + 1]


@device_function
def _sum_one(amplitudes, first, low, high, into, lanes):  # type: ignore[no-untyped-def]
    """Compute `_sum` for one qubit above qubit 1, four groups at a time."""
    step = np.uint64(2) << np.uint64(first)
    d0 = d1 = c1 = x1 = splat(0.0)
    none = splat(0.0)
    for g in range(low, high, 4):
        at = np.uint64(2 * _apart(g, first))
        a, b = load(amplitudes, at), load(amplitudes, at + step)
        d0, d1 = d0 + a * a, d1 + b * b
        c1, x1 = c1 + b * a, x1 + exchange_1(b) * a
    _add_lanes(d0, none, into, 0, lanes)
    _add_lanes(c1, x1, into, 4, lanes)
    _add_lanes(d1, none, into, 6, lanes)


@device_function
def _sum_pair(amplitudes, first, second, low, high, into, lanes):  # type: ignore[no-untyped-def]
    """Compute `_sum` for two qubits above qubit 1, four groups at a time."""
    stride_a, stride_b = np.uint64(2) << np.uint64(first), np.uint64(2) << np.uint64(second)
    d0 = d1 = d2 = d3 = none = splat(0.0)
    c10 = c20 = c21 = c30 = c31 = c32 = splat(0.0)
    x10 = x20 = x21 = x30 = x31 = x32 = splat(0.0)
    for g in range(low, high, 4):
        at = np.uint64(2 * _apart(_apart(g, min(first, second)), max(first, second)))
        v0, v1 = load(amplitudes, at), load(amplitudes, at + stride_a)
        v2, v3 = load(amplitudes, at + stride_b), load(amplitudes, at + stride_a + stride_b)
        w1, w2, w3 = exchange_1(v1), exchange_1(v2), exchange_1(v3)
        d0, d1, d2, d3 = d0 + v0 * v0, d1 + v1 * v1, d2 + v2 * v2, d3 + v3 * v3
        c10, c20, c21 = c10 + v1 * v0, c20 + v2 * v0, c21 + v2 * v1
        c30, c31, c32 = c30 + v3 * v0, c31 + v3 * v1, c32 + v3 * v2
        x10, x20, x21 = x10 + w1 * v0, x20 + w2 * v0, x21 + w2 * v1
        x30, x31, x32 = x30 + w3 * v0, x31 + w3 * v1, x32 + w3 * v2
    _add_lanes(d0, none, into, 0, lanes)
    _add_lanes(c10, x10, into, 8, lanes)
    _add_lanes(d1, none, into, 10, lanes)
    _add_lanes(c20, x20, into, 16, lanes)
    _add_lanes(c21, x21, into, 18, lanes)
    _add_lanes(d2, none, into, 20, lanes)
    _add_lanes(c30, x30, into, 24, lanes)
    _add_lanes(c31, x31, into, 26, lanes)
    _add_lanes(c32, x32, into, 28, lanes)
    _add_lanes(d3, none, into, 30, lanes)


@device_function
def _sum_any(amplitudes, first, second, low, high, into, lanes):  # type: ignore[no-untyped-def]
    """Compute `_sum`, by vectors if consecutive groups are contiguous."""
    least = first if second < 0 else min(first, second)
    if least < 2 or (high - low) % 4:
        _sum(amplitudes, first, second, low, high, into)
    elif second < 0:
        _sum_one(amplitudes, first, low, high, into, lanes)
    else:
        _sum_pair(amplitudes, first, second, low, high, into, lanes)


@kernel("AMPLITUDES INT INT INT INT INT REALS2 REALS", group="trajectories")
def _blocks(reals, singles, first, second, size, low, high, sums, lanes):  # type: ignore[no-untyped-def]
    """Sum blocks low .. high - 1 of `size` groups: the lower half of each one's matrix."""
    for block in range(low, high):
        begin, end = block * size, (block + 1) * size
        if reals.size:
            _sum_any(reals, first, second, begin, end, sums[block], lanes)
        else:
            _sum_any(singles, first, second, begin, end, sums[block], lanes)


def reduced(
    sweeper: BlockExecutor, state: State, qubits: tuple[int, ...]
) -> NDArray[np.complex128]:
    """Density matrix [2, 2] or [4, 4]; qubits[0] is bit 0 of an index. Its trace is the state's
    norm. Raises Stopped."""
    groups = state.num_qubits - len(qubits)
    unit = min(_BLOCK, groups)
    side = 1 << len(qubits)
    sums = np.zeros((1 << (groups - unit), 2 * side * side))
    second = qubits[1] if len(qubits) > 1 else -1

    def work(first: int, last: int, _thread: int) -> None:
        lanes = np.empty(LANES)
        _blocks(*state.arrays, qubits[0], second, 1 << unit, first, last, sums, lanes)

    sweeper.parallel_for(groups, unit, work)
    lower = np.cumsum(sums, axis=0)[-1].view(np.complex128).reshape(side, side)
    result: NDArray[np.complex128] = np.tril(lower) + np.tril(lower, -1).conj().T
    return result


SCRATCH_STATES = 1  # additional states that another device may hold
# log2 of the groups of amplitudes in a block


class TrajectoryStates(Protocol):
    """Operations on the states of a walk. Methods may raise Stopped and OutOfMemory."""

    @property
    def backend(self) -> StateBackend:
        """Backend for all other operations on these states."""

    def zero(self, state: StateHandle | None, num_qubits: int, options: RunOptions) -> StateHandle:
        """The state |0...0>, in the memory of `state` if given."""

    def copied(self, source: StateHandle, target: StateHandle | None) -> StateHandle:
        """A state equal to `source`, in the memory of `target` if given."""

    def is_zero(self, state: StateHandle) -> bool:
        """Return whether no operation was applied since `zero`."""

    def sweep(
        self, state: StateHandle, segment: SegmentPlan, floats: NDArray[np.float64], *, last: bool
    ) -> None:
        """Apply a segment; `last`: the circuit ends with it."""

    def reduced(self, state: StateHandle, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
        """Density matrix of one or two qubits, [2, 2] or [4, 4]; qubits[0] is bit 0 of an index."""

    def sample(
        self, state: StateHandle, frame: int, draws: protocol.ShotDraws
    ) -> NDArray[np.int64]:
        """Sample as `protocol.sample`, where amplitude k is that of basis state k ^ frame."""


class LocalTrajectoryStates:
    """`TrajectoryStates` in the memory of this process."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend

    def zero(self, state: State | None, num_qubits: int, options: RunOptions) -> State:
        if state is None:
            state = self.backend.zero_state(num_qubits, options)
        state.amplitudes[:] = 0.0
        state.amplitudes[0] = 1.0
        state.changed()
        state.live = 0
        return state

    def copied(self, source: State, target: State | None) -> State:
        if target is None:
            target = self.backend.empty_like(source)
        target.changed()
        np.copyto(target.amplitudes, source.amplitudes)
        target.live = source.live
        return target

    def is_zero(self, state: State) -> bool:
        """Return the predicate of `TrajectoryStates`, up to a factor."""
        return state.live == 0

    def sweep(
        self, state: State, segment: SegmentPlan, floats: NDArray[np.float64], *, last: bool
    ) -> None:
        """Apply a segment as `TrajectoryStates.sweep`; norms of rows are kept at the end."""
        sweep_kernel.apply(self.backend.sweeper, state, segment.sweeps, floats, norms=last)

    def reduced(self, state: State, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
        return reduced(self.backend.sweeper, state, qubits)

    def sample(self, state: State, frame: int, draws: protocol.ShotDraws) -> NDArray[np.int64]:
        if frame:
            return sample_framed(self.backend.sweeper, state, frame, draws)
        return protocol.sample(self.backend, state, draws)


@kernel("AMPLITUDES INT INT INT INT REALS", group="trajectories")
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


@kernel("AMPLITUDES INT INT INT INT REALS I64 REALS I64", group="trajectories")
def _framed_locate(reals, singles, frame, size, low, high, edges, begins, draws, indices):  # type: ignore[no-untyped-def]
    """Fill indices[s] with the basis state of each of the ascending draws, those of block b being
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
            indices[s] = k


def sample_framed(
    sweeper: BlockExecutor, state: State, frame: int, draws: protocol.ShotDraws
) -> NDArray[np.int64]:
    """Sample as `protocol.sample`, where amplitude k is that of basis state k ^ frame. Raises
    Stopped."""
    unit = min(_BLOCK, state.num_qubits)
    sums = np.empty(1 << (state.num_qubits - unit))

    def add(first: int, last: int, _thread: int) -> None:
        _framed_sums(*state.arrays, frame, 1 << unit, first, last, sums)

    sweeper.parallel_for(state.num_qubits, unit, add)

    def locate(sorted_: SortedDraws) -> NDArray[np.int64]:
        result = np.empty(sorted_.values.size, np.int64)
        given = sorted_.edges, sorted_.begins, sorted_.values, result

        def find(first: int, last: int, _thread: int) -> None:
            _framed_locate(*state.arrays, frame, 1 << unit, first, last, *given)

        sweeper.parallel_for(state.num_qubits, unit, find)
        return result

    return protocol.sample_blocks(sums, draws, locate)
