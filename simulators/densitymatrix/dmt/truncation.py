"""Density matrix truncation of a bond: what it keeps exactly, and what it cuts off.

A bond of a density operator is cut as a matrix m between the Pauli coefficients of its two sides.
With l and r the functionals that trace the rest of each side, the rows l x {I, X, Y, Z} and the
columns r x {I, X, Y, Z} hold the trace, all operators of the two sites beside the cut, and
their products with anything on the other side. They are kept; of the remainder the disconnected
part, whose two sides are independent, is kept as well, and the rest is cut by its singular values
(White, Zaletel, Mong, Refael, Phys. Rev. B 97, 035127, 2018).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

PROTECTED = 8  # values of a bond that are not free: rows and columns
LEAST_BOND = 16  # with which there is room for as many free ones
_NEGLIGIBLE = 1e-10  # relative size of a vector that adds no direction
_SMALL = 160  # matrices of this side are decomposed as a whole
_EXTRA, _POWERS = 10, 2  # of randomized decompositions (Halko, Martinsson, Tropp, 2011)


class Cut(NamedTuple):
    """m is about `left @ right`; the columns of `left` are orthonormal."""

    left: Matrix  # [rows, bond]
    right: Matrix  # [bond, columns]
    lost: float  # squares that were cut off, relative to those of m


def site_after(trace: Matrix) -> Matrix:
    """l x {I, X, Y, Z}, of rows [bond, Pauli]: [4 bond, 4]."""
    result: Matrix = np.multiply.outer(trace, np.eye(4)).reshape(-1, 4)
    return result


def site_before(trace: Matrix) -> Matrix:
    """{I, X, Y, Z} x r, of columns [Pauli, bond]: [4 bond, 4]."""
    result: Matrix = np.multiply.outer(np.eye(4), trace).transpose(0, 2, 1).reshape(-1, 4)
    return result


def cut(m: Matrix, left: Matrix, right: Matrix, bond: int) -> Cut:
    """Cut a matrix to `bond`. `left` [rows, 4]: l x {I, X, Y, Z}; `right` [columns, 4]: the same
    of r."""
    if min(m.shape) <= bond:
        q, rest = np.linalg.qr(m)
        return Cut(q, rest, 0.0)
    total = float(np.vdot(m, m))
    rows, columns = _basis(left), _basis(right)
    kept_rows = rows.T @ m
    kept_columns = m @ columns
    kept_columns -= rows @ (rows.T @ kept_columns)
    rest = m - rows @ kept_rows
    rest -= kept_columns @ columns.T
    apart = _disconnected(m, left[:, 0], right[:, 0], rows, columns, total)
    if apart is not None:
        rest -= np.outer(*apart)
    u = _dominant(rest, bond - rows.shape[1] - columns.shape[1])
    free = u.T @ rest
    lost = max(0.0, float(np.vdot(rest, rest) - np.vdot(free, free)))
    q = np.linalg.qr(np.hstack([rows, kept_columns, u]))[0]
    remainder = (q.T @ rows) @ kept_rows + (q.T @ kept_columns) @ columns.T + (q.T @ u) @ free
    if apart is not None:
        remainder += np.outer(q.T @ apart[0], apart[1])
    return Cut(q, remainder, lost / total if total else 0.0)


def _disconnected(
    m: Matrix, left: Matrix, right: Matrix, rows: Matrix, columns: Matrix, total: float
) -> tuple[Matrix, Matrix] | None:
    """Factors of the part of m whose sides are independent, beyond what is kept; None where the
    trace is so small, as on loops, that it would be large."""
    trace = float(left @ m @ right)
    u, v = m @ right, left @ m
    u -= rows @ (rows.T @ u)
    v -= columns @ (columns.T @ v)
    if float(np.linalg.norm(u) * np.linalg.norm(v)) >= abs(trace) * total**0.5:
        return None
    return u, v / trace


def _basis(vectors: Matrix) -> Matrix:
    """Orthonormal basis of the columns."""
    q, r = np.linalg.qr(vectors)
    sizes = np.abs(np.diag(r))
    result: Matrix = q[:, sizes > _NEGLIGIBLE * max(sizes.max(initial=0.0), 1e-300)]
    return result


@functools.lru_cache(maxsize=16)
def _start(rows: int, columns: int) -> Matrix:
    """Random directions."""
    return np.random.default_rng(0).standard_normal((rows, columns))


def _dominant(m: Matrix, count: int) -> Matrix:
    """Left singular vectors [rows, count] of the largest singular values. Those of values below
    1e-8 of the largest are not told apart."""
    side = min(m.shape)
    if side > _SMALL and 2 * count <= side:
        q = np.linalg.qr(m @ _start(m.shape[1], count + _EXTRA))[0]
        for _ in range(_POWERS):
            q = np.linalg.qr(m @ (m.T @ q))[0]
        reduced = q.T @ m
        vectors = q @ np.linalg.eigh(reduced @ reduced.T)[1]
    else:
        vectors = np.linalg.eigh(m @ m.T)[1]
    result: Matrix = vectors[:, -count:]
    return result
