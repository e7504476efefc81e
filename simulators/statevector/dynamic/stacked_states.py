"""Narrow states of many branches as rows of one array: one kernel call for many states.

Branches of a small dynamic circuit are many and cheap, so the cost of calls would dominate. Each
state undergoes the same operations in the same order as a separate state, so results have the same
bits. Memory for the granted number of states is mapped at once; pages appear when written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import device_function, kernel
from simulators.compiler.simd import LANES
from simulators.execution.philox import uniforms
from simulators.statevector.backend import protocol
from simulators.statevector.backend.gate_list import GateList
from simulators.statevector.backend.matrix import PlacedMatrix, multiply_unit
from simulators.statevector.backend.protocol import CompiledSegment, Numbers, ShotDraws
from simulators.statevector.backend.reductions import Projection
from simulators.statevector.checkpoint import Evolution
from simulators.statevector.small.gate_kernels import apply, step_at
from simulators.statevector.state import BlockExecutor, State, load, out_of_memory, room, store

# Kernels on many narrow states in one array.
#
# State k of a call is row numbers[k] of the array: 2**n amplitudes. Calls take a range of k.


@device_function
def _amplitude(reals, singles, at):  # type: ignore[no-untyped-def]
    """Real and imaginary part of one amplitude."""
    if reals.size:
        return reals[2 * at], reals[2 * at + 1]
    return np.float64(singles[2 * at]), np.float64(singles[2 * at + 1])


@device_function
def _put(reals, singles, at, x, y):  # type: ignore[no-untyped-def]
    if reals.size:
        reals[2 * at], reals[2 * at + 1] = x, y
    else:
        singles[2 * at], singles[2 * at + 1] = x, y


@kernel("AMPLITUDES INT I64 WORDS2 REALS2 INT INT I64 REALS", group="deferred")
def apply_steps(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, steps, floats, first, last, control, scratch
):
    """Apply steps (see `gate_list`) to each state. `scratch`: float64 [2 * 2**n], at least 2 *
    LANES; the control flag is read before each step."""
    room = scratch.size // 2
    re, im = scratch[:room], scratch[room:]
    size = np.int64(1) << n
    zero = np.int64(0)
    for state in range(first, last):
        start = ordinals[state] << n
        load(reals, singles, start, size, re, im, zero)
        for s in range(steps.shape[0]):
            if control[0]:
                return
            apply(re, im, size, step_at(steps, s), floats, s)
        store(reals, singles, start, size, re, im, zero)


@kernel("AMPLITUDES INT I64 I64 I64 REALS INT INT I64 REALS", group="deferred")
def multiply(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, wires, offsets, columns, first, last, control, scratch
):
    """Apply a matrix (see `matrix.Dense`) to each state. `scratch`: float64 [4 * 2**wires]."""
    for state in range(first, last):
        for unit in range((np.int64(1) << n) // offsets.size):
            if control[0]:
                return
            start = ordinals[state] << n
            multiply_unit(reals, singles, unit, start, wires, offsets, columns, scratch)


@kernel("AMPLITUDES INT I64 INT INT INT REALS2", group="deferred")
def qubit_weights(reals, singles, n, ordinals, qubit, first, last, weights):  # type: ignore[no-untyped-def]
    """Fill weights[k] with the weights of the qubit's outcomes 0 and 1 in state k."""
    for state in range(first, last):
        start = ordinals[state] << n
        x = y = 0.0
        for k in range(np.int64(1) << n):
            u, v = _amplitude(reals, singles, start + k)
            p = u * u + v * v
            if (k >> qubit) & 1:
                y += p
            else:
                x += p
        weights[state, 0] = x
        weights[state, 1] = y


@kernel("AMPLITUDES INT I64 I64 INT INT REALS INT INT INT", group="deferred")
def project(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, into, qubit, outcome, factors, move, first, last
):
    """Set state into[k] to the part of state k with the outcome, times factors[k]; both may be the
    same. `move`: the qubit ends in |0>, else in the outcome."""
    low = (np.int64(1) << qubit) - 1
    target = 0 if move else outcome
    for state in range(first, last):
        source, start, factor = ordinals[state] << n, into[state] << n, factors[state]
        for pair in range((np.int64(1) << n) >> 1):
            i = ((pair & ~low) << 1) | (pair & low)
            x, y = _amplitude(reals, singles, source + (i | (outcome << qubit)))
            _put(reals, singles, start + (i | ((1 - target) << qubit)), 0.0, 0.0)
            _put(reals, singles, start + (i | (target << qubit)), x * factor, y * factor)


