"""Parameters that change from day to day, in counts of several days."""

import numpy as np
import pytest
from changed_devices import changed_qubit
from msgspec.structs import replace

from noise_models import library
from noise_models.calibration import CalibrationSnapshot
from simenv.calibration.data import CountsData, CountsRecord
from simenv.calibration.fit.attempt import FitBase
from simenv.calibration.fit.calibrate import calibrate
from simenv.calibration.fit.day_values import DayTest, chi_square_tail, day_prior, day_tests
from simenv.calibration.fit.observations import MOST_WINDOWS, window_starts
from simenv.calibration.fit.solve import Prior, fit
from testbed.drawn_devices import PATH, measured, random_circuit

DAY_S = 86_400.0
LIMA = library.load("lima")
FIRST, SECOND = PATH[:2]


def prepared(flips: str) -> str:
    """A basis state, measured at once."""
    measures = f"measure q[{FIRST}] -> c[0]; measure q[{SECOND}] -> c[1];"
    return f'OPENQASM 2.0; include "qelib1.inc"; qreg q[5]; creg c[2]; {flips} {measures}'


def circuits(seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    flips = (f"x q[{FIRST}];", f"x q[{SECOND}];")
    texts = [random_circuit(PATH[:2], rng) for _ in range(6)]
    return texts + [prepared(each) for each in ("", *flips, "".join(flips))]


def series(truths: list[CalibrationSnapshot], seed: int) -> CountsData:
    """Counts of one device a day; the circuits of all days are the same."""
    rng = np.random.default_rng(seed)
    rows: list[CountsRecord] = []
    for day, truth in enumerate(truths):
        rows += [
            replace(each, time_s=(20_000.0 + day) * DAY_S + 3600.0)
            for each in measured(circuits(seed), truth, rng)
        ]
    return CountsData(tuple(rows), "lima")


def all_tests(data: CountsData) -> tuple[DayTest, ...]:
    base = FitBase.of("snapshot", LIMA, data)
    windows = np.array([each.window for each in base.problem.observations])
    return day_tests(base.problem, fit(base.problem, Prior(0.5, 0.1)), windows)


def test_the_chi_square_distribution_is_that_of_tables() -> None:
    for value, freedom in ((3.841, 1), (5.991, 2), (7.815, 3), (18.307, 10), (36.415, 24)):
        assert chi_square_tail(value, freedom) == pytest.approx(0.05, rel=1e-3)
    assert chi_square_tail(0.0, 3) == 1.0
    assert chi_square_tail(2000.0, 40) < 1e-300


def test_what_drifts_is_told_from_what_does_not() -> None:
    factors = np.exp(np.random.default_rng(4).normal(0.0, 0.4, 6))
    factors /= np.exp(np.log(factors).mean())
    truths = [
        changed_qubit(LIMA, FIRST, p01=0.02 * factor, t1_us=60.0, t2_us=50.0)
        for factor in factors.tolist()
    ]
    tests = all_tests(series(truths, 11))
    drifting = [each for each in tests if each.drifts]
    assert [each.column for each in drifting] == [("p01", (FIRST,))]
    (only,) = drifting
    assert only.days == 6
    assert only.probability < 1e-12
    spread = float(np.log(factors).std(ddof=1))
    # Six days: the standard error of a standard deviation is a third of it.
    assert only.spread == pytest.approx(spread, rel=0.3)
    assert {each.column[0] for each in tests} >= {"relaxation", "dephasing", "p10", "error 2"}
    assert day_prior(tests).days == ((("p01", (FIRST,)), only.spread),)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_constant_device_has_no_parameter_that_drifts(seed: int) -> None:
    truth = changed_qubit(LIMA, FIRST, p01=0.03, p10=0.08, t1_us=40.0, t2_us=30.0)
    tests = all_tests(series([truth] * 5, seed))
    assert tests
    assert not any(each.drifts for each in tests)
    assert day_prior(tests) is None


def test_a_series_has_a_bounded_number_of_days() -> None:
    few = [measured(circuits(1), LIMA, np.random.default_rng(0), shots=10)[k] for k in range(4)]
    rows = [
        replace(each, time_s=day * DAY_S + hour * 3600.0)
        for day in range(100)
        for hour, each in enumerate(few)
    ]
    starts = window_starts(rows)
    assert len(starts) == 25 <= MOST_WINDOWS
    assert starts[:2] == [0.0, 4 * DAY_S]
    day = [replace(each, time_s=k * 3600.0) for k, each in enumerate(few * 12)]
    assert window_starts(day) == [0.0, 25 * 3600.0], "a machine that never rests"


@pytest.mark.parametrize("drifts", [True, False])
def test_a_series_is_used_where_shots_alone_do_not_explain_it(drifts: bool) -> None:
    """The mean of all days is the calibration, so that only the days' own values gain."""
    calibrated = LIMA.qubits[FIRST].p01
    assert calibrated is not None
    levels = [calibrated * factor for factor in ((0.4, 2.5, 1.0) if drifts else (1.0,) * 3)]
    truths = [changed_qubit(LIMA, FIRST, p01=level) for level in levels]
    result = calibrate(series(truths, 5), LIMA, "fitted")
    assert (result.held_out.refutes_snapshot, bool(result.share)) == (drifts, drifts)
    # At least a quarter of the way: how far is the choice of the folds.
    moved = [np.log((each.qubits[FIRST].p01 or 0.0) / calibrated) for each in result.series]
    expected = [np.log(level / calibrated) for level in levels] if drifts else []
    assert len(moved) == len(expected)
    for found, true in zip(moved, expected, strict=True):
        assert abs(found) >= 0.2 * abs(true)
        assert abs(found - true) <= 0.8 * abs(true) + 0.1
