"""Quadrature over detunings that are constant during a shot.

What a circuit does is, in the detuning x of one qubit in units of its standard deviation, a sum of
exp(i a x) with |a| at most the sum of the qubit's rotations, its reach. A few nodes that integrate
all of these have the same mean as the normal distribution, whatever the circuit does.

Over several qubits a `Grid` is the tensor product of such quadratures, or a sparse grid if that has
fewer nodes: few qubits are off their centre at once (Smolyak, Dokl. Akad. Nauk SSSR 148, 1042;
Gerstner and Griebel, Computing 71, 65).
"""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray

from simulators.circuit.noise import Detunings

SAMPLED_ERROR = 1e-7  # largest error of the mean of exp(i a x)
EXACT_ERRORS = (1e-11, 1e-9, 1e-7)  # of exact results: the first one with few enough nodes
MOST_NODES = 64  # of a qubit, for sampled results: with more, nearly every shot has its own
LARGEST_GRID = 1e15  # a number above that of all shots
_HERMITE_NODES = 24
_LEVELS = 1 + _HERMITE_NODES // 2  # of a sparse grid; level l has 2 l + 1 nodes, from l = 0 on
_ROUNDED = 1.05  # reaches of a grid are rounded up to powers of this number
_LEAST_REACH = 1e-9  # rad: rounding of half turns that undo a phase
_TRIED = 101  # values of a at which the error is looked at

Array = NDArray[np.float64]


