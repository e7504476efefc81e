"""Table of the run times that the estimator has learned; used for forecasts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simenv.errors import JournalError
from simenv.scheduler.core.cost_estimator import LearnedEstimate
from simenv.service.journal.reader import WAY_OUT, Records

Statement = tuple[str, tuple[Any, ...]]
SCHEMA = """
create table if not exists estimate(
  kind text, width int, factor real, deviation real, count int, primary key(kind, width)
) without rowid;
"""


def statements(changes: Mapping[tuple[str, int], LearnedEstimate]) -> list[Statement]:
    """Return the statements that store these estimates."""
    query = "insert or replace into estimate values(?,?,?,?,?)"
    return [
        (query, (kind, width, each.factor, each.deviation, each.count))
        for (kind, width), each in changes.items()
    ]


def read(records: Records) -> dict[tuple[str, int], LearnedEstimate]:
    """Read the stored estimates, by kind and width. Raises JournalError."""
    results = {}
    for kind, width, factor, deviation, count in records.rows("select * from estimate"):
        figures = (factor, deviation, count)
        is_valid = isinstance(kind, str) and isinstance(width, int)
        if not is_valid or not all(isinstance(each, int | float) and each >= 0 for each in figures):
            raise JournalError(
                f"an estimate in the journal cannot be read: {kind!r}, {width!r}", hint=WAY_OUT
            )
        results[kind, width] = LearnedEstimate(float(factor), float(deviation), int(count))
    return results
