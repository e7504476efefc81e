"""The README's bar chart: five figures of simenv compared with other libraries, as SVG."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from bench.figures import latest
from bench.harness.results import Result


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: the speed-up of a figure that is the ratio of simenv's time to the peer's."""

    label: str
    peer: str
    benchmark: str
    key: str


BARS = (
    Bar("3 to 10 qubits", "qulacs", "small", "of_qulacs"),
    Bar("3 to 10 qubits", "Aer", "small", "of_aer"),
    Bar("24 qubits", "Aer", "wide", "aer_24"),
    Bar("24 qubits, single precision", "qsim", "wide", "qsim_24"),
    Bar("gradient, 20 qubits", "Lightning", "observables", "gradient_of_lightning"),
)
STABILIZER = "stabilizer engine"  # a case that no state vector runs: not comparable in one bar
_ROW, _LEFT, _WIDTH, _RIGHT, _TOP = 40, 210, 330, 70, 12  # pixels
_BLUE = "#4c72b0"
_SPEED_UPS = "speed-up, logarithmic scale (bar: median of the cases; line: range)"


def speed_ups(results: Sequence[Result]) -> list[tuple[Bar, float, float, float]]:
    """Return each bar with the median, the smallest and the largest speed-up of its cases. Raises
    SystemExit if the file lacks a bar's figures."""
    rows = []
    newest = latest(results)
    for bar in BARS:
        cases = newest.get((bar.benchmark, bar.key), ())
        ups = [1 / each.value for each in cases if each.value and STABILIZER not in each.label]
        if not ups:
            raise SystemExit(
                f"no figure {bar.key!r} of benchmark {bar.benchmark!r} in the file;"
                f" type: python -m bench run {bar.benchmark} --json FILE"
            )
        rows.append((bar, statistics.median(ups), min(ups), max(ups)))
    return rows


def draw(results: Sequence[Result], svg: Path) -> None:
    """Write the chart as SVG. Equal figures give equal files."""
    svg.parent.mkdir(parents=True, exist_ok=True)
    svg.write_text("\n".join(_lines(speed_ups(results))) + "\n")
    print(svg)


def _lines(rows: Sequence[tuple[Bar, float, float, float]]) -> Iterator[str]:
    height = _TOP + _ROW * len(rows) + 44
    bottom = _TOP + _ROW * len(rows)
    width = _LEFT + _WIDTH + _RIGHT
    decades = math.ceil(math.log10(max(largest for *_, largest in rows)))

    def x(speed_up: float) -> float:
        return round(_LEFT + _WIDTH * max(0.0, math.log10(speed_up)) / decades, 1)

    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
    yield ' font-family="sans-serif" font-size="13" fill="#222">'
    yield "<title>Speed-up of simenv's engines, without the service, compared with others</title>"
    yield f'<rect width="{width}" height="{height}" fill="#fff"/>'
    for decade in range(decades + 1):
        place = x(10.0**decade)
        yield f'<line x1="{place}" y1="{_TOP}" x2="{place}" y2="{bottom}" stroke="#ccc"/>'
        yield f'<text x="{place}" y="{bottom + 16}" text-anchor="middle">{10**decade} x</text>'
    for row, (bar, median, smallest, largest) in enumerate(rows):
        middle = _TOP + _ROW * row + _ROW // 2
        length = x(median) - _LEFT
        for text, y in ((bar.label, middle - 3), (f"compared with {bar.peer}", middle + 12)):
            yield f'<text x="{_LEFT - 8}" y="{y}" text-anchor="end">{escape(text)}</text>'
        size = f'width="{length:.1f}" height="18"'
        yield f'<rect x="{_LEFT}" y="{middle - 9}" {size} fill="{_BLUE}"/>'
        ends = f'x1="{x(smallest)}" y1="{middle}" x2="{x(largest)}" y2="{middle}"'
        yield f'<line {ends} stroke="#000"/>'
        yield f'<text x="{x(largest) + 6:.1f}" y="{middle + 4}">{median:.3g} x</text>'
    place = (_LEFT + _WIDTH + _RIGHT) // 2
    yield f'<text x="{place}" y="{bottom + 36}" text-anchor="middle">{_SPEED_UPS}</text>'
    yield "</svg>"
