"""What one rank computes that one process alone would not: two local positions change places."""

from __future__ import annotations

import numpy as np

from simulators.jit import INT, REALS, SINGLES, kernel
from simulators.statevector.state import State, Sweeper


@kernel(REALS, SINGLES, INT, INT, INT, INT, group="distributed")
def _swap(reals, singles, low, high, first, last):  # type: ignore[no-untyped-def]
    """Bits low < high of all indices change places; quadruples first .. last - 1 of amplitudes."""
    below, between = (np.int64(1) << low) - 1, (np.int64(1) << (high - 1)) - 1
    for number in range(first, last):
        base = ((number & ~below) << 1) | (number & below)
        base = ((base & ~((between << 1) | 1)) << 1) | (base & ((between << 1) | 1))
        i, j = 2 * (base | (np.int64(1) << low)), 2 * (base | (np.int64(1) << high))
        if reals.size:
            reals[i], reals[j] = reals[j], reals[i]
            reals[i + 1], reals[j + 1] = reals[j + 1], reals[i + 1]
        else:
            singles[i], singles[j] = singles[j], singles[i]
            singles[i + 1], singles[j + 1] = singles[j + 1], singles[i + 1]


def swap_local(sweeper: Sweeper, state: State, one: int, two: int) -> None:
    """Two positions of each rank change places."""
    low, high = sorted((one, two))

    def work(first: int, last: int, _number: int) -> None:
        _swap(state.reals, state.singles, low, high, first, last)

    sweeper.over(state.num_qubits, 2, work)
