"""Outputs on a GPU: sums over states, narrow states, and adjoint gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.engine import PauliSum, ThreadPool
from simulators.execution import outputs
from simulators.gpu.devices.device import Buffer, Device
from simulators.gpu.sweeps import DeviceState
from simulators.statevector.backend.gate_list import GateList, place_all
from simulators.statevector.backend.matrix import PlacedMatrix
from simulators.statevector.backend.pauli_sums import PauliGroup, pauli_groups
from simulators.statevector.backend.reductions import BlockSum, SortedDraws
from simulators.statevector.gradient.adjoint import ReverseSegment, plan_adjoint
from simulators.statevector.gradient.reverse_kernel import OUTER, STEP, VALUE
from simulators.statevector.small.gate_kernels import COUNTS, KIND, ONE
from simulators.statevector.state import BLOCK_QUBITS

# Sums over the states of a GPU: norms, samples, distributions, expectation values.
#
# The device sums blocks of 2**BLOCK_QUBITS amplitudes, and the host adds the blocks in their order,
# so results have the same bits on every device.

_THREADS, _WARP = 256, 32
_RUN = 16  # amplitudes of a thread, of a full block
_SUM_BYTES = 8 * _WARP  # scratch memory of a sum over a block of threads
_MOST_OUTPUTS = 22  # limit of partial sums of a distribution that are copied to the host


def _block_bits(state: DeviceState) -> int:
    return min(BLOCK_QUBITS, state.num_qubits)


def _threads(block_bits: int) -> int:
    return min(_THREADS, max(_WARP, (1 << block_bits) // _RUN))


def block_sums(
    item: BlockSum, state: DeviceState, other: DeviceState | None
) -> NDArray[np.float64]:
    """Two sums of each block: float64 [blocks, 2]; see `StateBackend.block_sums`."""
    device, bits = state.device, _block_bits(state)
    blocks = state.count << (state.num_qubits - bits)
    buffer = state.settle()
    sums = device.empty(2 * blocks, np.float64)
    device.launch(
        f"block_sums_{state.precision}", blocks, _threads(bits), _SUM_BYTES, np.int32(item.what),
        buffer, buffer if other is None else other.settle(), np.int32(bits), np.int32(item.qubit),
        np.float64(item.turn.real), np.float64(item.turn.imag), sums,
    )  # fmt: skip
    return device.download(sums).reshape(blocks, 2)


def locate_samples(state: DeviceState, draws: SortedDraws) -> NDArray[np.int64]:
    """Basis state of each sorted draw; see `StateBackend.locate_samples`."""
    begins, values = draws.begins, draws.values
    if not values.size:
        return np.zeros(0, np.int64)
    device, bits = state.device, _block_bits(state)
    hits = np.flatnonzero(begins[1:] > begins[:-1])
    size = 1 << bits
    result = device.empty(values.size, np.int64)
    device.launch(
        f"locate_{state.precision}", hits.size, _threads(bits), 8 * (size + size // 8 + 1),
        state.settle(), np.int32(bits), device.upload(hits.astype(np.int64)),
        device.upload(draws.edges[hits]), device.upload(np.append(begins[hits], values.size)),
        device.upload(values), result,
    )  # fmt: skip
    return device.download(result)


def outcome_weights(state: DeviceState, wires: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each value of some qubits, bit k being wires[k]: float64 [2**qubits]."""
    device = state.device
    order = np.argsort(wires)
    rest = state.num_qubits - wires.size
    rest_bits = min(rest, max(0, _MOST_OUTPUTS - wires.size))
    outputs = 1 << (wires.size + rest_bits)
    sums = device.empty(outputs, np.float64)
    state.launch(
        "outcome_sums", outputs, state.settle(),
        np.uint64(sum(1 << wire for wire in wires.tolist())), np.int32(rest - rest_bits),
        np.int32(rest_bits), np.uint64(outputs), sums,
    )  # fmt: skip
    table = np.cumsum(device.download(sums).reshape(-1, 1 << rest_bits), axis=1)[:, -1]
    if (order == np.arange(order.size)).all():
        return table
    index = np.arange(table.size)
    sorted_index = np.zeros_like(index)
    for place, bit in enumerate(order.tolist()):
        sorted_index |= (index >> bit & 1) << place
    result: NDArray[np.float64] = table[sorted_index]
    return result


def expectations(
    states: DeviceState, strings: list[tuple[int, int]], check: Callable[[], None]
) -> NDArray[np.float64]:
    """Expectation values <state|P|state> of each state and string (x, z): float64 [states,
    strings]."""
    values = np.empty((states.count, len(strings)))
    for group in pauli_groups(strings):
        check()
        sums = string_sums(states, group)
        values[:, group.members] = np.cumsum(sums, axis=1)[:, -1]
    return values


