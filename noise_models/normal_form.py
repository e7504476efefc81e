"""Normal form of a channel for trajectories: a unitary, then a mixture of Paulis and a rest.

E(rho) = sum_i p_i P_i V P_i + w R(V) with V = U rho U^+, sum_i p_i + w = 1 and R a channel. The
term that acts is drawn independently of the state, so trajectories draw it before they run; only
the Kraus operator of R is drawn from the state. The unitary is multiplied into a gate.

With the process matrix chi of E after U^-1 in the Pauli basis, chi - diag(p) must stay positive
semidefinite. The identity has the largest possible weight, p_0 = 1 / (chi^-1)_00 (Horn and Johnson,
Matrix Analysis, theorem 7.7.7). The sum of the other weights is then the largest possible: minimum
trace factor analysis (Bentler, Woodward, Psychometrika 45, 1980), solved per block of chi, in
closed form for two Paulis and with a logarithmic barrier for more (Boyd, Vandenberghe, Convex
Optimization, chapter 11).
"""

from __future__ import annotations

import functools

import msgspec
import numpy as np
from numpy.typing import NDArray

from noise_models.channel import Channel, from_kraus, from_paulis, from_unitary, paulis

_ROUNDING = 1e-15  # rounding error of the entries of a process matrix
_LEAST = 1e-13  # smaller weights count as 0
_SAME = 1e-13  # a unitary with a smaller deviation from the identity is omitted
_SUPPORT = 1e-24  # smaller squared components of a null vector count as 0
_GAP = 1e-4  # relative gap between a sum of weights and the largest one
_TIE = 1e-6  # relative difference of pivots that counts as rounding

_Chi = NDArray[np.complex128]
_Weights = NDArray[np.float64]


class NormalForm(msgspec.Struct, frozen=True, eq=False):
    """Channel as a unitary, which acts first, and a mixture of Paulis and another channel R."""

    unitary: NDArray[np.complex128] | None  # [2^n, 2^n]; None: the identity
    probabilities: _Weights  # [4^n] of the Paulis, in the order of `channel`
    rest: NDArray[np.complex128]  # [k, 2^n, 2^n]: Kraus operators of R; none where w is 0
    rest_weight: float

    @property
    def leading_probability(self) -> float:
        """Probability of the likeliest term in the maximally mixed state."""
        result = float(self.probabilities.max())
        if len(self.rest):
            squares = np.square(np.abs(self.rest)).sum(axis=(1, 2)) / self.rest.shape[1]
            result = max(result, self.rest_weight * float(squares.max()))
        return result

    @property
    def channel(self) -> Channel:
        """Return the channel with this normal form."""
        size = len(self.probabilities)
        result = np.zeros((size, size))
        if self.rest_weight < 1.0:
            mixture = self.probabilities / self.probabilities.sum()
            result += (1.0 - self.rest_weight) * from_paulis(mixture).ptm
        if self.rest_weight > 0.0:
            result += self.rest_weight * from_kraus(list(self.rest)).ptm
        return Channel(result if self.unitary is None else result @ from_unitary(self.unitary).ptm)


def normal_form(channel: Channel) -> NormalForm:
    """Return the normal form of a channel on one or two qubits; equal channels are computed once.
    The unitary is the one nearest to the leading Kraus operator, if it increases the weight of the
    identity; otherwise there is none."""
    return _cached(channel.ptm.shape[0], channel.ptm.tobytes())


@functools.lru_cache(maxsize=4096)
def _cached(size: int, values: bytes) -> NormalForm:
    channel = Channel(np.frombuffer(values, np.float64).reshape(size, size))
    if channel.is_pauli:
        probabilities = np.maximum(channel.pauli_probabilities, 0.0)
        side = 1 << channel.num_qubits
        none = np.zeros((0, side, side), np.complex128)
        return NormalForm(None, probabilities / probabilities.sum(), none, 0.0)
    left, _, right = np.linalg.svd(channel.kraus()[0])
    unitary = np.asarray(left @ right, np.complex128)
    chi = _process_matrix(channel)
    trace = np.trace(unitary)
    unitary = unitary * (abs(trace) / trace if trace else 1.0)  # the global phase is free
    if np.abs(unitary - np.eye(len(unitary))).max() > _SAME:
        turned = _process_matrix(Channel(channel.ptm @ from_unitary(unitary).ptm.T))
        if identity_weight(turned) > identity_weight(chi) + _LEAST:
            return _rest_of(turned, pauli_weights(turned), unitary)
    return _rest_of(chi, pauli_weights(chi), None)


