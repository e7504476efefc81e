"""Intervals, marks and correlations of the values of a fit, on devices whose noise is known."""

from collections.abc import Callable

import numpy as np
import pytest
from changed_devices import changed_qubit
from known_fits import covers, identified, likelihood_fit, mixed_counts, mixed_errors
from msgspec.structs import replace

from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.data import CountsData, CountsRecord
from simenv.calibration.fit.calibrate import calibrate
from simenv.calibration.fit.components import with_gates_of_each_set
from simenv.calibration.fit.identify import (
    BOUND,
    HEADER,
    KEPT,
    NOT_IDENTIFIED,
    OUTSIDE,
    Identification,
    LikelihoodFit,
    ParameterEstimate,
    Quantity,
    _estimate,
    cells,
    chosen,
    identify,
    interval_text,
    summary,
)
from simenv.calibration.fit.likelihood import LEVEL, Expansion, extreme, minimum
from testbed.drawn_devices import (
    changed,
    circuits,
    counts_of,
    device,
    rotated,
    sequences,
    with_joint_flips,
    with_t2_star,
)

Changed = Callable[[CalibrationSnapshot, np.random.Generator], CalibrationSnapshot]


def test_intervals_cover_the_truth_where_an_error_of_one_qubit_looks_like_one_of_pairs() -> None:
    fit, calibration, truth = mixed_errors()
    found = identified(fit, calibration, truth).parameters
    outside = [each.name for each in found if not covers(each)]
    assert len(outside) <= 1, outside  # 17 intervals of 95 %
    named = {each.name: each for each in found}
    for name in ("cz error 0-1", "cz error 1-2", "sx error 0", "sx error 1", "sx error 2"):
        assert covers(named[name])
    assert not named["T1 0"].identified  # microseconds of circuits against 100 us
    assert named["T1 0"].mark == NOT_IDENTIFIED
    assert named["p01 0"].identified


def test_interval_is_where_a_refit_with_the_value_held_is_as_unlikely() -> None:
    """The profile by brute force: the deviance of all other values is minimised anew, with the
    value held at the printed end by a large weight."""
    fit, _, _ = mixed_errors()
    for name in ("p01 1", "sx error 0", "cz error 0-1", "cz error 1-2"):
        place = next(k for k, each in enumerate(fit.quantities) if each.name == name)
        for end in fit.intervals()[place]:
            rise = held(fit, place, float(end)) - fit.best.deviance
            if end > 1e-9:
                assert rise == pytest.approx(LEVEL * fit.likelihood.dispersion, rel=0.25), name


def held(fit: LikelihoodFit, place: int, value: float) -> float:
    """Least deviance with one quantity held at a value."""
    likelihood, quantity = fit.likelihood, fit.quantities[place]
    x, weight = fit.best.x, 1e4 / max(float(fit.intervals()[place].max()), 1e-6) ** 2
    for _ in range(12):
        point = likelihood.at(x)
        now, gradient = fit.device.gradient(quantity, likelihood, x)
        matrix = point.fisher + weight * np.outer(gradient, gradient) + 0.25 * np.eye(len(x))
        slope = point.score + weight * (value - now) * gradient
        x = minimum(matrix, matrix @ x + slope, likelihood.lower)
    now, _ = fit.device.gradient(quantity, likelihood, x)
    assert now == pytest.approx(value, rel=0.02)
    return likelihood.at(x).deviance


def test_quadratic_programs_are_solved() -> None:
    random = np.random.default_rng(3)
    for _ in range(50):
        root = random.normal(size=(6, 6))
        matrix = root @ root.T + 0.05 * np.eye(6)
        best_free = random.normal(size=6)
        lower = np.where(random.random(6) < 0.7, 0.0, -np.inf)
        right = matrix @ best_free
        x = minimum(matrix, right, lower)
        slope = matrix @ x - right
        bound = x <= lower
        assert (x >= lower).all()
        np.testing.assert_allclose(slope[~bound], 0.0, atol=1e-7)
        assert (slope[bound] >= -1e-7).all()
        point = Expansion(
            best_free, 0.0, np.zeros(6), matrix, np.zeros((1, 6)), np.zeros((1, 6, 6))
        )
        gradient = random.normal(size=6)
        end = extreme(point, gradient, lower, 2.0)
        least = point.predicted(x)
        assert (end >= lower - 1e-9).all()
        assert point.predicted(end) - least == pytest.approx(2.0, rel=1e-2)
        for _ in range(200):  # no allowed point has more of the quantity
            other = np.maximum(end + 0.3 * random.normal(size=6), lower)
            if point.predicted(other) - least <= 2.0:
                assert gradient @ other <= gradient @ end + 1e-3 * abs(gradient @ end) + 1e-3


