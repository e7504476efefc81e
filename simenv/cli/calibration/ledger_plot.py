"""Plot of an error ledger: losses by component, by pair and by qubit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # a backend without a display

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

if TYPE_CHECKING:
    from simenv.calibration.ledger.ledger import ErrorLedger

INK, GATE, QUBIT, WORST = "#22303c", "#3d6fa8", "#5a9a7f", "#d1495b"
_BARS = 14


def draw(ledger: ErrorLedger, title: str, path: Path) -> None:
    """Draw the ledger into a file. Raises OSError, and ValueError for a suffix that matplotlib
    lacks."""
    tallest = max(len(ledger.components), min(_BARS, max(len(ledger.edges), len(ledger.qubits))))
    figure = Figure(
        figsize=(12.0, max(3.4, 1.3 + 0.32 * tallest)),
        layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1),  # inches
        facecolor="white",
    )
    components, edges, qubits = figure.subplots(1, 3)
    _bars(
        components,
        "component",
        [
            (name, loss, GATE if name.startswith("gate") else QUBIT)
            for name, loss in ledger.components
        ],
    )
    avoid = None if ledger.avoid is None else ledger.avoid.qubits
    _bars(
        edges,
        "pair: gates and crosstalk",
        [
            (f"{e.qubits[0]}-{e.qubits[1]}", e.loss, WORST if e.qubits == avoid else GATE)
            for e in ledger.edges[:_BARS]
        ],
    )
    _bars(qubits, "qubit: all components", [(str(q), x, QUBIT) for q, x in ledger.qubits[:_BARS]])
    figure.suptitle(
        f"{title}: fidelity about {ledger.fidelity:.3f}, loss {ledger.loss:.3g}",
        color=INK,
        fontsize=12,
    )
    figure.savefig(path, dpi=120)


def _bars(axis: Any, title: str, rows: Sequence[tuple[str, float, str]]) -> None:
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
