"""Where random numbers fall in a state in memory, and its exact distribution.

No array of 2**n probabilities is made for counts: `numbers` does the sums over blocks, and a block
is looked at only where a draw falls into it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper
from simulators.statevector.tiles import weights

# Probabilities below these are rounding noise of amplitudes that are zero, and are left out.
NOISE = {"double": 1e-24, "single": 1e-14}


def walk(
    sweeper: Sweeper,
    state: State,
    edges: NDArray[np.float64],
    begins: NDArray[np.int64],
    draws: NDArray[np.float64],
    found: NDArray[np.int64],
) -> None:
    """found[s] = the basis state of draws[s], of those draws that fall into this state's blocks.

    edges: float64 [blocks of the whole state], the sum of all before; draws begins[b] ..
    begins[b + 1] - 1 fall into block b.
    """
    if state.num_qubits > BLOCK_QUBITS:
        weights.walk(sweeper, state, edges, begins, draws, found)
        return
    from simulators.statevector.kernels import draws as kernels

    unit = min(BLOCK_QUBITS, state.num_qubits)
    numbers = state.numbers

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 2 << unit)
        kernels.walk(
            state.reals,
            state.singles,
            numbers,
            first,
            last,
            edges,
            begins,
            draws,
            found,
            scratch,
        )

    sweeper.over(state.num_qubits, unit, work)


def accumulate(
    sweeper: Sweeper, state: State, wires: NDArray[np.int64], table: NDArray[np.float64]
) -> None:
    """table[j] += the probability that the qubits `wires` are j (bit k is wires[k])."""
    from simulators.statevector.kernels.draws import accumulate as kernel

    unit = min(BLOCK_QUBITS, state.num_qubits)
    scratch = sweeper.scratch(0, 2 << unit)
    blocks = 1 << (state.num_qubits - unit)
    grain = max(1, (1 << 20) >> unit)
    numbers = state.numbers
    within = np.zeros(1 << unit, np.int64)
    for k, wire in enumerate(wires.tolist()):
        if wire < unit:
            within.reshape(-1, 2, 1 << wire)[:, 1] |= 1 << k
    for first in range(0, blocks, grain):
        sweeper.check()
        last = min(first + grain, blocks)
        kernel(state.reals, state.singles, numbers, first, last, wires, within, table, scratch)


def likely(
    table: NDArray[np.float64], state: State
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Values that are no rounding noise of the state's amplitudes, and their probabilities."""
    precision = "double" if state.amplitudes.dtype == np.complex128 else "single"
    values = np.flatnonzero(table > NOISE[precision])
    return values, table[values]
