"""Density operator of qubits on a graph: a tensor for each, weights of the bonds, and messages.

A map on a pair is applied by simple update: the other bonds of both tensors are weighted by the
singular values that they had last. The message of a directed bond is the functional that traces
all that is behind it, by belief propagation. Truncation keeps the trace with any operator of the
sites beside the cut, and maps preserve the trace, so messages stay at their fixed point: only those
of the bond itself are made anew. Maps on disjoint pairs are independent. After a projection, which
does not preserve the trace, all messages away from its qubit are made anew.

On a tree all of this is exact but for what is cut off. On loops what runs around them is left out;
`regions` measures how much.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulators.densitymatrix.dmt.line import Draw, conditionals
from simulators.densitymatrix.dmt.pair_maps import (
    Maps,
    Matrix,
    PairComponent,
    PairMap,
    breadth_first,
    neighbours,
)
from simulators.densitymatrix.dmt.truncation import cut, site_after
from simulators.engine import ThreadPool

_BEGIN = np.array([1.0, 0.0, 0.0, 1.0])  # |0>
_IDENTITY = np.eye(4)
_LEAST_WEIGHT = 1e-6  # of a bond, relative to its largest: smaller ones are dropped
_LEAST = 1e-30
_SHIFT = 1e-14  # relative to the squares of a matrix: more than the rounding of their sums
_PASSES = 8  # of each message, at most, after a projection
_FOLLOWED = 1e-9  # of a message of largest entry 1, whose change is followed
_REACH = 12  # bonds that a message is followed for
_CHANGE = 1e-4  # of a message of length 1 that is followed
_REAL = np.float32  # of messages of shots

Rows = NDArray[np.intp]
Messages = NDArray[np.float32]


class GraphOperator:
    """Tensors [Pauli, bonds] of a component, bonds in the order of the neighbours."""

    def __init__(self, component: PairComponent, bond: int, num_qubits: int) -> None:
        self._order, self._most = component.order, bond
        self._near = neighbours(num_qubits, list(component.edges))
        self._sites: dict[int, Matrix] = {
            q: _BEGIN.reshape((4,) + (1,) * len(self._near[q])) for q in self._order
        }
        both = [*component.edges, *((two, one) for one, two in component.edges)]
        self._weights = {edge: np.ones(1) for edge in both}
        self._messages = {edge: np.ones(1) for edge in both}
        self.bond = 1
        self.lost = 0.0

    @property
    def memory_bytes(self) -> int:
        return sum(site.nbytes for site in self._sites.values())

    def copy(self) -> GraphOperator:
        """Return an operator that changes by itself; no array is changed in place."""
        result = copy.copy(self)
        result._sites, result._weights = dict(self._sites), dict(self._weights)
        result._messages = dict(self._messages)
        return result

    def apply(self, q: int, matrix: Matrix) -> None:
        """Apply a map [4, 4] on a qubit, and follow the messages that change."""
        site = np.tensordot(matrix, self._sites[q], (1, 0))
        self._sites[q] = site / max(float(np.abs(site).max()), _LEAST)
        waiting = deque((q, c) for c in self._near[q])
        left = _PASSES * len(self._messages)
        while waiting and left:
            p, c = waiting.popleft()
            left -= 1
            new = self._outward(p, c, 0)
            moved = float(np.abs(new - self._messages[p, c]).max()) > _FOLLOWED
            self._messages[p, c] = new
            waiting.extend(
                (c, d) for d in self._near[c] if moved and d != p and (c, d) not in waiting
            )

    def evolve(self, maps: Maps, pool: ThreadPool, advance: Callable[[], None]) -> None:
        """Apply the maps on qubits of the component, those of a layer in any order."""
        own = set(self._order)
        for layer in _layers([pair for pair in maps.pairs if pair.low in own]):
            lost = np.zeros(len(layer))

            def work(
                first: int, last: int, _thread: int,
                layer: list[PairMap] = layer, lost: NDArray[np.float64] = lost,
            ) -> None:  # fmt: skip
                for number in range(first, last):
                    lost[number] = self._apply(layer[number])
                    advance()

            pool.run(work, len(layer), 1)
            self.lost += float(lost.sum())
        for q in self._order:
            if not np.array_equal(maps.last[q], _IDENTITY):
                self._sites[q] = np.tensordot(maps.last[q], self._sites[q], (1, 0))
        self.bond = max(map(len, self._weights.values()), default=1)

    def _apply(self, pair: PairMap) -> float:
        """Apply a map; returns what was cut off. Changes the tensors of the pair, and the weights
        and messages of its bond, alone."""
        low, high = pair.low, pair.high
        outer, x, l_trace = self._reduced(low, high, pair.first)
        other, y, r_trace = self._reduced(high, low, pair.second)
        q_x, c_x = _split(x) if x.shape[0] > x.shape[1] else (None, x)
        q_y, c_y = _split(y) if y.shape[0] > y.shape[1] else (None, y)
        left, right = site_after(l_trace), site_after(r_trace)
        if q_x is not None:
            left = q_x.T @ left
        if q_y is not None:
            right = q_y.T @ right
        found = cut(c_x @ c_y.T, left, right, self._most)
        u, s, v = np.linalg.svd(found.right, full_matrices=False)
        kept = max(1, int(np.count_nonzero(s > _LEAST_WEIGHT * s[0])))
        weights = s[:kept] / s[0]
        one = found.left @ (u[:, :kept] * np.sqrt(weights))
        two = v[:kept].T * np.sqrt(weights)
        self._weights[low, high] = self._weights[high, low] = weights
        self._put(low, high, outer, one if q_x is None else q_x @ one)
        self._put(high, low, other, two if q_y is None else q_y @ two)
        for p, q in ((low, high), (high, low)):
            self._messages[p, q] = self._outward(p, q, 0)
        return found.lost

    def _reduced(self, q: int, other: int, terms: Matrix) -> tuple[Matrix | None, Matrix, Matrix]:
        """Tensor of q with the terms of a map [reduced 4, terms bond], where an isometry [others,
        reduced] was split off (None: the identity), and the functional that traces the latter."""
        k = self._near[q].index(other) + 1
        site = np.moveaxis(self._weighted(q, other, 0.5), (0, k), (-2, -1))
        bond = site.shape[-1]
        trace = np.ones(1)
        for c in self._near[q]:
            if c != other:
                own = self._messages[c, q] / np.sqrt(self._weights[q, c])
                trace = np.multiply.outer(trace, own).reshape(-1)
        m = site.reshape(-1, 4 * bond)
        isometry = None
        if m.shape[0] > m.shape[1]:
            isometry, m = _split(m)
            trace = trace @ isometry
        m = np.tensordot(m.reshape(-1, 4, bond), terms, (1, 2))  # [reduced, bond, terms, 4]
        return isometry, m.transpose(0, 3, 2, 1).reshape(4 * len(m), -1), trace

    def _put(self, q: int, other: int, isometry: Matrix | None, reduced: Matrix) -> None:
        """Set the tensor of q from its reduced form [reduced 4, bond]."""
        bond = reduced.shape[1]
        m = reduced.reshape(-1, 4 * bond)
        if isometry is not None:
            m = isometry @ m
        sizes = [len(self._weights[q, c]) for c in self._near[q] if c != other]
        site = m.reshape(*sizes, 4, bond)
        site = np.moveaxis(site, (-2, -1), (0, self._near[q].index(other) + 1))
        self._sites[q] = site
        site = self._weighted(q, other, -0.5)
        self._sites[q] = site / np.abs(site).max()

    def _weighted(self, q: int, other: int, power: float) -> Matrix:
        """Tensor of q, its bonds but the one to `other` multiplied by powers of their weights."""
        site = self._sites[q]
        for k, c in enumerate(self._near[q]):
            if c != other:
                shape = [1] * site.ndim
                shape[k + 1] = -1
                site = site * (self._weights[q, c] ** power).reshape(shape)
        return site

    def _outward(self, p: int, q: int, letter: int) -> Matrix:
        """Message from p to q with an operator on p, of unit size."""
        message = self._along(p, q, letter, {})
        return message / max(float(np.abs(message).max()), _LEAST)

    def _along(self, p: int, q: int | None, letter: int, own: Mapping[int, Matrix]) -> Matrix:
        """Tensor of p contracted with `own` vectors of some bonds, and messages of the others but
        the one to q."""
        site: Matrix = self._sites[p][letter]
        for k in range(len(self._near[p]) - 1, -1, -1):
            c = self._near[p][k]
            if c != q:
                vector = own[c] if c in own else self._messages[c, p]
                site = np.tensordot(site, vector, (k, 0))
        return site

    def value(self, letters: Mapping[int, int]) -> float:
        """Expectation value of a Pauli string, contracted along a tree of shortest paths between
        its qubits; letters 1, 2, 3 for X, Y, Z."""
        root = next(iter(letters))
        order = breadth_first(self._near, root)
        place = {q: at for at, q in enumerate(order)}
        parent = {q: min(self._near[q], key=place.__getitem__) for q in order[1:]}
        needed = {root}
        for q in letters:
            while q not in needed:
                needed.add(q)
                q = parent[q]
        with_string: dict[int, dict[int, Matrix]] = {q: {} for q in needed}
        traces: dict[int, dict[int, Matrix]] = {q: {} for q in needed}
        for q in reversed(order):
            if q in needed and q != root:
                to = parent[q]
                trace = self._along(q, to, 0, traces[q])
                value = self._along(q, to, letters.get(q, 0), with_string[q])
                size = max(float(np.abs(trace).max()), _LEAST)
                traces[to][q], with_string[to][q] = trace / size, value / size
        value = self._along(root, None, letters[root], with_string[root])
        return float(value) / float(self._along(root, None, 0, traces[root]))

    def sample(self, shots: int, draw: Draw, bits: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Draw bits [shots, qubits] of the component, site by site, and make the messages away
        from each site anew in the shots in which they change; returns the probabilities below zero
        that were clipped in each shot."""
        return _Samples(self._near, self._sites, self._messages, shots).draw(
            self._order, draw, bits
        )