def string_sums(states: DeviceState, group: PauliGroup) -> NDArray[np.float64]:
    """Sums of strings with the same x over each block: float64 [states, blocks, strings]."""
    device, bits = states.device, _block_bits(states)
    x, zs, parts, _, _ = group.strings
    blocks, strings = states.count << (states.num_qubits - bits), zs.size
    sums = device.empty(blocks * strings, np.float64)
    device.launch(
        f"pauli_sums_{states.precision}", blocks, _threads(bits), 16 << bits, states.settle(),
        np.int32(bits), x, np.int32(strings), device.upload(zs), device.upload(parts.ravel()), sums,
    )  # fmt: skip
    return device.download(sums).reshape(states.count, -1, strings)


# States of at most 12 qubits on a GPU: a block of threads each, in shared memory.
#
# One launch applies the same steps to many states, each with its own matrices; or runs many
# bindings of a circuit from |0...0> to their counts.

MAX_QUBITS = 12

_AMPLITUDE_BYTES = 16
_LEAST_AMPLITUDES = 16  # that are added up at once
_ROWS_AT_ONCE = 256  # whose matrices are made by one call
_NUMBERS, _STEP_WORDS = 8, 4  # numbers and words of a step


def gate_matrices(
    circuit: Circuit,
    segment: GateList,
    params: NDArray[np.float64],
    pool: ThreadPool,
    chosen: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Matrices of all steps of each row, or of the chosen operations of the segment: float64 [rows,
    steps, 8]; see `GateList.floats`. params: float64 [rows, parameters of the circuit]. A compiled
    call processes the operations of several rows as one sequence."""
    ops = circuit.ops[segment.first : segment.last]
    if chosen is None:
        chosen = np.ones(ops.size, bool)
    each = circuit.table.rows[ops]
    columns = segment.at_param + np.flatnonzero(np.repeat(chosen, each[:, 3]))
    places = segment.at_qubit + np.flatnonzero(np.repeat(chosen, each[:, 1]))
    count, steps, ops = len(params), int(COUNTS[each[chosen, 0]].sum()), ops[chosen]
    result = np.empty((count, steps, _NUMBERS))
    at_once = min(count, _ROWS_AT_ONCE)
    all_ops, all_qubits = np.tile(ops, at_once), np.tile(circuit.qubits[places], at_once)

    def work(first: int, last: int, _thread: int) -> None:
        rows = last - first
        place_all(
            circuit.table.rows, all_ops, all_qubits, params[first:last, columns].ravel(), 0,
            rows * ops.size, 0, 0, np.empty((rows * steps, _STEP_WORDS), np.uint64),
            result[first:last].reshape(-1, _NUMBERS),
        )  # fmt: skip

    pool.run(work, count, at_once)
    return result


class BatchSteps(msgspec.Struct, frozen=True, eq=False):
    """Gates of many bindings: matrices that all of them have, and which ones are of each."""

    table: NDArray[np.uint64]  # [steps, 4], the place of the matrix in the upper half of a word
    floats: NDArray[np.float64]  # [steps, 8]; without a meaning where each binding has its own
    chosen: NDArray[np.bool_]  # [operations]: those with free parameters
    own: int  # number of matrices of each binding

    @classmethod
    def of(cls, circuit: Circuit, segment: GateList) -> BatchSteps:
        each = circuit.table.rows[circuit.ops[segment.first : segment.last]]
        is_free = np.zeros(circuit.params.size, np.int64)
        is_free[circuit.slots[0::2]] = 1
        ends = np.cumsum(each[:, 3])
        before = np.append(0, np.cumsum(is_free[segment.at_param :]))
        chosen = before[ends] > before[ends - each[:, 3]]
        own = np.repeat(chosen, COUNTS[each[:, 0]])
        places = np.where(own, own.size + np.cumsum(own) - 1, np.arange(own.size))
        table = segment.steps.copy()
        table[:, 0] |= places.astype(np.uint64) << np.uint64(32)
        return cls(table, segment.floats(circuit, circuit.params), chosen, int(own.sum()))


def apply_gate_list(states: DeviceState, segment: GateList, floats: NDArray[np.float64]) -> None:
    """Apply a segment to all states. floats: float64 [steps, 8], or [states, steps, 8]."""
    device, size = states.device, 1 << states.num_qubits
    steps = len(segment.steps)
    device.launch(
        f"small_steps_{states.precision}", states.count, min(_THREADS, max(_WARP, size >> 2)),
        _AMPLITUDE_BYTES * size, states.buffer, np.int32(states.num_qubits), np.int32(steps),
        device.upload(segment.steps), device.upload(floats),
        np.uint64(_NUMBERS * steps if floats.ndim == 3 else 0), np.int32(states.live == 0),
    )  # fmt: skip
    states.overwrite()


def count_shots(
    device: Device,
    steps: BatchSteps | None,
    bound: NDArray[np.float64],
    shots: int,
    key: tuple[int, int],
    which: NDArray[np.uint32],
    table: NDArray[np.uint8],
) -> tuple[bytes, bytes, bytes]:
    """Outcomes of all bindings, their counts and the number of each binding's, as in
    `EngineResult`. `steps` None: no gates; bound: matrices of each binding, float64 [bindings,
    steps, 8]. key: seed, and the number of the first binding. which: record of each basis state
    [2**qubits]; table: packed outcome of each record [records, width], ascending.

    Only counts that are not 0 leave the device."""
    bindings, size, (records, width) = len(bound), which.size, table.shape
    counts: Buffer = device.empty(bindings * records, np.uint32)
    sizes: Buffer = device.empty(bindings, np.uint32)
    count, none = 0 if steps is None else len(steps.table), np.zeros(1)
    arrays = (none.view(np.uint64), none) if steps is None else (steps.table, steps.floats)
    device.launch(
        "small_counts", bindings, min(_THREADS, max(_WARP, size >> 1)),
        _AMPLITUDE_BYTES * max(size, _LEAST_AMPLITUDES), np.int32(size.bit_length() - 1),
        np.int32(count), *map(device.upload, arrays), device.upload(bound if bound.size else none),
        np.int32(bound.shape[1]), np.int32(shots), np.uint64(key[0]), np.uint64(key[1]),
        device.upload(which), np.int32(records), counts, sizes,
    )  # fmt: skip
    found = device.download(sizes)
    begins = np.append(np.zeros(1, np.uint32), np.cumsum(found, dtype=np.uint32))
    outcomes: Buffer = device.empty(int(begins[-1]) * width, np.uint8)
    gathered: Buffer = device.empty(int(begins[-1]), np.uint32)
    device.launch(
        "gather_counts", bindings, _THREADS, 4 * _THREADS, counts, np.int32(records),
        device.upload(begins), device.upload(table), np.int32(width), outcomes, gathered,
    )  # fmt: skip
    return device.download_bytes(outcomes), device.download_bytes(gathered), found.tobytes()


# Adjoint gradients on a GPU: both states of the reverse pass are on the device.
#
# See `statevector.gradient.adjoint` for the method. Tiles are smaller than those of the processor,
# because the shared memory of a block of threads holds two of them.

_TILE_QUBITS = 11

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
        """Derivatives of the observable's expectation value by each slot: float64 [slots]. `state`:
        the final one; it is evolved back to the beginning. `other`: buffer for a second state."""
        result = np.zeros(self._plan.num_slots)
        strings = outputs.terms((observable,), state.num_qubits)
        phases = [1j ** ((x & z).bit_count() % 4) for x, z in strings]
        factors = np.array(phases, np.complex128) * observable.coefficients
        apply_strings(state, other, strings, factors)
        self._pass_done()
        for part in self._plan.parts:
            if isinstance(part, PlacedMatrix):
                self._multiply(state, part)
                self._multiply(other, part)
                self._pass_done()
                continue
            sums = []
            for number in range(len(part.tiles)):
                launched = [
                    _launch(state, other, part, int(part.tiles[number]), rows)
                    for rows in _chunks(part, number)
                ]
                sums.append(np.concatenate(launched))
                self._pass_done()
            for number, column, slot, weights in part.shares:
                result[slot] += weights @ sums[number][column]
        return result


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
        "apply_pauli_sum", size, source, into.buffer, np.uint64(size), np.int32(len(strings)),
        device.upload(np.array([x for x, _ in strings], np.uint64)),
        device.upload(np.array([z for _, z in strings], np.uint64)),
        device.upload(factors.view(np.float64)),
    )  # fmt: skip


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
        f"reverse_pass_{state.precision}", groups, min(_THREADS, max(_WARP, (1 << width) >> 2)),
        (32 << width) + _SCRATCH_BYTES + 32 * count, state.settle(), other.settle(),
        np.int32(width), np.uint64(tile), np.int32(len(placed)),
        device.upload(np.ascontiguousarray(table)),
        device.upload(np.ascontiguousarray(matrices).reshape(-1, _STEP_NUMBERS)),
        np.int32(tiles // groups), np.int32(count), sums,
    )  # fmt: skip
    if not count:
        return np.zeros((0, 4))
    result = device.download(sums).reshape(groups, count, 4)
    ends: NDArray[np.float64] = np.cumsum(result, axis=0)[-1]
    return ends
