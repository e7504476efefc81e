"""Scores of device models on measured counts: one row for each run, and their statistics.

Each model is compared with the ideal circuit, the uniform distribution, the ceiling by shot noise
and the hardware's own repeat: the next run of the same circuit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.data.records import CountsData, CountsRecord
from simenv.calibration.score.metrics import (
    Summary,
    ceiling,
    hellinger_fidelity,
    summary,
    variation_distance,
)
from simenv.calibration.score.predict import Prediction, Predictor

UNIFORM, IDEAL, REPEAT, CEILING = "uniform", "ideal", "repeat", "ceiling"
SEED = 7
_PARITY_POINTS = 4000


class ScoreRow(msgspec.Struct, frozen=True):
    """One run. Fidelities and distances by model; nan where a model has no distribution."""

    name: str
    body: str
    is_test: bool
    time_s: float
    shots: int
    bits: int  # measured
    qubits: int  # used
    two_qubit_gates: int
    depth: int  # two-qubit gates on the longest path
    how: str  # method that gave the distribution
    hf: dict[str, float]
    tvd: dict[str, float]


class Score(msgspec.Struct, frozen=True, eq=False):
    """All rows, and points (predicted, measured) of each model for parity plots."""

    models: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    parity: dict[str, NDArray[np.float64]]  # [points, 2]
    not_judged: int  # runs whose circuits are too wide

    def part(self, *, test: bool) -> Score:
        """Rows of one side of the split."""
        rows = tuple(row for row in self.rows if row.is_test == test)
        return msgspec.structs.replace(self, rows=rows)

    def summary(self, model: str, field: str = "hf") -> Summary | None:
        """Statistics of one model over all rows."""
        values = [getattr(row, field).get(model, math.nan) for row in self.rows]
        return summary(values, [row.body for row in self.rows])


def score(
    data: CountsData,
    models: Mapping[str, Predictor],
    ideal: Callable[[CountsRecord], dict[int, float] | None],
    note: Callable[[str], None] = lambda _: None,
) -> Score:
    """Score each model on all runs; the first one gives the ceiling and the widths."""
    rows: list[ScoreRow] = []
    parity: dict[str, list[NDArray[np.float64]]] = {name: [] for name in models}
    rng = np.random.default_rng(SEED)
    ceilings: dict[tuple[int, int], float] = {}
    skipped = 0
    for record, repeat in with_repeats(data.records):
        entries = {name: each.prediction(record) for name, each in models.items()}
        first = next((each for each in entries.values() if each is not None), None)
        if first is None:
            skipped += 1
            continue
        measured = {x: count / record.shots for x, count in record.counts.items()}
        hf, tvd = {}, {}
        for name, each in entries.items():
            if each is not None:
                pairs = aligned(_table(each), measured)
                hf[name] = hellinger_fidelity(pairs[:, 0], pairs[:, 1])
                tvd[name] = variation_distance(pairs[:, 0], pairs[:, 1])
                if len(parity[name]) < _PARITY_POINTS:
                    parity[name].append(pairs[:64])
        for name, table in _references(ideal(record), repeat):
            pairs = aligned(table, measured)
            hf[name] = hellinger_fidelity(pairs[:, 0], pairs[:, 1])
            tvd[name] = variation_distance(pairs[:, 0], pairs[:, 1])
        key = (id(first), record.shots)
        if key not in ceilings:
            ceilings[key] = ceiling(first.probabilities, record.shots, rng)
        hf[CEILING] = ceilings[key]
        hf[UNIFORM], tvd[UNIFORM] = _uniform(measured, first.num_bits)
        rows.append(_row(record, first, hf, tvd))
    note(f"{len(rows)} runs judged, {skipped} too wide")
    points = {
        name: np.concatenate(entries) if entries else np.zeros((0, 2))
        for name, entries in parity.items()
    }
    return Score(tuple(models), tuple(rows), points, skipped)


def fidelity(prediction: Prediction, record: CountsRecord) -> float:
    """Hellinger fidelity between a prediction and the counts of a run."""
    measured = {x: count / record.shots for x, count in record.counts.items()}
    pairs = aligned(_table(prediction), measured)
    return hellinger_fidelity(pairs[:, 0], pairs[:, 1])


def _row(
    record: CountsRecord, first: Prediction, hf: dict[str, float], tvd: dict[str, float]
) -> ScoreRow:
    return ScoreRow(
        record.name,
        record.body,
        record.is_test,
        record.time_s,
        record.shots,
        first.num_bits,
        first.num_qubits,
        first.two_qubit_gates,
        first.depth,
        first.how,
        hf,
        tvd,
    )


def _references(
    ideal: dict[int, float] | None, repeat: CountsRecord | None
) -> Iterator[tuple[str, dict[int, float]]]:
    if ideal is not None:
        yield IDEAL, ideal
    if repeat is not None:
        yield REPEAT, {x: count / repeat.shots for x, count in repeat.counts.items()}


def _uniform(measured: dict[int, float], num_bits: int) -> tuple[float, float]:
    """HF and TVD of the uniform distribution, without its 2^bits entries."""
    size = 2.0**num_bits
    q = np.array(list(measured.values()))
    hf = float(np.sqrt(q / size).sum() ** 2)
    tvd = 0.5 * (float(np.abs(q - 1.0 / size).sum()) + (size - len(q)) / size)
    return hf, tvd


def _table(prediction: Prediction) -> dict[int, float]:
    return dict(zip(prediction.outcomes.tolist(), prediction.probabilities.tolist(), strict=True))


def aligned(first: Mapping[int, float], second: Mapping[int, float]) -> NDArray[np.float64]:
    """Both distributions over the outcomes of either: [outcomes, 2]."""
    keys = [*first, *(key for key in second if key not in first)]
    return np.array([(first.get(key, 0.0), second.get(key, 0.0)) for key in keys], np.float64)


def with_repeats(
    records: Sequence[CountsRecord],
) -> Iterator[tuple[CountsRecord, CountsRecord | None]]:
    """Each record with another run of its circuit: the next one, or for the last the one before."""
    runs: dict[tuple[str, tuple[int, ...], int], list[CountsRecord]] = {}
    for record in records:
        runs.setdefault((record.source.text, record.layout, record.level), []).append(record)
    others: dict[int, CountsRecord | None] = {}
    for same in runs.values():
        same.sort(key=lambda each: each.time_s)
        for k, record in enumerate(same):
            other = same[k + 1] if k + 1 < len(same) else same[k - 1]
            others[id(record)] = other if len(same) > 1 else None
    for record in records:
        yield record, others[id(record)]
