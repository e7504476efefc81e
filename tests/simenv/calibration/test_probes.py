"""Circuits that identify what the counts of a fit leave open."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_fits import covers, identified, likelihood_fit, mixed_counts
from msgspec.structs import replace
from qiskit.primitives import StatevectorSampler

from noise_models import library
from noise_models.calibration import CalibrationSnapshot, QubitCalibration
from simenv.calibration import accept, data, probes
from simenv.calibration.data import SUGGESTED, CountsData, MeasuredCircuit
from simenv.calibration.fit import calibrate as store
from simenv.calibration.fit.attempt import FitAttempt, FitBase, score_of
from simenv.calibration.fit.calibrate import FitRefusedError, FittedDevice, calibrate
from simenv.calibration.fit.identify import Identification, LikelihoodFit
from simenv.calibration.fit.scope import scope_of
from simenv.calibration.fit.significance import NullGains
from simenv.calibration.fit.solve import Prior
from simenv.calibration.probes import Suggestion
from simenv.client.circuits import load
from testbed.drawn_devices import circuits, counts_of, device, loss


@functools.cache
def few() -> CountsData:
    """Few counts of the circuits, which leave gate errors open."""
    data, _, truth = mixed_counts()
    return counts_of(truth, [each.source for each in data.records], 500, np.random.default_rng(4))


@functools.cache
def few_fit() -> tuple[LikelihoodFit, Identification]:
    _, calibration, truth = mixed_counts()
    fit = likelihood_fit(few(), calibration)
    return fit, identified(fit, calibration, truth)


@pytest.fixture(scope="module")
def suggestion() -> Suggestion:
    return probes.suggested(*few_fit())


def measured(suggestion: Suggestion, truth: CalibrationSnapshot) -> CountsData:
    """Counts of the suggested circuits on a device."""
    sources = []
    for row in probes.rows(suggestion):
        loaded = load(row["qasm"] + "\n")
        sources.append(MeasuredCircuit(row["qasm"], loaded, loaded.program.num_clbits, row["body"]))
    return counts_of(truth, sources, probes.SHOTS, np.random.default_rng(5))


def test_values_that_were_open_are_identified_by_the_suggested_circuits(
    suggestion: Suggestion,
) -> None:
    _, calibration, truth = mixed_counts()
    before = {each.name: each for each in few_fit()[1].parameters}
    wanted = ("T1 0", "T2 0", "T1 2", "sx error 1", "cz error 0-1", "cz error 1-2")
    assert sum(not before[name].identified for name in wanted) >= 4
    assert set(suggestion.identified) >= {name for name in wanted if not before[name].identified}
    assert len(suggestion.probes) < 40
    first = few()
    both = replace(first, records=(*first.records, *measured(suggestion, truth).records))
    after = identified(likelihood_fit(both, calibration), calibration, truth).parameters
    named = {each.name: each for each in after}
    for name in wanted:
        each = named[name]
        assert each.identified, name
        assert each.low is not None
        assert each.high is not None
        assert each.high < 3.0 * each.low
    assert sum(not covers(each) for each in after) <= 2  # of 17 intervals of 95 %


def test_rows_have_the_form_of_measured_counts(suggestion: Suggestion, tmp_path: Path) -> None:
    rows = probes.rows(suggestion)
    for row in rows:
        width = load(row["qasm"] + "\n").program.num_clbits
        row["counts"] = {"0" * width: 100}
    path = tmp_path / "probes.jsonl"
    data.write(path, rows, "drawn")
    read = data.read(path)
    assert [each.name for each in read.records] == [each.name for each in suggestion.probes]
    assert len({each.body for each in read.records}) == len(rows)  # folds may divide them


def test_runs_of_one_circuit_have_one_body(suggestion: Suggestion) -> None:
    first, second = suggestion.probes[:2]
    again = tuple(probes._numbered((first, second), (0, 1, 0)))
    rows = probes.rows(replace(suggestion, probes=again))
    assert [row["name"] for row in rows] == [first.name, second.name, f"{first.name} again 2"]
    assert [row["body"] for row in rows] == [first.name, second.name, first.name]


def test_the_program_measures_with_qiskit_and_appends_rows(
    suggestion: Suggestion, tmp_path: Path
) -> None:
    """Run the program with a sampler of Qiskit; its circuits are those of the rows."""
    scope: dict[str, Any] = {"__name__": "probes"}
    exec(compile(probes.program(suggestion, "drawn"), "probes.py", "exec"), scope)
    path = tmp_path / "counts.jsonl"
    for _ in range(2):
        scope["measure"](StatevectorSampler(seed=1), path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"kind": "simenv-counts", "format": 1, "device": "drawn"}
    read = data.read(path)
    count = len(suggestion.probes)
    assert (len(read.records), {each.shots for each in read.records}) == (2 * count, {probes.SHOTS})
    for entry, row in zip(scope["CIRCUITS"], probes.rows(suggestion), strict=True):
        assert (entry["name"], entry["body"]) == (row["name"], row["body"])
        assert data.qasm_of(scope["circuit_of"](entry)) == row["qasm"]


def test_nothing_is_suggested_where_all_values_are_identified() -> None:
    fit, found = few_fit()
    known = tuple(replace(each, identified=True, mixed_with=()) for each in found.parameters)
    result = probes.suggested(fit, replace(found, parameters=known))
    assert (result.probes, result.identified, result.open) == ((), (), ())


def test_information_of_a_circuit_takes_off_what_the_inverse_does() -> None:
    random = np.random.default_rng(1)
    base, root = random.normal(size=(5, 5)), random.normal(size=(3, 5))
    precision = base @ base.T + np.eye(5)
    covariance, matrix = np.asarray(np.linalg.inv(precision)), random.normal(size=(2, 5))
    expected = np.asarray(np.linalg.inv(precision + root.T @ root))
    reduced = matrix @ (covariance - expected) @ matrix.T
    np.testing.assert_allclose(probes._reduction(covariance, root, matrix), reduced, atol=1e-10)
    assert not math.isnan(float(reduced.sum()))


Measured = tuple[CountsData, CalibrationSnapshot]


@pytest.fixture(scope="module")
def recorded() -> Measured:
    random = np.random.default_rng(2)
    calibration = device(random, 2)
    return counts_of(calibration, circuits(random, 2, 12), 500, random), calibration


def test_device_without_a_calibrated_value_is_not_fitted(recorded: Measured) -> None:
    with pytest.raises(FitRefusedError, match="no calibrated value: a fit changes T1") as caught:
        calibrate(recorded[0], library.load("ideal"), "fitted")
    assert "simenv devices new" in caught.value.hint


def test_circuits_without_a_calibrated_value_are_not_fitted(recorded: Measured) -> None:
    """The third qubit alone is calibrated, and no circuit uses it."""
    data, calibration = recorded
    bare = QubitCalibration()
    other = replace(
        calibration, num_qubits=3, qubits=(bare, bare, calibration.qubits[0]),
        coupling=((0, 1), (1, 2)), gates=(),
    )  # fmt: skip
    with pytest.raises(FitRefusedError, match="of the qubits and gates of the circuits"):
        calibrate(data, other, "fitted")


def test_device_with_gate_errors_alone_is_fitted(recorded: Measured, tmp_path: Path) -> None:
    data, calibration = recorded
    fitted = calibrate(data, replace(calibration, qubits=()), "fitted")
    assert {each.kind for each in fitted.identification.parameters} == {"error"}
    store.save(tmp_path / "fit.h5", fitted)


def test_readout_errors_given_as_a_mean_are_values_of_the_fit(recorded: Measured) -> None:
    data, calibration = recorded
    qubits = tuple(QubitCalibration(readout_error=0.02) for _ in calibration.qubits)
    fitted = calibrate(data, replace(calibration, qubits=qubits), "fitted")
    found = {each.name: each for each in fitted.identification.parameters}
    assert all(found[name].calibrated == 0.02 for name in ("p01 0", "p10 0", "p01 1", "p10 1"))
    asked = probes.suggested(fitted.likelihood, fitted.identification)
    named = {*asked.identified, *asked.open}
    assert named == {name for name, each in found.items() if not each.identified}


def test_suggested_circuits_name_no_family_of_the_scope(recorded: Measured) -> None:
    data, calibration = recorded
    named = [
        replace(each, family=SUGGESTED if k % 2 else "ghz") for k, each in enumerate(data.records)
    ]
    base = FitBase.of("snapshot", calibration, data)
    assert scope_of(named, base.problem, "drawn").families == ("ghz",)
    assert scope_of(named[1::2], base.problem, "drawn").families == ()


SIZE = 2
PAIR = (0, 1)


def changed(snapshot: CalibrationSnapshot) -> CalibrationSnapshot:
    """Device with another T1 of qubit 0 and another error of one cz."""
    first, *others = snapshot.qubits
    assert first.t1_us is not None
    assert first.t2_us is not None
    t1_us = 0.4 * first.t1_us
    first = replace(first, t1_us=t1_us, t2_us=min(first.t2_us, 1.9 * t1_us))
    gates = tuple(
        replace(each, error=3.0 * (each.error or 0.0))
        if (each.name, each.qubits) == ("cz", PAIR)
        else each
        for each in snapshot.gates
    )
    return replace(snapshot, qubits=(first, *others), gates=gates)


@functools.cache
def suggested_counts(
    seed: int, is_true: bool
) -> tuple[CalibrationSnapshot, CalibrationSnapshot, CountsData, CountsData]:
    """Calibration, truth, counts of suggested circuits, and of alike ones that are kept aside."""
    random = np.random.default_rng(seed)
    snapshot = device(random, SIZE)
    truth = snapshot if is_true else changed(snapshot)
    few = counts_of(truth, circuits(random, SIZE, 6), 500, random)
    first = calibrate(few, snapshot, "first")
    suggestion = probes.suggested(first.likelihood, first.identification)
    sources = []
    for row in probes.rows(suggestion):
        loaded = load(row["qasm"] + "\n")
        sources.append(MeasuredCircuit(row["qasm"], loaded, loaded.program.num_clbits, row["body"]))
    counts, judged = (
        counts_of(truth, each, probes.SHOTS, random)
        for each in (sources, circuits(random, SIZE, 12))
    )
    return snapshot, truth, counts, judged


def fitted(seed: int, is_true: bool) -> FittedDevice:
    snapshot, _, counts, _ = suggested_counts(seed, is_true)
    return calibrate(counts, snapshot, "fitted")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_fit_that_circuits_left_out_cannot_show_is_for_alike_circuits(seed: int) -> None:
    snapshot, truth, _, judged = suggested_counts(seed, is_true=False)
    result = fitted(seed, is_true=False)
    assert (result.share, result.snapshot.outside) == (1.0, snapshot)
    held = result.held_out
    assert held.bodies >= accept.LEAST_BODIES
    assert not held.is_used
    assert held.is_narrow
    assert "p <= 0.001 of the likelihood" in held.text
    assert loss(result.snapshot, truth, judged) < 0.3 * loss(snapshot, truth, judged)
    named = {each.name: each for each in result.identification.parameters}
    (error,) = (each.error for each in truth.gates if (each.name, each.qubits) == ("cz", PAIR))
    for name, true in (("T1 0", truth.qubits[0].t1_us), ("cz error 0-1", error)):
        each = named[name]
        assert true is not None
        assert each.fitted is not None
        assert each.low is not None
        assert each.high is not None
        assert each.low < true < each.high, name
        assert each.low < each.fitted < each.high, name


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_suggested_counts_of_the_calibrated_device_keep_it(seed: int) -> None:
    snapshot, *_ = suggested_counts(seed, is_true=True)
    result = fitted(seed, is_true=True)
    assert (result.share, result.snapshot.fitted) == (0.0, None)
    assert result.snapshot.qubits == snapshot.qubits
    assert not result.held_out.refutes_snapshot
    assert "of the likelihood" in result.held_out.text


def test_a_fit_without_a_fold_can_have_the_bodies_that_alone_identify_values() -> None:
    """Other circuits of the fold are then judged by the T1 that one body alone shows."""
    snapshot, truth, counts, _ = suggested_counts(1, is_true=False)
    base = FitBase.of("snapshot", snapshot, counts)
    losses = np.ones(len(base.folds()))
    prior = Prior(0.1, 1.0)
    built = FitAttempt(base, base.folds(), score_of(prior, losses, losses), ())
    alone = NullGains(base.problem, base.folds(), (1.0,)).alone(prior)
    solution, true_us = built.fit(), truth.qubits[0].t1_us
    assert true_us is not None

    def deviations(seen: frozenset[str]) -> list[float]:
        fits = [built.without(fold, solution, seen) for fold in range(built.num_folds)]
        return [abs(math.log((each.snapshot.qubits[0].t1_us or 1.0) / true_us)) for each in fits]

    assert max(deviations(frozenset())) > 0.4  # calibrated: 0.9
    assert max(deviations(alone)) < 0.2
