"""Sums over a state: norms, the odds of a qubit, overlaps; and the projection on an outcome.

Sums run over fixed blocks of 2**12 amplitudes, each block on its own, so they are the same bits
for any number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper
from simulators.statevector.sweeps import LANE_WIRES
from simulators.statevector.tiles import weights

# What `reduce` sums, two numbers a block.
NORM, ODDS, SKETCH, OVERLAP, DISTANCE = range(5)


def block_sums(
    sweeper: Sweeper,
    what: int,
    state: State,
    other: State | None = None,
    *,
    qubit: int = 0,
    turn: complex = 1.0,
) -> NDArray[np.float64]:
    """The two sums of each block: float64 [blocks, 2]."""
    if what == NORM and state.num_qubits > BLOCK_QUBITS:
        return weights.block_sums(sweeper, state)
    if what == ODDS and state.num_qubits > BLOCK_QUBITS and qubit >= LANE_WIRES:
        return weights.odds(sweeper, state, qubit)
    from simulators.statevector.kernels.sums import reduce

    unit = min(BLOCK_QUBITS, state.num_qubits)
    second = state if other is None else other
    numbers = state.numbers
    sums = np.empty((1 << (state.num_qubits - unit), 2))

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 4 << unit)
        reduce(
            what,
            state.reals,
            state.singles,
            second.reals,
            second.singles,
            numbers,
            qubit,
            first,
            last,
            turn.real,
            turn.imag,
            scratch,
            sums,
        )

    sweeper.over(state.num_qubits, unit, work)
    return sums


def project(
    sweeper: Sweeper,
    state: State,
    into: State,
    *,
    qubit: int,
    outcome: int,
    factor: float,
    move: bool,
) -> None:
    """`into` becomes the part of `state` with that outcome, times `factor`; see `kernels.sums`."""
    from simulators.statevector.kernels.sums import project as kernel

    into.changed()

    def work(first: int, last: int, _number: int) -> None:
        kernel(
            state.reals,
            state.singles,
            into.reals,
            into.singles,
            qubit,
            outcome,
            factor,
            1 if move else 0,
            first,
            last,
        )

    sweeper.over(state.num_qubits, 1, work)