@kernel("AMPLITUDES INT I64 INT INT REALS", group="deferred")
def fingerprints(reals, singles, n, ordinals, first, last, sketches):  # type: ignore[no-untyped-def]
    """Fill sketches[k] with the squared overlap of state k with a fixed pseudo-random vector, as in
    `reductions`."""
    for state in range(first, last):
        start = ordinals[state] << n
        x = y = 0.0
        word = np.uint64(1)
        for k in range(np.int64(1) << n):
            word = word * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            u = np.float64(np.int64(word >> np.uint64(33))) * 2.0**-31 - 0.5
            v = np.float64(np.int64(word & np.uint64(0x7FFFFFFF))) * 2.0**-31 - 0.5
            a, b = _amplitude(reals, singles, start + k)
            x += a * u - b * v
            y += a * v + b * u
        sketches[state] = x * x + y * y


@device_function
def _same(reals, singles, size, left, right, tolerance):  # type: ignore[no-untyped-def]
    """Return whether |left - phase * right| <= tolerance for some phase, as
    `protocol.equal_up_to_phase`."""
    x = y = 0.0
    for k in range(size):
        a, b = _amplitude(reals, singles, right + k)
        c, d = _amplitude(reals, singles, left + k)
        x += a * c + b * d
        y += a * d - b * c
    length = math.hypot(x, y)
    if length < 0.5:
        return False
    x /= length
    y /= length
    gap = 0.0
    for k in range(size):
        a, b = _amplitude(reals, singles, left + k)
        c, d = _amplitude(reals, singles, right + k)
        u = a - x * c + y * d
        v = b - x * d - y * c
        gap += u * u + v * v
    return gap <= tolerance * tolerance


@kernel("AMPLITUDES INT I64 I64 REALS REAL REAL I64 I64 I64", group="deferred")
def equals(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, order, sketches_, near, tolerance, control, kept, into
):
    """Fill into[k] with the state that represents state k; see `Ensemble.equals`. `order`: by
    sketches_; `kept`: int64 [states]."""
    size = np.int64(1) << n
    count = 0
    for k in range(order.size):
        if control[0]:
            return
        at = order[k]
        into[at] = at
        other = count - 1
        while other >= 0 and sketches_[at] - sketches_[kept[other]] <= near:
            left, right = ordinals[kept[other]] << n, ordinals[at] << n
            if _same(reals, singles, size, left, right, tolerance):
                into[at] = kept[other]
                break
            other -= 1
        if into[at] == at:
            kept[count] = at
            count += 1


@kernel("AMPLITUDES INT I64 I64 I64 REALS INT INT REALS I64", group="deferred")
def locate(  # type: ignore[no-untyped-def]
    reals, singles, n, ordinals, order, begins, draws, first, last, cumulative, indices
):
    """Fill indices[s] with the basis state of draws[s], for the draws order[begins[k] : begins[k +
    1]] of state k; see `protocol.sample`. `cumulative`: float64 [2**n]."""
    size = np.int64(1) << n
    for state in range(first, last):
        if begins[state] == begins[state + 1]:
            continue
        start = ordinals[state] << n
        total = 0.0
        for k in range(size):
            x, y = _amplitude(reals, singles, start + k)
            total += x * x + y * y
            cumulative[k] = total
        for s in range(begins[state], begins[state + 1]):
            t = draws[order[s]] * total
            low, high = np.int64(0), size - 1  # the first whose sum is greater than t, or the last
            while low < high:
                middle = (low + high) >> 1
                if cumulative[middle] > t:
                    high = middle
                else:
                    low = middle + 1
            indices[order[s]] = low


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


def apply_steps_to_stack(
    sweeper: BlockExecutor,
    table: State,
    num_qubits: int,
    ordinals: Numbers,
    segment: GateList,
    floats: NDArray[np.float64],
) -> None:
    """Apply a segment to these states of a table. Raises Stopped."""
    size = max(2 << num_qubits, 2 * LANES)

    def work(first: int, last: int, thread: int) -> None:
        apply_steps(
            *table.arrays, num_qubits, ordinals, segment.steps, floats, first, last, sweeper.flag,
            sweeper.scratch(thread, size),
        )  # fmt: skip

    _over(sweeper, num_qubits, ordinals.size, work)


