"""Reductions over a state, projection on an outcome, and sampling."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import INT, NUMBER, device_function, kernel, record
from simulators.compiler.simd import LANES, load as lanes, splat, store
from simulators.statevector.planning.tables import LANE_WIRES
from simulators.statevector.state import BLOCK_QUBITS, BlockExecutor, State, load, zeros
from simulators.statevector.tiles.phase_ops import add_up, part_up
from simulators.statevector.tiles.sweep_kernel import kernels

# Reductions over a state (norms, qubit weights, overlaps), and projection on an outcome.
#
# Sums run over fixed blocks of 2**12 amplitudes, each block by itself, so they have the same bits
# for any number of threads. The norm of a row comes from the sweep that wrote it, if there was one.


# Sums of two numbers over each block. NORM: (sum |a|^2, 0). QUBIT_WEIGHTS: sums of |a|^2 for the
# qubit values 0 and 1. FINGERPRINT: the overlap of a fixed pseudo-random vector with a. OVERLAP:
# <a|b>. DISTANCE: (sum |a - turn b|^2, 0).
NORM, QUBIT_WEIGHTS, FINGERPRINT, OVERLAP, DISTANCE = range(5)


@record
class BlockSum(NamedTuple):
    """Sums over each block of a state, or of two."""

    what: INT  # one of the constants above
    qubit: INT = 0  # of QUBIT_WEIGHTS
    turn: NUMBER = 1 + 0j  # of DISTANCE


_LANE_WEIGHTS = np.random.default_rng(1).uniform(-0.5, 0.5, 2 * LANES)
_EIGHT = np.uint64(LANES)


@device_function
def _fingerprint(re, im, base, size):  # type: ignore[no-untyped-def]
    """Overlap of a fixed pseudo-random vector with a block: entry k of the vector is a number of
    the row k // LANES times one of the lane k % LANES. Changes `re` and `im`."""
    x = y = 0.0
    weights = _LANE_WEIGHTS
    word = np.uint64(base) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
    if size < LANES:
        for k in range(size):
            x += re[k] * weights[k] - im[k] * weights[LANES + k]
            y += re[k] * weights[LANES + k] + im[k] * weights[k]
        return x, y
    lane_x, lane_y = lanes(weights, np.uint64(0)), lanes(weights, _EIGHT)
    sum_x, sum_y = splat(0.0), splat(0.0)
    for row in range(size // LANES):
        word = word * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        u = splat(np.float64(np.int64(word >> np.uint64(33))) * 2.0**-31 - 0.5)
        v = splat(np.float64(np.int64(word & np.uint64(0x7FFFFFFF))) * 2.0**-31 - 0.5)
        a, b = lanes(re, np.uint64(LANES * row)), lanes(im, np.uint64(LANES * row))
        c, d = a * lane_x - b * lane_y, a * lane_y + b * lane_x
        sum_x = sum_x + c * u - d * v
        sum_y = sum_y + c * v + d * u
    return _lane_sums(re, im, sum_x, sum_y)


@device_function
def _overlap(re, im, re2, im2, size):  # type: ignore[no-untyped-def]
    """<a|b> of two blocks. Changes `re` and `im`."""
    x = y = 0.0
    if size < LANES:
        for k in range(size):
            x += re[k] * re2[k] + im[k] * im2[k]
            y += re[k] * im2[k] - im[k] * re2[k]
        return x, y
    sum_x, sum_y = splat(0.0), splat(0.0)
    for row in range(size // LANES):
        at = np.uint64(LANES * row)
        a, b, c, d = lanes(re, at), lanes(im, at), lanes(re2, at), lanes(im2, at)
        sum_x = sum_x + a * c + b * d
        sum_y = sum_y + a * d - b * c
    return _lane_sums(re, im, sum_x, sum_y)


@device_function
def _distance(re, im, re2, im2, turn_x, turn_y, size):  # type: ignore[no-untyped-def]
    """Sum |a - turn b|^2 of two blocks. Changes `re` and `im`."""
    x = 0.0
    if size < LANES:
        for k in range(size):
            u = re[k] - turn_x * re2[k] + turn_y * im2[k]
            v = im[k] - turn_x * im2[k] - turn_y * re2[k]
            x += u * u + v * v
        return x
    c, s, sum_x = splat(turn_x), splat(turn_y), splat(0.0)
    for row in range(size // LANES):
        at = np.uint64(LANES * row)
        p, q = lanes(re2, at), lanes(im2, at)
        a = lanes(re, at) - c * p + s * q
        b = lanes(im, at) - c * q - s * p
        sum_x = sum_x + a * a + b * b
    return _lane_sums(re, im, sum_x, splat(0.0))[0]


@device_function
def _lane_sums(re, im, sum_x, sum_y):  # type: ignore[no-untyped-def]
    """Sums over the lanes, by the first entries of two arrays."""
    store(re, np.uint64(0), sum_x)
    store(im, np.uint64(0), sum_y)
    x = y = 0.0
    for lane in range(LANES):
        x += re[lane]
        y += im[lane]
    return x, y


@kernel("BlockSum AMPLITUDES AMPLITUDES I64 INT INT REALS REALS2", group="deferred")
def reduce_kernel(item, reals, singles, reals2, singles2, places, first, last, scratch, sums):  # type: ignore[no-untyped-def]
    """Fill rows first .. last - 1 of `sums`; `scratch`: float64 [4 * block]. `places`: index of
    each block in the whole state."""
    what, qubit, turn_x, turn_y = item.what, item.qubit, item.turn.real, item.turn.imag
    size = scratch.size // 4
    re, im = scratch[:size], scratch[size : 2 * size]
    re2, im2 = scratch[2 * size : 3 * size], scratch[3 * size :]
    zero = np.int64(0)
    for block in range(first, last):
        start = block * size
        base = places[block] * size
        load(reals, singles, start, size, re, im, zero)
        x = y = 0.0
        if what == NORM:
            for k in range(size):
                x += re[k] * re[k] + im[k] * im[k]
        elif what == QUBIT_WEIGHTS:
            for k in range(size):
                p = re[k] * re[k] + im[k] * im[k]
                if ((base + k) >> qubit) & 1:
                    y += p
                else:
                    x += p
        elif what == FINGERPRINT:
            x, y = _fingerprint(re, im, base, size)
        else:
            load(reals2, singles2, start, size, re2, im2, zero)
            if what == OVERLAP:
                x, y = _overlap(re, im, re2, im2, size)
            else:
                x = _distance(re, im, re2, im2, turn_x, turn_y, size)
        sums[block, 0] = x
        sums[block, 1] = y


@kernel("AMPLITUDES AMPLITUDES INT INT REAL INT INT INT", group="deferred")
def project_kernel(  # type: ignore[no-untyped-def]
    reals, singles, reals2, singles2, qubit, outcome, factor, move, first, last
):
    """Project pairs first .. last - 1: write the part with the outcome times `factor` into the
    second state. `move`: the qubit ends in |0>, else in the outcome. Both states may be the same
    one."""
    low = (np.int64(1) << qubit) - 1
    target = 0 if move else outcome
    for pair in range(first, last):
        i = ((pair & ~low) << 1) | (pair & low)
        source = 2 * (i | (outcome << qubit))
        kept = 2 * (i | (target << qubit))
        other = 2 * (i | ((1 - target) << qubit))
        if reals.size:
            x, y = reals[source] * factor, reals[source + 1] * factor
            reals2[other] = reals2[other + 1] = 0.0
            reals2[kept], reals2[kept + 1] = x, y
        else:
            x, y = singles[source] * factor, singles[source + 1] * factor
            singles2[other] = singles2[other + 1] = 0.0
            singles2[kept], singles2[kept + 1] = x, y


class Projection(msgspec.Struct, frozen=True):
    """Projection on an outcome of a qubit. `move`: the qubit ends in |0>."""

    qubit: int
    outcome: int
    move: bool


class SortedDraws(msgspec.Struct, frozen=True, eq=False):
    """Ascending uniforms times the norm, for inverse sampling. Those of block b of the whole state
    are values[begins[b] : begins[b + 1]]; edges[b]: the sum of all blocks before."""

    edges: NDArray[np.float64]
    begins: NDArray[np.int64]
    values: NDArray[np.float64]


def block_sums(
    sweeper: BlockExecutor, item: BlockSum, state: State, other: State | None = None
) -> NDArray[np.float64]:
    """Two sums of each block: float64 [blocks, 2]."""
    what, qubit = item.what, item.qubit
    if what == NORM and state.num_qubits > BLOCK_QUBITS:
        return norm_sums(sweeper, state)
    if what == QUBIT_WEIGHTS and state.num_qubits > BLOCK_QUBITS and qubit >= LANE_WIRES:
        return qubit_sums(sweeper, state, qubit)

    unit = min(BLOCK_QUBITS, state.num_qubits)
    second = state if other is None else other
    arrays, places = (*state.arrays, *second.arrays), state.basis_indices
    sums = np.empty((1 << (state.num_qubits - unit), 2))

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 4 << unit)
        reduce_kernel(item, *arrays, places, first, last, scratch, sums)

    sweeper.parallel_for(state.num_qubits, unit, work)
    return sums


def project(
    sweeper: BlockExecutor, state: State, into: State, item: Projection, factor: float
) -> None:
    """Set `into` to the part of `state` with that outcome, times `factor`; see `project_kernel`."""

    into.changed()
    numbers = item.qubit, item.outcome, factor, 1 if item.move else 0

    def work(first: int, last: int, _number: int) -> None:
        project_kernel(*state.arrays, *into.arrays, *numbers, first, last)

    sweeper.parallel_for(state.num_qubits, 1, work)


_ROWS = 1 << (BLOCK_QUBITS - LANE_WIRES)  # rows of a block


def _reals(state: State) -> NDArray[np.floating]:
    return next(each for each in state.arrays if each.size)


def row_norms(sweeper: BlockExecutor, state: State) -> NDArray[np.float64]:
    """The norm of each row: float64 [2**(n - LANE_WIRES)]. Raises Stopped."""
    if state.norms is None:
        result = zeros(1 << (state.num_qubits - LANE_WIRES), np.float64)
        fill, reals = kernels(state).row_norms, _reals(state)

        def work(first: int, last: int, _number: int) -> None:
            fill(reals, first, last, result)

        sweeper.parallel_for(state.num_qubits, LANE_WIRES, work)
        state.norms = result
    return state.norms


def norm_sums(sweeper: BlockExecutor, state: State) -> NDArray[np.float64]:
    """Norm of each block, and 0: float64 [blocks, 2]. Raises Stopped."""
    weights = row_norms(sweeper, state)
    sums = np.empty((1 << (state.num_qubits - BLOCK_QUBITS), 2))

    def work(first: int, last: int, _number: int) -> None:
        add_up(weights, _ROWS, first, last, sums)

    sweeper.parallel_for(state.num_qubits, BLOCK_QUBITS, work)
    return sums


def qubit_sums(sweeper: BlockExecutor, state: State, qubit: int) -> NDArray[np.float64]:
    """Norm of each block where a qubit is 0, and where it is 1: float64 [blocks, 2]. The qubit is a
    bit of the row number. Raises Stopped."""
    weights, places = row_norms(sweeper, state), state.basis_indices
    sums = np.empty((1 << (state.num_qubits - BLOCK_QUBITS), 2))

    def work(first: int, last: int, _number: int) -> None:
        part_up(weights, _ROWS, places, qubit - LANE_WIRES, first, last, sums)

    sweeper.parallel_for(state.num_qubits, BLOCK_QUBITS, work)
    return sums


def locate_in_rows(
    sweeper: BlockExecutor, state: State, draws: SortedDraws, indices: NDArray[np.int64]
) -> None:
    weights = row_norms(sweeper, state)
    locate, reals, places = kernels(state).locate, _reals(state), state.basis_indices
    given = draws.edges, draws.begins, draws.values, indices

    def work(first: int, last: int, _number: int) -> None:
        locate(reals, weights, _ROWS, places, first, last, *given)

    sweeper.parallel_for(state.num_qubits, BLOCK_QUBITS, work)


# Inverse-CDF sampling of basis states, and exact distributions.
#
# Block sums give the block, a scan inside it the index. No array of 2**n probabilities is made.


@kernel("AMPLITUDES I64 INT INT REALS I64 REALS I64 REALS", group="deferred")
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


@kernel("AMPLITUDES I64 INT INT I64 I64 REALS REALS", group="deferred")
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
    sweeper: BlockExecutor, state: State, draws: SortedDraws, indices: NDArray[np.int64]
) -> None:
    """Fill indices[s] with the basis state of draw s, for the draws in this state's blocks."""
    if state.num_qubits > BLOCK_QUBITS:
        locate_in_rows(sweeper, state, draws, indices)
        return
    unit = min(BLOCK_QUBITS, state.num_qubits)
    given = draws.edges, draws.begins, draws.values, indices

    def work(first: int, last: int, number: int) -> None:
        scratch = sweeper.scratch(number, 2 << unit)
        locate_kernel(*state.arrays, state.basis_indices, first, last, *given, scratch)

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
        accumulate_kernel(*state.arrays, places, first, last, wires, within, table, scratch)


def nonzero_outcomes(
    table: NDArray[np.float64], state: State
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Values above the rounding noise of the state's amplitudes, and their probabilities."""
    precision = "double" if state.amplitudes.dtype == np.complex128 else "single"
    values = np.flatnonzero(table > ROUNDING_FLOOR[precision])
    return values, table[values]
