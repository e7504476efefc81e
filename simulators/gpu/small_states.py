"""States of at most 12 qubits on a GPU: a block of threads each, in shared memory.

One launch applies the same steps to many states, each with its own matrices; or runs many bindings
of a circuit from |0...0> to their counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.circuit.ir import Circuit
from simulators.gpu.devices.protocol import Buffer, Device
from simulators.gpu.sweeps import DeviceState
from simulators.statevector.backend.gate_list import GateList, place_all

MAX_QUBITS = 12
_THREADS, _WARP = 256, 32
_COUNT_THREADS = 128
_AMPLITUDE_BYTES = 16
_COUNTED_BYTES = 28  # of an amplitude with counts: its value, cumulative sum and count
_NUMBERS, _STEP_WORDS = 8, 4  # numbers and words of a step


def gate_matrices(
    circuit: Circuit, segment: GateList, params: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Matrices of all steps of each row: float64 [rows, steps, 8]; see `GateList.floats`.

    params: float64 [rows, parameters of the circuit]. One compiled call processes the operations of
    all rows as one sequence.
    """
    ops = circuit.ops[segment.first : segment.last]
    counts = circuit.table.rows[ops]
    qubits, num_params = int(counts[:, 1].sum()), int(counts[:, 3].sum())
    own = params[:, segment.at_param : segment.at_param + num_params]
    count = len(params)
    result = np.empty((count * len(segment.steps), _NUMBERS))
    place_all(
        circuit.table.rows,
        np.tile(ops, count),
        np.tile(circuit.qubits[segment.at_qubit : segment.at_qubit + qubits], count),
        np.ascontiguousarray(own).ravel(),
        0,
        count * ops.size,
        0,
        0,
        np.empty((count * len(segment.steps), _STEP_WORDS), np.uint64),
        result,
    )
    return result.reshape(count, len(segment.steps), _NUMBERS)


def apply_gate_list(states: DeviceState, segment: GateList, floats: NDArray[np.float64]) -> None:
    """Apply a segment to all states. floats: float64 [steps, 8], or [states, steps, 8]."""
    device, size = states.device, 1 << states.num_qubits
    steps = len(segment.steps)
    device.launch(
        f"small_steps_{states.precision}",
        states.count,
        min(_THREADS, max(_WARP, size >> 2)),
        _AMPLITUDE_BYTES * size,
        states.buffer,
        np.int32(states.num_qubits),
        np.int32(steps),
        device.upload(segment.steps),
        device.upload(floats),
        np.uint64(_NUMBERS * steps if floats.ndim == 3 else 0),
        np.int32(states.live == 0),
    )
    states.overwrite()


def count_shots(
    device: Device,
    num_qubits: int,
    segment: GateList | None,
    floats: NDArray[np.float64],
    shots: int,
    key: tuple[int, int],
) -> NDArray[np.uint32]:
    """Counts of basis states of each binding: uint32 [bindings, 2**num_qubits].

    floats: float64 [bindings, steps, 8]; `segment` None: no gates. key: seed, and the number of the
    first binding.
    """
    bindings, size = len(floats), 1 << num_qubits
    counts: Buffer = device.empty(bindings * size, np.uint32)
    steps = 0 if segment is None else len(segment.steps)
    table = np.zeros((1, 4), np.uint64) if segment is None else segment.steps
    device.launch(
        "small_counts",
        bindings,
        min(_COUNT_THREADS, max(_WARP, size >> 1)),
        _COUNTED_BYTES * size,
        np.int32(num_qubits),
        np.int32(steps),
        device.upload(table),
        device.upload(floats if floats.size else np.zeros(1)),
        np.int32(shots),
        np.uint64(key[0]),
        np.uint64(key[1]),
        counts,
    )
    return device.download(counts).reshape(bindings, size)
