"""Plots of scores: which models, limits and days they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.calibration_data import random_counts
from simenv.calibration import report
from simenv.calibration.score import IdealDistributions, Predictor, score

mpl = pytest.importorskip("matplotlib")


def test_comparison_shows_limits_on_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, snapshot = random_counts(2, 2)
    result = score(counts, {"chip": Predictor(snapshot)}, IdealDistributions())
    axes = []

    def keep(figure: object, *_: object, **__: object) -> None:
        axes.extend(figure.axes)  # type: ignore[attr-defined]

    monkeypatch.setattr(report.Figure, "savefig", keep)
    report.comparison("chip", result, tmp_path / "chip.png")
    labels = {text.get_text() for text in axes[0].get_yticklabels()}
    assert labels == {"chip", "uniform", "ideal", "ceiling"}
    assert axes[0].get_xscale() == "log"


def test_one_circuit_is_drawn(tmp_path: Path) -> None:
    counts, snapshot = random_counts(1, 2)
    result = score(counts, {"chip": Predictor(snapshot)}, IdealDistributions())
    paths = report.draw("a chip", result, tmp_path)
    assert [path.name for path in paths] == [
        f"a-chip-{name}.png" for name in ("comparison", "parity", "volumetric")
    ]


@pytest.mark.parametrize(
    ("days", "labelled"),
    [
        ([1.0], [1.0]),
        ([1.0, 11.0, 21.0], [1.0, 11.0, 21.0]),
        ([0.0, 1.0, 70.0], [0.0, 70.0]),
        ([float(day) for day in range(71)], [10.0 * k for k in range(8)]),
    ],
)
def test_labelled_days_do_not_overlap(days: list[float], labelled: list[float]) -> None:
    assert report._spread(days) == labelled
