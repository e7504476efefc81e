"""Positions of the qubits in a drawing. Pure.

If a snapshot has no coordinates, the graph of its couplings is laid out by stress majorization:
distances in the plane approach distances in the graph. (Gansner, Koren, North, Graph drawing by
stress majorization, GD 2004.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot

MAX_STRESS_QUBITS = 600  # larger devices have too many pairs and are drawn as a grid
_STEPS = 300
_MAX_TRIES = 20_000  # most cells that the search tries


def positions(snapshot: CalibrationSnapshot) -> NDArray[np.float64]:
    """Return x to the right and y down of each qubit, float64 [qubits, 2]; coupled ones about 1
    apart."""
    count = snapshot.num_qubits
    if snapshot.coordinates:
        return np.array(snapshot.coordinates, np.float64)
    edges = {(min(pair), max(pair)) for pair in snapshot.coupling}
    if snapshot.all_to_all or not edges or count > MAX_STRESS_QUBITS:
        return grid(count)
    distances = _distances(count, edges)
    guide = _rotate_to_axes(_stress_layout(distances), edges)
    embedded = _grid_layout(guide, distances, edges)
    return guide if embedded is None else embedded


def grid(count: int) -> NDArray[np.float64]:
    """Return positions row by row in a rectangle twice as wide as high, float64 [count, 2]."""
    columns = max(1, int(np.ceil(np.sqrt(2.0 * count))))
    index = np.arange(count)
    return np.stack([index % columns, index // columns], axis=1).astype(np.float64)


def circle(count: int) -> NDArray[np.float64]:
    """Return positions on a circle whose neighbours are 1 apart, float64 [count, 2]."""
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.sin(angle), -np.cos(angle)], axis=1) * max(count / (2 * np.pi), 1.0)


def _distances(count: int, edges: set[tuple[int, int]]) -> NDArray[np.float64]:
    """Return the graph distances of all pairs, float64 [count, count]; unconnected parts are placed
    apart."""
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    result = np.full((count, count), -1.0)
    for start in range(count):
        result[start, start] = 0.0
        level, steps = [start], 0.0
        while level:
            steps += 1.0
            following = []
            for at in level:
                for other in neighbours[at]:
                    if result[start, other] < 0.0:
                        result[start, other] = steps
                        following.append(other)
            level = following
    result[result < 0.0] = result.max() + 2.0
    return result


def _stress_layout(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the layout of least stress sum_ij (|x_i - x_j| - d_ij)^2 / d_ij^2, from classical
    scaling."""
    count = len(distances)
    if count == 1:
        return np.zeros((1, 2))
    centred = np.eye(count) - 1.0 / count
    values, vectors = np.linalg.eigh(-0.5 * centred @ distances**2 @ centred)
    result = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 1e-9))
    with np.errstate(divide="ignore"):
        weights = np.where(distances > 0.0, distances**-2.0, 0.0)
    laplacian = np.diag(weights.sum(1)) - weights
    inverse = np.linalg.pinv(laplacian)
    for _ in range(_STEPS):
        between = np.linalg.norm(result[:, None] - result[None], axis=2)
        between[between < 1e-9] = 1e-9
        pull = weights * distances / between
        np.fill_diagonal(pull, 0.0)
        result = inverse @ ((np.diag(pull.sum(1)) - pull) @ result)
    return np.asarray(result)


def _grid_layout(
    guide: NDArray[np.float64], distances: NDArray[np.float64], edges: set[tuple[int, int]]
) -> NDArray[np.float64] | None:
    """Return cells of a square grid in which coupled qubits are neighbours; None if none were
    found.

    A depth-first search: each qubit takes the free cell next to a coupled one that is nearest to
    its place in `guide`; no two qubits may be farther apart than their distance in the graph.
    """
    count = len(guide)
    neighbours: list[list[int]] = [[] for _ in range(count)]
    for a, b in edges:
        neighbours[a].append(b)
        neighbours[b].append(a)
    if max(map(len, neighbours)) > 4 or not all(neighbours):
        return None
    pairs = np.array(sorted(edges))
    guide = guide / np.linalg.norm(guide[pairs[:, 0]] - guide[pairs[:, 1]], axis=1).mean()
    first = int(np.linalg.norm(guide - guide.mean(0), axis=1).argmin())
    order = [first]
    for at in order:
        order += sorted(set(neighbours[at]) - set(order))
    if len(order) < count:
        return None
    cells = np.zeros((count, 2), np.int64)
    centre = guide[first]
    steps = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])

    def candidates(k: int) -> list[NDArray[np.int64]]:
        at, placed = order[k], np.array(order[:k])
        parent = next(other for other in order[:k] if other in neighbours[at])
        results = []
        for cell in cells[parent] + steps:
            apart = np.abs(cells[placed] - cell).sum(1)
            if (apart > 0).all() and (apart <= distances[at, placed]).all():
                results.append(cell)
        return sorted(results, key=lambda cell: float(np.linalg.norm(cell + centre - guide[at])))

    waiting = [candidates(1)] if count > 1 else []
    tries = 0
    while waiting and tries < _MAX_TRIES:
        tries += 1
        if not waiting[-1]:
            waiting.pop()
            continue
        cells[order[len(waiting)]] = waiting[-1].pop(0)
        if len(waiting) == count - 1:
            return np.asarray(cells - cells.min(0), np.float64)
        waiting.append(candidates(len(waiting) + 1))
    return None


def _rotate_to_axes(
    coordinates: NDArray[np.float64], edges: set[tuple[int, int]]
) -> NDArray[np.float64]:
    """Rotate so that most edges are horizontal or vertical and the drawing is wide."""
    pairs = np.array(sorted(edges))
    steps = coordinates[pairs[:, 1]] - coordinates[pairs[:, 0]]
    angles = np.arctan2(steps[:, 1], steps[:, 0])
    turn = -np.angle(np.exp(4j * angles).sum()) / 4
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    coordinates = coordinates @ rotation.T
    if np.ptp(coordinates[:, 1]) > np.ptp(coordinates[:, 0]):
        coordinates = coordinates[:, ::-1].copy()
    for axis in range(2):  # qubit 0 to the left and above
        if coordinates[0, axis] > coordinates[:, axis].mean():
            coordinates[:, axis] *= -1.0
    return np.asarray(coordinates - coordinates.min(0))
