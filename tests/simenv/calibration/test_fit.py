"""Fits to counts of an emulated device whose noise is known."""

import math
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from changed_devices import changed_qubit, scaled_errors
from msgspec.structs import replace

from noise_models import library, snapshot as snapshots
from noise_models.build import build as noise_model
from noise_models.calibration import (
    CalibrationSnapshot,
    GateCalibration,
    MeasurementCrosstalk,
    NativeGate,
    T1Jumps,
)
from simenv.calibration.data import CountsData, DataError
from simenv.calibration.fit import attempt, calibrate as store
from simenv.calibration.fit.calibrate import FittedDevice, calibrate
from simenv.calibration.fit.components import (
    ChannelKey,
    Component,
    DeviceChannels,
    all_components,
    fitted_snapshot,
    homogeneous,
    with_gates_of_each_set,
    without_jumps,
)
from simenv.calibration.fit.observations import DeviceCompiler, Distributions, window_starts
from simenv.calibration.fit.solve import Prior
from simenv.calibration.score import CEILING, IdealDistributions, Predictor, score
from testbed.drawn_devices import measured, random_counts

ROTATIONS = ("ZX", "IX", "ZZ", "X")


@pytest.fixture(scope="module")
def counts() -> CountsData:
    return random_counts(16, 3)[0]


@pytest.fixture(scope="module")
def fitted(counts: CountsData) -> FittedDevice:
    return calibrate(split(counts), library.load("lima"), "fitted")


def split(counts: CountsData) -> CountsData:
    """Every fourth circuit is a test circuit."""
    rows = tuple(replace(r, is_test=k % 4 == 0) for k, r in enumerate(counts.records))
    return replace(counts, records=rows)


def test_derivatives_of_components_are_those_of_differences(counts: CountsData) -> None:
    snapshot = library.load("lima")
    distributions = Distributions(DeviceChannels(snapshot, coherent=True), DeviceCompiler(snapshot))
    place = distributions.place_of(counts.records[0])
    components = distributions.components([place], pooled=False)
    kinds = {each.kind for each in components}
    assert kinds >= {"relaxation", "p01", "asymmetry", "error", "zz", *ROTATIONS}
    values = np.random.default_rng(2).normal(size=len(components)) * 0.2

    def at(values: np.ndarray) -> np.ndarray:
        channels = distributions.channels([place], components, values, derivatives=False)
        return distributions.outcomes([place], channels)[place].probabilities

    channels = distributions.channels([place], components, values, derivatives=True)
    result = distributions.outcomes([place], channels)[place]
    for number, param in enumerate(result.params):
        step = 1e-5 * np.eye(len(components))[param]
        difference = (at(values + step) - at(values - step)) / 2e-5
        np.testing.assert_allclose(result.jacobian[:, number], difference, atol=1e-8)


@pytest.mark.parametrize("name", ["lima", "trapped-ions"])
def test_a_fitted_snapshot_has_the_noise_of_its_components(counts: CountsData, name: str) -> None:
    snapshot = library.load(name)
    device = DeviceChannels(snapshot, coherent=True)
    every = all_components(device)
    values = np.random.default_rng(3).normal(size=len(every)) * 0.3
    result = fitted_snapshot(device, every, values)
    distributions = Distributions(device, DeviceCompiler(snapshot))
    predictor = Predictor(snapshots.load(snapshots.dump(result)), compiler=distributions.compiler)
    for record in counts.records[:4]:
        place = distributions.place_of(record)
        channels = distributions.channels([place], every, values, derivatives=False)
        expected = distributions.outcomes([place], channels)[place].probabilities
        # Waiting times are split by the calibrated rates, within SPLIT_ERROR.
        np.testing.assert_allclose(predictor.prediction(record).probabilities, expected, atol=1e-6)


