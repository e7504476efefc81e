"""Expectation values of Pauli strings, from the state as it lies in memory.

A string flips the bits under x and signs by those under z: <P> is the sum over k of
conj(a[k]) a[k ^ x] (-1)^(parity of (k ^ x) & z) i^(number of Y). Strings with the same x share the
products; of many, all signs of a block are found at once. So all diagonal strings together cost one
sweep.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.statevector.signs import MANY
from simulators.statevector.state import BLOCK_QUBITS, State, Sweeper
from simulators.vectors import LANES

EVEN, ODD = 1, 2  # number of Y: a string looks at the products' real parts, or the imaginary ones


class Group(msgspec.Struct, frozen=True, eq=False):
    """Strings that flip the same qubits."""

    x: int
    members: list[int]  # their numbers
    zs: NDArray[np.uint64]
    parts: NDArray[np.float64]  # [strings, 2]
    need: int  # EVEN, ODD: parts of the products that it has strings for
    all_signs: int  # those that it has many for


def groups(strings: list[tuple[int, int]]) -> list[Group]:
    """All strings, by what they flip."""
    found: dict[int, list[int]] = {}
    for number, (x, _) in enumerate(strings):
        found.setdefault(x, []).append(number)
    return [_group(x, members, strings) for x, members in found.items()]


def _group(x: int, members: list[int], strings: list[tuple[int, int]]) -> Group:
    masks_z = [strings[t][1] for t in members]
    factors = [1j ** ((x & z).bit_count() % 4) for z in masks_z]
    parts = np.array([(factor.real, -factor.imag) for factor in factors])
    counts = [int(np.count_nonzero(parts[:, k])) for k in (0, 1)]
    need, many = (EVEN * (counts[0] >= n) | ODD * (counts[1] >= n) for n in (1, MANY))
    return Group(x, members, np.array(masks_z, np.uint64), parts, need, many)


def padded(state: State) -> State:
    """The state; one of less than LANES amplitudes with zeros behind them."""
    missing = LANES - state.amplitudes.size
    return State(np.pad(state.amplitudes, (0, missing))) if missing > 0 else state


def string_sums(
    sweeper: Sweeper,
    state: State,
    partner: State,
    numbers: NDArray[np.int64],
    flip: int,
    group: Group,
    sums: NDArray[np.float64],
) -> None:
    """Fill `sums`: float64 [blocks, strings]; see `kernels.strings`."""
    from simulators.statevector.kernels.strings import string_sums as kernel

    state, partner = padded(state), padded(partner)
    unit = min(BLOCK_QUBITS, state.num_qubits)

    def work(first: int, last: int, number: int) -> None:
        kernel(
            state.reals,
            state.singles,
            partner.reals,
            partner.singles,
            numbers,
            1 << unit,
            flip,
            group.x,
            group.zs,
            group.parts,
            group.need,
            group.all_signs,
            first,
            last,
            sweeper.scratch(number, (2 << unit) + LANES),
            sums,
        )

    sweeper.over(state.num_qubits, unit, work)
