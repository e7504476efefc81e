"""Reports of scores: PNG plots, and one HTML page that contains them. Needs matplotlib."""

from __future__ import annotations

import base64
import html
import math
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mdates
import msgspec
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from simenv import files
from simenv.calibration.accept import HEADER, as_values, cells
from simenv.calibration.score import CEILING, IDEAL, REPEAT, UNIFORM, Score

mpl.use("Agg")  # needs no display


INK = "#22303c"
COLOURS = ("#2a6f97", "#d1495b", "#edae49", "#66a182", "#6c5b7b", "#8d99ae")
_GREY = "#98a3ad"
_MOST_DAYS = 7  # days with a label, less one
_LEAST_INFIDELITY = 1e-6
_INFIDELITIES = 1e-4, 0.3  # ends of the colours
_MOST_WIDTHS = 8


def figure_of(width: float, height: float, pad: float = 0.08) -> Figure:
    """Return an empty figure; sizes in inches."""
    layout = ConstrainedLayoutEngine(h_pad=pad, w_pad=pad)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def parity(title: str, score: Score, path: Path) -> None:
    """Predicted against measured frequencies of outcomes, a panel for each model."""
    count = len(score.models)
    columns = 2 if count == 4 else min(count, 3)
    rows = math.ceil(count / columns)
    figure = figure_of(3.4 * columns, 3.3 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axis, model, colour in zip(axes.flat, score.models, _cycle(count), strict=False):
        points = score.parity[model]
        axis.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8)
        axis.scatter(points[:, 1], points[:, 0], s=6, alpha=0.35, color=colour, linewidths=0)
        axis.set_title(model, fontsize=9, color=INK)
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_aspect("equal")
        axis.tick_params(labelsize=8)
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    figure.supxlabel("measured frequency", fontsize=9)
    figure.supylabel("predicted probability", fontsize=9)
    figure.suptitle(f"{title}: outcomes of all circuits", fontsize=10, color=INK)
    figure.savefig(path, dpi=110)


