"""Snapshots in force at a time: replayed ones, and those of a random walk."""

import math

import msgspec
import numpy as np
import pytest

from noise_models import library
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    FitScope,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    PauliGenerator,
    QubitCalibration,
)
from noise_models.drift import RandomWalk, Replay
from noise_models.snapshot import check, clamps
from noise_models.strict_json import SnapshotError

BASE = library.load("superconducting-lattice")


def dated(*days: int) -> list[CalibrationSnapshot]:
    return [msgspec.structs.replace(BASE, calibrated=f"2025-01-{day:02}") for day in days]


def test_replay_has_each_snapshot_from_its_date_to_the_next() -> None:
    replay = Replay(dated(3, 1, 2))
    first = replay.origin_s
    assert [replay.step(first + h * 3600.0) for h in (-1, 0, 23.99, 24, 47.99, 48, 900)] == [
        0, 0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert replay.snapshot(1).calibrated == "2025-01-02"
    assert replay.begin_s(2) == first + 2 * 86_400
    assert replay.begin_s(3) == math.inf


@pytest.mark.parametrize(
    ("snapshots", "problem"),
    [
        ([], "no dated snapshots"),
        ([msgspec.structs.replace(BASE, calibrated="")], "has no date"),
        (dated(1, 1), "two snapshots of 2025-01-01"),
        (
            [
                *dated(1),
                msgspec.structs.replace(library.load("trapped-ions"), calibrated="2025-01-02"),
            ],
            "27 on 2025-01-01, 32 on",
        ),
    ],
)
def test_replay_refuses_other_series(snapshots: list[CalibrationSnapshot], problem: str) -> None:
    with pytest.raises(SnapshotError, match=problem):
        Replay(snapshots)


def test_walk_is_a_function_of_seed_and_step_alone() -> None:
    random_walk, other = RandomWalk(BASE, 7, 60.0, 0.1), RandomWalk(BASE, 7, 60.0, 0.1)
    for step in range(20):
        random_walk.snapshot(step)
    assert random_walk.snapshot(20) == other.snapshot(20)
    assert other.snapshot(20) != RandomWalk(BASE, 8, 60.0, 0.1).snapshot(20)
    assert random_walk.snapshot(0) is BASE
    assert random_walk.step(random_walk.origin_s + 121.0) == 2
    assert random_walk.begin_s(2) == random_walk.origin_s + 120.0


def test_walk_has_the_stated_spread_and_correlation() -> None:
    walk = RandomWalk(BASE, 3, 60.0, 0.2)
    logs = np.array([[q.t1_us or 0.0 for q in walk.snapshot(k).qubits] for k in range(100, 400)])
    logs = np.log(logs / np.array([qubit.t1_us or 0.0 for qubit in BASE.qubits]))
    # 27 qubits, 300 steps with a correlation time of 9 steps: about 900 independent values.
    assert logs.std() == pytest.approx(0.2, rel=5 / math.sqrt(2 * 900))
    neighbours = np.mean(logs[1:] * logs[:-1]) / np.mean(logs**2)
    assert neighbours == pytest.approx(0.8, abs=0.1)


def test_every_step_is_a_valid_snapshot_and_broken_gates_stay_broken() -> None:
    gates = (msgspec.structs.replace(BASE.gates[0], error=1.0), *BASE.gates[1:])
    base = msgspec.structs.replace(BASE, gates=gates)
    walk = RandomWalk(base, 1, 1.0, 2.0)
    for step in range(1, 30):
        result = walk.snapshot(step)
        check(result)
        assert result.gates[0].error == 1.0


DETUNED = msgspec.structs.replace(
    BASE,
    qubits=tuple(
        msgspec.structs.replace(each, t2_us=0.9 * each.t1_us, t2_star_us=0.8 * each.t1_us)
        for each in BASE.qubits
        if each.t1_us is not None
    ),
)


def test_detuning_drifts_apart_from_the_dephasing_and_never_disappears() -> None:
    walk = RandomWalk(DETUNED, 5, 60.0, 0.3)
    steps = [walk.snapshot(k) for k in range(100, 160)]
    for each in steps:
        assert not clamps(each)
        for qubit in each.qubits:
            assert qubit.t2_star_us < qubit.t2_us < 2.0 * qubit.t1_us  # type: ignore[operator]
    first = [(q.t1_us, q.t2_us, q.detuning_rad_us) for q in DETUNED.qubits]
    rates = np.array([[_rates(*at) for at in first]])
    own = np.array([[_rates(q.t1_us, q.t2_us, q.detuning_rad_us) for q in s.qubits] for s in steps])
    logs = np.log(own / rates)
    # 27 qubits, 60 steps with a correlation time of 9 steps: about 180 independent values.
    assert logs.std(axis=(0, 1)) == pytest.approx(0.3, rel=5 / math.sqrt(2 * 180))
    table = np.corrcoef(logs.reshape(-1, 3).T)
    assert np.abs(table - np.eye(3)).max() < 5 / math.sqrt(180)


def _rates(t1_us: float | None, t2_us: float | None, detuning: float) -> tuple[float, ...]:
    assert t1_us is not None
    assert t2_us is not None
    return 1.0 / t1_us, 1.0 / t2_us - 0.5 / t1_us, detuning


def test_readout_error_stays_the_mean_and_groups_drift() -> None:
    confusion = ((0.95, 0.1, 0.1, 0.02), (0.02, 0.8, 0.0, 0.1))
    confusion += ((0.02, 0.0, 0.8, 0.08), (0.01, 0.1, 0.1, 0.8))
    qubits = (QubitCalibration(p01=0.02, p10=0.06, readout_error=0.04),) * 2
    base = CalibrationSnapshot(
        "pair", 2, qubits=qubits, correlated_readout=(CorrelatedReadout((0, 1), confusion),)
    )
    walk = RandomWalk(base, 1, 1.0, 0.5)
    changes = set()
    for step in range(1, 30):
        result = walk.snapshot(step)
        check(result)
        assert not clamps(result)
        changes.add(result.correlated_readout[0].confusion[0][0])
    assert len(changes) == 29


def test_leakage_drifts_with_the_error_that_contains_it() -> None:
    gates = (GateCalibration("cz", (), 0.01, leakage=0.002), *BASE.gates[1:])
    result = RandomWalk(msgspec.structs.replace(BASE, gates=gates), 1, 1.0, 0.3).snapshot(5)
    (gate, error, leakage) = (result.gates[0], result.gates[0].error, result.gates[0].leakage)
    assert error is not None
    assert error != 0.01
    assert leakage == pytest.approx(0.2 * error), gate


def test_calibration_outside_a_fit_drifts_with_the_device() -> None:
    outside = msgspec.structs.replace(
        DETUNED, gates=(GateCalibration("sx", (), 0.01), *DETUNED.gates[1:])
    )
    scope = FitScope("chip", (0, 1), 3, 2, 4)
    base = msgspec.structs.replace(DETUNED, name="fit", fitted=scope, outside=outside)
    result = RandomWalk(base, 7, 60.0, 0.2).snapshot(9)
    check(result)
    assert result.outside is not None
    assert result.outside.qubits == result.qubits != DETUNED.qubits
    assert result.outside.gates[1:] == result.gates[1:] != DETUNED.gates[1:]
    assert result.outside.gates[0].error != 0.01


def test_rates_of_a_layer_drift_together() -> None:
    generators = (PauliGenerator("X", (0,), 1e-3), PauliGenerator("ZZ", (0, 1), 4e-3))
    learned = LayerCalibration((LayerGate("cz", (0, 1)),), (0, 1), generators)
    base = msgspec.structs.replace(library.load("superconducting-lattice"), layers=(learned,))
    (layer,) = RandomWalk(base, 3, 3600.0, 0.2).snapshot(5).layers
    first, second = (each.rate for each in layer.generators)
    assert second == pytest.approx(4.0 * first)
    assert 0.0 < abs(first / 1e-3 - 1.0) < 1.0
