"""Positions of the qubits of a device in a drawing.

A device has the coordinates of its snapshot. Without them its couplings are laid out by networkx: a
planar layout, where there is one, from which distances in the plane then approach the lengths of
paths (Kamada and Kawai, Inf. Process. Lett. 31, 7, 1989). A lattice of at most four couplings a
qubit is moved to the cells of a square grid. Pure, and slow for large devices.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

MAX_QUBITS = 600  # larger devices have too many pairs and are drawn row by row
_MAX_TRIES = 20_000  # most cells that the search tries
_APART = 2.0  # between parts that no coupling joins, in couplings

Edges = Collection[tuple[int, int]]


def positions(
    count: int, couplings: Edges, coordinates: Collection[tuple[float, float]] = ()
) -> NDArray[np.float64]:
    """Return x to the right and y down of each qubit, float64 [count, 2]: its coordinates, if the
    device has some, else by the couplings, coupled qubits about 1 apart; row by row for a device
    without couplings, and for a large one."""
    if coordinates:
        return np.array(coordinates, np.float64)
    edges = {(min(pair), max(pair)) for pair in couplings}
    if not edges or count > MAX_QUBITS:
        return grid(count)
    guide = _rotate_to_axes(_planar_layout(count, edges), edges)
    embedded = _grid_layout(guide, _distances(count, edges), edges)
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


def _planar_layout(count: int, edges: Edges) -> NDArray[np.float64]:
    """Return the layout of networkx, part by part from left to right; the mean coupling of a part
    has length 1."""
    import networkx  # in 0.1 s

    graph = networkx.Graph(sorted(edges))
    graph.add_nodes_from(range(count))
    result, left = np.zeros((count, 2)), 0.0
    for nodes in map(sorted, networkx.connected_components(graph)):
        if len(nodes) > 1:
            part = graph.subgraph(nodes)
            is_planar, _ = networkx.check_planarity(part)
            start = networkx.planar_layout(part) if is_planar else networkx.circular_layout(part)
            found = networkx.kamada_kawai_layout(part, pos=start)
            places = np.array([found[node] for node in nodes])
            index = {node: at for at, node in enumerate(nodes)}
            steps = [places[index[a]] - places[index[b]] for a, b in part.edges]
            result[nodes] = places / np.linalg.norm(steps, axis=1).mean()
        result[nodes] += np.array([left, 0.0]) - result[nodes].min(0)
        left = float(result[nodes, 0].max()) + _APART
    return result


def _distances(count: int, edges: Edges) -> NDArray[np.float64]:
    """Return the graph distances of all pairs, float64 [count, count]; unconnected parts are placed
    apart."""
    import networkx

    graph = networkx.Graph(sorted(edges))
    graph.add_nodes_from(range(count))
    result = np.asarray(networkx.floyd_warshall_numpy(graph, nodelist=range(count)), np.float64)
    connected = np.isfinite(result)
    return np.where(connected, result, result[connected].max() + 2.0)


def _grid_layout(
    guide: NDArray[np.float64], distances: NDArray[np.float64], edges: Edges
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


def _rotate_to_axes(coordinates: NDArray[np.float64], edges: Edges) -> NDArray[np.float64]:
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
