"""The README's bar chart."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench import chart, figures
from bench.harness import results
from bench.harness.report import Figure


def measured(tmp_path: Path, values: dict[str, tuple[float, ...]]) -> list[results.Result]:
    """Results of the chart's bars: `values` by goal, else 0.5."""
    figures = [
        Figure(bar.benchmark, bar.key, f"case {number}", value, 1.0)
        for bar in chart.BARS
        for number, value in enumerate(values.get(bar.key, (0.5,)))
    ]
    file = tmp_path / "results.jsonl"
    results.append(file, figures, quick=False)
    return results.read(file)


def test_bars_are_medians_of_the_speed_ups_with_their_range(tmp_path: Path) -> None:
    rows = chart.speed_ups(measured(tmp_path, {"aer_24": (0.1, 0.05, 0.02)}))
    assert [row[1:] for row in rows if row[0].key == "aer_24"] == [(20.0, 10.0, 50.0)]
    assert all(row[1:] == (2.0, 2.0, 2.0) for row in rows if row[0].key != "aer_24")


def test_missing_figure_is_refused_with_the_command_that_measures_it(tmp_path: Path) -> None:
    entries = [each for each in measured(tmp_path, {}) if each.benchmark != "observables"]
    with pytest.raises(SystemExit, match="python -m bench run observables --json FILE"):
        chart.speed_ups(entries)


def test_chart_is_byte_identical_for_equal_figures_measured_later(tmp_path: Path) -> None:
    values = measured(tmp_path, {})
    first, second = tmp_path / "a" / "first.svg", tmp_path / "second.svg"
    chart.draw(values, first)
    later = [msgspec.structs.replace(value, time_s=value.time_s + 1) for value in values]
    chart.draw(later, second)
    assert first.read_bytes() == second.read_bytes()
    assert all(bar.peer in first.read_text() for bar in chart.BARS)


def test_stored_chart_shows_the_stored_figures(tmp_path: Path) -> None:
    chart.draw(results.read(figures.STORED), tmp_path / "chart.svg")
    stored = figures.ROOT / "docs/images/performance.svg"
    assert stored.read_text() == (tmp_path / "chart.svg").read_text(), "python -m bench chart"
