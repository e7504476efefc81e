"""Circuits that identify what the counts of a fit leave open."""

import functools
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from known_fits import covers, identified, likelihood_fit, mixed_counts
from qiskit.primitives import StatevectorSampler

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration import data, probes
from simenv.calibration.data import CountsData, MeasuredCircuit
from simenv.calibration.fit.identify import Identification, LikelihoodFit
from simenv.calibration.probes import Suggestion
from simenv.client.circuits import load
from testbed.drawn_devices import counts_of


@functools.cache
def few() -> CountsData:
    """Few counts of the circuits, which leave gate errors open."""
    data, _, truth = mixed_counts()
    sources = [each.source for each in data.records]
    return counts_of(truth, sources, 500, np.random.default_rng(4))


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
    both = msgspec.structs.replace(
        first, records=(*first.records, *measured(suggestion, truth).records)
    )
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
    rows = probes.rows(msgspec.structs.replace(suggestion, probes=again))
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
    assert len(read.records) == 2 * count
    assert {each.shots for each in read.records} == {probes.SHOTS}
    for entry, row in zip(scope["CIRCUITS"], probes.rows(suggestion), strict=True):
        assert (entry["name"], entry["body"]) == (row["name"], row["body"])
        assert data.qasm_of(scope["circuit_of"](entry)) == row["qasm"]


def test_nothing_is_suggested_where_all_values_are_identified() -> None:
    fit, found = few_fit()
    known = tuple(
        msgspec.structs.replace(each, identified=True, mixed_with=()) for each in found.parameters
    )
    result = probes.suggested(fit, msgspec.structs.replace(found, parameters=known))
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
