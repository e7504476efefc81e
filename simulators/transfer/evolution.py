"""Pauli coefficients of a state and their derivatives under one- and two-qubit matrices, compiled.

`data` is float64 [4^n, width]: column 0 is the vector v, column c its derivative with respect to
one parameter; the width is 1 or a multiple of eight. The digit of qubit q, in base 4, has the
stride 4^q. A matrix K changes it to K v, and a derivative dv to K dv + dK v. The consecutive
matrices of one qubit, a chain, are multiplied first, with their derivatives.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from simulators.compiler.kernel import I64, INTS2, REALS, REALS3, device_function, kernel, record
from simulators.compiler.simd import LANES, add_product, load, splat, store

NUMBER, LOW, HIGH = range(3)  # columns of the rows of a program
ROW, COLUMN, PARAM = range(3)  # columns of the entries of pair matrices
CHUNK = 256  # most numbers of a piece of `data` that is transformed at once, or one row of it
_PLACES, _PIECES = 17, 16  # begin of the places of pieces, and of the pieces, in `ChainScratch`
_BLOCK = 4 * LANES


@record
class QubitMatrices(NamedTuple):
    """Matrices of one qubit, with their derivatives."""

    values: REALS3  # [matrices, 1 + k, 16]
    params: INTS2  # [matrices, k]: -1 where there is no parameter


@record
class PairMatrices(NamedTuple):
    """Nonzero entries of the matrices of pair chains: those of chain c are first[2 c] ..
    first[2 c + 1] - 1, sorted by row; those of its derivatives follow up to first[2 c + 2]."""

    first: I64  # [1 + 2 chains]
    entries: INTS2  # [entries, 3]: ROW, COLUMN, PARAM
    values: REALS  # [entries]


@record
class ChainScratch(NamedTuple):
    """Chains of all qubits, and room for pieces of the data."""

    chains: REALS3  # [qubits, 1 + m, 16], for the m parameters of one-qubit channels
    chain_columns: INTS2  # [qubits, 1 + m]: number of derivatives, and their columns in the data
    entries: INTS2  # [16, 3]
    places: I64  # begins of the entries of each piece, places of the pieces
    reals: REALS  # a matrix, pieces of eight numbers
    results: REALS  # [16 * max(CHUNK, width)]

    @classmethod
    def of(cls, num_qubits: int, num_params: int, width: int) -> ChainScratch:
        """Allocate; `num_params`: of one-qubit channels."""
        return cls(
            np.zeros((num_qubits, 1 + num_params, 16)),
            np.zeros((num_qubits, 1 + num_params), np.int64), np.zeros((16, 3), np.int64),
            np.zeros(_PLACES + _PIECES, np.int64), np.zeros(_PIECES + 16 * LANES),
            np.zeros(16 * max(CHUNK, width)),
        )  # fmt: skip


@device_function
def _restart(scratch, q):  # type: ignore[no-untyped-def]
    """Make the chain of a qubit the identity."""
    chains, chain_columns = scratch.chains, scratch.chain_columns
    chain_columns[q, 0] = -1
    for k in range(16):
        chains[q, 0, k] = 1.0 if k % 5 == 0 else 0.0


@device_function
def _add_product(left, a, x, right, b, y, out):  # type: ignore[no-untyped-def]
    """out = left[a, x] @ right[b, y], matrices [4, 4]."""
    for i in range(4):
        for j in range(4):
            total = 0.0
            for k in range(4):
                total += left[a, x, 4 * i + k] * right[b, y, 4 * k + j]
            out[4 * i + j] = total


@device_function
def _multiply(scratch, q, matrices, number, columns):  # type: ignore[no-untyped-def]
    """Multiply the chain of a qubit by one of `QubitMatrices`."""
    chains, chain_columns, reals = scratch.chains, scratch.chain_columns, scratch.reals
    values, params = matrices.values, matrices.params
    size = max(chain_columns[q, 0], 0)
    for slot in range(1, size + 1):
        _add_product(values, number, 0, chains, q, slot, reals)
        for k in range(16):
            chains[q, slot, k] = reals[k]
    for own in range(params.shape[1]):
        param = params[number, own]
        if param < 0:
            continue
        slot = 1
        while slot <= size and chain_columns[q, slot] != columns[param]:
            slot += 1
        if slot > size:
            size = slot
            chain_columns[q, slot] = columns[param]
            for k in range(16):
                chains[q, slot, k] = 0.0
        _add_product(values, number, 1 + own, chains, q, 0, reals)
        for k in range(16):
            chains[q, slot, k] += reals[k]
    _add_product(values, number, 0, chains, q, 0, reals)
    for k in range(16):
        chains[q, 0, k] = reals[k]
    chain_columns[q, 0] = size


@device_function
def _chunk(width, qubit):  # type: ignore[no-untyped-def]
    """Numbers that are transformed at once: a row of `data`, times a power of four, which are next
    to each other for all digits of lower qubits."""
    result = np.int64(width)
    for _ in range(qubit):
        if 4 * result > CHUNK:
            break
        result *= 4
    return result


@device_function
def _combine(data, chunk, size, begins, entries, values, shift, results):  # type: ignore[no-untyped-def]
    """Write combinations of `size` pieces of `data` into `results` [size * chunk]; the chunk is a
    multiple of eight. begins[i] : begins[i + 1] are the entries of piece i, values[shift + e] the
    value of entry e."""
    for i in range(size):
        c = np.int64(0)
        while c + _BLOCK <= chunk:  # four sums at once: one alone waits for each product
            x = y = z = w = splat(0.0)
            for e in range(begins[i], begins[i + 1]):
                place = begins[_PLACES + entries[e, COLUMN]] + c
                factor = splat(values[shift + e])
                x = add_product(factor, load(data, place), x)
                y = add_product(factor, load(data, place + LANES), y)
                z = add_product(factor, load(data, place + 2 * LANES), z)
                w = add_product(factor, load(data, place + 3 * LANES), w)
            store(results, i * chunk + c, x)
            store(results, i * chunk + c + LANES, y)
            store(results, i * chunk + c + 2 * LANES, z)
            store(results, i * chunk + c + 3 * LANES, w)
            c += _BLOCK
        while c + LANES <= chunk:
            x = splat(0.0)
            for e in range(begins[i], begins[i + 1]):
                place = begins[_PLACES + entries[e, COLUMN]] + c
                x = add_product(splat(values[shift + e]), load(data, place), x)
            store(results, i * chunk + c, x)
            c += LANES


@device_function
def _put(data, chunk, size, begins, results):  # type: ignore[no-untyped-def]
    """Copy `results` into their places."""
    for i in range(size):
        for c in range(chunk):
            data[begins[_PLACES + i] + c] = results[i * chunk + c]


@device_function
def _spread(number, qubit):  # type: ignore[no-untyped-def]
    """Insert a digit 0 for a qubit."""
    return number >> 2 * qubit << 2 * qubit + 2 | number & ((np.int64(1) << 2 * qubit) - 1)


@device_function
def _transform_lanes(data, size, low, high, begins, entries, values, shift, reals, results):  # type: ignore[no-untyped-def]
    """Transform a vector without derivatives, eight groups of `size` numbers at once: those of low
    qubits are too close to each other for `_combine`. high: -1 for one qubit."""
    groups = data.size // size
    a, b = np.int64(1) << 2 * low, np.int64(1) << 2 * max(high, 0)
    for begin in range(0, groups, LANES):
        lanes = min(LANES, groups - begin)
        for is_end in range(2):
            for lane in range(lanes):
                at = np.int64(begin + lane)
                if high >= 0:
                    at = _spread(_spread(at, min(low, high)), max(low, high))
                else:
                    at = _spread(at, low)
                for i in range(size):
                    place = at + (i & 3) * a + (i >> 2) * b
                    if is_end:
                        data[place] = results[i * LANES + lane]
                    else:
                        reals[_PIECES + i * LANES + lane] = data[place]
            if not is_end:
                for i in range(size):
                    begins[_PLACES + i] = _PIECES + i * LANES
                _combine(reals, LANES, size, begins, entries, values, shift, results)


@device_function
def _end_chain(data, width, q, scratch):  # type: ignore[no-untyped-def]
    """Multiply the digit of a qubit by its chain."""
    chains, chain_columns, entries = scratch.chains, scratch.chain_columns, scratch.entries
    places, reals, results = scratch.places, scratch.reals, scratch.results
    if chain_columns[q, 0] < 0:
        return
    e = np.int64(0)
    for i in range(4):
        places[i] = e
        for j in range(4):
            if chains[q, 0, 4 * i + j] != 0.0:
                entries[e, COLUMN] = j
                reals[e] = chains[q, 0, 4 * i + j]
                e += 1
    places[4] = e
    stride, chunk = np.int64(width) << (2 * q), _chunk(width, q)
    if chunk < LANES:
        _transform_lanes(
            data, 4, q, np.int64(-1), places, entries, reals, np.int64(0), reals, results
        )
        _restart(scratch, q)
        return
    for base in range(0, data.size, 4 * stride):
        for at in range(base, base + stride, chunk):
            for i in range(4):
                places[_PLACES + i] = at + i * stride
            _combine(data, chunk, 4, places, entries, reals, np.int64(0), results)
            for slot in range(1, chain_columns[q, 0] + 1):
                column = chain_columns[q, slot]
                for row in range(0, chunk, width):
                    for i in range(4):
                        total = 0.0
                        for j in range(4):
                            value = data[places[_PLACES + j] + row]
                            total += chains[q, slot, 4 * i + j] * value
                        results[i * chunk + row + column] += total
            _put(data, chunk, 4, places, results)
    _restart(scratch, q)


@device_function
def _apply_pair(data, width, pairs, columns, number, low, high, scratch):  # type: ignore[no-untyped-def]
    """Multiply the digits of two qubits by the matrix of a chain of pairs."""
    first, entries, values = pairs.first, pairs.entries, pairs.values
    places, results = scratch.places, scratch.results
    begin, middle, end = first[2 * number], first[2 * number + 1], first[2 * number + 2]
    e = begin
    for i in range(17):
        while e < middle and entries[e, ROW] < i:
            e += 1
        places[i] = e
    a, b = np.int64(width) << (2 * low), np.int64(width) << (2 * high)
    small, large, chunk = min(a, b), max(a, b), _chunk(width, min(low, high))
    if chunk < LANES:
        zero = np.int64(0)
        reals = scratch.reals
        _transform_lanes(data, 16, low, high, places, entries, values, zero, reals, results)
        return
    for upper in range(0, data.size, 4 * large):
        for inner in range(upper, upper + large, 4 * small):
            for at in range(inner, inner + small, chunk):
                for i in range(16):
                    places[_PLACES + i] = at + (i & 3) * a + (i >> 2) * b
                _combine(data, chunk, 16, places, entries, values, np.int64(0), results)
                for e in range(middle, end):
                    place = entries[e, ROW] * chunk + columns[entries[e, PARAM]]
                    origin = places[_PLACES + entries[e, COLUMN]]
                    for row in range(0, chunk, width):
                        results[place + row] += values[e] * data[origin + row]
                _put(data, chunk, 16, places, results)


@kernel(
    "INTS2 QubitMatrices QubitMatrices PairMatrices I64 ChainScratch INT REALS", group="transfer"
)
def evolve(rows, constants, channels, pairs, columns, scratch, width, data):  # type: ignore[no-untyped-def]
    """Apply all rows of a program to `data` [4^n * width]. columns: column of each parameter in
    `data`."""
    num_qubits = scratch.chains.shape[0]
    for q in range(num_qubits):
        _restart(scratch, q)
    for k in range(rows.shape[0]):
        number, low, high = rows[k, NUMBER], rows[k, LOW], rows[k, HIGH]
        if high >= 0:
            for q in (low, high):
                _end_chain(data, width, q, scratch)
            _apply_pair(data, width, pairs, columns, number, low, high, scratch)
        elif number >= 0:
            _multiply(scratch, low, channels, number, columns)
        else:
            _multiply(scratch, low, constants, ~number, columns)
    for q in range(num_qubits):
        _end_chain(data, width, q, scratch)


# Matrices with their first derivatives: dual numbers with matrix entries.
#
# The derivative of a product is d(B A) = dB A + B dA. (Griewank and Walther, Evaluating
# Derivatives, second edition, section 3.1: forward mode.)


class DualMatrix(msgspec.Struct, frozen=True, eq=False):
    """Matrix, and its derivative with respect to each of `params`. `values` is float64 [1 + params,
    rows, columns]; entry 0 is the matrix itself. `params` are numbers of parameters, ascending."""

    values: NDArray[np.float64]
    params: tuple[int, ...] = ()

    def after(self, first: DualMatrix) -> DualMatrix:
        """Product of `first` followed by this matrix."""
        mine, its = self.values, first.values
        if not first.params:
            return DualMatrix(mine @ its[0], self.params)
        if not self.params:
            return DualMatrix(mine[0] @ its, first.params)
        params, where_mine, where_its = _union(self.params, first.params)
        result = np.zeros((1 + len(params), mine.shape[1], its.shape[2]))
        result[where_mine] = mine @ its[0]
        result[where_its] += mine[0] @ its[1:]
        return DualMatrix(result, params)

    def tensor(self, low: DualMatrix) -> DualMatrix:
        """Kronecker product of this matrix, the high digit, and `low`."""
        params, where_high, where_low = _union(self.params, low.params)
        high, its = self.values, low.values
        rows, columns = high.shape[1] * its.shape[1], high.shape[2] * its.shape[2]
        result = np.zeros((1 + len(params), rows, columns))
        result[where_high] = _kron(high, its[:1])
        if low.params:
            result[where_low] += _kron(high[:1], its[1:])
        return DualMatrix(result, params)


def constant(matrix: NDArray[np.float64]) -> DualMatrix:
    """Matrix without parameters."""
    return DualMatrix(np.ascontiguousarray(matrix, np.float64)[None])


def _kron(high: NDArray[np.float64], low: NDArray[np.float64]) -> NDArray[np.float64]:
    result = high[:, :, None, :, None] * low[:, None, :, None, :]
    rows = high.shape[1] * low.shape[1]
    return np.asarray(result.reshape(len(result), rows, -1))


@functools.lru_cache(maxsize=65_536)
def _union(
    left: tuple[int, ...], right: tuple[int, ...]
) -> tuple[tuple[int, ...], NDArray[np.int64], NDArray[np.int64]]:
    """Union of the parameters, and the places of the entries of `left` (with entry 0) and of
    `right` (without) in it."""
    params = tuple(sorted({*left, *right}))
    place = {param: 1 + k for k, param in enumerate(params)}
    return (
        params,
        np.array([0, *(place[param] for param in left)]),
        np.array([place[param] for param in right], np.int64),
    )
