"""Jumps of T1 by two-level systems: the process, and the noise of a device in a jump."""

import itertools
import math

import msgspec
import numpy as np
import pytest

from noise_models import library
from noise_models.build import build
from noise_models.calibration import (
    CalibrationSnapshot,
    LayerCalibration,
    LayerGate,
    PauliGenerator,
    QubitCalibration,
    T1Jumps,
)
from noise_models.drift import JumpingT1, RandomWalk, Replay, TelegraphProcess
from noise_models.limits import limited
from noise_models.options import NoiseOptions
from noise_models.snapshot import check, dump, load
from noise_models.strict_json import SnapshotError

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
    normal = [after - begin for (begin, is_low), (after, _) in pairs if not is_low]
    return low, normal


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
    days = [msgspec.structs.replace(BASE, calibrated=f"2025-01-0{day}") for day in (1, 2, 3)]
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
    jumps = T1Jumps(1.0, 600.0, factor, low=True)
    return msgspec.structs.replace(qubit, t1_jumps=jumps)


def test_a_jump_adds_relaxation_and_leaves_pure_dephasing_and_detuning() -> None:
    qubit = in_jump(QubitCalibration(t1_us=100.0, t2_us=80.0, t2_star_us=40.0), 0.25)
    low = qubit.in_force
    assert low.t1_us == pytest.approx(25.0)
    assert low.t2_us is not None
    assert 1.0 / low.t2_us - 0.5 / 25.0 == pytest.approx(1.0 / 80.0 - 0.5 / 100.0)
    assert low.detuning_rad_us == pytest.approx(qubit.detuning_rad_us)
    assert low.t2_star_us is not None
    assert low.t2_star_us < 40.0
    normal = msgspec.structs.replace(qubit, t1_jumps=T1Jumps(1.0, 600.0, 0.25))
    assert normal.in_force is normal


def test_values_are_checked_and_stored() -> None:
    qubits = (in_jump(BASE.qubits[0], 0.3), *BASE.qubits[1:])
    snapshot = msgspec.structs.replace(BASE, qubits=qubits)
    assert load(dump(snapshot)) == snapshot
    for field, value in (("per_hour", 0.0), ("dwell_s", math.inf), ("factor", 1.5)):
        wrong = msgspec.structs.replace(JUMPS, **{field: value})
        changed = (msgspec.structs.replace(qubits[0], t1_jumps=wrong), *qubits[1:])
        with pytest.raises(SnapshotError, match=rf"qubits\[0\]\.t1_jumps\.{field}"):
            check(msgspec.structs.replace(BASE, qubits=changed))
    without = (msgspec.structs.replace(qubits[0], t1_us=None), *qubits[1:])
    with pytest.raises(SnapshotError, match="jumps without T1"):
        check(msgspec.structs.replace(BASE, qubits=without))


def test_a_jump_acts_in_layers_whose_rates_contain_relaxation() -> None:
    gate = next(each for each in BASE.gates if each.name == "cz")
    (qubit, other), duration_ns = gate.qubits, gate.duration_ns
    assert duration_ns is not None
    low = in_jump(BASE.qubits[qubit], 0.3)
    qubits = tuple(low if k == qubit else each for k, each in enumerate(BASE.qubits))
    layer = LayerCalibration(
        (LayerGate("cz", gate.qubits),), gate.qubits, (PauliGenerator("Z", (other,), 0.01),)
    )
    snapshot = msgspec.structs.replace(BASE, qubits=qubits, layers=(layer,))
    (noise,) = build(snapshot).layers
    assert [each.qubits for each in noise.channels] == [(other,), (qubit,)]
    rest = math.exp(-1e-3 * duration_ns * low.jump_rate_per_us)
    assert noise.channels[1].channel.ptm[3, 3] == pytest.approx(rest)
    assert len(build(snapshot, NoiseOptions.parse({"qubit.t1_jumps": 0})).layers[0].channels) == 1


def test_factors_and_recipes() -> None:
    snapshot = msgspec.structs.replace(
        BASE, qubits=tuple(in_jump(each, 0.3) for each in BASE.qubits)
    )
    off = NoiseOptions.parse({"qubit.t1_jumps": 0.0})
    for qubit in (0, 5):
        idle = build(snapshot, off).idle(qubit, 500.0)
        usual = build(BASE).idle(qubit, 500.0)
        more = build(snapshot).idle(qubit, 500.0)
        assert idle is not None
        assert usual is not None
        assert more is not None
        assert np.array_equal(idle.ptm, usual.ptm)
        assert more.infidelity > usual.infidelity
    gate = next(each for each in BASE.gates if each.name == "cz")
    assert build(snapshot).gates.rest(gate, gate.qubits) == build(BASE).gates.rest(
        gate, gate.qubits
    )
    aer = build(snapshot, NoiseOptions.parse("aer")).idle(0, 500.0)
    assert aer is not None
    assert aer.ptm[3, 3] == pytest.approx(math.exp(-0.5 / (0.3 * (BASE.qubits[0].t1_us or 0.0))))
    for recipe, factor in itertools.product(("aer", "aer-properties"), (0.0, 0.5)):
        options = NoiseOptions.parse({"recipe": recipe, "qubit.t1_jumps": factor})
        aer = build(snapshot, options).idle(0, 500.0)
        assert aer is not None
        rate = (1.0 + factor * (1.0 / 0.3 - 1.0)) / (BASE.qubits[0].t1_us or 0.0)
        assert aer.ptm[3, 3] == pytest.approx(math.exp(-0.5 * rate))
        assert limited(build(snapshot, options)) == ()
        (text,) = limited(build(BASE, msgspec.structs.replace(options, factors=((JUMP, 2.0),))))
        assert text.startswith("qubit.t1_jumps * 2 changes nothing")
    (text,) = limited(build(BASE, NoiseOptions.parse({"qubit.t1_jumps": 2.0})))
    assert text.startswith("qubit.t1_jumps * 2 changes nothing")
