"""Density operator of qubits on a line: a matrix product operator in canonical form.

Sweeps go along the line and back. In each, the maps of neighbours act in order as far as those
before them are done. Traces of the two sides of a cut are exact, because what has not acted yet
preserves the trace. Maps on one qubit that are no isometries, such as projections, end the
canonical form; it is made anew before the next maps on pairs.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from simulators.densitymatrix.dmt.pair_maps import Maps, Matrix, PairComponent
from simulators.densitymatrix.dmt.truncation import cut, site_after, site_before

Draw = Callable[[int], NDArray[np.float64]]  # uniform number of each shot, for a qubit
_BEGIN = np.array([1.0, 0.0, 0.0, 1.0]).reshape(1, 4, 1) / np.sqrt(2.0)  # |0>
_BITS = np.array([[0.5, 0.0, 0.0, 0.5], [0.5, 0.0, 0.0, -0.5]])  # of I, X, Y, Z
_LEAST = 1e-300


class LineOperator:
    """Matrix product density operator [bond, Pauli, bond] of a component."""

    def __init__(self, component: PairComponent, bond: int) -> None:
        self._order = list(component.order)
        self._most = bond
        self._sites = [_BEGIN] * len(self._order)
        self._is_canonical = True
        self.bond = 1
        self.lost = 0.0  # sum of the relative squares that were cut off

    @property
    def memory_bytes(self) -> int:
        return sum(site.nbytes for site in self._sites)

    def copy(self) -> LineOperator:
        """Return an operator that changes by itself; no array is changed in place."""
        result = copy.copy(self)
        result._order, result._sites = list(self._order), list(self._sites)
        return result

    def apply(self, q: int, matrix: Matrix) -> None:
        """Apply a map [4, 4] on a qubit."""
        at = self._order.index(q)
        site = np.einsum("pq,lqr->lpr", matrix, self._sites[at])
        self._sites[at] = site / max(float(np.abs(site).max()), _LEAST)
        self._is_canonical = False

    def evolve(self, maps: Maps, advance: Callable[[], None]) -> None:
        """Apply the maps on qubits of the component. `advance`: called after each on a pair."""
        own = set(self._order)
        queues: dict[int, deque[int]] = {q: deque() for q in self._order}
        left = 0
        for number, pair in enumerate(maps.pairs):
            if pair.low in own:
                left += 1
                queues[pair.low].append(number)
                queues[pair.high].append(number)
        if left and not self._is_canonical:
            self._sweep(maps, {q: deque() for q in own}, advance)
            self._turn()
        while left:
            left -= self._sweep(maps, queues, advance)
            self._turn()
        for at, q in enumerate(self._order):
            self._sites[at] = np.einsum("pq,lqr->lpr", maps.last[q], self._sites[at])
        self._is_canonical = False

    def _turn(self) -> None:
        """Look at the line from its other end."""
        self._sites = [np.ascontiguousarray(t.transpose(2, 1, 0)) for t in self._sites[::-1]]
        self._order.reverse()

    def _sweep(self, maps: Maps, queues: dict[int, deque[int]], advance: Callable[[], None]) -> int:
        """Apply the maps that may act; returns their number. The tensors before the present one
        are isometries from the left, those after it from the right."""
        order, sites, count = self._order, self._sites, 0
        right = self._right()
        trace, carry = np.ones(1), np.ones((1, 1))
        for at, q in enumerate(order):
            site = np.tensordot(carry, sites[at], (1, 0))
            if at + 1 == len(order):
                sites[at] = site / np.linalg.norm(site)
                break
            waiting, other = queues[q], queues[order[at + 1]]
            low, high = site.shape[0], sites[at].shape[2]
            if waiting and other and waiting[0] == other[0]:
                pair = maps.pairs[waiting.popleft()]
                other.popleft()
                full = pair.full if pair.low == q else pair.full.transpose(1, 0, 3, 2)
                after = sites[at + 1]
                high = after.shape[2]
                m = site.reshape(low * 4, -1) @ after.reshape(after.shape[0], -1)
                m = np.matmul(full.reshape(16, 16), m.reshape(low, 16, high))
                m = m.reshape(low * 4, 4 * high)
                found = cut(m, site_after(trace), site_before(right[at + 2]), self._most)
                self.lost += found.lost
                self.bond = max(self.bond, found.left.shape[1])
                sites[at] = found.left.reshape(low, 4, -1)
                rest = found.right / np.linalg.norm(found.right)
                sites[at + 1], carry = rest.reshape(-1, 4, high), np.eye(len(rest))
                count += 1
                advance()
            else:
                isometry, carry = np.linalg.qr(site.reshape(low * 4, high))
                sites[at] = isometry.reshape(low, 4, -1)
            trace = _unit(trace @ sites[at][:, 0])
        return count

    def _right(self) -> list[Matrix]:
        """Functionals that trace the sites from each one on, of unit length."""
        right = [np.ones(1)]
        for site in self._sites[::-1]:
            right.append(_unit(site[:, 0] @ right[-1]))
        return right[::-1]

    def sample(self, shots: int, draw: Draw, bits: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Draw bits [shots, qubits] of the component, site by site; returns the probabilities
        below zero that were clipped in each shot."""
        right = self._right()
        rows, clipped = np.ones((shots, 1)), np.zeros(shots)
        for at, q in enumerate(self._order):
            outcomes = np.einsum("bp,lpr->blr", _BITS, self._sites[at])
            both = rows @ outcomes
            ones, own = conditionals(both @ right[at + 1])
            clipped += own
            drawn = draw(q) < ones
            bits[:, q] = drawn
            rows = np.where(drawn[:, None], both[1], both[0])
            rows /= np.maximum(np.linalg.norm(rows, axis=1), _LEAST)[:, None]
        return clipped

    def value(self, letters: Mapping[int, int]) -> float:
        """Expectation value of a Pauli string: letters 1, 2, 3 for X, Y, Z."""
        places = [at for at, q in enumerate(self._order) if q in letters]
        right = self._right()
        trace = np.ones(1)
        for site in self._sites[: places[0]]:
            trace = _unit(trace @ site[:, 0])
        value = trace
        for at in range(places[0], places[-1] + 1):
            site = self._sites[at]
            value = value @ site[:, letters.get(self._order[at], 0)]
            trace = trace @ site[:, 0]
            size = max(float(np.linalg.norm(trace)), _LEAST)
            value, trace = value / size, trace / size
        end = right[places[-1] + 1]
        return float(value @ end) / float(trace @ end)


def conditionals(weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probability of 1 by the weights of 0 and 1 [2, shots], and the part of each below zero."""
    total = weights.sum(axis=0)
    shares = weights / np.where(np.abs(total) > _LEAST, total, 1.0)
    return np.clip(shares[1], 0.0, 1.0), np.maximum(0.0, -shares.min(axis=0))


def _unit(vector: Matrix) -> Matrix:
    return vector / max(float(np.linalg.norm(vector)), _LEAST)