def norm_based_form(channel: Channel) -> NormalForm:
    """Return the form with the same unitary and all else in R: no term is independent of the state.
    If `normal_form` gives the identity little weight, the first Kraus operator of this form may
    have far more: trajectories without a jump then share their state."""
    return _norm_based(channel.ptm.shape[0], channel.ptm.tobytes())


@functools.lru_cache(maxsize=1024)
def _norm_based(size: int, values: bytes) -> NormalForm:
    channel = Channel(np.frombuffer(values, np.float64).reshape(size, size))
    unitary = normal_form(channel).unitary
    if unitary is not None:
        channel = Channel(channel.ptm @ from_unitary(unitary).ptm.T)
    return _rest_of(_process_matrix(channel), np.zeros(size), unitary)


def _process_matrix(channel: Channel) -> _Chi:
    """Return chi of E(rho) = sum_ij chi_ij P_i rho P_j, [4^n, 4^n], of trace 1."""
    side = 1 << channel.num_qubits
    # Columns: the Choi vector of each Pauli, of norm 1; index 2^n * input + output.
    vectors = paulis(channel.num_qubits).transpose(0, 2, 1).reshape(side * side, -1).T
    return np.asarray(vectors.conj().T @ channel.choi @ vectors / side)


def _rest_of(chi: _Chi, weights: _Weights, unitary: NDArray[np.complex128] | None) -> NormalForm:
    """Return the normal form with these Pauli weights."""
    basis = paulis(1 if len(chi) == 4 else 2)
    rest = 1.0 - float(weights.sum())
    if rest < _LEAST:
        none = np.zeros((0, *basis.shape[1:]), np.complex128)
        return NormalForm(unitary, weights / weights.sum(), none, 0.0)
    operators = np.tensordot(_factors(chi - np.diag(weights)), basis, (0, 0))
    # Division by a small rest magnifies rounding: restore sum K^+ K = 1.
    values, kets = np.linalg.eigh((operators.conj().transpose(0, 2, 1) @ operators).sum(axis=0))
    inverse_root = (kets / np.sqrt(values)) @ kets.conj().T
    return NormalForm(unitary, weights, np.ascontiguousarray(operators @ inverse_root), rest)


def _factors(matrix: _Chi) -> NDArray[np.complex128]:
    """Return L with L L^+ = a positive semidefinite matrix, by pivoted Cholesky: [n, rank]. The
    first of equal pivots is used, so that rounding does not select the decomposition."""
    left = matrix.copy()
    columns = []
    for _ in range(len(matrix)):
        diagonal = left.diagonal().real
        largest = diagonal.max()
        if largest <= _ROUNDING:
            break
        pivot = int(np.argmax(diagonal >= largest * (1.0 - _TIE)))
        column = left[:, pivot] / np.sqrt(diagonal[pivot])
        columns.append(column)
        left = left - np.outer(column, column.conj())
    return np.array(columns).T


def identity_weight(chi: _Chi) -> float:
    """Return the largest p_0 with chi - p_0 e_0 e_0^+ >= 0."""
    values, kets = np.linalg.eigh(chi)
    return 1.0 / float((np.abs(kets[0]) ** 2 / np.maximum(values, 1e-17)).sum())


def pauli_weights(chi: _Chi) -> _Weights:
    """Return weights p >= 0 with chi - diag(p) >= 0: the largest p_0, then the largest sum."""
    result = np.zeros(len(chi))
    left = chi.copy()
    first = _blocks(chi)[0]
    result[0] = identity_weight(chi[np.ix_(first, first)])
    left[0, 0] -= result[0]
    problems: dict[int, list[tuple[NDArray[np.intp], _Chi]]] = {}
    for block in _blocks(chi):
        for indices, matrix in _regular_parts(left[np.ix_(block, block)], block > 0):
            problems.setdefault(len(indices), []).append((block[indices], matrix))
    for size, group in problems.items():
        matrices = np.array([matrix for _, matrix in group])
        solved = _largest_pairs(matrices) if size <= 2 else _barrier(matrices)
        for (indices, _), weights in zip(group, solved, strict=True):
            result[indices] += weights
    result[result < _LEAST] = 0.0
    return result