def nodes(reach: float, error: float, most: float) -> tuple[Array, Array] | None:
    """Nodes and weights of a quadrature of the normal distribution that integrates exp(i a x) for
    |a| <= `reach` with at most this error: Gauss-Hermite, or for a large reach the trapezoidal
    rule, whose error is that of its aliases (Trefethen and Weideman, SIAM Review 56, 385). None:
    it has more than `most` nodes, which are not computed."""
    rule = _gauss_hermite(reach, error) if reach <= _HERMITE_NODES else None
    if rule is not None:
        return rule if rule[0].size <= most else None
    tail = math.sqrt(2.0 * math.log(4.0 / error))
    step = 2.0 * math.pi / (reach + tail)
    if step == 0.0 or 2.0 * tail / step > most or (count := 2 * math.ceil(tail / step) + 1) > most:
        return None
    x = np.asarray(step * np.arange(-(count // 2), count // 2 + 1))
    weights = np.asarray(np.exp(-0.5 * x * x))
    return x, weights / weights.sum()


@functools.lru_cache(maxsize=1024)
def _gauss_hermite(reach: float, error: float) -> tuple[Array, Array] | None:
    """Fewest nodes of Gauss-Hermite quadrature with at most this error; None: more than
    _HERMITE_NODES."""
    a = np.linspace(0.0, reach, _TRIED)
    wanted = np.exp(-0.5 * a * a)
    for count in range(1, _HERMITE_NODES + 1):
        x, factors = hermegauss(count)
        weights = np.asarray(factors / factors.sum())
        if np.abs(np.cos(np.outer(a, x)) @ weights - wanted).max() <= error:
            return x, weights
    return None


class Grid(msgspec.Struct, frozen=True, eq=False):
    """Sets of detunings of several qubits, and their weights, whose sum is 1; a sparse grid has
    negative ones. `error`: bound of that of the mean of exp(i a x)."""

    x: Array  # [sets, qubits], in standard deviations
    weights: Array  # [sets]
    error: float


def grid(reaches: Sequence[float], error: float, most: int) -> Grid | None:
    """Grid that integrates exp(i a x) for |a_q| <= `reaches` with at most this error; None: it has
    more than `most` nodes. Reaches are rounded up, so that similar circuits share their grid."""
    rounded = (math.ceil(math.log(max(reach, 1e-9), _ROUNDED)) for reach in reaches)
    return _grid(tuple(_ROUNDED**power for power in rounded), error, most)


def exact_grid(reaches: Sequence[float], most: int) -> Grid | None:
    """Grid of an exact result; None: all of EXACT_ERRORS need more than `most` nodes."""
    built = (grid(reaches, error, most) for error in EXACT_ERRORS)
    return next((each for each in built if each is not None), None)


@functools.lru_cache(maxsize=16)  # of a few MB
def _grid(reaches: tuple[float, ...], error: float, most: int) -> Grid | None:
    if not reaches:
        return Grid(np.zeros((1, 0)), np.ones(1), 0.0)
    rules: list[tuple[Array, Array]] = []
    size = 1
    for reach in reaches:
        rule = nodes(reach, error / len(reaches), most / size)
        if rule is None:
            return _sparse(reaches, error, most)
        rules.append(rule)
        size *= rule[0].size
    sparse = _sparse(reaches, error, size - 1)
    if sparse is not None:
        return sparse
    x = np.stack(np.meshgrid(*(x for x, _ in rules), indexing="ij"), -1).reshape(size, -1)
    weights = functools.reduce(np.multiply.outer, (each for _, each in rules), np.ones(()))
    return Grid(x, weights.ravel(), error)


def _sparse(reaches: tuple[float, ...], error: float, most: int) -> Grid | None:
    """Sparse grid; None: it has more than `most` nodes.

    The quadrature of a qubit is a sum of differences of consecutive levels, Q_0 + (Q_1 - Q_0) +
    ..., and that of all qubits the sum of their products. The error is at most the sum of the
    largest values of the products that are left out; the others are added in descending order of
    this value for each new node."""
    sizes = [_differences(reach) for reach in reaches]
    total = math.prod(math.fsum(each) for each in sizes)
    start = (0,) * len(reaches)
    heap: list[tuple[float, tuple[int, ...], int]] = [(-1.0, start, 0)]
    chosen: list[tuple[int, ...]] = []
    included, count = 0.0, 0
    while heap and total - included > error:
        _, levels, last = heapq.heappop(heap)
        chosen.append(levels)
        included += math.prod(sizes[q][level] for q, level in enumerate(levels))
        count += math.prod(2 * level for level in levels if level)
        if count > most:
            return None
        for q in range(last, len(levels)):
            if levels[q] + 1 < min(len(sizes[q]), _LEVELS):
                longer = (*levels[:q], levels[q] + 1, *levels[q + 1 :])
                value = math.prod(
                    sizes[k][level] / max(1, 2 * level) for k, level in enumerate(longer)
                )
                heapq.heappush(heap, (-value, longer, q))
    if total - included > error:
        return None
    codes, weights = zip(*map(_product_of_differences, chosen), strict=True)
    places, owner = np.unique(np.concatenate(codes), axis=0, return_inverse=True)
    found = np.bincount(owner.ravel(), np.concatenate(weights), len(places))
    used = found != 0.0
    return Grid(_hermite_nodes()[places[used]], found[used], total - included)


@functools.lru_cache(maxsize=1024)
def _differences(reach: float) -> tuple[float, ...]:
    """Bounds of the differences of consecutive levels for exp(i a x), |a| <= `reach`, in descending
    order. The last one also bounds what higher levels would add; of all _LEVELS it has no level."""
    a = np.linspace(0.0, reach, _TRIED)
    means = [np.cos(np.outer(a, x)) @ weights for x, weights in map(_level, range(_LEVELS))]
    steps = [1.0, *(float(np.abs(b - c).max()) for b, c in itertools.pairwise(means))]
    rest = float(np.abs(means[-1] - np.exp(-0.5 * a * a)).max())
    bounds = np.maximum.accumulate([rest, *steps[::-1]])[::-1][:-1]
    small = np.flatnonzero(bounds < 1e-16)  # below the rounding of a sum
    last = int(small[0]) if small.size else len(bounds)
    return (*bounds[:last].tolist(), max(rest, 1e-16))


@functools.cache
def _level(level: int) -> tuple[Array, Array]:
    x, factors = hermegauss(2 * level + 1)
    return x, np.asarray(factors / factors.sum())


@functools.cache
def _hermite_nodes() -> Array:
    """Nodes of all levels, without repetitions of 0: 0, then 2 l of each level l."""
    return np.concatenate(
        [np.zeros(1), *(np.delete(_level(level)[0], level) for level in range(1, _LEVELS))]
    )


@functools.cache
def _difference(level: int) -> tuple[NDArray[np.int64], Array]:
    """Numbers of nodes, and their weights in the quadrature of a level minus that of the one
    below."""
    numbers, weights = _numbered(level)
    if not level:
        return numbers, weights
    below, lower = _numbered(level - 1)
    return np.concatenate((numbers, below)), np.concatenate((weights, -lower))


def _numbered(level: int) -> tuple[NDArray[np.int64], Array]:
    weights = _level(level)[1]
    numbers = 1 + level * (level - 1) + np.arange(2 * level)
    return np.append(0, numbers), np.append(weights[level], np.delete(weights, level))


@functools.lru_cache(maxsize=65_536)
def _product_of_differences(levels: tuple[int, ...]) -> tuple[NDArray[np.int64], Array]:
    """Numbers of nodes [terms, qubits] and weights of the product of the differences of levels."""
    parts = [_difference(level) for level in levels]
    size = math.prod(numbers.size for numbers, _ in parts)
    codes = np.stack(np.meshgrid(*(each for each, _ in parts), indexing="ij"), -1)
    weights = functools.reduce(np.multiply.outer, (each for _, each in parts), np.ones(()))
    return codes.reshape(size, -1), weights.ravel()


def reaches(detunings: Detunings, acting: NDArray[np.bool_] | None = None) -> dict[int, float]:
    """Largest phase of each qubit that has one, in rad per standard deviation: its bound, or the
    sum of its rotations; infinite in a loop. `acting` [rotations]: those that count; None: all."""
    angles = np.abs(detunings.angles)
    if acting is not None:
        angles = np.where(acting, angles, 0.0)
    sums = np.bincount(detunings.qubits, angles)
    scale = math.inf if detunings.loops else 1.0
    found = {
        q: min(scale * float(sums[q]), detunings.bounds.get(q, math.inf))
        for q in np.flatnonzero(sums).tolist()
    }
    return {q: reach for q, reach in found.items() if reach > _LEAST_REACH}


def grid_size(detunings: Detunings) -> float:
    """Number of sets of nodes of all qubits, at most LARGEST_GRID; many shots have as many
    different sets of detunings."""
    result = 1.0
    for reach in reaches(detunings).values():
        rule = nodes(reach, SAMPLED_ERROR, MOST_NODES)
        result = min(result * (LARGEST_GRID if rule is None else rule[0].size), LARGEST_GRID)
    return result
