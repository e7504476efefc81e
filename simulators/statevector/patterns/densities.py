"""The density matrix of one or two qubits of a large state.

Sums run over fixed blocks, each on its own and then in order, so they are the same bits for any
number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulators.jit import INT, REALS, REALS2, SINGLES, kernel, part
from simulators.statevector.state import State, Sweeper

_BLOCK = 12  # 2**so many groups of amplitudes


@part
def _apart(number, bit):  # type: ignore[no-untyped-def]
    """The number with a 0 put in at a bit."""
    low = (np.int64(1) << bit) - 1
    return (number & ~low) << 1 | number & low


@part
def _sum(amplitudes, first, second, low, high, into):  # type: ignore[no-untyped-def]
    """Groups low .. high - 1: all amplitudes that differ in these qubits alone; second < 0: one."""
    many = 2 if second < 0 else 4
    for g in range(low, high):
        if second < 0:
            base = _apart(g, first)
        else:
            base = _apart(_apart(g, min(first, second)), max(first, second))
        for a in range(many):
            i = base | np.int64(a & 1) << first
            if second >= 0:
                i |= np.int64(a >> 1) << second
            x, y = np.float64(amplitudes[2 * i]), np.float64(amplitudes[2 * i + 1])
            for b in range(a + 1):
                j = base | np.int64(b & 1) << first
                if second >= 0:
                    j |= np.int64(b >> 1) << second
                u, v = np.float64(amplitudes[2 * j]), np.float64(amplitudes[2 * j + 1])
                into[2 * (many * a + b)] += x * u + y * v
                into[2 * (many * a + b) + 1] += y * u - x * v


@kernel(REALS, SINGLES, INT, INT, INT, INT, INT, REALS2, group="trajectories")
def _blocks(reals, singles, first, second, size, low, high, sums):  # type: ignore[no-untyped-def]
    """Blocks low .. high - 1 of `size` groups: the lower half of each one's matrix."""
    for block in range(low, high):
        if reals.size:
            _sum(reals, first, second, block * size, (block + 1) * size, sums[block])
        else:
            _sum(singles, first, second, block * size, (block + 1) * size, sums[block])


def reduced(sweeper: Sweeper, state: State, qubits: tuple[int, ...]) -> NDArray[np.complex128]:
    """The density matrix [2, 2] or [4, 4]; qubits[0] is bit 0 of an index. Its trace is the
    state's norm. Raises Stopped."""
    groups = state.num_qubits - len(qubits)
    unit = min(_BLOCK, groups)
    side = 1 << len(qubits)
    sums = np.zeros((1 << (groups - unit), 2 * side * side))
    second = qubits[1] if len(qubits) > 1 else -1

    def work(first: int, last: int, _thread: int) -> None:
        _blocks(state.reals, state.singles, qubits[0], second, 1 << unit, first, last, sums)

    sweeper.over(groups, unit, work)
    lower = np.cumsum(sums, axis=0)[-1].view(np.complex128).reshape(side, side)
    found: NDArray[np.complex128] = np.tril(lower) + np.tril(lower, -1).conj().T
    return found
