"""Plots with matplotlib: lattices of devices, certificates and error ledgers.

A lattice has qubits coloured by readout error and couplings by two-qubit error. A certificate shows
claimed against recovered values, and deviations within their bounds. An error ledger shows losses
by component, by pair and by qubit.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from simenv.calibration.certify import ClaimComparison, ClaimVerdict
from simenv.calibration.report import INK, figure_of
from simenv.cli.devices import details, drawing

if TYPE_CHECKING:
    from noise_models.calibration import CalibrationSnapshot
    from simenv.calibration.certify import Certificate
    from simenv.calibration.ledger import ErrorLedger

UNMEASURED, BROKEN = "#dfe5e9", "#d1495b"
_QUBITS, _EDGES = "viridis_r", "plasma_r"
_LEAST_ERROR = 1e-6  # lower end of the logarithmic scales
_MAX_EDGES = 4_000  # most drawn edges of an all-to-all device


def draw_lattice(name: str, snapshot: CalibrationSnapshot, path: Path) -> None:
    """Draw the lattice into a file. Raises OSError, and ValueError for a suffix that matplotlib
    lacks."""
    count = snapshot.num_qubits
    ring = snapshot.all_to_all
    layout = drawing.lattice(snapshot, ring=True)
    positions, errors = layout.positions, layout.pair_errors
    edges = sorted({*layout.edges, *errors})
    if ring and count * (count - 1) // 2 <= _MAX_EDGES:
        edges = [(a, b) for a in range(count) for b in range(a + 1, count)]
    span = np.maximum(np.ptp(positions, axis=0), 1.0)
    width = float(np.clip(span[0] * 0.62 + 3.4, 7.0, 16.0))
    height = float(np.clip(span[1] / span[0] * (width - 3.0) + 1.2, 3.6, 12.0))
    figure = figure_of(width, height, 0.1)
    axis = figure.subplots()
    unit = min((width - 3.0) / (span[0] + 1.0), (height - 1.2) / (span[1] + 1.0)) * 72  # points
    diameter = float(np.clip(unit * 0.62, 4.0, 30.0))
    _edges(figure, axis, positions, edges, errors, diameter)
    _qubits(figure, axis, positions, layout.readout_errors, diameter)
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
        lines = [positions[list(edge)] for edge in kinds["measured"]]
        coloured = LineCollection(lines, cmap=_EDGES, norm=_norm(values), lw=wide, zorder=1)
        coloured.set_array(values)
        axis.add_collection(coloured)
        figure.colorbar(coloured, ax=axis, label="two-qubit gate error", shrink=0.8, pad=0.01)


def _qubits(
    figure: Figure, axis: Any, positions: Any, readout: dict[int, float], diameter: float
) -> None:
    unknown = [qubit for qubit in range(len(positions)) if qubit not in readout]
    circles: dict[str, Any] = {"s": diameter**2, "edgecolors": INK, "lw": 0.6}
    if unknown:
        axis.scatter(*positions[unknown].T, c=UNMEASURED, **circles)
    dark: set[int] = set()
    if readout:
        measured = sorted(readout)
        values = np.maximum([readout[qubit] for qubit in measured], _LEAST_ERROR)
        norm = _norm(values)
        coloured = {"c": values, "cmap": _QUBITS, "norm": norm, "zorder": 2}
        points = axis.scatter(*positions[measured].T, **coloured, **circles)
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
        parts.append(f"median two-qubit error {statistics.median(details.working(pairs)):.2g}")
    broken = sum(error >= 1.0 for error in errors.values())
    if broken:
        parts.append(f"{broken} pairs do not work (dotted)")
    t1_us = details.median(q.t1_us if q.t1_us is not None else np.nan for q in snapshot.qubits)
    if t1_us == t1_us:
        parts.append(f"median T1 {t1_us:.4g} us")
    return ", ".join(parts)


_BAND, _GOOD, _BAD, _OPEN = "#dbe7ee", "#2a6f97", BROKEN, "#e09f3e"
_COLOURS = {ClaimVerdict.OUTSIDE: _BAD, ClaimVerdict.UNRESOLVED: _OPEN}
_MOST_LABELS = 34  # names on an axis
_RANGE = 2.5  # least range of a deviation axis, in bounds
_MOST_RANGE = 12.0


def draw_certificate(certificate: Certificate, path: Path) -> None:
    """Draw a certificate into a PNG file. Raises OSError."""
    compared = [
        each
        for each in certificate.comparisons
        if each.claimed is not None and each.verdict is not ClaimVerdict.UNTESTED
    ]
    quantities = [
        quantity
        for quantity in dict.fromkeys(each.quantity for each in compared)
        if any(_finite(each) for each in compared if each.quantity == quantity)
    ]
    rows = max(1, len(quantities))
    figure = figure_of(12.0, 1.0 + 2.1 * rows, 0.06)
    axes = figure.subplots(rows, 2, width_ratios=(1, 4), squeeze=False)
    for (left, right), quantity in zip(axes, quantities, strict=False):
        claims = [each for each in compared if each.quantity == quantity and _finite(each)]
        _parity(left, quantity, claims)
        _deviations(right, quantity, claims)
    left_out = [each for each in compared if not _finite(each)]
    verdict = "certified" if certificate.passed else "not certified"
    figure.suptitle(
        f"{certificate.device}: {verdict}; {certificate.confidence:.0%} simultaneous intervals,"
        f" {certificate.circuits} circuits, {certificate.shots:,} shots"
        + (
            f"\nnot drawn: {len(left_out)} quantities without a finite interval" if left_out else ""
        ),
        color=INK,
        fontsize=11,
    )
    figure.savefig(path, dpi=110)


def _finite(each: ClaimComparison) -> bool:
    """Return whether a point with its interval can be drawn."""
    return math.isfinite(each.high) and each.bound > 0.0


def _colours(claims: Sequence[ClaimComparison]) -> list[str]:
    return [_COLOURS.get(each.verdict, _GOOD) for each in claims]


def _bars(axis: Any, x: Any, y: Any, low: Any, high: Any, colours: Sequence[str]) -> None:
    axis.vlines(x, low, high, colors=colours, lw=1.4, zorder=2)
    axis.scatter(x, y, c=colours, s=14, zorder=3)


def _parity(axis: Any, quantity: str, claims: Sequence[ClaimComparison]) -> None:
    claimed = np.array([each.claimed for each in claims], np.float64)
    recovered = np.array([each.recovered for each in claims])
    low, high = np.array([(each.low, each.high) for each in claims]).T
    _bars(axis, claimed, recovered, low, high, _colours(claims))
    ends = np.array([min(claimed.min(), low.min()), max(claimed.max(), high.max())])
    margin = 0.05 * float(np.ptp(ends)) or 0.05 * abs(float(ends[0])) or 1.0
    ends = ends + np.array([-margin, margin])
    axis.plot(ends, ends, color=INK, lw=0.8, ls=":", zorder=1)
    axis.set_xlim(*ends)
    axis.set_ylim(*ends)
    unit = details.UNITS.get(quantity.rpartition("_")[2], "")
    axis.set_xlabel(f"claimed{f' ({unit})' if unit else ''}", fontsize=8, color=INK)
    axis.set_ylabel("recovered", fontsize=8, color=INK)
    axis.locator_params(nbins=4)
    axis.ticklabel_format(scilimits=(-3, 4), useMathText=True)
    axis.tick_params(labelsize=7, colors=INK)
    axis.xaxis.get_offset_text().set_fontsize(7)
    axis.yaxis.get_offset_text().set_fontsize(7)


def _deviations(axis: Any, quantity: str, claims: Sequence[ClaimComparison]) -> None:
    """Draw the deviations in units of their bounds."""
    claims = sorted(claims, key=lambda each: each.qubits)
    x = np.arange(len(claims))
    y = np.array([each.relative_deviation for each in claims])
    claimed = [each.claimed or 0.0 for each in claims]
    low = np.array([(each.low - c) / each.bound for each, c in zip(claims, claimed, strict=True)])
    high = np.array([(each.high - c) / each.bound for each, c in zip(claims, claimed, strict=True)])
    limit = min(max(_RANGE, 1.1 * float(np.abs([low, high]).max())), _MOST_RANGE)
    axis.axhspan(-1.0, 1.0, color=_BAND, zorder=0)
    axis.axhline(0.0, color=INK, lw=0.8, ls=":", zorder=1)
    shown = np.clip(y, -0.97 * limit, 0.97 * limit)
    _bars(
        axis, x, shown, np.clip(low, -limit, limit), np.clip(high, -limit, limit), _colours(claims)
    )
    axis.set_ylim(-limit, limit)
    axis.set_xlim(-0.7, len(claims) - 0.3)
    step = max(1, -(-len(claims) // _MOST_LABELS))
    axis.set_xticks(x[::step], [details.qubits_label(each) for each in claims[::step]], fontsize=7)
    axis.tick_params(labelsize=7, colors=INK)
    axis.set_ylabel("deviation / bound", fontsize=8, color=INK)
    axis.set_title(details.TITLES.get(quantity, quantity), fontsize=9, color=INK, loc="left", pad=3)
    for k, each in enumerate(claims):
        if each.verdict is ClaimVerdict.OUTSIDE:
            below = shown[k] > 0.0
            va, offset = ("top", (5, -3)) if below else ("bottom", (5, 3))
            style = {"textcoords": "offset points", "color": _BAD, "fontsize": 8, "va": va}
            axis.annotate(details.qubits_label(each), (k, shown[k]), offset, **style)


GATE, QUBIT, WORST = "#3d6fa8", "#5a9a7f", BROKEN
_BARS = 14


def draw_ledger(ledger: ErrorLedger, title: str, path: Path) -> None:
    """Draw the ledger into a file. Raises OSError, and ValueError for a suffix that matplotlib
    lacks."""
    tallest = max(len(ledger.components), min(_BARS, max(len(ledger.edges), len(ledger.qubits))))
    figure = figure_of(12.0, max(3.4, 1.3 + 0.32 * tallest), 0.1)
    components, edges, qubits = figure.subplots(1, 3)
    parts = [(n, x, GATE if n.startswith("gate") else QUBIT) for n, x in ledger.components]
    _loss_bars(components, "component", parts)
    avoid = None if ledger.avoid is None else ledger.avoid.qubits
    pairs = [
        (f"{e.qubits[0]}-{e.qubits[1]}", e.loss, WORST if e.qubits == avoid else GATE)
        for e in ledger.edges[:_BARS]
    ]
    _loss_bars(edges, "pair: gates and crosstalk", pairs)
    singles = [(str(q), x, QUBIT) for q, x in ledger.qubits[:_BARS]]
    _loss_bars(qubits, "qubit: all components", singles)
    text = f"{title}: fidelity about {ledger.fidelity:.3f}, loss {ledger.loss:.3g}"
    figure.suptitle(text, color=INK, fontsize=12)
    figure.savefig(path, dpi=120)


def _loss_bars(axis: Any, title: str, rows: Sequence[tuple[str, float, str]]) -> None:
    axis.set_title(title, color=INK, fontsize=10)
    if not rows:
        axis.set_axis_off()
        axis.text(0.5, 0.5, "none", transform=axis.transAxes, ha="center", color=INK)
        return
    places = range(len(rows))
    values = [100 * loss for _, loss, _ in rows]
    axis.barh(places, values, color=[color for _, _, color in rows], height=0.7)
    axis.set_yticks(places, [name for name, _, _ in rows], color=INK)
    axis.invert_yaxis()
    for place, value in zip(places, values, strict=True):
        axis.annotate(
            f"{value:.2g}", (value, place), (3, 0), textcoords="offset points", va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    axis.margins(x=0.16)
    axis.set_xlabel("loss of fidelity, %", color=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
