"""PNG of a certificate: claimed against recovered values, and deviations within their bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # a backend without a display

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from simenv.calibration.certify.compare import ClaimComparison, ClaimVerdict
from simenv.cli.calibration.certificate_view import TITLES, qubits_label

if TYPE_CHECKING:
    from simenv.calibration.certify.certificate import Certificate

_INK, _BAND, _GOOD, _BAD, _OPEN = "#22303c", "#dbe7ee", "#2a6f97", "#d1495b", "#e09f3e"
_COLOURS = {ClaimVerdict.OUTSIDE: _BAD, ClaimVerdict.UNRESOLVED: _OPEN}
_UNITS = {"us": "us", "khz": "kHz"}
_MOST_LABELS = 34  # names on an axis
_RANGE = 2.5  # least range of a deviation axis, in bounds
_MOST_RANGE = 12.0


def draw(certificate: Certificate, path: Path) -> None:
    """Draw a certificate into a PNG file. Raises OSError."""
    compared = [each for each in certificate.comparisons if each.claimed is not None]
    quantities = [
        quantity
        for quantity in dict.fromkeys(each.quantity for each in compared)
        if any(_finite(each) for each in compared if each.quantity == quantity)
    ]
    rows = max(1, len(quantities))
    figure = Figure(
        figsize=(12.0, 1.0 + 2.1 * rows),
        layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06),
        facecolor="white",
    )
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
        color=_INK,
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
    axis.plot(ends, ends, color=_INK, lw=0.8, ls=":", zorder=1)
    axis.set_xlim(*ends)
    axis.set_ylim(*ends)
    unit = _UNITS.get(quantity.rpartition("_")[2], "")
    axis.set_xlabel(f"claimed{f' ({unit})' if unit else ''}", fontsize=8, color=_INK)
    axis.set_ylabel("recovered", fontsize=8, color=_INK)
    axis.locator_params(nbins=4)
    axis.ticklabel_format(scilimits=(-3, 4), useMathText=True)
    axis.tick_params(labelsize=7, colors=_INK)
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
    axis.axhline(0.0, color=_INK, lw=0.8, ls=":", zorder=1)
    shown = np.clip(y, -0.97 * limit, 0.97 * limit)
    _bars(
        axis, x, shown, np.clip(low, -limit, limit), np.clip(high, -limit, limit), _colours(claims)
    )
    axis.set_ylim(-limit, limit)
    axis.set_xlim(-0.7, len(claims) - 0.3)
    step = max(1, -(-len(claims) // _MOST_LABELS))
    axis.set_xticks(x[::step], [qubits_label(each) for each in claims[::step]], fontsize=7)
    axis.tick_params(labelsize=7, colors=_INK)
    axis.set_ylabel("deviation / bound", fontsize=8, color=_INK)
    axis.set_title(TITLES.get(quantity, quantity), fontsize=9, color=_INK, loc="left", pad=3)
    for k, each in enumerate(claims):
        if each.verdict is ClaimVerdict.OUTSIDE:
            below = shown[k] > 0.0
            axis.annotate(
                qubits_label(each),
                (k, shown[k]),
                (5, -3 if below else 3),
                textcoords="offset points",
                color=_BAD,
                fontsize=8,
                va="top" if below else "bottom",
            )
