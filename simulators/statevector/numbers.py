"""Numbers from states wherever they live: sums over blocks, equality, samples.

Invariant: block sums are added in the order of the blocks, so they are the same bits for any number
of threads and of ranks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.philox import uniforms
from simulators.statevector.protocol import States
from simulators.statevector.reduce import DISTANCE, NORM, OVERLAP
from simulators.statevector.state import State


def total(sums: NDArray[np.float64]) -> tuple[float, float]:
    """Both columns summed in order of blocks."""
    if len(sums) == 1:
        return float(sums[0, 0]), float(sums[0, 1])
    ends = np.cumsum(sums, axis=0)[-1]
    return float(ends[0]), float(ends[1])


def same(states: States, one: State, two: State, tolerance: float) -> bool:
    """Whether the states are equal up to a global phase: |one - phase * two| <= tolerance."""
    x, y = total(states.block_sums(OVERLAP, two, one))
    size = abs(complex(x, y))
    if size < 0.5:
        return False
    gap, _ = total(states.block_sums(DISTANCE, one, two, turn=complex(x, y) / size))
    return gap <= tolerance * tolerance


def sample(
    states: States,
    state: State,
    key: tuple[int, int],
    shots: NDArray[np.int64],
    *,
    draw: int = 0,
    ordered: bool = True,
) -> NDArray[np.int64]:
    """The basis state each of these shots (ascending numbers) finds, by that draw; not `ordered` as
    they are, if it need not be, but ascending.

    The one form of inverse sampling (see `small`): with t = u * total, the outcome is the first
    index whose cumulative probability is greater than t; cumulative sums are those of the blocks
    before, in order, plus the running sum in the block. `key`: seed and binding.
    """
    ends = np.cumsum(states.block_sums(NORM, state)[:, 0])
    draws = np.empty(shots.size)
    uniforms(*key, draw, shots, draws)
    draws *= ends[-1]
    np.minimum(draws, np.nextafter(ends[-1], 0.0), out=draws)  # rounding never leads beyond
    order = np.argsort(draws, kind="stable") if ordered else None
    draws = np.sort(draws) if order is None else draws[order]
    edges = np.concatenate(([0.0], ends[:-1]))
    begins = np.zeros(ends.size + 1, np.int64)
    begins[1:] = np.searchsorted(draws, ends, side="left")
    found = states.walk(state, edges, begins, draws)
    if order is None:
        return found
    indices = np.empty(shots.size, np.int64)
    indices[order] = found
    return indices