def test_a_fit_follows_the_relaxation_during_a_readout_that_is_not_the_last() -> None:
    """The second readout of a qubit shows its T1, which a fit changes."""
    lima = library.load("lima")
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[5]; creg c[2];'
    text += "x q[1]; measure q[1] -> c[0]; measure q[1] -> c[1];"
    (record,) = measured([text], lima, np.random.default_rng(0))
    device = DeviceChannels(lima)
    every = all_components(device)
    values = np.array([1.5 if each.kind == "relaxation" else 0.0 for each in every])
    faster = fitted_snapshot(device, every, values)
    distributions = Distributions(device, DeviceCompiler(lima))
    place = distributions.place_of(record)
    channels = distributions.channels([place], every, values, derivatives=True)
    result = distributions.outcomes([place], channels)[place]
    expected = Predictor(faster, compiler=distributions.compiler).prediction(record)
    before = Predictor(lima, compiler=distributions.compiler).prediction(record)
    np.testing.assert_allclose(result.probabilities, expected.probabilities, atol=1e-10)
    assert np.abs(expected.probabilities - before.probabilities).max() > 0.02
    number = next(k for k, each in enumerate(every) if each == Component("relaxation", (1,)))
    assert np.abs(result.jacobian[:, result.params.index(number)]).max() > 0.02


def test_a_fit_predicts_with_memory_errors_and_what_measurements_do() -> None:
    """Terms that a fit does not change, of circuits that it can have."""
    lima = library.load("lima")
    terms = {"memory_error": 0.02, "measure_decay": 0.1, "measure_excitation": 0.02}
    disturbing = replace(
        lima,
        qubits=tuple(replace(each, **terms) for each in lima.qubits),
        measurement_crosstalk=(MeasurementCrosstalk((1, 0), 0.05, 0.3),),
    )
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[5]; creg c[3];'
    text += "h q[0]; x q[1]; cx q[1],q[2]; barrier q;"
    text += "measure q[1] -> c[0]; barrier q; h q[0]; cx q[1],q[2]; measure q[0] -> c[1];"
    text += "measure q[1] -> c[2];"
    (record,) = measured([text], lima, np.random.default_rng(0))
    device = DeviceChannels(disturbing)
    distributions = Distributions(device, DeviceCompiler(disturbing))
    place = distributions.place_of(record)
    every = all_components(device)
    channels = distributions.channels([place], every, np.zeros(len(every)), derivatives=False)
    result = distributions.outcomes([place], channels)[place].probabilities
    expected, plain = (
        Predictor(each, compiler=distributions.compiler).prediction(record).probabilities
        for each in (disturbing, lima)
    )
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert np.abs(expected - plain).max() > 0.02


