"""Fits of devices whose calibration lacks values."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from noise_models import library
from noise_models.calibration import CalibrationSnapshot, QubitCalibration
from simenv.calibration import accept, probes
from simenv.calibration.data import SUGGESTED, CountsData
from simenv.calibration.fit import calibrate as store
from simenv.calibration.fit.attempt import FitBase
from simenv.calibration.fit.calibrate import FitRefusedError, calibrate
from testbed.drawn_devices import circuits, counts_of, device

Measured = tuple[CountsData, CalibrationSnapshot]


@pytest.fixture(scope="module")
def measured() -> Measured:
    random = np.random.default_rng(2)
    calibration = device(random, 2)
    return counts_of(calibration, circuits(random, 2, 12), 500, random), calibration


def test_device_without_a_calibrated_value_is_not_fitted(measured: Measured) -> None:
    with pytest.raises(FitRefusedError, match="no calibrated value: a fit changes T1") as caught:
        calibrate(measured[0], library.load("ideal"), "fitted")
    assert "simenv devices new" in caught.value.hint


def test_circuits_without_a_calibrated_value_are_not_fitted(measured: Measured) -> None:
    """The third qubit alone is calibrated, and no circuit uses it."""
    data, calibration = measured
    bare = QubitCalibration()
    other = msgspec.structs.replace(
        calibration, num_qubits=3, qubits=(bare, bare, calibration.qubits[0]),
        coupling=((0, 1), (1, 2)), gates=(),
    )  # fmt: skip
    with pytest.raises(FitRefusedError, match="of the qubits and gates of the circuits"):
        calibrate(data, other, "fitted")


def test_device_with_gate_errors_alone_is_fitted(measured: Measured, tmp_path: Path) -> None:
    data, calibration = measured
    fitted = calibrate(data, msgspec.structs.replace(calibration, qubits=()), "fitted")
    kinds = {each.kind for each in fitted.identification.parameters}
    assert kinds == {"error"}
    store.save(tmp_path / "fit.h5", fitted)


def test_readout_errors_given_as_a_mean_are_values_of_the_fit(measured: Measured) -> None:
    data, calibration = measured
    qubits = tuple(QubitCalibration(readout_error=0.02) for _ in calibration.qubits)
    fitted = calibrate(data, msgspec.structs.replace(calibration, qubits=qubits), "fitted")
    found = {each.name: each for each in fitted.identification.parameters}
    assert all(found[name].calibrated == 0.02 for name in ("p01 0", "p10 0", "p01 1", "p10 1"))
    asked = probes.suggested(fitted.likelihood, fitted.identification)
    named = {*asked.identified, *asked.open}
    assert named == {name for name, each in found.items() if not each.identified}


def test_suggested_circuits_name_no_family_of_the_scope(measured: Measured) -> None:
    data, calibration = measured
    named = [
        msgspec.structs.replace(each, family=SUGGESTED if k % 2 else "ghz")
        for k, each in enumerate(data.records)
    ]
    base = FitBase.of("snapshot", calibration, data)
    assert accept.scope_of(named, base.problem, "drawn").families == ("ghz",)
    assert accept.scope_of(named[1::2], base.problem, "drawn").families == ()
