"""The README's bar chart: five figures of simenv compared with other libraries, as SVG.

It reads a result file of `python -m bench run small wide observables --json FILE`; matplotlib, an
optional dependency (the extra `plot`), draws it.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.harness.results import Result


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: the speed-up of a figure that is a ratio of times, simenv's to the peer's."""

    label: str
    benchmark: str
    key: str


BARS = (
    Bar("3 to 10 qubits, compared with qulacs", "small", "of_qulacs"),
    Bar("3 to 10 qubits, compared with Aer", "small", "of_aer"),
    Bar("24 qubits, compared with Aer", "wide", "aer_24"),
    Bar("24 qubits, single precision, compared with qsim", "wide", "qsim_24"),
    Bar("gradient, 20 qubits, compared with Lightning", "observables", "gradient_of_lightning"),
)


def speed_ups(results: Sequence[Result]) -> list[tuple[Bar, float, float, float]]:
    """Return each bar with the median, the smallest and the largest speed-up of its circuits.

    Raises SystemExit if the file lacks a bar's figures.
    """
    rows = []
    for bar in BARS:
        newest = {r.label: r for r in results if (r.benchmark, r.key) == (bar.benchmark, bar.key)}
        ups = [1 / result.value for result in newest.values() if result.value]
        if not ups:
            raise SystemExit(
                f"no figure {bar.key!r} of benchmark {bar.benchmark!r} in the file;"
                f" type: python -m bench run {bar.benchmark} --json FILE"
            )
        rows.append((bar, statistics.median(ups), min(ups), max(ups)))
    return rows


def draw(results: Sequence[Result], svg: Path) -> None:
    """Draw the chart. Raises SystemExit if matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise SystemExit("matplotlib is not installed; type: pip install matplotlib") from error
    rows = speed_ups(results)
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "simenv"  # equal figures give equal files
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.0, 3.0), constrained_layout=True)
    for place, (_, median, smallest, largest) in enumerate(reversed(rows)):
        axes.barh(place, median - 1.0, left=1.0, color="#4c72b0")
        axes.plot((smallest, largest), (place, place), color="black", linewidth=1)
        axes.text(largest * 1.08, place, f"{median:.3g} x", va="center")
    axes.set_yticks(range(len(rows)), [bar.label for bar, *_ in reversed(rows)])
    axes.set_xscale("log")
    least = min(smallest for _, _, smallest, _ in rows)
    axes.set_xlim(0.8 * min(1.0, least), 2.2 * max(largest for *_, largest in rows))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} x")
    axes.axvline(1.0, color="grey", linewidth=1, linestyle="--")
    axes.set_xlabel("speed-up (bar: median of the circuits; line: range)")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    svg.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(svg, metadata={"Date": None})
    pyplot.close(figure)
    print(svg)
