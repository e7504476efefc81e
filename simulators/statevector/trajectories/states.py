"""States of a walk of trajectories: a protocol, and its implementation in this process."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, INT, REALS, SINGLES, kernel
from simulators.engine import RunOptions
from simulators.statevector.backend import protocol
from simulators.statevector.backend.local import LocalBackend
from simulators.statevector.backend.protocol import StateBackend, StateHandle
from simulators.statevector.planning.planner import SegmentPlan
from simulators.statevector.state import BlockExecutor, State
from simulators.statevector.tiles import driver
from simulators.statevector.trajectories.reduced_density import reduced

SCRATCH_STATES = 1  # additional states that another device may hold
_BLOCK = 12  # log2 of the groups of amplitudes in a block


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
        self, state: StateHandle, frame: int, key: tuple[int, int], shots: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Sample as `protocol.sample`, where amplitude k is that of basis state k ^ frame."""


class LocalTrajectoryStates:
    """`TrajectoryStates` in the memory of this process."""

    def __init__(self, backend: LocalBackend) -> None:
        self.backend = backend

    def zero(self, state: State | None, num_qubits: int, options: RunOptions) -> State:
        """See `TrajectoryStates`."""
        if state is None:
            state = self.backend.zero_state(num_qubits, options)
        state.amplitudes[:] = 0.0
        state.amplitudes[0] = 1.0
        state.changed()
        state.live = 0
        return state

    def copied(self, source: State, target: State | None) -> State:
        """See `TrajectoryStates`."""
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
        driver.apply(self.backend.sweeper, state, segment.sweeps, floats, norms=last)

    def reduced(self, state: State, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
        """See `TrajectoryStates`."""
        return reduced(self.backend.sweeper, state, qubits)

    def sample(
        self, state: State, frame: int, key: tuple[int, int], shots: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """See `TrajectoryStates`."""
        if frame:
            return sample_framed(self.backend.sweeper, state, frame, key, shots)
        return protocol.sample(self.backend, state, key, shots)


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
    sweeper: BlockExecutor,
    state: State,
    frame: int,
    key: tuple[int, int],
    shots: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Sample as `protocol.sample`, where amplitude k is that of basis state k ^ frame. Raises
    Stopped."""
    unit = min(_BLOCK, state.num_qubits)
    sums = np.empty(1 << (state.num_qubits - unit))

    def add(first: int, last: int, _thread: int) -> None:
        _framed_sums(state.reals, state.singles, frame, 1 << unit, first, last, sums)

    sweeper.parallel_for(state.num_qubits, unit, add)

    def locate(
        edges: NDArray[np.float64], begins: NDArray[np.int64], draws: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        result = np.empty(draws.size, np.int64)

        def find(first: int, last: int, _thread: int) -> None:
            _framed_locate(
                state.reals, state.singles, frame, 1 << unit, first, last, edges, begins, draws,
                result,
            )  # fmt: skip

        sweeper.parallel_for(state.num_qubits, unit, find)
        return result

    return protocol.sample_blocks(sums, key, shots, locate)
