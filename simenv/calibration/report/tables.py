"""Scores as tables: values for JSON, and cells for text and HTML."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from simenv.calibration.accept.gains import is_below
from simenv.calibration.score.metrics import Statistic
from simenv.calibration.score.score import CEILING, IDEAL, REPEAT, UNIFORM, Score

HEADER = ("part", "model", "runs", "median HF", "p10", "mean", "median TVD")
PARTS = (("train", False), ("test", True))


def as_values(score: Score) -> list[dict[str, Any]]:
    """One object for each part of the split and model, with all statistics and intervals."""
    results = []
    for part, is_test in PARTS:
        rows = score.part(test=is_test)
        for model in (*score.models, UNIFORM, IDEAL, REPEAT, CEILING):
            fidelity, distance = rows.summary(model), rows.summary(model, "tvd")
            if fidelity is not None:
                results.append(
                    {
                        "part": part,
                        "model": model,
                        "runs": fidelity.runs,
                        "bodies": fidelity.bodies,
                        "hf": msgspec.to_builtins(fidelity),
                        "tvd": None if distance is None else msgspec.to_builtins(distance),
                    }
                )
    return results


def below(score: Score, model: str, reference: str) -> list[str]:
    """Texts for the parts of the split in which the median or 10th percentile of a model is below
    that of another one by more than LEAST_GAIN."""
    results = []
    for part, is_test in PARTS:
        rows = score.part(test=is_test)
        mine, other = rows.summary(model), rows.summary(reference)
        if mine is None or other is None:
            continue
        pairs = [
            (name, getattr(mine, field).value, getattr(other, field).value)
            for name, field in (("median", "median"), ("10th percentile", "p10"))
        ]
        results += [
            f"{model} is below {reference}: {part} {name} {value:.4f} ({least:.4f})"
            for name, value, least in pairs
            if is_below((value,), (least,))
        ]
    return results


def cells(values: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Rows of text with the columns of HEADER."""
    results = []
    for row in values:
        hf, tvd = row["hf"], row["tvd"]
        results.append(
            (
                row["part"],
                row["model"],
                str(row["runs"]),
                *(
                    _text(msgspec.convert(hf[name], Statistic))
                    for name in ("median", "p10", "mean")
                ),
                "" if tvd is None else _text(msgspec.convert(tvd["median"], Statistic)),
            )
        )
    return results


def _text(statistic: Statistic) -> str:
    if math.isnan(statistic.low):
        return f"{statistic.value:.4f}"
    return f"{statistic.value:.4f} [{statistic.low:.4f}, {statistic.high:.4f}]"