def test_a_fit_whose_prior_has_a_long_text_is_stored(
    counts: CountsData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every term at once: more than the 100 characters that a text of a snapshot may have."""
    width = 0.123456
    prior = Prior(width, width, robust=True, angle=width, zz=width, asymmetry=width, added=width)
    common = replace(prior, own=0.0)
    monkeypatch.setattr(attempt, "CANDIDATES", (prior, common))
    few = replace(counts, records=counts.records[:6], digest="ab" * 32)
    result = calibrate(few, library.load("lima"), "fitted")
    assert len(result.prior.text) > 100
    assert snapshots.load(snapshots.dump(result.snapshot)) == result.snapshot
    assert (result.snapshot.version, result.snapshot.source_digest) == (few.digest[:12], few.digest)


def test_a_fit_begins_with_the_calibrated_t1() -> None:
    lima = library.load("lima")
    jumps = T1Jumps(2.0, 600.0, 0.1)
    usual = changed_qubit(lima, 0, t1_jumps=jumps)
    low = changed_qubit(lima, 0, t1_jumps=replace(jumps, low=True))
    assert without_jumps(low) == without_jumps(usual) == usual


def test_components_at_zero_are_the_calibrated_device() -> None:
    snapshot = library.load("lima")
    device = DeviceChannels(snapshot)
    result = fitted_snapshot(device, (), np.zeros(0))
    for qubits in ((0, 1), (1, 0), (3, 4)):
        (one,), (other,) = (noise_model(x).after_gate("cx", qubits) for x in (snapshot, result))
        np.testing.assert_allclose(one.channel.ptm, other.channel.ptm, atol=1e-12)
    assert device.key_of("cx", (0, 1)) == ChannelKey("cx", (0, 1))


def test_fit_predicts_circuits_it_did_not_see(fitted: FittedDevice, counts: CountsData) -> None:
    models = {"before": Predictor(library.load("lima")), "after": Predictor(fitted.snapshot)}
    result = score(split(counts), models, IdealDistributions())
    for part in (result.part(test=False), result.part(test=True)):
        before, after, limit = (part.summary(name) for name in ("before", "after", CEILING))
        assert after.median.value > before.median.value
        assert after.median.value > limit.median.value - 0.003
    assert fitted.held_out.gain.mean > 0.0
    assert (fitted.snapshot.name, len(fitted.observed.observations)) == ("fitted", 12)


def test_gates_that_are_calibrated_for_all_qubits_at_once_are_fitted() -> None:
    ions = library.load("trapped-ions")
    assert {gate.qubits for gate in ions.gates} == {()}
    counts, snapshot = random_counts(12, 2, snapshot=scaled_errors(ions, 20.0))
    outcome = calibrate(counts, snapshot, "fitted")
    errors = {column for column in outcome.columns if column.startswith("error")}
    assert {"error 1", "error 2"} <= errors
    before = {gate.name: gate.error for gate in snapshot.gates}
    after = [gate for gate in outcome.snapshot.gates if gate.name == "rzz"]
    assert len(after) == 32 * 31
    assert all(gate.error != before["rzz"] for gate in after)
    models = {"before": Predictor(snapshot), "after": Predictor(outcome.snapshot)}
    result = score(counts, models, IdealDistributions())
    old, new = (result.summary(name) for name in ("before", "after"))
    assert new.median.value > old.median.value


def test_a_fit_is_stored_as_hdf5(fitted: FittedDevice, tmp_path: Path) -> None:
    store.save(tmp_path / "fit.h5", fitted)
    with h5py.File(tmp_path / "fit.h5") as file:
        assert file.attrs["format"] == store.FORMAT
        np.testing.assert_array_equal(file["values"], fitted.values)
        assert file["unknowns"].shape == fitted.latent.shape
        names = msgspec.json.decode(file.attrs["parameter_names"])
        first = fitted.identification.parameters[0]
        assert file["parameters"].shape == (len(names), 4)
        assert (names[0], file["parameters"][0, 1]) == (first.name, first.fitted)
        assert msgspec.json.decode(file.attrs["columns"]) == list(fitted.columns)


def test_data_without_training_rows_are_refused(counts: CountsData) -> None:
    rows = tuple(replace(each, is_test=True) for each in counts.records)
    with pytest.raises(DataError, match="every row of the data is a test row"):
        calibrate(replace(counts, records=rows), library.load("lima"), "fitted")


def test_a_homogeneous_device_has_equal_qubits_and_its_broken_gates() -> None:
    broken = scaled_errors(library.load("lima"), math.inf, lambda gate: gate.qubits == (2,))
    gates = tuple(replace(g, error=min(g.error or 0.0, 1.0)) for g in broken.gates)
    result = homogeneous(replace(broken, gates=gates))
    assert len({qubit.t1_us for qubit in result.qubits}) == 1
    errors = {gate.qubits: gate.error for gate in result.gates if gate.name == "cx"}
    assert errors[1, 2] == errors[2, 1] == 1.0
    assert len({errors[pair] for pair in ((0, 1), (1, 3), (3, 4))}) == 1


def test_windows_begin_after_gaps(counts: CountsData) -> None:
    day = 86_400.0

    def at(days: list[float]) -> list[float]:
        rows = [
            replace(each, time_s=when * day)
            for each, when in zip(counts.records, days, strict=False)
        ]
        return window_starts(rows)

    assert at([0, 0, 1, 2, 10, 10, 11, 12]) == [0, 10 * day]
    assert at([0, 0, 1, 2, 10]) == [0]  # one circuit is no window
    assert at([0, 1, 2, math.nan]) == []


def test_entries_of_a_gate_on_all_pairs_are_those_of_the_device() -> None:
    """A directed pair has the gate in its direction, an unusable qubit has none."""
    snapshot = CalibrationSnapshot(
        "line",
        4,
        native_gates=(NativeGate("sx", 1), NativeGate("cx", 2)),
        coupling=((0, 1), (2, 1), (2, 3)),
        gates=(GateCalibration("sx", (), 1e-3), GateCalibration("cx", (), 1e-2)),
        unusable=(3,),
    )
    found = [(gate.name, gate.qubits) for gate in with_gates_of_each_set(snapshot).gates]
    assert found == [*[("sx", (qubit,)) for qubit in range(3)], ("cx", (0, 1)), ("cx", (2, 1))]


def test_homogeneous_device_breaks_gates_beside_a_qubit_without_a_measurement() -> None:
    result = homogeneous(replace(library.load("lima"), unmeasured=(2,)))
    errors = {gate.qubits: gate.error for gate in result.gates if gate.name == "cx"}
    assert errors[1, 2] == errors[2, 1] == 1.0
    assert errors[0, 1] < 1.0
