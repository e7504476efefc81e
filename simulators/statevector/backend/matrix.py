"""Dense matrices on a few qubits of a state, in place.

A unit is the 2**k amplitudes that k qubits span while the others are fixed. Each unit is read,
multiplied and written by itself, so the result has the same bits for any number of threads.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import inline_function, kernel
from simulators.statevector.state import BlockExecutor, State

_LOOKS = 1 << 12  # matrix elements that are processed between two reads of the control flag


@inline_function
def multiply_unit(reals, singles, unit, first, wires, offsets, columns, scratch):  # type: ignore[no-untyped-def]
    """Multiply a unit of the state whose amplitude 0 is at `first`; see `multiply_kernel`."""
    size = offsets.size
    re, im = scratch[:size], scratch[size : 2 * size]
    out_re, out_im = scratch[2 * size : 3 * size], scratch[3 * size :]
    base = unit
    for w in range(wires.size):
        low = (np.int64(1) << wires[w]) - 1
        base = ((base & ~low) << 1) | (base & low)
    base += first
    for j in range(size):
        at = 2 * (base + offsets[j])
        if reals.size:
            re[j], im[j] = reals[at], reals[at + 1]
        else:
            re[j], im[j] = singles[at], singles[at + 1]
        out_re[j] = out_im[j] = 0.0
    for j in range(size):
        x, y = re[j], im[j]
        if x == 0.0 and y == 0.0:
            continue
        start = 2 * size * j
        for i in range(size):
            u, v = columns[start + i], columns[start + size + i]
            out_re[i] += u * x - v * y
            out_im[i] += u * y + v * x
    for j in range(size):
        at = 2 * (base + offsets[j])
        if reals.size:
            reals[at], reals[at + 1] = out_re[j], out_im[j]
        else:
            singles[at], singles[at + 1] = out_re[j], out_im[j]


@kernel("AMPLITUDES I64 I64 REALS INT INT I64 REALS", group="deferred")
def multiply_kernel(  # type: ignore[no-untyped-def]
    reals, singles, wires, offsets, columns, first, last, control, scratch
):
    """Multiply units first .. last - 1. `wires`: ascending; `columns`: the matrix column by column,
    real and imaginary parts of each column one after the other; `scratch`: float64 [4 * 2**k]."""
    zero = np.int64(0)
    looks = max(1, _LOOKS // (offsets.size * offsets.size))
    for unit in range(first, last):
        if (unit - first) % looks == 0 and control[0]:
            return
        multiply_unit(reals, singles, unit, zero, wires, offsets, columns, scratch)


class PlacedMatrix(msgspec.Struct, frozen=True, eq=False):
    wires: NDArray[np.int64]  # ascending
    offsets: NDArray[np.int64]  # [2**k]: of each basis state of the qubits, in matrix order
    columns: NDArray[np.float64]  # [2 * 4**k]; may be shared


def by_columns(matrix: bytes, num_qubits: int) -> NDArray[np.float64]:
    """Convert a matrix to `PlacedMatrix.columns`: complex128 [2**num_qubits, 2**num_qubits], row by
    row."""
    size = 1 << num_qubits
    rows = np.frombuffer(matrix, np.complex128).reshape(size, size)
    return np.ascontiguousarray(np.stack((rows.real.T, rows.imag.T), axis=1)).ravel()


def place(columns: NDArray[np.float64], qubits: list[int]) -> PlacedMatrix:
    """Place a matrix on these qubits: bit j of its indices is qubits[j]."""
    index = np.arange(1 << len(qubits))
    offsets = np.zeros(index.size, np.int64)
    for bit, qubit in enumerate(qubits):
        offsets |= ((index >> bit) & 1) << qubit
    return PlacedMatrix(np.array(sorted(qubits), np.int64), offsets, columns)


def multiply(sweeper: BlockExecutor, state: State, dense: PlacedMatrix) -> None:
    """Apply the matrix to a state. Ends early if the control flag is set; the next check raises."""

    unit = dense.wires.size

    def work(first: int, last: int, thread: int) -> None:
        multiply_kernel(
            *state.arrays, dense.wires, dense.offsets, dense.columns, first, last, sweeper.flag,
            sweeper.scratch(thread, 4 << unit),
        )  # fmt: skip

    sweeper.parallel_for(state.num_qubits, unit, work)
