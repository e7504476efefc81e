"""Inverse-CDF sampling of basis states, and exact distributions.

Block sums give the block, a scan inside it the index. No array of 2**n probabilities is made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, INT, REALS, SINGLES, kernel
from simulators.statevector.backend import reductions
from simulators.statevector.state import BLOCK_QUBITS, BlockExecutor, State, load


@kernel(REALS, SINGLES, I64, INT, INT, REALS, I64, REALS, I64, REALS, group="deferred")
def locate_kernel(reals, singles, places, first, last, edges, begins, draws, indices, scratch):  # type: ignore[no-untyped-def]
    """Fill the basis states of the ascending `draws`: those of block b are begins[b] .. begins[b +
    1] - 1. `places`: index of each block in the whole state."""
    size = scratch.size // 2
    re, im = scratch[:size], scratch[size:]
    zero = np.int64(0)
    for block in range(first, last):
        number = places[block]
        if begins[number] == begins[number + 1]:
            continue
        load(reals, singles, block * size, size, re, im, zero)
        k = 0
        edge = 0.0 + (re[0] * re[0] + im[0] * im[0])
        for s in range(begins[number], begins[number + 1]):
            while edges[number] + edge <= draws[s] and k < size - 1:
                k += 1
                edge += re[k] * re[k] + im[k] * im[k]
            indices[s] = number * size + k


@kernel(REALS, SINGLES, I64, INT, INT, I64, I64, REALS, REALS, group="deferred")
def accumulate_kernel(reals, singles, places, first, last, wires, within, table, scratch):  # type: ignore[no-untyped-def]
    """Add the probabilities of blocks first .. last - 1 to table[j]; bit k of j is qubit wires[k].
    `within`: contribution to j of each bit of an amplitude's index in its block."""
    size = scratch.size // 2
    re, im = scratch[:size], scratch[size:]
    zero = np.int64(0)
    for block in range(first, last):
        base = places[block] * size
        load(reals, singles, block * size, size, re, im, zero)
        high = zero
        for w in range(wires.size):
            high |= ((base >> wires[w]) & 1) << w
        for k in range(size):
            table[high | within[k]] += re[k] * re[k] + im[k] * im[k]


# Smaller probabilities are rounding noise of amplitudes that are zero, and are dropped.
ROUNDING_FLOOR = {"double": 1e-24, "single": 1e-14}


def locate_samples(
    sweeper: BlockExecutor,
    state: State,
    edges: NDArray[np.float64],
    begins: NDArray[np.int64],
    draws: NDArray[np.float64],
    indices: NDArray[np.int64],
) -> None:
    """Fill indices[s] with the basis state of draws[s], for the draws in this state's blocks.

    edges: float64 [blocks of the whole state], the sum of all before; draws begins[b] .. begins[b +
    1] - 1 fall into block b.
    """
    if state.num_qubits > BLOCK_QUBITS:
        reductions.locate_in_rows(sweeper, state, edges, begins, draws, indices)
        return

    unit = min(BLOCK_QUBITS, state.num_qubits)
    places = state.basis_indices

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 2 << unit)
        locate_kernel(
            state.reals,
            state.singles,
            places,
            first,
            last,
            edges,
            begins,
            draws,
            indices,
            scratch,
        )

    sweeper.parallel_for(state.num_qubits, unit, work)


def accumulate(
    sweeper: BlockExecutor, state: State, wires: NDArray[np.int64], table: NDArray[np.float64]
) -> None:
    """Add the probability that the qubits `wires` are j to table[j] (bit k is wires[k])."""

    unit = min(BLOCK_QUBITS, state.num_qubits)
    scratch = sweeper.scratch(0, 2 << unit)
    blocks = 1 << (state.num_qubits - unit)
    grain = max(1, (1 << 20) >> unit)
    places = state.basis_indices
    within = np.zeros(1 << unit, np.int64)
    for k, wire in enumerate(wires.tolist()):
        if wire < unit:
            within.reshape(-1, 2, 1 << wire)[:, 1] |= 1 << k
    for first in range(0, blocks, grain):
        sweeper.check()
        last = min(first + grain, blocks)
        accumulate_kernel(
            state.reals, state.singles, places, first, last, wires, within, table, scratch
        )


def nonzero_outcomes(
    table: NDArray[np.float64], state: State
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Values above the rounding noise of the state's amplitudes, and their probabilities."""
    precision = "double" if state.amplitudes.dtype == np.complex128 else "single"
    values = np.flatnonzero(table > ROUNDING_FLOOR[precision])
    return values, table[values]