def _blocks(matrix: _Chi) -> list[NDArray[np.intp]]:
    """Return the indices of each diagonal block, sorted; the block of index 0 is the first."""
    linked = np.abs(matrix) > _ROUNDING
    np.fill_diagonal(linked, True)
    left = np.ones(len(matrix), np.bool_)
    results = []
    while left.any():
        block = np.zeros(len(matrix), np.bool_)
        grown = np.zeros(len(matrix), np.bool_)
        grown[int(np.argmax(left))] = True
        while (grown != block).any():
            block = grown
            grown = np.asarray(linked[block].any(axis=0))
        results.append(np.flatnonzero(block))
        left &= ~block
    return results


def _regular_parts(matrix: _Chi, is_open: NDArray[np.bool_]) -> list[tuple[NDArray[np.intp], _Chi]]:
    """Return blocks (indices, positive definite matrix) of the maximization over the open indices.
    The problem is to maximize the sum of d >= 0 with matrix - diag(d) >= 0. An index in the support
    of a null vector has d = 0 too. The other indices have the Schur complement as their matrix."""
    values, kets = np.linalg.eigh(matrix)
    null = kets[:, values < 10.0 * _ROUNDING]
    is_free = is_open & ((np.abs(null) ** 2).sum(axis=1) < _SUPPORT)
    if not is_free.any():
        return []
    free, fixed = np.flatnonzero(is_free), np.flatnonzero(~is_free)
    regular = matrix[np.ix_(free, free)]
    if fixed.size:
        across = matrix[np.ix_(free, fixed)]
        inverse = np.linalg.pinv(matrix[np.ix_(fixed, fixed)], rcond=1e-12, hermitian=True)
        regular = regular - across @ inverse @ across.conj().T
    return [(free[block], regular[np.ix_(block, block)]) for block in _blocks(regular)]


def _largest_pairs(matrices: _Chi) -> _Weights:
    """Return the largest d of matrices [k, n, n] with n = 1 or 2. The rest (x, y) of the diagonal
    has x y >= |c|^2 for the off-diagonal c, and the least sum x + y."""
    diagonal = matrices.diagonal(axis1=1, axis2=2).real
    if matrices.shape[1] == 1:
        return diagonal
    across = np.abs(matrices[:, :1, 1])
    least = diagonal.min(axis=1, keepdims=True)
    one_sided = np.where(diagonal > least, diagonal - across * across / least, 0.0)
    return np.where(across <= least, diagonal - across, one_sided)


def _barrier(matrices: _Chi) -> _Weights:
    """Return the largest d of matrices [k, n, n], by Newton's method on a logarithmic barrier: [k,
    n]. The method maximizes sum d / t + log det(M - diag(d)) + sum log d for t -> 0; the sum of d
    is then at most 2 n t below its largest value."""
    size = matrices.shape[1]
    diagonal = matrices.diagonal(axis1=1, axis2=2).real
    scale = diagonal.max(axis=1)[:, None]
    scaled = matrices / scale[:, :, None]
    on = np.arange(size)
    result = np.repeat(0.5 * np.linalg.eigvalsh(scaled)[:, :1], size, axis=1)
    least = _GAP * float((diagonal / scale).sum(axis=1).min()) / (2 * size)
    barrier = 1.0
    while barrier > least:
        barrier = max(barrier * 0.05, 0.99 * least)
        for _ in range(100):
            rest = scaled.copy()
            rest[:, on, on] -= result
            inverse = np.linalg.inv(rest)
            gradient = 1.0 / barrier - inverse[:, on, on].real + 1.0 / result
            curvature = np.abs(inverse) ** 2
            curvature[:, on, on] += result**-2.0
            step = np.linalg.solve(curvature, gradient[:, :, None])[:, :, 0]
            decrement = np.sqrt((gradient * step).sum(axis=1))[:, None]
            result = result + step / (
                1.0 + decrement
            )  # feasible, since the barrier is self-concordant
            if decrement.max() < 0.3:
                break
    return np.asarray(result * scale)
