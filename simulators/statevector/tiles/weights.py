"""How much weight the rows and blocks of a state have, and where draws fall in them.

A block is so many rows that no process ever holds a part of one. The weight of a row comes from the
pass that wrote it, where one did: then no amplitude is looked at but those that draws fall among.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.statevector import memory
from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper
from simulators.statevector.sweeps import LANE_WIRES
from simulators.statevector.tiles.rownorms import add_up, part_up
from simulators.statevector.tiles.sweeping import kernels

_ROWS = 1 << (BLOCK_QUBITS - LANE_WIRES)  # of a block


def _reals(state: State) -> NDArray[np.floating]:
    return state.reals if state.reals.size else state.singles


def norms(sweeper: Sweeper, state: State) -> NDArray[np.float64]:
    """The norm of each row: float64 [2**(n - LANE_WIRES)]. Raises Stopped."""
    if state.norms is None:
        found = memory.zeros(1 << (state.num_qubits - LANE_WIRES), np.float64)
        fill, reals = kernels(state).row_norms, _reals(state)

        def work(first: int, last: int, _number: int) -> None:
            fill(reals, first, last, found)

        sweeper.over(state.num_qubits, LANE_WIRES, work)
        state.norms = found
    return state.norms


def block_sums(sweeper: Sweeper, state: State) -> NDArray[np.float64]:
    """The norm of each block, and 0: float64 [blocks, 2]. Raises Stopped."""
    weights = norms(sweeper, state)
    sums = np.empty((1 << (state.num_qubits - BLOCK_QUBITS), 2))

    def work(first: int, last: int, _number: int) -> None:
        add_up(weights, _ROWS, first, last, sums)

    sweeper.over(state.num_qubits, BLOCK_QUBITS, work)
    return sums


def odds(sweeper: Sweeper, state: State, qubit: int) -> NDArray[np.float64]:
    """The norm of each block where a qubit is 0, and where it is 1: float64 [blocks, 2]. The qubit
    chooses rows, not lanes. Raises Stopped."""
    weights, numbers = norms(sweeper, state), state.numbers
    sums = np.empty((1 << (state.num_qubits - BLOCK_QUBITS), 2))

    def work(first: int, last: int, _number: int) -> None:
        part_up(weights, _ROWS, numbers, qubit - LANE_WIRES, first, last, sums)

    sweeper.over(state.num_qubits, BLOCK_QUBITS, work)
    return sums


def walk(
    sweeper: Sweeper,
    state: State,
    edges: NDArray[np.float64],
    begins: NDArray[np.int64],
    draws: NDArray[np.float64],
    found: NDArray[np.int64],
) -> None:
    """See `draw.walk`."""
    weights = norms(sweeper, state)
    locate, reals, numbers = kernels(state).locate, _reals(state), state.numbers

    def work(first: int, last: int, _number: int) -> None:
        locate(reals, weights, _ROWS, numbers, first, last, edges, begins, draws, found)

    sweeper.over(state.num_qubits, BLOCK_QUBITS, work)