class StackedStates:
    """An `Ensemble` of at most MOST_QUBITS qubits, as rows of one array."""

    def __init__(
        self,
        states: protocol.StateBackend,
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
        self._free = list(range(self._numbered))[::-1]

    def zero(self, _way: Evolution | None = None) -> int:
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
        result = self._new(ordinals.size)
        table = self._table.reshape(-1, 1 << self._num_qubits)
        step = max(1, _COPIED >> self._num_qubits)  # a part is copied before it is put in
        for first in range(0, ordinals.size, step):
            part = slice(first, first + step)
            table[result[part]] = table[ordinals[part]]
        return result

    def copy_of(self, state: protocol.StateHandle) -> int:
        """Copy a state of the process, see `Ensemble`."""
        number = int(self._new(1)[0])
        self._row(number)[:] = state.amplitudes
        return number

    def blank(self, ordinals: Numbers) -> Numbers:
        return self._new(ordinals.size)

    def release(self, ordinals: Numbers) -> None:
        self._free += ordinals.tolist()

    def _chosen(self, ordinals: Numbers) -> tuple[Any, ...]:
        """First arguments of the kernels: the array, its qubits and the numbers of its states."""
        return (*State(self._table).arrays, self._num_qubits, ordinals)

    def _over(self, count: int, work: Callable[[int, int, int], object]) -> None:
        _over(self._sweeper, self._num_qubits, count, work)

    def apply(
        self, ordinals: Numbers, segment: CompiledSegment, floats: NDArray[np.float64]
    ) -> None:
        assert isinstance(segment, GateList)
        apply_steps_to_stack(
            self._sweeper, State(self._table), self._num_qubits, ordinals, segment, floats
        )

    def multiply(self, ordinals: Numbers, matrix: PlacedMatrix) -> None:
        chosen, wires = self._chosen(ordinals), matrix.wires.size

        def work(first: int, last: int, thread: int) -> None:
            multiply(
                *chosen, matrix.wires, matrix.offsets, matrix.columns, first, last,
                self._sweeper.flag, self._sweeper.scratch(thread, 4 << wires),
            )  # fmt: skip

        self._over(ordinals.size, work)

    def probs(self, ordinals: Numbers, qubit: int) -> NDArray[np.float64]:
        chosen, result = self._chosen(ordinals), np.empty((ordinals.size, 2))

        def work(first: int, last: int, _thread: int) -> None:
            qubit_weights(*chosen, qubit, first, last, result)

        self._over(ordinals.size, work)
        return result

    def project(
        self, ordinals: Numbers, into: Numbers, item: Projection, factors: NDArray[np.float64]
    ) -> None:
        chosen, move = self._chosen(ordinals), 1 if item.move else 0

        def work(first: int, last: int, _thread: int) -> None:
            project(*chosen, into, item.qubit, item.outcome, factors, move, first, last)

        self._over(ordinals.size, work)

    def equals(self, ordinals: Numbers, near: float, tolerance: float) -> Numbers:
        chosen, result = self._chosen(ordinals), np.empty(ordinals.size)

        def work(first: int, last: int, _thread: int) -> None:
            fingerprints(*chosen, first, last, result)

        self._over(ordinals.size, work)
        order = np.argsort(result, kind="stable")
        into, kept = np.empty(ordinals.size, np.int64), np.empty(ordinals.size, np.int64)
        equals(*chosen, order, result, near, tolerance, self._sweeper.flag, kept, into)
        self._sweeper.check()
        return into

    def sample(self, ordinals: Numbers, branch_of: Numbers, draws: ShotDraws) -> Numbers:
        """Sample as `Ensemble.sample`, always in the order of the shots."""
        chosen, shots = self._chosen(ordinals), draws.shots
        values, result = np.empty(shots.size), np.empty(shots.size, np.int64)
        uniforms(*draws.key, draws.draw, shots, values)
        permutation = np.argsort(branch_of, kind="stable")
        begins = np.zeros(ordinals.size + 1, np.int64)
        np.cumsum(np.bincount(branch_of, minlength=ordinals.size), out=begins[1:])

        def work(first: int, last: int, thread: int) -> None:
            cumulative = self._sweeper.scratch(thread, 1 << self._num_qubits)
            locate(*chosen, permutation, begins, values, first, last, cumulative, result)

        self._over(ordinals.size, work)
        return result

    def state(self, number: int) -> State:
        return State(self._row(number))
