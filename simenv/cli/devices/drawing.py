"""Drawing of a device's lattice as text.

The text has numbers of qubits, lines for couplings, and levels of error. A level compares an error
with the median of the device: 0 up to the median, 1 up to twice, 2 up to four times, 3 above.
Levels have colours on a terminal, and different characters everywhere.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from simenv.cli import terminal
from simenv.cli.devices import details
from simenv.transpiler.lattice import circle, positions

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot


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
    is_ring = ring and snapshot.all_to_all
    count = snapshot.num_qubits
    linked = {(min(each.pair), max(each.pair)) for each in snapshot.links}
    inside = edges - linked  # modules side by side
    places = circle(count) if is_ring else positions(count, inside, snapshot.coordinates)
    errors = details.pair_errors(snapshot), details.readout_errors(snapshot)
    return Lattice(places, sorted(edges), *errors)


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