def test_values_without_information_are_marked_and_mixed_ones_are_named() -> None:
    """Two errors of which the counts have the sum alone."""
    fit, calibration, truth = mixed_errors()
    gradients = fit.gradients
    names = [each.name for each in fit.quantities]
    first, second = names.index("cz error 0-1"), names.index("sx error 0")
    total = gradients[first] + gradients[second]
    fisher = np.outer(total, total) / 1e-4**2
    only = replace(fit, best=replace(fit.best, fisher=fisher, score=np.zeros(len(total))))
    found = identified(only, calibration, truth)
    named = {each.name: each for each in found.parameters}
    assert named["p01 0"].mark in (NOT_IDENTIFIED, BOUND)
    assert not named["cz error 0-1"].identified
    assert "sx error 0" in named["cz error 0-1"].mixed_with
    assert {each.value for each in found.correlations if each.value < -0.99}
    assert any("correlated estimates: " in text for text in summary(found))


def estimate(low: float | None, high: float | None, kind: str = "p01") -> ParameterEstimate:
    is_known = low is not None and high is not None and high < 4.0 * low
    mark = "" if is_known else NOT_IDENTIFIED
    return ParameterEstimate(f"{kind} 3", kind, (3,), "", "", 0.01, 0.02, low, high, is_known, mark)


def test_a_table_has_the_ends_that_exist_and_the_identified_values_first() -> None:
    assert interval_text(estimate(0.012345, 0.02)) == "0.0123 to 0.02"
    assert interval_text(estimate(0.0, 0.02)) == "< 0.02"
    assert interval_text(estimate(40.0, None, "T1")) == "> 40"
    assert interval_text(estimate(0.0, None)) == "not bounded"
    rows = [estimate(0.0, None), estimate(0.009, 0.011), estimate(0.02, 0.03)]
    assert chosen(rows, 2) == rows[1:]
    assert chosen(rows, 1) == rows[2:]  # the calibration is outside
    assert cells(rows[2:]) == [("3", "p01", "0.01", "0.02", "0.02 to 0.03", "")]


def test_a_row_of_two_digit_qubits_fits_80_columns() -> None:
    """An angle with its widest texts, beside the rates and times that its column shares."""
    angle = ParameterEstimate(
        name="ecr ZX angle 13-14",
        kind="angle",
        qubits=(13, 14),
        gate="ecr ZX",
        unit="rad",
        calibrated=-0.00123,
        fitted=-0.00123,
        low=-1.23e-05,
        high=0.00123,
        identified=True,
        mark=OUTSIDE,
    )
    widths = [
        max(map(len, pair)) for pair in zip(cells([angle])[0], (*HEADER[:-1], ""), strict=True)
    ]
    assert sum(widths) + 2 * (len(widths) - 1) <= 80


def test_drift_from_circuit_to_circuit_widens_intervals() -> None:
    """Each circuit is measured on a device that differs by a standard deviation of 30 % in all
    values from the others: intervals are those of their mean."""
    steady, calibration, truth = mixed_counts()
    random = np.random.default_rng(8)
    records: list[CountsRecord] = []
    for each in steady.records:
        moved = changed(truth, random)
        records += counts_of(moved, [each.source], 20_000, random).records
    fits = (
        likelihood_fit(steady, calibration),
        likelihood_fit(CountsData(tuple(records)), calibration),
    )
    before, after = (identified(fit, calibration, truth).parameters for fit in fits)
    wider = [
        (b.high - (b.low or 0.0)) / (a.high - (a.low or 0.0))
        for a, b in zip(before, after, strict=True)
        if a.identified and a.high and b.high
    ]
    assert np.median(wider) > 3.0
    named = {each.name: each for each in after}
    assert sum(covers(named[f"{kind} {q}"]) for kind in ("p01", "p10") for q in range(3)) >= 5


