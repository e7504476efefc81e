"""Counts that cannot be those of the circuits on the device are refused before a fit."""

import re

import msgspec
import numpy as np
import pytest
from failing import fails

from bench.engine.fit_truths import changed, circuits, counts_of, device, spoiled
from noise_models import snapshot as snapshots
from noise_models.calibration import (
    CalibrationSnapshot,
    LayerCalibration,
    LayerGate,
    NativeGate,
    PauliGenerator,
    QubitCalibration,
)
from simenv.calibration import guards
from simenv.calibration.data import CountsData
from simenv.calibration.fit.calibrate import MOST_CHECK_WORK, FitRefusedError, calibrate

Measured = tuple[CountsData, CalibrationSnapshot]
SIZE = 4
KINDS = {
    "bits": "better with their bits",
    "two bits": "",  # exchanged or inverted
    "first bit": "",
    "last bit": "",
    "all outcomes": "do not tell the circuits apart",
    "rows": "do not tell the circuits apart",
    "uniform": "do not tell the circuits apart",
    "ten shots": "140 shots in all are too few",
    "qubits of the wrong couplings": "pairs of qubits that drawn does not couple: 0-2",
    "qubits numbered from the other end": r"other numbers of the qubits \(0 as 3",
}


@pytest.fixture(scope="module")
def right() -> Measured:
    random = np.random.default_rng(2)
    calibration = device(random, SIZE)
    truth = changed(calibration, random)
    return counts_of(truth, circuits(random, SIZE, 14), 2_000, random), calibration


def problem(data: CountsData, snapshot: CalibrationSnapshot) -> str:
    return guards.problem(data.records, snapshot, MOST_CHECK_WORK)


def test_right_counts_of_an_old_calibration_pass(right: Measured) -> None:
    assert problem(*right) == ""


def test_every_kind_of_wrong_counts_is_refused_with_its_reason(right: Measured) -> None:
    data, snapshot = right
    names = []
    for name, wrong in spoiled(data, SIZE, np.random.default_rng(5)):
        names.append(name)
        found = problem(wrong, snapshot)
        assert found, name
        for kind, words in KINDS.items():
            if name.startswith(kind) and words:
                assert re.search(words, found), (name, found)
    assert len(names) >= 30


def test_wrong_counts_are_fitted_by_force_alone(right: Measured) -> None:
    data, snapshot = right
    wrong = next(each for name, each in spoiled(data, SIZE, np.random.default_rng(5)))
    few = msgspec.structs.replace(wrong, records=wrong.records[:12])
    error = fails(FitRefusedError, "in reverse order", calibrate, few, snapshot, "fitted")
    assert "force=True" in error.hint
    forced = calibrate(few, snapshot, "fitted", force=True)
    assert "in reverse order" in forced.scope.refused
    for each in (forced.snapshot, *forced.series):
        assert each.fitted is not None
        assert each.fitted.refused == forced.scope.refused


def test_renumbered_qubits_keep_their_layers() -> None:
    learned = LayerCalibration(
        (LayerGate("cz", (0, 1)),), (0, 1, 2), (PauliGenerator("XZ", (1, 2), 1e-3),)
    )
    device = CalibrationSnapshot(
        "line", 3, native_gates=(NativeGate("cz", 2),), coupling=((0, 1), (1, 2), (2, 0)),
        qubits=(QubitCalibration(),) * 3, layers=(learned,),
    )  # fmt: skip
    moved = guards._renumbered(device, {0: 1, 1: 2, 2: 0})
    (layer,) = moved.layers
    assert [set(gate.qubits) for gate in layer.gates] == [{2, 0}]
    assert layer.qubits == (2, 0, 1)
    assert layer.generators == (PauliGenerator("XZ", (0, 1), 1e-3),)
    snapshots.check(moved)
