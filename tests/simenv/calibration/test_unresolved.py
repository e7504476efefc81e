"""Quantities that counts do not resolve: no wild numbers, and no culprits that are none."""

import math
from collections.abc import Sequence

import msgspec
import pytest

from noise_models import library, snapshot
from noise_models.calibration import CalibrationSnapshot
from simenv import config
from simenv.calibration.certify import (
    Certificate,
    ClaimVerdict,
    certify,
    compare,
    device_under_test,
    recovered,
)
from simenv.calibration.experiments import procedure as scouting
from simenv.calibration.experiments.clifford import native_set
from simenv.calibration.experiments.estimators import Estimate, without_signal
from simenv.calibration.experiments.plans import Counts, PlannedCircuit, Planner, PoolRunner
from simenv.calibration.experiments.procedure import TIMED_1Q, ExperimentShots, Procedure, choose
from simenv.calibration.experiments.programs import NativeGateRows
from simenv.cli.devices import details
from simenv.client.client import Client
from testbed.sampled_device import PointPlanner, SampledDevice, chain

PAIR = (0, 1)


def changed(**values: float) -> CalibrationSnapshot:
    """The lattice with other values at all qubits."""
    device = library.load("superconducting-lattice")
    qubits = [msgspec.structs.replace(q, readout_error=None, **values) for q in device.qubits]
    return msgspec.structs.replace(device, name="changed", qubits=tuple(qubits))


def certified(client: Client, device: CalibrationSnapshot) -> Certificate:
    """Certificate of a pair of a device by its own snapshot."""
    (config.devices_folder() / "changed.json").write_bytes(snapshot.dump(device))
    return certify(
        client, "changed", device, qubits=PAIR, seed=3, effort=ExperimentShots().scaled(0.5)
    )


def test_a_readout_error_of_40_percent_makes_no_culprit(client: Client) -> None:
    result = certified(client, changed(p01=0.4, p10=0.4))
    assert not result.culprits
    assert not result.measured.dead
    assert {"error_1q", "error_2q", "zz_khz"} <= {each.quantity for each in result.comparisons}
    assert result.unresolved


def test_a_readout_without_contrast_resolves_nothing_but_itself(client: Client) -> None:
    device = changed(p01=0.5, p10=0.5)
    result = certified(client, device)
    assert not result.culprits
    for each in result.comparisons:
        if each.quantity in ("p01", "p10"):
            assert each.verdict is ClaimVerdict.WITHIN
        elif each.claimed is not None and each.quantity != "error_other":
            assert each.verdict is ClaimVerdict.UNRESOLVED
            assert details.recovered(each) == "no signal"
    again = recovered(device, result.measured, 0.0, "again")
    assert again.gates == tuple(sorted(device.gates, key=lambda gate: (gate.name, gate.qubits)))
    assert (again.zz, again.qubits[0].t1_us) == (device.zz, device.qubits[0].t1_us)


def test_relaxation_in_the_half_turn_belongs_to_the_claimed_readout(client: Client) -> None:
    result = certified(client, changed(t1_us=1.0, t2_us=1.5))
    assert not result.culprits
    claims = [each for each in result.comparisons if each.quantity == "p10"]
    assert min(each.claimed or 0.0 for each in claims) > 0.04


@pytest.mark.parametrize(
    ("claimed", "rate_error", "verdict"),
    [
        (200.0, 1e-2, ClaimVerdict.UNRESOLVED),  # a lower limit of 20 us confirms nothing
        (200.0, 1e-4, ClaimVerdict.OUTSIDE),
        (1e10, 1e-4, ClaimVerdict.UNRESOLVED),
        (1e10, 1e-9, ClaimVerdict.LIMIT),
        (1e7, 1e-9, ClaimVerdict.OUTSIDE),
    ],
)
def test_lower_limit_confirms(claimed: float, rate_error: float, verdict: ClaimVerdict) -> None:
    estimate = Estimate("t1_us", (0,), 100.0 / rate_error, rate_error, "inverse")
    (result,) = compare([estimate], lambda _: claimed)
    assert result.verdict is verdict
    assert math.isinf(result.recovered)
    assert details.recovered(result).startswith("> ")
    assert (result.deviation > 0.0) == (verdict is ClaimVerdict.OUTSIDE)


def test_an_interval_beyond_the_longest_delay_confirms_a_claim_inside_it() -> None:
    """T2 of 1.3 s by delays of 0.02 s: 5 % can not be had."""
    estimate = Estimate("t2_us", (0,), 1.3e6, 0.05 / 1.3e6, "inverse")
    for claimed, verdict in ((1.33e6, ClaimVerdict.LIMIT), (3e6, ClaimVerdict.OUTSIDE)):
        (result,) = compare([estimate], lambda _, value=claimed: value)
        assert result.verdict is verdict
    (result,) = compare([estimate], lambda _: 1.33e6, longest_us=1e7)
    assert result.verdict is ClaimVerdict.UNRESOLVED


def test_delays_of_a_certificate_of_ions_take_hours_not_weeks(client: Client) -> None:
    effort, seed = ExperimentShots(), 3
    info, where = device_under_test(client, "trapped-ions")
    tested, runner = choose(info, [0]), PoolRunner(client, where, info.max_shots, seed)
    planner = Planner(NativeGateRows(native_set(info)), tested, seed)
    scales = scouting.scout(runner, planner, tested, effort.longest_delay_ns)
    assert 0.0 < runner.device_s < 3_600.0
    procedure = Procedure(info, tested, runner, seed, effort)
    waits_s = [
        (1e-9 * point.x, circuit.shots)
        for circuit in procedure.circuits(scales)
        for point in circuit.points
        if point.experiment in TIMED_1Q
    ]
    assert max(wait_s for wait_s, _ in waits_s) < 0.03
    assert sum(wait_s * shots for wait_s, shots in waits_s) < 3 * 3_600.0


def test_an_estimate_without_a_signal_confirms_no_claim() -> None:
    for quantity, claimed in (("t1_us", 1e10), ("error_2q", 0.9), ("error_1q", 0.0)):
        (result,) = compare([without_signal(quantity, (0,))], lambda _, value=claimed: value)
        assert result.verdict is ClaimVerdict.UNRESOLVED


class _RecordedDelays(SampledDevice):
    """Device that keeps its longest delay in ns."""

    longest_ns = 0.0

    def run(self, circuits: Sequence[PlannedCircuit]) -> Counts:
        for circuit in circuits:
            for point in circuit.points:
                if point.experiment.endswith(("t1", "echo")):
                    self.longest_ns = max(self.longest_ns, point.x)
        return super().run(circuits)


def test_rough_scales_need_no_delays_far_beyond_the_decay() -> None:
    device = _RecordedDelays(1)
    tested = choose(chain(), None)
    rough = scouting.scout(device, PointPlanner(tested, 1), tested, 1e10)
    assert device.longest_ns < 100.0 * max(rough.t1_ns.values())
    for qubit, t1_us in enumerate(device.t1_us):
        assert rough.t1_ns[qubit] == pytest.approx(1e3 * t1_us, rel=0.3)
