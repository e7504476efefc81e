"""Plot of a device's lattice: qubits coloured by readout error, couplings by two-qubit error."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # a backend without a display

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from simenv.cli.devices import lattice, summary

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot

INK, UNMEASURED, BROKEN = "#22303c", "#dfe5e9", "#d1495b"
_QUBITS, _EDGES = "viridis_r", "plasma_r"
_LEAST_ERROR = 1e-6  # lower end of the logarithmic scales
_MAX_EDGES = 4_000  # most drawn edges of an all-to-all device


def draw(name: str, snapshot: CalibrationSnapshot, path: Path) -> None:
    """Draw the lattice into a file. Raises OSError, and ValueError for a suffix that matplotlib
    lacks."""
    count = snapshot.num_qubits
    ring = snapshot.all_to_all
    positions = lattice.circle(count) if ring else lattice.positions(snapshot)
    errors = summary.pair_errors(snapshot)
    edges = sorted({(min(pair), max(pair)) for pair in snapshot.coupling} | errors.keys())
    if ring and count * (count - 1) // 2 <= _MAX_EDGES:
        edges = [(a, b) for a in range(count) for b in range(a + 1, count)]
    span = np.maximum(np.ptp(positions, axis=0), 1.0)
    width = float(np.clip(span[0] * 0.62 + 3.4, 7.0, 16.0))
    height = float(np.clip(span[1] / span[0] * (width - 3.0) + 1.2, 3.6, 12.0))
    layout = ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1)  # inches
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    axis = figure.subplots()
    unit = min((width - 3.0) / (span[0] + 1.0), (height - 1.2) / (span[1] + 1.0)) * 72  # points
    diameter = float(np.clip(unit * 0.62, 4.0, 30.0))
    _edges(figure, axis, positions, edges, errors, diameter)
    _qubits(figure, axis, positions, summary.readout_errors(snapshot), diameter)
    axis.set_aspect("equal")
    axis.invert_yaxis()
    axis.margins(0.06)
    axis.set_axis_off()
    figure.suptitle(_title(name, snapshot, errors), color=INK, fontsize=11)
    figure.savefig(path, dpi=120)


def _edges(
    figure: Figure,
    axis: Any,
    positions: Any,
    edges: list[tuple[int, int]],
    errors: dict[tuple[int, int], float],
    diameter: float,
) -> None:
    kinds: dict[str, list[tuple[int, int]]] = {"plain": [], "measured": [], "broken": []}
    for edge in edges:
        error = errors.get(edge)
        kinds["plain" if error is None else "broken" if error >= 1.0 else "measured"].append(edge)
    wide = max(diameter * 0.22, 1.2)
    for kind, colour, style in (("plain", UNMEASURED, "-"), ("broken", BROKEN, (0, (1, 0.8)))):
        if kinds[kind]:
            lines = [positions[list(edge)] for edge in kinds[kind]]
            line_width = wide / 2 if kind == "broken" else wide if len(lines) < 300 else 0.4
            axis.add_collection(
                LineCollection(lines, colors=colour, ls=style, lw=line_width, zorder=1)
            )
    if kinds["measured"]:
        values = np.maximum([errors[edge] for edge in kinds["measured"]], _LEAST_ERROR)
        coloured = LineCollection(
            [positions[list(edge)] for edge in kinds["measured"]],
            cmap=_EDGES,
            norm=_norm(values),
            lw=wide,
            zorder=1,
        )
        coloured.set_array(values)
        axis.add_collection(coloured)
        figure.colorbar(coloured, ax=axis, label="two-qubit gate error", shrink=0.8, pad=0.01)


def _qubits(
    figure: Figure, axis: Any, positions: Any, readout: dict[int, float], diameter: float
) -> None:
    unknown = [qubit for qubit in range(len(positions)) if qubit not in readout]
    if unknown:
        axis.scatter(*positions[unknown].T, s=diameter**2, c=UNMEASURED, edgecolors=INK, lw=0.6)
    dark: set[int] = set()
    if readout:
        measured = sorted(readout)
        values = np.maximum([readout[qubit] for qubit in measured], _LEAST_ERROR)
        norm = _norm(values)
        points = axis.scatter(
            *positions[measured].T,
            s=diameter**2,
            c=values,
            cmap=_QUBITS,
            norm=norm,
            edgecolors=INK,
            lw=0.6,
            zorder=2,
        )
        dark = {q for q, v in zip(measured, values, strict=True) if norm(v) > 0.45}
        figure.colorbar(points, ax=axis, label="readout error", shrink=0.8, pad=0.01)
    if diameter >= 9.0:
        for qubit, (x, y) in enumerate(positions):
            colour = "white" if qubit in dark else INK
            size = min(diameter * 0.42, 9.0)
            axis.text(x, y, str(qubit), color=colour, size=size, ha="center", va="center", zorder=3)


def _norm(values: Any) -> LogNorm:
    low, high = float(min(values)), float(max(values))
    return LogNorm(low, max(high, low * 1.5))


def _title(name: str, snapshot: CalibrationSnapshot, errors: dict[tuple[int, int], float]) -> str:
    parts = [f"{name}: {snapshot.num_qubits} qubits"]
    if snapshot.calibrated:
        parts.append(snapshot.calibrated[:10])
    two_qubit_gates = {gate.name for gate in snapshot.native_gates if gate.num_qubits == 2}
    pairs = list(errors.values()) or [
        gate.error
        for gate in snapshot.gates
        if gate.name in two_qubit_gates and gate.error is not None
    ]
    if pairs:
        parts.append(f"median two-qubit error {statistics.median(summary.working(pairs)):.2g}")
    broken = sum(error >= 1.0 for error in errors.values())
    if broken:
        parts.append(f"{broken} pairs do not work (dotted)")
    t1_us = summary.median(q.t1_us if q.t1_us is not None else np.nan for q in snapshot.qubits)
    if t1_us == t1_us:
        parts.append(f"median T1 {t1_us:.4g} us")
    return ", ".join(parts)
