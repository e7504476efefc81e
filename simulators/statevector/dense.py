"""Matrices of any kind on a few qubits of a state, without a second state.

A unit is the 2**k amplitudes that k qubits span while the others stay; each is read, multiplied and
written back on its own, so the result is the same bits for any number of threads.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.statevector.state import State, Sweeper


class Dense(msgspec.Struct, frozen=True, eq=False):
    """A matrix placed on qubits."""

    wires: NDArray[np.int64]  # ascending
    offsets: NDArray[np.int64]  # [2**k]: of each basis state of the qubits, in the matrix's order
    columns: NDArray[np.float64]  # [2 * 4**k]; may be shared


def by_columns(matrix: bytes, num_qubits: int) -> NDArray[np.float64]:
    """`Dense.columns` of a matrix: complex128 [2**num_qubits, 2**num_qubits], row by row."""
    size = 1 << num_qubits
    rows = np.frombuffer(matrix, np.complex128).reshape(size, size)
    return np.ascontiguousarray(np.stack((rows.real.T, rows.imag.T), axis=1)).ravel()


def place(columns: NDArray[np.float64], qubits: list[int]) -> Dense:
    """A matrix on these qubits: bit j of its indices is qubits[j]."""
    index = np.arange(1 << len(qubits))
    offsets = np.zeros(index.size, np.int64)
    for bit, qubit in enumerate(qubits):
        offsets |= ((index >> bit) & 1) << qubit
    return Dense(np.array(sorted(qubits), np.int64), offsets, columns)


def multiply(sweeper: Sweeper, state: State, dense: Dense) -> None:
    """Apply the matrix to a state. Ends early if the control says so; the next look raises."""
    from simulators.statevector.kernels import dense as kernels

    unit = dense.wires.size

    def work(first: int, last: int, thread: int) -> None:
        kernels.multiply(
            state.reals,
            state.singles,
            dense.wires,
            dense.offsets,
            dense.columns,
            first,
            last,
            sweeper.flag,
            sweeper.scratch(thread, 4 << unit),
        )

    sweeper.over(state.num_qubits, unit, work)
