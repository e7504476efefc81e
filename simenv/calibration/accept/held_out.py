"""Fidelities of circuits that a fit did not see, predicted like a submit to the fitted device: the
compiler chooses qubits by the fitted values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from simenv.calibration.data.records import CountsRecord
from simenv.calibration.score.predict import Predictor
from simenv.calibration.score.score import fidelity


class HeldOutCircuit(msgspec.Struct, frozen=True, eq=False):
    """All runs of one circuit in one date window. `fold`: the fold whose fit did not see its
    body."""

    record: CountsRecord
    runs: int
    fold: int


def held_out_circuits(
    records: Sequence[CountsRecord], windows: Sequence[int], folds: Mapping[str, int]
) -> list[HeldOutCircuit]:
    """Circuits of the records. `folds`: fold of each body; no fit saw a body without a fold."""
    groups: dict[tuple[str, tuple[int, ...], int, int], list[CountsRecord]] = {}
    for record, window in zip(records, windows, strict=True):
        key = (record.source.text, record.layout, record.level, window)
        groups.setdefault(key, []).append(record)
    return [
        HeldOutCircuit(_merged(group), len(group), folds.get(group[0].body, 0))
        for group in groups.values()
    ]


def _merged(group: Sequence[CountsRecord]) -> CountsRecord:
    counts: Counter[int] = Counter()
    for record in group:
        counts.update(record.counts)
    shots = sum(record.shots for record in group)
    return msgspec.structs.replace(group[0], counts=dict(counts), shots=shots)


def fidelities(
    circuits: Sequence[HeldOutCircuit], devices: Sequence[Predictor]
) -> NDArray[np.float64]:
    """Hellinger fidelity of each circuit by the device of its fold; nan if it has no
    distribution."""
    results = []
    for each in circuits:
        prediction = devices[each.fold % len(devices)].prediction(each.record)
        results.append(np.nan if prediction is None else fidelity(prediction, each.record))
    return np.array(results)