class _Samples:
    """Messages [shots, bond] of all shots, while the bits are drawn."""

    def __init__(
        self,
        near: list[list[int]],
        sites: Mapping[int, Matrix],
        messages: Mapping[tuple[int, int], Matrix],
        shots: int,
    ) -> None:
        self._near, self._shots = near, shots
        half: NDArray[Any] = np.array([[0.5, 0.5], [0.5, -0.5]])
        self._outcomes = {
            q: np.tensordot(half, site[[0, 3]], (1, 0)).astype(_REAL) for q, site in sites.items()
        }
        self._traces = {q: site[0].astype(_REAL) for q, site in sites.items()}
        self._messages = {
            edge: np.tile((message / np.linalg.norm(message)).astype(_REAL), (shots, 1))
            for edge, message in messages.items()
        }

    def draw(
        self, order: tuple[int, ...], draw: Draw, bits: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        everything: Rows = np.arange(self._shots)
        clipped = np.zeros(self._shots)
        done: set[int] = set()
        for q in order:
            both = [self._absorbed(self._outcomes[q][bit], q, None, everything) for bit in (0, 1)]
            ones, own = conditionals(np.array([each[:, 0] for each in both], np.float64))
            clipped += own
            bits[:, q] = draw(q) < ones
            done.add(q)
            self._follow(q, done, bits, everything)
        return clipped

    def _follow(self, q: int, done: set[int], bits: NDArray[np.uint8], rows: Rows) -> None:
        """Make the messages away from q anew, breadth first, where they can come to a qubit that
        is not drawn yet."""
        apart = self._apart(done)
        front: dict[tuple[int, int], Rows] = {(q, c): rows for c in self._near[q]}
        seen = {q}
        for step in range(1, _REACH + 1):
            following: dict[tuple[int, int], Rows] = {}
            for (p, c), own in front.items():
                if apart[c] > _REACH - step:
                    continue
                changed = self._send(p, c, done, bits, own)
                if c in seen or not changed.size:
                    continue
                for d in self._near[c]:
                    if d == p:
                        continue
                    before = following.get((c, d))
                    following[c, d] = changed if before is None else np.union1d(before, changed)
            seen.update(c for _, c in front)
            front = following

    def _apart(self, done: set[int]) -> dict[int, int]:
        """Bonds from each qubit to the next one that is not drawn yet."""
        apart = {q: 0 if q not in done else _REACH for q in self._outcomes}
        waiting = deque(q for q, bonds in apart.items() if not bonds)
        while waiting:
            q = waiting.popleft()
            for c in self._near[q]:
                if apart[c] > apart[q] + 1:
                    apart[c] = apart[q] + 1
                    waiting.append(c)
        return apart

    def _send(self, p: int, q: int, done: set[int], bits: NDArray[np.uint8], rows: Rows) -> Rows:
        """Make the message from p to q anew in some shots; returns those in which it changed."""
        if p in done:
            new = np.empty((rows.size, self._messages[p, q].shape[1]), _REAL)
            ones = bits[rows, p] == 1
            for bit, mine in ((0, ~ones), (1, ones)):
                new[mine] = self._absorbed(self._outcomes[p][bit], p, q, rows[mine])
        else:
            new = self._absorbed(self._traces[p], p, q, rows)
        sizes: Messages = np.sqrt(np.maximum(_squares(new), _LEAST), dtype=_REAL)
        new = new / sizes[:, None]
        messages = self._messages[p, q]
        moved = _squares(new - messages[rows]) > _CHANGE**2
        messages[rows] = new
        changed: Rows = rows[moved]
        return changed

    def _absorbed(self, site: Messages, p: int, skip: int | None, rows: Rows) -> Messages:
        """Tensor [bonds] with the messages of all bonds but the one to `skip`: [rows, bond]."""
        near = self._near[p]
        site = site[..., None] if skip is None else np.moveaxis(site, near.index(skip), -1)
        others = [c for c in near if c != skip]
        if not others:
            return np.broadcast_to(site, (rows.size, site.shape[-1]))
        result: Messages = self._messages[others[0], p][rows] @ site.reshape(site.shape[0], -1)
        for k, c in enumerate(others[1:], 1):
            bond = site.shape[k]
            result = result.reshape(rows.size, bond, result.shape[1] // bond)
            result = np.matmul(self._messages[c, p][rows][:, None, :], result)[:, 0]
        return result


def _split(m: Matrix) -> tuple[Matrix, Matrix]:
    """Factors of a matrix with more rows than columns, by Cholesky decomposition of its columns'
    products, which takes a quarter of the time of Householder reflections. Their product is m to
    rounding; the first is an isometry, but for directions below 1e-6 of the largest, which it
    shortens (T. Fukaya et al., shifted Cholesky QR, arXiv 1809.11085)."""
    products = m.T @ m
    size = float(np.trace(products))
    if not size > _LEAST:
        q, r = np.linalg.qr(m)
        return q, r
    products[np.diag_indices_from(products)] += _SHIFT * size
    lower = np.asarray(np.linalg.cholesky(products), np.float64)
    isometry: Matrix = m @ np.linalg.inv(lower).T
    return isometry, lower.T


def _squares(vectors: Messages) -> Messages:
    """Square of the length of each row."""
    result: Messages = np.einsum("rb,rb->r", vectors, vectors)
    return result


def _layers(pairs: list[PairMap]) -> list[list[PairMap]]:
    """Layers of maps on disjoint pairs, each as early as those before it allow."""
    ends: dict[int, int] = {}
    layers: list[list[PairMap]] = []
    for pair in pairs:
        at = max(ends.get(pair.low, 0), ends.get(pair.high, 0))
        ends[pair.low] = ends[pair.high] = at + 1
        if at == len(layers):
            layers.append([])
        layers[at].append(pair)
    return layers
