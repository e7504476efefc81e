"""Adjoint gradients on a GPU: both states of the reverse pass are on the device.

See `statevector.gradient.adjoint` for the method. Tiles are smaller than those of the processor,
because the shared memory of a block of threads holds two of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum
from simulators.execution import pauli_sums
from simulators.gpu.sweeps import DeviceState
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.gradient.adjoint import ReverseSegment, plan_adjoint
from simulators.statevector.gradient.tiles import KIND, ONE, OUTER, STEP, VALUE

_TILE_QUBITS = 11
_THREADS, _WARP = 256, 32
_GROUPS = 1024  # groups of tiles with separate sums
_MOST_COLUMNS = 256  # columns of sums of a launch
_STEP_NUMBERS = 8
_SCRATCH_BYTES = 8 * _WARP


class DeviceAdjoint:
    """Reverse pass of a circuit without branching, for one binding."""

    def __init__(
        self,
        circuit: Circuit,
        params: NDArray[np.float64],
        pass_done: Callable[[], None],
        multiply: Callable[[DeviceState, PlacedMatrix], None],
    ) -> None:
        """Set up. `pass_done` is called after each launch, and may raise."""
        self._plan = plan_adjoint(circuit, params, _TILE_QUBITS)
        self._pass_done = pass_done
        self._multiply = multiply

    @property
    def num_sweeps(self) -> int:
        """Passes over both states, for one observable."""
        return self._plan.passes

    def gradient(
        self, state: DeviceState, other: DeviceState, observable: PauliSum
    ) -> NDArray[np.float64]:
        """Derivatives of the observable's expectation value by each slot: float64 [slots].

        `state`: the final one; it is evolved back to the beginning. `other`: buffer for a second
        state.
        """
        result = np.zeros(self._plan.num_slots)
        _apply_observable(state, other, observable)
        self._pass_done()
        for part in self._plan.parts:
            if isinstance(part, PlacedMatrix):
                self._multiply(state, part)
                self._multiply(other, part)
                self._pass_done()
                continue
            sums = []
            for number in range(len(part.tiles)):
                sums.append(_take_back(state, other, part, number))
                self._pass_done()
            for number, column, slot, weights in part.shares:
                result[slot] += weights @ sums[number][column]
        return result


def _apply_observable(state: DeviceState, into: DeviceState, observable: PauliSum) -> None:
    """Set `into` to the observable applied to the state."""
    strings = pauli_sums.terms((observable,), state.num_qubits)
    phases = [1j ** ((x & z).bit_count() % 4) for x, z in strings]
    factors = np.array(phases, np.complex128) * observable.coefficients
    apply_strings(state, into, strings, factors)


def apply_strings(
    state: DeviceState,
    into: DeviceState,
    strings: list[tuple[int, int]],
    factors: NDArray[np.complex128],
) -> None:
    """Set `into` to the sum of the strings (x, z) applied to the state, each times its factor:
    first the signs of z, then x."""
    device, size = state.device, 1 << state.num_qubits
    source = state.settle()
    into.overwrite()
    state.launch(
        "apply_pauli_sum",
        size,
        source,
        into.buffer,
        np.uint64(size),
        np.int32(len(strings)),
        device.upload(np.array([x for x, _ in strings], np.uint64)),
        device.upload(np.array([z for _, z in strings], np.uint64)),
        device.upload(factors.view(np.float64)),
    )


def _take_back(
    state: DeviceState, other: DeviceState, segment: ReverseSegment, number: int
) -> NDArray[np.float64]:
    """Run one pass over both states; returns the sums of its columns: float64 [columns, 4]."""
    results = [
        _launch(state, other, segment, int(segment.tiles[number]), rows)
        for rows in _chunks(segment, number)
    ]
    return np.concatenate(results)


def _chunks(segment: ReverseSegment, number: int) -> Iterator[slice]:
    """Rows of a pass, divided so that each launch has at most _MOST_COLUMNS columns."""
    first, last = int(segment.starts[number]), int(segment.starts[number + 1])
    weighed = np.flatnonzero(segment.columns[first:last] >= 0) + first
    begins = [first, *weighed[_MOST_COLUMNS::_MOST_COLUMNS].tolist(), last]
    for begin, end in itertools.pairwise(begins):
        yield slice(begin, end)


def _launch(
    state: DeviceState, other: DeviceState, segment: ReverseSegment, tile: int, rows: slice
) -> NDArray[np.float64]:
    device, placed = state.device, segment.placed[rows]
    columns = segment.columns[rows]
    weighed = columns >= 0
    count = int(weighed.sum())
    numbered = np.where(weighed, np.cumsum(weighed) - 1, -1)
    table = np.column_stack(
        [placed[:, KIND : ONE + 1], placed[:, [OUTER, VALUE]], numbered.view(np.uint64)]
    )
    matrices = segment.floats[placed[:, STEP].astype(np.int64)]
    width = min(_TILE_QUBITS, state.num_qubits)
    tiles = 1 << (state.num_qubits - width)
    groups = min(_GROUPS, tiles)
    sums = device.empty(max(1, groups * count * 4), np.float64)
    device.launch(
        f"reverse_pass_{state.precision}",
        groups,
        min(_THREADS, max(_WARP, (1 << width) >> 2)),
        (32 << width) + _SCRATCH_BYTES + 32 * count,
        state.settle(),
        other.settle(),
        np.int32(width),
        np.uint64(tile),
        np.int32(len(placed)),
        device.upload(np.ascontiguousarray(table)),
        device.upload(np.ascontiguousarray(matrices).reshape(-1, _STEP_NUMBERS)),
        np.int32(tiles // groups),
        np.int32(count),
        sums,
    )
    if not count:
        return np.zeros((0, 4))
    result = device.download(sums).reshape(groups, count, 4)
    ends: NDArray[np.float64] = np.cumsum(result, axis=0)[-1]
    return ends
