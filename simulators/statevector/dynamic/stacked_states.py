"""Narrow states of many branches as rows of one array: one kernel call for many states.

Branches of a small dynamic circuit are many and cheap, so the cost of calls would dominate. Each
state undergoes the same operations in the same order as a separate state, so results have the same
bits. Memory for the granted number of states is mapped at once; pages appear when written.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.simd import LANES
from simulators.execution.rng import uniforms
from simulators.statevector.backend.gate_list import GateList
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.backend.protocol import (
    CompiledSegment,
    Numbers,
    StateBackend,
    StateHandle,
)
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.dynamic import stacked_kernels as kernels
from simulators.statevector.state import BlockExecutor, State, out_of_memory, room

MOST_QUBITS = 12  # a state is one block of sums, and one tile
_FIRST = 16  # initial capacity in states
_GRAIN = 1 << 20  # amplitudes between two reads of the control flag, and of a thread's share
_COPIED = 1 << 16  # amplitudes copied at a time
_ALONE = 1 << 15  # fewer amplitudes are not worth a second thread


def _over(
    sweeper: BlockExecutor, num_qubits: int, count: int, work: Callable[[int, int, int], object]
) -> None:
    """Call work(first, last, thread) over `count` states."""
    grain = max(1, _GRAIN >> num_qubits)
    thread_pool = sweeper.thread_pool
    if thread_pool.size > 1 and count << num_qubits > _ALONE:
        grain = min(grain, max(1, count // (4 * thread_pool.size)))
    thread_pool.run(work, count, grain)


def apply_steps(
    sweeper: BlockExecutor,
    table: State,
    num_qubits: int,
    ordinals: Numbers,
    segment: GateList,
    floats: NDArray[np.float64],
) -> None:
    """Apply a segment to these states of a table. Raises Stopped."""
    reals, singles = table.reals, table.singles
    size = max(2 << num_qubits, 2 * LANES)

    def work(first: int, last: int, thread: int) -> None:
        kernels.apply_steps(
            reals, singles, num_qubits, ordinals, segment.steps, floats, first, last,
            sweeper.flag, sweeper.scratch(thread, size),
        )  # fmt: skip

    _over(sweeper, num_qubits, ordinals.size, work)


class StackedStates:
    """An `Ensemble` of at most MOST_QUBITS qubits, as rows of one array."""

    def __init__(
        self,
        states: StateBackend,
        sweeper: BlockExecutor,
        num_qubits: int,
        precision: str,
        max_states: int,
    ) -> None:
        """Set up. `max_states`: the bound of `branches.Budget`."""
        self.states = states
        self._sweeper = sweeper
        self._num_qubits = num_qubits
        self._dtype = np.dtype(np.complex128 if precision == "double" else np.complex64)
        self._most = max_states
        self._table = self._allocate(min(_FIRST, self._most))
        self._numbered = self._rows
        self.clear()

    @property
    def _rows(self) -> int:
        return self._table.size >> self._num_qubits

    def _allocate(self, count: int) -> NDArray[np.complexfloating]:
        return room(count << self._num_qubits, self._dtype)[0]

    def clear(self) -> None:
        """See `Ensemble`."""
        self._free = list(range(self._numbered))[::-1]

    def zero(self, _way: Evolution | None = None) -> int:
        """See `Ensemble`."""
        number = int(self._new(1)[0])
        state = self._row(number)
        state[:] = 0.0
        state[0] = 1.0
        return number

    def _new(self, count: int) -> Numbers:
        """Numbers of free rows."""
        while len(self._free) < count:
            first = self._numbered
            if first == self._rows:
                self._widen()
            self._numbered = min(2 * first, self._rows)
            self._free = [*range(self._numbered - 1, first - 1, -1), *self._free]
        result = np.array(self._free[len(self._free) - count :], np.int64)
        del self._free[len(self._free) - count :]
        return result

    def _widen(self) -> None:
        """Grow from the initial capacity, which most runs do not exceed, to the largest one."""
        try:
            if self._rows >= self._most:
                raise MemoryError(f"{self._most} states are the most there may be")
            table = self._allocate(self._most)
        except MemoryError as error:
            raise out_of_memory(self._table.nbytes) from error
        table[: self._table.size] = self._table
        self._table = table

    def _row(self, number: int) -> NDArray[np.complexfloating]:
        return self._table[number << self._num_qubits : (number + 1) << self._num_qubits]

    def copied(self, ordinals: Numbers) -> Numbers:
        """See `Ensemble`."""
        result = self._new(ordinals.size)
        table = self._table.reshape(-1, 1 << self._num_qubits)
        step = max(
            1, _COPIED >> self._num_qubits
        )  # what is taken out is a copy before it is put in
        for first in range(0, ordinals.size, step):
            part = slice(first, first + step)
            table[result[part]] = table[ordinals[part]]
        return result

    def copy_of(self, state: StateHandle) -> int:
        """Copy a state of the process, see `Ensemble`."""
        number = int(self._new(1)[0])
        self._row(number)[:] = state.amplitudes
        return number

    def blank(self, ordinals: Numbers) -> Numbers:
        """See `Ensemble`."""
        return self._new(ordinals.size)

    def release(self, ordinals: Numbers) -> None:
        """See `Ensemble`."""
        self._free += ordinals.tolist()

    def _parts(self) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """All amplitudes as real numbers, of one precision and of the other."""
        state = State(self._table)
        return state.reals, state.singles

    def _over(self, count: int, work: Callable[[int, int, int], object]) -> None:
        _over(self._sweeper, self._num_qubits, count, work)

    def apply(
        self, ordinals: Numbers, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        """See `Ensemble`."""
        assert isinstance(segment, GateList)
        apply_steps(self._sweeper, State(self._table), self._num_qubits, ordinals, segment, floats)

    def multiply(self, ordinals: Numbers, matrix: PlacedMatrix) -> None:
        """See `Ensemble`."""
        reals, singles = self._parts()
        wires = matrix.wires.size

        def work(first: int, last: int, thread: int) -> None:
            kernels.multiply(
                reals,
                singles,
                self._num_qubits,
                ordinals,
                matrix.wires,
                matrix.offsets,
                matrix.columns,
                first,
                last,
                self._sweeper.flag,
                self._sweeper.scratch(thread, 4 << wires),
            )

        self._over(ordinals.size, work)

    def probs(self, ordinals: Numbers, qubit: int) -> NDArray[np.float64]:
        """See `Ensemble`."""
        reals, singles = self._parts()
        result = np.empty((ordinals.size, 2))

        def work(first: int, last: int, _thread: int) -> None:
            kernels.qubit_weights(
                reals, singles, self._num_qubits, ordinals, qubit, first, last, result
            )

        self._over(ordinals.size, work)
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
        reals, singles = self._parts()

        def work(first: int, last: int, _thread: int) -> None:
            kernels.project(
                reals,
                singles,
                self._num_qubits,
                ordinals,
                into,
                qubit,
                outcome,
                factors,
                1 if move else 0,
                first,
                last,
            )

        self._over(ordinals.size, work)

    def equals(self, ordinals: Numbers, near: float, tolerance: float) -> Numbers:
        """See `Ensemble`."""
        reals, singles = self._parts()
        result = np.empty(ordinals.size)

        def work(first: int, last: int, _thread: int) -> None:
            kernels.fingerprints(reals, singles, self._num_qubits, ordinals, first, last, result)

        self._over(ordinals.size, work)
        order = np.argsort(result, kind="stable")
        into, kept = np.empty(ordinals.size, np.int64), np.empty(ordinals.size, np.int64)
        kernels.equals(
            reals,
            singles,
            self._num_qubits,
            ordinals,
            order,
            result,
            near,
            tolerance,
            self._sweeper.flag,
            kept,
            into,
        )
        self._sweeper.check()
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
        """Sample as `Ensemble.sample`, always in the order of the shots."""
        del ordered
        reals, singles = self._parts()
        draws, result = np.empty(shots.size), np.empty(shots.size, np.int64)
        uniforms(*key, draw, shots, draws)
        permutation = np.argsort(branch_of, kind="stable")
        begins = np.zeros(ordinals.size + 1, np.int64)
        np.cumsum(np.bincount(branch_of, minlength=ordinals.size), out=begins[1:])

        def work(first: int, last: int, thread: int) -> None:
            kernels.locate(
                reals,
                singles,
                self._num_qubits,
                ordinals,
                permutation,
                begins,
                draws,
                first,
                last,
                self._sweeper.scratch(thread, 1 << self._num_qubits),
                result,
            )

        self._over(ordinals.size, work)
        return result

    def state(self, number: int) -> State:
        """See `Ensemble`."""
        return State(self._row(number))