def volumetric(title: str, score: Score, path: Path) -> None:
    """Median fidelity by width and depth, a panel for each model."""
    count = len(score.models)
    columns = 2 if count == 4 else min(count, 3)
    rows = math.ceil(count / columns)
    figure = figure_of(3.6 * columns + 0.6, 3.0 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    drawn = None
    bits = [row.bits for row in score.rows]
    margin = max(0.6, 0.06 * (max(bits) - min(bits)))
    for axis, model in zip(axes.flat, score.models, strict=False):
        cells: dict[tuple[int, int], list[float]] = defaultdict(list)
        for row in score.rows:
            if model in row.hf:
                cells[row.bits, _octave(row.depth)].append(row.hf[model])
        if cells:
            widths, octaves = zip(*cells, strict=True)
            values = [_infidelity(float(np.median(result))) for result in cells.values()]
            depths = [2.0**octave if octave >= 0 else 0.5 for octave in octaves]
            drawn = axis.scatter(
                widths, depths, c=values, s=70, marker="s", cmap="viridis_r",
                norm=LogNorm(*_INFIDELITIES),
            )  # fmt: skip
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(FuncFormatter(lambda depth, _: f"{math.floor(depth)}"))
        axis.margins(y=0.1)
        axis.set_title(model, fontsize=9, color=INK)
        axis.tick_params(labelsize=8)
        axis.set_xlim(min(bits) - margin, max(bits) + margin)
        if max(bits) - min(bits) < _MOST_WIDTHS:
            axis.set_xticks(range(min(bits), max(bits) + 1))  # the locator would mark fractions
        else:
            axis.xaxis.set_major_locator(MaxNLocator(_MOST_WIDTHS, integer=True))
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    if drawn is not None:
        bar = figure.colorbar(drawn, ax=axes, extend="both", shrink=0.8)
        bar.set_label("1 - median Hellinger fidelity", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    figure.supxlabel("measured bits", fontsize=9)
    figure.supylabel("two-qubit gates on the longest path", fontsize=9)
    figure.suptitle(f"{title}: all circuits", fontsize=10, color=INK)
    figure.savefig(path, dpi=110)


def _infidelity(fidelity: float) -> float:
    """Return 1 - fidelity for a logarithmic axis."""
    return max(1.0 - fidelity, _LEAST_INFIDELITY)


def _octave(depth: int) -> int:
    return -1 if depth < 1 else int(math.log2(depth))


def drift(title: str, score: Score, path: Path) -> bool:
    """Median fidelity of each day by model; False with fewer than two known days."""
    days: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in score.rows:
        if row.time_s == row.time_s:
            day = datetime.fromtimestamp(row.time_s, UTC).date().isoformat()
            for model in (*score.models, REPEAT):
                if model in row.hf:
                    days[day][model].append(row.hf[model])
    if len(days) < 2:
        return False
    figure = figure_of(8.0, 3.6)
    axis = figure.subplots()
    names = [*score.models, REPEAT]
    dates = sorted(days)
    at = mdates.date2num([datetime.fromisoformat(day) for day in dates])
    for name, colour in zip(names, _cycle(len(names)), strict=True):
        medians = [float(np.median(days[day].get(name, [math.nan]))) for day in dates]
        style = "--" if name == REPEAT else "-"
        axis.plot(at, medians, style, marker="o", markersize=4, color=colour, label=name)
    axis.set_xticks(_spread(at))  # days of measurements, where a locator marks others
    axis.xaxis.set_major_formatter(mdates.DateFormatter("%Y-%m-%d"))
    axis.set_ylabel("median Hellinger fidelity", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.set_title(f"{title}: by day of measurement", fontsize=10, color=INK)
    figure.savefig(path, dpi=110)
    return True


def _spread(days: Sequence[float]) -> list[float]:
    """Return ascending days without those that are too near to the last one for a label."""
    least = (days[-1] - days[0]) / _MOST_DAYS
    results = [days[0]]
    for day in days[1:]:
        if day - results[-1] >= least:
            results.append(day)
    return results


def comparison(title: str, score: Score, path: Path) -> None:
    """Distribution of the infidelity of each model on test circuits, with its limits."""
    limits = UNIFORM, IDEAL, REPEAT, CEILING
    names = [*score.models, *limits]
    results = [
        (name, values)
        for name in names
        if (values := [row.hf[name] for row in score.rows if name in row.hf])
    ]
    figure = figure_of(8.0, 0.45 * len(results) + 1.2)
    axis = figure.subplots()
    for place, (name, values) in enumerate(reversed(results)):
        low, middle, high = np.percentile(values, [10, 50, 90])
        colour = _GREY if name in limits else COLOURS[0]
        ends = [_infidelity(low), _infidelity(high)]
        axis.plot(
            ends, [place, place], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt"
        )
        axis.plot([_infidelity(middle)], [place], "o", color=colour)
        axis.annotate(
            f"{middle:.4f}", (_infidelity(middle), place), xytext=(0, 6),
            textcoords="offset points", fontsize=7, ha="center", color=INK,
        )  # fmt: skip
    axis.set_yticks(range(len(results)), [name for name, _ in reversed(results)], fontsize=8)
    axis.set_ylim(-0.6, len(results) - 0.2)
    axis.set_xscale("log")
    axis.invert_xaxis()  # the best is at the right
    axis.set_xlabel(
        "1 - Hellinger fidelity of a run: median (the number is the fidelity), and 10 % to 90 %",
        fontsize=8,
    )
    axis.tick_params(axis="x", labelsize=8)
    axis.set_title(f"{title}: test circuits", fontsize=10, color=INK)
    figure.savefig(path, dpi=110)


def _cycle(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22303c; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
table { border-collapse: collapse; font-size: 13px; margin: 0.8rem 0 }
th, td { padding: 0.2rem 0.7rem; text-align: left; border-bottom: 1px solid #dfe5e9 }
td { font-variant-numeric: tabular-nums; white-space: nowrap }
img { max-width: 100%; margin: 0.5rem 0 }
.missed { color: #b00020 }
"""


class Section(msgspec.Struct, frozen=True, eq=False):
    """One data set of a page. `notes`: paragraphs above the table."""

    title: str
    score: Score
    notes: tuple[str, ...] = ()


def draw(title: str, score: Score, folder: Path) -> list[Path]:
    """Write the plots of a score as PNG files; returns them."""
    stem = "".join(letter if letter.isalnum() else "-" for letter in title)
    results = []
    for name, function in (
        ("comparison", comparison),
        ("parity", parity),
        ("volumetric", volumetric),
        ("drift", drift),
    ):
        path = folder / f"{stem}-{name}.png"
        shown = score.part(test=True) if name == "comparison" else score
        if not shown.rows:
            shown = score
        if function(title, shown, path) is not False:
            results.append(path)
    return results


def write(
    path: Path,
    heading: str,
    sections: Sequence[Section],
    introduction: Sequence[str] = (),
    goals: Sequence[tuple[str, str, str, bool]] = (),
    tables: Sequence[tuple[str, Sequence[str], Sequence[Sequence[str]]]] = (),
) -> None:
    """Write the page by rename. `goals`: (what, value, goal, whether it is met); `tables`: (title,
    header, rows)."""
    parts = [f"<h1>{html.escape(heading)}</h1>", *_paragraphs(introduction)]
    if goals:
        reached = [
            (what, value, goal, "met" if met else "missed") for what, value, goal, met in goals
        ]
        parts.append(_table(("figure", "value", "goal", ""), reached))
    for title, header, rows in tables:
        parts += [f"<h2>{html.escape(title)}</h2>", _table(header, rows)]
    with tempfile.TemporaryDirectory() as folder:
        for section in sections:
            parts.append(f"<h2>{html.escape(section.title)}</h2>")
            parts += _paragraphs(section.notes)
            parts.append(_table(HEADER, cells(as_values(section.score))))
            for image in draw(section.title, section.score, Path(folder)):
                data = base64.b64encode(image.read_bytes()).decode()
                parts.append(
                    f'<img alt="{html.escape(image.stem)}" src="data:image/png;base64,{data}">'
                )
    body = "\n".join(parts)
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
        f"{html.escape(heading)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )
    with files.replacing(path, mode=0o644) as out:
        out.write(text.encode())


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [f"<p>{html.escape(text)}</p>" for text in texts]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for row in rows:
        kind = ' class="missed"' if row[-1] == "missed" else ""
        lines.append(
            f"<tr{kind}>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        )
    return f"<table><tr>{head}</tr>\n" + "\n".join(lines) + "</table>"
