"""Snapshots in force at a time: replayed ones, and those of a random walk."""

import itertools
import math

import numpy as np
import pytest
from msgspec.structs import replace

from noise_models import library
from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    CorrelatedReadout,
    FitScope,
    GateCalibration,
    LayerCalibration,
    LayerGate,
    PauliError,
    PauliGenerator,
    QubitCalibration,
    T1Jumps,
)
from noise_models.drift import JumpingT1, RandomWalk, Replay, TelegraphProcess
from noise_models.limits import limited
from noise_models.options import NoiseOptions
from noise_models.snapshot import check, clamps, dump, load
from noise_models.strict_json import SnapshotError
from tests.noise_models.snapshots import linked

BASE = library.load("superconducting-lattice")


def dated(*days: int) -> list[CalibrationSnapshot]:
    return [replace(BASE, calibrated=f"2025-01-{day:02}") for day in days]


def test_replay_has_each_snapshot_from_its_date_to_the_next() -> None:
    replay = Replay(dated(3, 1, 2))
    first = replay.origin_s
    assert [replay.step(first + h * 3600.0) for h in (-1, 0, 23.99, 24, 47.99, 48, 900)] == [
        0, 0, 0, 1, 1, 2, 2,
    ]  # fmt: skip
    assert (replay.snapshot(1).calibrated, replay.begin_s(2)) == ("2025-01-02", first + 2 * 86_400)
    assert replay.begin_s(3) == math.inf


