"""Sums over the states of a GPU: norms, samples, distributions, expectation values.

The device sums blocks of 2**BLOCK_QUBITS amplitudes, and the host adds the blocks in their order,
so results have the same bits on every device.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulators.gpu.sweeps import DeviceState
from simulators.statevector.backend.pauli import PauliGroup, pauli_groups
from simulators.statevector.state import BLOCK_QUBITS

_THREADS, _WARP = 256, 32
_RUN = 16  # amplitudes of a thread, of a full block
_SUM_BYTES = 8 * _WARP  # scratch memory of a sum over a block of threads
_MOST_OUTPUTS = 22  # limit of partial sums of a distribution that are copied to the host


def _block_bits(state: DeviceState) -> int:
    return min(BLOCK_QUBITS, state.num_qubits)


def _threads(block_bits: int) -> int:
    return min(_THREADS, max(_WARP, (1 << block_bits) // _RUN))


def block_sums(
    what: int, state: DeviceState, other: DeviceState | None, *, qubit: int, turn: complex
) -> NDArray[np.float64]:
    """Two sums of each block: float64 [blocks, 2]; see `StateBackend.block_sums`."""
    device, bits = state.device, _block_bits(state)
    blocks = state.count << (state.num_qubits - bits)
    buffer = state.settle()
    sums = device.empty(2 * blocks, np.float64)
    device.launch(
        f"block_sums_{state.precision}",
        blocks,
        _threads(bits),
        _SUM_BYTES,
        np.int32(what),
        buffer,
        buffer if other is None else other.settle(),
        np.int32(bits),
        np.int32(qubit),
        np.float64(turn.real),
        np.float64(turn.imag),
        sums,
    )
    return device.download(sums).reshape(blocks, 2)


def locate_samples(
    state: DeviceState,
    edges: NDArray[np.float64],
    begins: NDArray[np.int64],
    draws: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Basis state of each sorted draw; see `StateBackend.locate_samples`."""
    if not draws.size:
        return np.zeros(0, np.int64)
    device, bits = state.device, _block_bits(state)
    hits = np.flatnonzero(begins[1:] > begins[:-1])
    size = 1 << bits
    result = device.empty(draws.size, np.int64)
    device.launch(
        f"locate_{state.precision}",
        hits.size,
        _threads(bits),
        8 * (size + size // 8 + 1),
        state.settle(),
        np.int32(bits),
        device.upload(hits.astype(np.int64)),
        device.upload(edges[hits]),
        device.upload(np.append(begins[hits], draws.size)),
        device.upload(draws),
        result,
    )
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
        "outcome_sums",
        outputs,
        state.settle(),
        np.uint64(sum(1 << wire for wire in wires.tolist())),
        np.int32(rest - rest_bits),
        np.int32(rest_bits),
        np.uint64(outputs),
        sums,
    )
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
    blocks, strings = states.count << (states.num_qubits - bits), group.zs.size
    sums = device.empty(blocks * strings, np.float64)
    device.launch(
        f"pauli_sums_{states.precision}",
        blocks,
        _threads(bits),
        16 << bits,
        states.settle(),
        np.int32(bits),
        np.uint64(group.x),
        np.int32(strings),
        device.upload(group.zs),
        device.upload(group.parts.ravel()),
        sums,
    )
    return device.download(sums).reshape(states.count, -1, strings)