@pytest.mark.parametrize("term", [with_joint_flips, rotated])
def test_intervals_cover_the_truth_with_terms_that_the_fit_does_not_have(term: Changed) -> None:
    """Joint flips, or angles of pairs: the prior of the fit holds both at 0."""
    random = np.random.default_rng(8)
    calibration = device(random, 3)
    truth = term(changed(calibration, random), random)
    fit = likelihood_fit(counts_of(truth, circuits(random, 3, 24), 20_000, random), calibration)
    found = identified(fit, calibration, truth).parameters
    assert {each.kind for each in found} == {"T1", "T2", "p01", "p10", "error"}
    outside = [each.name for each in found if not covers(each)]
    assert len(outside) <= 2, outside  # of 17 intervals of 95 %
    assert sum(each.identified for each in found) >= 5


def test_t2_star_has_an_interval_though_the_fit_holds_it() -> None:
    random = np.random.default_rng(6)
    device_ = device(random, 2)
    calibration, truth = with_t2_star(device_, 0.3), with_t2_star(device_, 0.2)
    sources = circuits(random, 2, 10) + sequences(random, 2) + sequences(random, 2)
    fit = likelihood_fit(counts_of(truth, sources, 4_000, random), calibration)
    found = identified(fit, calibration, truth).parameters
    stars = [each for each in found if each.kind == "T2*"]
    assert [each.qubits for each in stars] == [(0,), (1,)]
    assert all(each.identified and covers(each) for each in stars)


def test_marks_say_whether_a_fit_is_used_and_what_is_counted() -> None:
    fit, calibration, _ = mixed_errors()
    before = with_gates_of_each_set(calibration)
    marks = {each.mark for each in identify(fit, before, before, is_kept=True).parameters}
    assert KEPT in marks
    assert OUTSIDE not in marks
    rows = [replace(estimate(0.0, 0.02), mark=mark) for mark in (NOT_IDENTIFIED, BOUND, KEPT)]
    texts = summary(Identification(tuple(rows), (), 1.0))
    assert texts[0].startswith("1 of 3 values are not identified")
    assert texts[1].startswith(f"{BOUND} (1 of 3): ")
    assert texts[2].endswith("no fit is used")


def test_a_small_readout_error_that_is_28_times_larger_is_identified_and_plausible() -> None:
    """As on machines a month after their calibration: the change is absolute, and both ends of its
    interval are known though they are far from the calibrated value."""
    random = np.random.default_rng(3)
    truth = device(random, 2)
    calibration, truth = (changed_qubit(truth, 0, p01=p01) for p01 in (0.0005, 0.014))
    counts = counts_of(truth, circuits(random, 2, 12), 500_000, random)
    result = calibrate(counts, calibration, "fitted")
    assert result.share > 0.0
    assert result.implausible == ()
    (found,) = (each for each in result.identification.parameters if each.name == "p01 0")
    assert found.identified
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.014 < found.high < 0.03


def test_ends_of_intervals_are_known_for_identified_values_and_within_their_limits() -> None:
    p01, error = Quantity("p01", (0,)), Quantity("error", (0, 1), "cz")
    for quantity, before, after, ends, expected in (
        (p01, 0.0005, 0.0005, (0.012, 0.02), (0.012, 0.02)),  # identified, 40 times
        (p01, 0.0005, 0.014, (0.004, 0.03), (0.004, 0.03)),  # near the fitted value
        (p01, 0.0005, 0.0005, (1e-6, 0.03), (0.0, None)),
        (p01, 0.2, 0.2, (0.15, 0.7), (0.15, 0.5)),
        (error, 0.1, 0.1, (0.05, 0.9), (0.05, 0.75)),
    ):
        found = _estimate(quantity, before, after, ends, {}, OUTSIDE)
        assert (found.low, found.high) == expected
