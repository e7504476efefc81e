"""Layouts that are inferred from counts of an emulated device."""

import msgspec
import numpy as np
import pytest

from bench.calibration_data import changed
from noise_models import library
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.data import CountsData, CountsRecord, MeasuredCircuit, body_of
from simenv.calibration.layouts import with_layouts
from simenv.calibration.score import Predictor
from simenv.client.circuits import load

STEP = "h q[0]; cx q[0],q[1]; t q[1]; cx q[1],q[2]; h q[1]; cx q[0],q[2]; "
SHOTS = 8_000


def counts_at(layout: tuple[int, ...], device: CalibrationSnapshot | None = None) -> CountsData:
    """Counts of circuits of 1 to 6 steps on these qubits of a device, by default lima, rounded. The
    data do not state the qubits. The last two circuits are test circuits."""
    predictor = Predictor(device or library.load("lima"))
    records = []
    for steps in range(1, 7):
        head = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; creg c[3]; '
        text = f"{head}{STEP * steps} measure q -> c;"
        loaded = load(text)
        source = MeasuredCircuit(text, loaded, 3, body_of(loaded))
        record = CountsRecord(source, {0: 1}, 1, body=source.body, is_test=steps > 4)
        found = predictor.prediction(msgspec.structs.replace(record, layout=layout))
        assert found is not None
        values = np.rint(found.probabilities * SHOTS).astype(int).tolist()
        counts = dict(zip(map(int, found.outcomes), values, strict=True))
        records.append(msgspec.structs.replace(record, counts=counts, shots=sum(values)))
    return CountsData(tuple(records), "lima")


def test_a_layout_is_inferred_from_training_rows_and_test_rows_get_it() -> None:
    data, snapshot = counts_at((0, 4, 2)), library.load("lima")
    found = with_layouts(data, snapshot)
    assert {each.layout for each in found.records} == {(0, 4, 2)}
    wrong = [msgspec.structs.replace(r, counts={0: 1}, shots=1) if r.is_test else r
             for r in data.records]  # fmt: skip
    again = with_layouts(msgspec.structs.replace(data, records=tuple(wrong)), snapshot)
    assert {each.layout for each in again.records} == {(0, 4, 2)}


@pytest.mark.parametrize("change", [{"level": 1}, {"layout": (1, 2, 3)}])
def test_rows_with_a_level_or_a_layout_keep_it(change: dict[str, object]) -> None:
    data = counts_at((0, 4, 2))
    rows = tuple(msgspec.structs.replace(each, **change) for each in data.records)
    data = msgspec.structs.replace(data, records=rows)
    assert with_layouts(data, library.load("lima")).records == rows


def test_no_layout_is_inferred_where_a_fit_explains_the_counts() -> None:
    noisier = changed(library.load("lima"), np.random.default_rng(3))
    data = counts_at((), noisier)
    found = with_layouts(data, library.load("lima"))
    assert {each.layout for each in found.records} == {()}
