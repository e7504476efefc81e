"""Matrices with their first derivatives: dual numbers with matrix entries.

The derivative of a product is d(B A) = dB A + B dA. (Griewank and Walther, Evaluating Derivatives,
second edition, section 3.1: forward mode.)
"""

from __future__ import annotations

import functools

import msgspec
import numpy as np
from numpy.typing import NDArray


class DualMatrix(msgspec.Struct, frozen=True, eq=False):
    """Matrix, and its derivative with respect to each of `params`.

    `values` is float64 [1 + params, rows, columns]; entry 0 is the matrix itself. `params` are
    numbers of parameters, ascending.
    """

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