@pytest.mark.parametrize(
    ("snapshots", "problem"),
    [
        ([], "no dated snapshots"),
        ([replace(BASE, calibrated="")], "has no date"),
        (dated(1, 1), "two snapshots of 2025-01-01"),
        (
            [*dated(1), replace(library.load("trapped-ions"), calibrated="2025-01-02")],
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
    assert (np.mean(logs[1:] * logs[:-1]) / np.mean(logs**2)) == pytest.approx(0.8, abs=0.1)


def test_every_step_is_a_valid_snapshot_and_broken_gates_stay_broken() -> None:
    gates = (replace(BASE.gates[0], error=1.0), *BASE.gates[1:])
    base = replace(BASE, gates=gates)
    walk = RandomWalk(base, 1, 1.0, 2.0)
    for step in range(1, 30):
        result = walk.snapshot(step)
        check(result)
        assert result.gates[0].error == 1.0


DETUNED = replace(
    BASE,
    qubits=tuple(
        replace(each, t2_us=0.9 * each.t1_us, t2_star_us=0.8 * each.t1_us)
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
    assert np.abs(np.corrcoef(logs.reshape(-1, 3).T) - np.eye(3)).max() < 5 / math.sqrt(180)


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
    result = RandomWalk(replace(BASE, gates=gates), 1, 1.0, 0.3).snapshot(5)
    (gate, error, leakage) = (result.gates[0], result.gates[0].error, result.gates[0].leakage)
    assert error is not None
    assert error != 0.01
    assert leakage == pytest.approx(0.2 * error), gate


def test_calibration_outside_a_fit_drifts_with_the_device() -> None:
    outside = replace(DETUNED, gates=(GateCalibration("sx", (), 0.01), *DETUNED.gates[1:]))
    scope = FitScope("chip", (0, 1), 3, 2, 4)
    base = replace(DETUNED, name="fit", fitted=scope, outside=outside)
    result = RandomWalk(base, 7, 60.0, 0.2).snapshot(9)
    check(result)
    assert result.outside.qubits == result.qubits != DETUNED.qubits
    assert result.outside.gates[1:] == result.gates[1:] != DETUNED.gates[1:]
    assert result.outside.gates[0].error != 0.01


@pytest.mark.parametrize("paulis", [(), (PauliError("IZ", 0.06), PauliError("XI", 0.02))])
def test_pairs_of_links_drift_with_the_gates_that_make_them(paulis: tuple[PauliError, ...]) -> None:
    """Their waits and latencies do not drift."""
    base = linked()
    gate = replace(base.gates[-1], error=None if paulis else 0.05, paulis=paulis)
    link = replace(base.links[0], fidelity=None if paulis else 0.95, paulis=paulis)
    walk = RandomWalk(replace(base, gates=(*base.gates[:-1], gate), links=(link,)), 3, 60.0, 0.5)
    found = set()
    for step in range(20):
        drifted = walk.snapshot(step)
        check(drifted)
        made, own = drifted.gates[-1], drifted.links[0]
        expected = made.error if not paulis else sum(each.probability for each in made.paulis)
        assert own.infidelity == pytest.approx(expected)
        assert (own.mean_wait_ns, own.latency_ns) == (link.mean_wait_ns, link.latency_ns)
        found.add(round(own.infidelity, 4))
    assert len(found) > 15


def test_rates_of_a_layer_drift_together() -> None:
    generators = (PauliGenerator("X", (0,), 1e-3), PauliGenerator("ZZ", (0, 1), 4e-3))
    learned = LayerCalibration((LayerGate("cz", (0, 1)),), (0, 1), generators)
    base = replace(library.load("superconducting-lattice"), layers=(learned,))
    (layer,) = RandomWalk(base, 3, 3600.0, 0.2).snapshot(5).layers
    first, second = (each.rate for each in layer.generators)
    assert second == pytest.approx(4.0 * first)
    assert 0.0 < abs(first / 1e-3 - 1.0) < 1.0


BASE = library.load("superconducting-lattice")
JUMP = "qubit.t1_jumps"
JUMPS = T1Jumps(per_hour=4.0, dwell_s=600.0, factor=0.2)
HOUR_S = 3600.0


def dwells(process: TelegraphProcess, until_s: float) -> tuple[list[float], list[float]]:
    """Complete times at the low and at the calibrated T1."""
    time_s, state = 0.0, process.at(0.0)[1]
    changes: list[tuple[float, bool]] = []
    while time_s < until_s:
        time_s = process.next_s(time_s)
        since_s, now = process.at(time_s)
        assert since_s == time_s
        if now != state:
            changes.append((time_s, now))
            state = now
    pairs = list(itertools.pairwise(changes))
    low = [after - begin for (begin, is_low), (after, _) in pairs if is_low]
    return low, [after - begin for (begin, is_low), (after, _) in pairs if not is_low]


def test_the_process_has_the_stated_rate_and_dwell() -> None:
    low, normal = dwells(TelegraphProcess(JUMPS, (7, 3)), 4_000 * HOUR_S)
    for values, mean in ((low, 600.0), (normal, HOUR_S / 4.0)):
        error = mean / math.sqrt(len(values))
        assert abs(np.mean(values) - mean) < 5.0 * error
        # Exponential: the variance of s^2 / mean^2 is 8 / n.
        assert abs(np.var(values) / mean**2 - 1.0) < 5.0 * math.sqrt(8.0 / len(values))
        later = np.array(values[1:]) * values[:-1]
        assert abs(later.mean() / mean**2 - 1.0) < 5.0 * math.sqrt(3.0 / len(later)), "no memory"


def test_the_share_of_time_is_that_of_equilibrium_from_the_begin_on() -> None:
    share = 600.0 / (600.0 + HOUR_S / 4.0)
    for time_s in (0.0, 100.0, 1e7):
        states = [TelegraphProcess(JUMPS, (1, k)).at(time_s)[1] for k in range(4_000)]
        error = math.sqrt(share * (1.0 - share) / len(states))
        assert abs(np.mean(states) - share) < 5.0 * error


def test_qubits_jump_independently() -> None:
    at = np.arange(3_000) * 7_200.0  # eight times their correlation time apart
    one, two = (
        np.array([process.at(t)[1] for t in at])
        for process in (TelegraphProcess(JUMPS, (1, 0)), TelegraphProcess(JUMPS, (1, 1)))
    )
    assert abs(np.corrcoef(one, two)[0, 1]) < 5.0 / math.sqrt(len(at))


def walking(seed: int, base: CalibrationSnapshot = BASE) -> JumpingT1:
    return JumpingT1(RandomWalk(base, seed, HOUR_S, 0.0), seed, JUMPS)


def test_the_state_is_a_function_of_device_seed_and_time() -> None:
    first, second = walking(7), walking(7)
    step = first.step(first.origin_s)
    for _ in range(200):
        begin_s, following = first.begin_s(step), first.after(step)
        assert first.begin_s(following) > begin_s
        middle_s = 0.5 * (begin_s + first.begin_s(following))
        assert second.snapshot(second.step(middle_s)) == first.snapshot(step)
        step = following
    late_s = first.origin_s + 1e8
    assert second.snapshot(second.step(late_s)) == walking(7).snapshot(walking(7).step(late_s))
    lows = [
        [q.t1_jumps.low for q in each.snapshot(each.step(late_s)).qubits if q.t1_jumps is not None]
        for each in (walking(7), walking(8))
    ]
    assert lows[0] != lows[1]


def test_a_replay_publishes_its_days_and_jumps_between_them() -> None:
    days = [replace(BASE, calibrated=f"2025-01-0{day}") for day in (1, 2, 3)]
    replay = Replay(days)
    drift = JumpingT1(replay, 1, JUMPS)
    assert drift.published is replay
    begins, step = [], drift.step(drift.origin_s)
    while drift.begin_s(step) < replay.begin_s(2):
        begins.append(drift.begin_s(step))
        step = drift.after(step)
    assert drift.begin_s(step) == replay.begin_s(2), "a day begins between two jumps"
    assert replay.begin_s(1) in begins
    assert len(begins) > 100
    check(drift.snapshot(step))
    with pytest.raises(ValueError, match="no qubit has a T1"):
        JumpingT1(Replay([CalibrationSnapshot("ions", 1, calibrated="2025-01-01")]), 1, JUMPS)


def in_jump(qubit: QubitCalibration, factor: float) -> QubitCalibration:
    return replace(qubit, t1_jumps=T1Jumps(1.0, 600.0, factor, low=True))


def test_a_jump_adds_relaxation_and_leaves_pure_dephasing_and_detuning() -> None:
    qubit = in_jump(QubitCalibration(t1_us=100.0, t2_us=80.0, t2_star_us=40.0), 0.25)
    low = qubit.in_force
    assert low.t1_us == pytest.approx(25.0)
    assert low.t2_us is not None
    assert 1.0 / low.t2_us - 0.5 / 25.0 == pytest.approx(1.0 / 80.0 - 0.5 / 100.0)
    assert low.detuning_rad_us == pytest.approx(qubit.detuning_rad_us)
    assert low.t2_star_us is not None
    assert low.t2_star_us < 40.0
    normal = replace(qubit, t1_jumps=T1Jumps(1.0, 600.0, 0.25))
    assert normal.in_force is normal


def test_values_are_checked_and_stored() -> None:
    qubits = (in_jump(BASE.qubits[0], 0.3), *BASE.qubits[1:])
    snapshot = replace(BASE, qubits=qubits)
    assert load(dump(snapshot)) == snapshot
    for field, value in (("per_hour", 0.0), ("dwell_s", math.inf), ("factor", 1.5)):
        wrong = replace(JUMPS, **{field: value})
        changed = (replace(qubits[0], t1_jumps=wrong), *qubits[1:])
        with pytest.raises(SnapshotError, match=rf"qubits\[0\]\.t1_jumps\.{field}"):
            check(replace(BASE, qubits=changed))
    without = (replace(qubits[0], t1_us=None), *qubits[1:])
    with pytest.raises(SnapshotError, match="jumps without T1"):
        check(replace(BASE, qubits=without))


def test_a_jump_acts_in_layers_whose_rates_contain_relaxation() -> None:
    gate = next(each for each in BASE.gates if each.name == "cz")
    (qubit, other), duration_ns = gate.qubits, gate.duration_ns
    assert duration_ns is not None
    low = in_jump(BASE.qubits[qubit], 0.3)
    qubits = tuple(low if k == qubit else each for k, each in enumerate(BASE.qubits))
    layer = LayerCalibration(
        (LayerGate("cz", gate.qubits),), gate.qubits, (PauliGenerator("Z", (other,), 0.01),)
    )
    snapshot = replace(BASE, qubits=qubits, layers=(layer,))
    (noise,) = build(snapshot).layers
    assert [each.qubits for each in noise.channels] == [(other,), (qubit,)]
    rest = math.exp(-1e-3 * duration_ns * low.jump_rate_per_us)
    assert noise.channels[1].channel.ptm[3, 3] == pytest.approx(rest)
    assert len(build(snapshot, NoiseOptions.parse({"qubit.t1_jumps": 0})).layers[0].channels) == 1


def test_factors_and_recipes() -> None:
    snapshot = replace(BASE, qubits=tuple(in_jump(each, 0.3) for each in BASE.qubits))
    off = NoiseOptions.parse({"qubit.t1_jumps": 0.0})
    for qubit in (0, 5):
        idle = build(snapshot, off).idle(qubit, 500.0)
        usual = build(BASE).idle(qubit, 500.0)
        more = build(snapshot).idle(qubit, 500.0)
        assert np.array_equal(idle.ptm, usual.ptm)
        assert more.infidelity > usual.infidelity
    gate = next(each for each in BASE.gates if each.name == "cz")
    assert build(snapshot).gates.rest(gate, gate.qubits) == build(BASE).gates.rest(
        gate, gate.qubits
    )
    aer = build(snapshot, NoiseOptions.parse("aer")).idle(0, 500.0)
    assert aer.ptm[3, 3] == pytest.approx(math.exp(-0.5 / (0.3 * (BASE.qubits[0].t1_us or 0.0))))
    for recipe, factor in itertools.product(("aer", "aer-properties"), (0.0, 0.5)):
        options = NoiseOptions.parse({"recipe": recipe, "qubit.t1_jumps": factor})
        aer = build(snapshot, options).idle(0, 500.0)
        rate = (1.0 + factor * (1.0 / 0.3 - 1.0)) / (BASE.qubits[0].t1_us or 0.0)
        assert aer.ptm[3, 3] == pytest.approx(math.exp(-0.5 * rate))
        assert limited(build(snapshot, options)) == ()
        (text,) = limited(build(BASE, replace(options, factors=((JUMP, 2.0),))))
        assert text.startswith("qubit.t1_jumps * 2 changes nothing")
    (text,) = limited(build(BASE, NoiseOptions.parse({"qubit.t1_jumps": 2.0})))
    assert text.startswith("qubit.t1_jumps * 2 changes nothing")
