"""Lattice of a device: positions of the qubits, and its drawing as text.

Positions are pure. If a snapshot has no coordinates, the graph of its couplings is laid out by
stress majorization: distances in the plane approach distances in the graph. (Gansner, Koren, North,
Graph drawing by stress majorization, GD 2004.)

The text has numbers of qubits, lines for couplings, and levels of error. A level compares an error
with the median of the device: 0 up to the median, 1 up to twice, 2 up to four times, 3 above.
Levels have colours on a terminal, and different characters everywhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from simenv.cli import terminal
from simenv.cli.devices import details

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot

MAX_STRESS_QUBITS = 600  # larger devices have too many pairs and are drawn as a grid
_STEPS = 300
_MAX_TRIES = 20_000  # most cells that the search tries


@dataclass(frozen=True, slots=True)
class Lattice:
    """Layout of a device, for the drawing as text and for the picture: x to the right and y down of
    each qubit, float64 [qubits, 2], coupled ones about 1 apart; coupled pairs (a < b); errors."""

    positions: NDArray[np.float64]
    edges: list[tuple[int, int]]
    pair_errors: dict[tuple[int, int], float]
    readout_errors: dict[int, float]


def lattice(snapshot: CalibrationSnapshot, *, ring: bool = False) -> Lattice:
    """Return the layout of a device. `ring`: an all-to-all device on a circle, not on a grid."""
    edges = {(min(pair), max(pair)) for pair in snapshot.coupling}
    places = circle if ring and snapshot.all_to_all else partial(_positions, snapshot, edges)
    errors = details.pair_errors(snapshot), details.readout_errors(snapshot)
    return Lattice(places(snapshot.num_qubits), sorted(edges), *errors)


def _positions(
    snapshot: CalibrationSnapshot, edges: set[tuple[int, int]], count: int
) -> NDArray[np.float64]:
    if snapshot.coordinates:
        return np.array(snapshot.coordinates, np.float64)
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
    result = np.full((count, count), np.inf)
    np.fill_diagonal(result, 0.0)
    first, second = np.array(sorted(edges)).T
    result[first, second] = result[second, first] = 1.0
    for via in range(count):  # Floyd and Warshall's algorithm
        result = np.minimum(result, result[:, via, None] + result[via])
    connected = np.isfinite(result)
    return np.where(connected, result, result[connected].max() + 2.0)


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


Key = TypeVar("Key")
BROKEN = 4  # the level of a gate whose error is 1
_ACROSS, _DOWN, _SLANTED = "-=~#x", "|:;#x", ".o*#x"
_RATIOS = (1.0, 2.0, 4.0)
_ROWS_PER_UNIT = 2
_MAX_COLUMNS = 200
_MAX_QUBITS = 1_200


@dataclass(frozen=True, slots=True)
class Drawing:
    """Lines of (text, level) pieces; a level of -1 has no colour."""

    lines: list[list[tuple[str, int]]]
    width: int


def levels(values: Mapping[Key, float]) -> dict[Key, int]:
    """Return the level of each error against the median of those that work."""
    if not values:
        return {}
    middle = statistics.median(details.working(values.values()))
    return {key: _level(value, middle) for key, value in values.items()}


def _level(value: float, middle: float) -> int:
    if value >= 1.0:
        return BROKEN
    return sum(value > ratio * middle for ratio in _RATIOS)


def draw(snapshot: CalibrationSnapshot) -> Drawing | None:
    """Return the drawing; None for a device that is too large."""
    if snapshot.num_qubits > _MAX_QUBITS:
        return None
    layout = lattice(snapshot)
    cells = _cells(layout.positions, snapshot.num_qubits)
    if cells is None:
        return None
    digits = len(str(snapshot.num_qubits - 1))
    columns = int(cells[:, 0].max()) + digits
    canvas = _Canvas(int(cells[:, 1].max()) + 1, columns)
    centres = cells + np.array([(digits - 1) // 2, 0])
    pairs = levels(
        {pair: layout.pair_errors[pair] for pair in layout.edges if pair in layout.pair_errors}
    )
    for a, b in layout.edges:
        canvas.join(centres[a], centres[b], pairs.get((a, b), -1))
    qubits = levels(layout.readout_errors)
    for qubit, (x, y) in enumerate(cells.tolist()):
        canvas.put(x, y, str(qubit).rjust(digits), qubits.get(qubit, -1))
    return Drawing(canvas.lines(), columns)


def _cells(positions: NDArray[np.float64], count: int) -> NDArray[np.int64] | None:
    """Return column and row of each qubit, int64 [count, 2], without overlaps; None if there is no
    room."""
    digits = len(str(count - 1))
    origin = positions - positions.min(0)
    on_grid = bool((np.abs(origin - np.round(origin)) < 1e-6).all())
    for scale in (1.0, 2.0, 3.0, 4.0) if on_grid else (2.0, 3.0, 4.0):
        across = np.round(origin[:, 0] * scale * (digits + 2)).astype(np.int64)
        down = np.round(origin[:, 1] * scale * _ROWS_PER_UNIT).astype(np.int64)
        result = np.stack([across, down], axis=1)
        if across.max() + digits > _MAX_COLUMNS:
            return None
        used_cells: dict[tuple[int, int], None] = {}
        free = True
        for x, y in result.tolist():
            cells = [(x + k, y) for k in range(-1, digits)]
            free = free and used_cells.keys().isdisjoint(cells)
            used_cells |= dict.fromkeys(cells[1:])
        if free:
            return result
    return None


class _Canvas:
    def __init__(self, rows: int, columns: int) -> None:
        self._chars = [[" "] * columns for _ in range(rows)]
        self._levels = [[-1] * columns for _ in range(rows)]

    def put(self, x: int, y: int, text: str, level: int) -> None:
        for k, char in enumerate(text):
            self._chars[y][x + k] = char
            self._levels[y][x + k] = level if char != " " else -1

    def join(self, start: NDArray[np.int64], end: NDArray[np.int64], level: int) -> None:
        """Draw a straight line, cell by cell."""
        step = end - start
        kind = _ACROSS if step[1] == 0 else _DOWN if step[0] == 0 else _SLANTED
        count = int(np.abs(step).max()) if kind is not _SLANTED else int(abs(step[1])) * 2
        for k in range(1, count):
            x, y = np.round(start + step * (k / count)).astype(int)
            self.put(int(x), int(y), kind[max(level, 0)], level)

    def lines(self) -> list[list[tuple[str, int]]]:
        """Return the rows as pieces of one level each."""
        results = []
        for chars, row_levels in zip(self._chars, self._levels, strict=True):
            pieces: list[tuple[str, int]] = []
            for char, level in zip(chars, row_levels, strict=True):
                if pieces and pieces[-1][1] == level:
                    pieces[-1] = (pieces[-1][0] + char, level)
                else:
                    pieces.append((char, level))
            while pieces and pieces[-1][1] == -1 and not pieces[-1][0].strip():
                pieces.pop()
            results.append(pieces)
        return results


def legend(snapshot: CalibrationSnapshot) -> list[list[tuple[str, int]]]:
    """Return the lines that explain the levels, with the limits of this device."""
    results: list[list[tuple[str, int]]] = []
    pairs, readout = details.pair_errors(snapshot), details.readout_errors(snapshot)
    lines = [f"{across * 2} {down} " for across, down in zip(_ACROSS, _DOWN, strict=True)]
    for what, values, marks in (
        ("lines: two-qubit error", list(pairs.values()), lines),
        ("numbers: readout error", list(readout.values()), [""] * 4),
    ):
        if not values:
            continue
        middle = statistics.median(details.working(values))
        pieces: list[tuple[str, int]] = [(f"{what}  ", -1)]
        limits = [f"<= {middle * ratio:.2g}" for ratio in _RATIOS]
        for level, limit in enumerate([*limits, f"> {middle * _RATIOS[-1]:.2g}"]):
            pieces += [(f"{marks[level]}{limit}", level), ("  ", -1)]
        if marks is lines and any(value >= 1.0 for value in values):
            pieces.append(("xx does not work", BROKEN))
        results.append(pieces)
    return results


def show(snapshot: CalibrationSnapshot) -> None:
    """Print the drawing with its legend, or the reason why there is none."""
    result = draw(snapshot)
    width = terminal.width()
    if result is None or (width and result.width > width):
        needed = f"{result.width} columns" if result else "more room than a terminal has"
        terminal.note(f"the lattice is not drawn, it needs {needed}; --plot FILE.png draws it")
        return
    terminal.line()
    for pieces in [*result.lines, [], *legend(snapshot)]:
        terminal.line("".join(terminal.shade(text, level) for text, level in pieces).rstrip())
    if snapshot.all_to_all:
        terminal.line("all to all: a two-qubit gate acts on every pair")
