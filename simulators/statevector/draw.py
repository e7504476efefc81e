"""Sampling basis states from a state in memory, and its exact distribution.

The one form of inverse sampling (see `small`): with t = u * total, the outcome is the first index
whose cumulative probability is greater than t; cumulative sums are those of the blocks before, in
order, plus the running sum in the block. No array of 2**n probabilities is made for counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.jit import I64, INT, REALS, SINGLES, kernel
from simulators.philox import uniforms
from simulators.statevector.reduce import BLOCK_QUBITS, NORM, block_sums
from simulators.statevector.state import State, Sweeper, load

# Probabilities below these are rounding noise of amplitudes that are zero, and are left out.
_NOISE = {"complex128": 1e-24, "complex64": 1e-14}


@kernel(REALS, SINGLES, INT, INT, REALS, I64, REALS, I64, REALS)
def _walk(reals, singles, first, last, edges, begins, draws, indices, scratch):  # type: ignore[no-untyped-def]
    """Indices of the ascending `draws`: those of block b are begins[b] .. begins[b + 1] - 1."""
    size = scratch.size // 2
    re, im = scratch[:size], scratch[size:]
    zero = np.int64(0)
    for block in range(first, last):
        if begins[block] == begins[block + 1]:
            continue
        load(reals, singles, block * size, size, re, im, zero)
        k = 0
        edge = 0.0 + (re[0] * re[0] + im[0] * im[0])
        for s in range(begins[block], begins[block + 1]):
            while edges[block] + edge <= draws[s] and k < size - 1:
                k += 1
                edge += re[k] * re[k] + im[k] * im[k]
            indices[s] = block * size + k


@kernel(REALS, SINGLES, INT, INT, I64, REALS, REALS)
def _accumulate(reals, singles, first, last, wires, table, scratch):  # type: ignore[no-untyped-def]
    """table[j] += the probabilities of blocks first .. last - 1; bit k of j is qubit wires[k]."""
    size = scratch.size // 2
    re, im = scratch[:size], scratch[size:]
    zero = np.int64(0)
    for block in range(first, last):
        start = block * size
        load(reals, singles, start, size, re, im, zero)
        for k in range(size):
            j = zero
            for w in range(wires.size):
                j |= (((start + k) >> wires[w]) & 1) << w
            table[j] += re[k] * re[k] + im[k] * im[k]


def sample(
    sweeper: Sweeper, state: State, seed: int, binding: int, shots: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The basis state each of these shots (ascending numbers) finds, by draw 0."""
    sums = block_sums(sweeper, NORM, state)[:, 0]
    ends = np.cumsum(sums)
    draws = np.empty(shots.size)
    uniforms(seed, binding, 0, shots, draws)
    draws *= ends[-1]
    order = np.argsort(draws, kind="stable")
    draws = draws[order]
    edges = np.concatenate(([0.0], ends[:-1]))
    begins = np.zeros(sums.size + 1, np.int64)
    begins[1:] = np.searchsorted(draws, ends, side="left")
    begins[-1] = draws.size
    unit = min(BLOCK_QUBITS, state.num_qubits)
    found = np.empty(shots.size, np.int64)

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 2 << unit)
        _walk(state.reals, state.singles, first, last, edges, begins, draws, found, scratch)

    sweeper.over(state.num_qubits, unit, work)
    indices = np.empty(shots.size, np.int64)
    indices[order] = found
    return indices


def distribution(
    sweeper: Sweeper, state: State, wires: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Exact distribution of the qubits `wires`: values (bit k is wires[k]) and probabilities.

    The probabilities add up to the state's norm; values of no weight are left out.
    """
    unit = min(BLOCK_QUBITS, state.num_qubits)
    table = np.zeros(1 << wires.size)
    scratch = sweeper.scratch(0, 2 << unit)
    blocks = 1 << (state.num_qubits - unit)
    grain = max(1, (1 << 20) >> unit)
    for first in range(0, blocks, grain):
        sweeper.check()
        last = min(first + grain, blocks)
        _accumulate(state.reals, state.singles, first, last, wires, table, scratch)
    values = np.flatnonzero(table > _NOISE[state.amplitudes.dtype.name])
    return values, table[values]
