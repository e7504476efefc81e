"""Reservations of devices whose profile nobody has set: units by the engine's cost model."""

from __future__ import annotations

import msgspec
import pytest
from checked_scheduler import route
from claimant import WORK, Claimant

from simenv.model import DeviceProfile, PoolSpec, TaskSpec, Workload
from simenv.model.devices import DeviceInfo, DeviceKind, OperationInfo, QubitInfo
from simenv.scheduler.core.cost_estimator import Estimator
from simenv.scheduler.reservations.circuit_times import DeviceTimes

POOLS = (PoolSpec("main", "any"), PoolSpec("side", "statevector"))
WIDE = msgspec.structs.replace(WORK, qubits=26, shots=1_000)
NARROW = msgspec.structs.replace(WORK, qubits=4, shots=1_000)


def without_profile(pools: tuple[PoolSpec, ...] = POOLS) -> Claimant:
    host = Claimant()
    host.state.reservations.times = DeviceTimes(pools, host.state.estimator, lambda _pool: None)
    return host


def machine(**changes: object) -> DeviceInfo:
    info = DeviceInfo(
        "qpu", DeviceKind.HARDWARE, "x", "m", "1", "superconducting", 2, 1_000, (),
        all_to_all=False,
        operations=(
            OperationInfo("x", (0,), duration_ns=40.0),
            OperationInfo("x", (1,), duration_ns=60.0),
            OperationInfo("cx", (0, 1), duration_ns=500.0),
            OperationInfo("reset", (0,), duration_ns=9_000.0),
        ),
        qubits=(QubitInfo(readout_ns=2_000.0), QubitInfo()),
    )  # fmt: skip
    return msgspec.structs.replace(info, **changes)


def test_wide_circuits_take_units_by_their_cost() -> None:
    host = without_profile()
    narrow = host.reserve(workload=NARROW)
    wide = host.reserve(workload=WIDE)
    assert narrow.units == 1
    assert wide.units > 1_000, "26 qubits have 2**22 times the amplitudes of 4"
    assert wide.estimated_total_ns > 1_000 * narrow.estimated_total_ns


def test_learned_factor_scales_the_estimate() -> None:
    host = without_profile()
    before = host.reserve(workload=WIDE).estimated_total_ns
    wide = route(1_000.0, num_qubits=26)
    for _ in range(50):
        host.state.estimator.observe(wide, TaskSpec(b"", 1_000, 1), 1, 3_000)
    after = host.reserve(workload=WIDE).estimated_total_ns
    assert after == pytest.approx(3 * before, rel=0.01)


def test_task_takes_units_by_the_cost_of_its_own_route() -> None:
    host = without_profile()
    host.policy("credit", total_credits=10_000)
    number = host.reserve(
        workload=msgspec.structs.replace(WORK, qubits=20, shots=1_000)
    ).reservation
    one_ns = host.ledger[number].grant.one_ns
    host.under(number, cost=7.5 * one_ns / 1e3)
    assert host.ledger[number].held == 8
    host.under(number, cost=1.0)
    assert host.ledger[number].held == 9


def test_credit_unit_of_device_without_profile_does_not_follow_learned_costs() -> None:
    host = without_profile()
    host.policy("credit", device="", total_credits=10)
    host.policy("credit", total_credits=10)
    unit_ns = host.state.reservations.terms("main").unit_ns
    assert host.reserve(workload=msgspec.structs.replace(WORK, count=9, shots=1_000)).status
    narrow = route(1_000.0, num_qubits=5)
    for _ in range(50):
        host.state.estimator.observe(narrow, TaskSpec(b"", 1_000, 1), 1, 100)
    assert host.state.reservations.terms("main").unit_ns == unit_ns
    host.settle()  # with every invariant of reservations


def test_profile_that_is_set_replaces_the_cost_model() -> None:
    host = without_profile()
    ledger = host.state.reservations
    version = ledger.terms("main").profile_version
    assert ledger.terms("main").profile == DeviceProfile(), "the model is not shown as a profile"
    assert ledger.set_profile("main", DeviceProfile()), "also one that is equal to the default"
    assert ledger.terms("main").profile_version == version + 1
    assert host.reserve(workload=WIDE).estimated_total_ns == 8_600_000
    assert not ledger.set_profile("main", DeviceProfile())
    assert host.reserve(device="side", workload=WIDE).estimated_total_ns > 8_600_000


def test_hardware_time_uses_mean_durations_of_its_operations() -> None:
    pools = (PoolSpec("qpu", "hardware", provider="x"),)
    work = Workload(count=2, gates_1q=3, gates_2q=2, measurements=1, shots=100)
    described = DeviceTimes(pools, Estimator(), lambda _pool: machine())
    assert described.workload_ns("qpu", work) == 2 * 100 * (3 * 50 + 2 * 500 + 2_000)
    assert described.workload_ns("", work) == described.workload_ns("qpu", work)
    task = route(engine="hardware", pool="qpu")
    assert described.task_ns(task, TaskSpec(b"", 100, 1), work) == 630_000
    silent = DeviceTimes(pools, Estimator(), lambda _pool: None)
    assert silent.workload_ns("qpu", work) is None, "the profile holds"
    bare = DeviceTimes(pools, Estimator(), lambda _pool: machine(operations=(), qubits=()))
    assert bare.workload_ns("qpu", work) is None


def test_largest_workload_is_rejected_with_its_time() -> None:
    host = without_profile((PoolSpec("main", "mps"), PoolSpec("side", "any")))
    value = 2**62
    for device in ("main", "side", ""):
        work = Workload(value, value, value, value, value, value, value)
        decision = host.reserve(device=device, workload=work)
        assert decision.status == "rejected", device
        assert "it would take" in decision.message
    assert not host.ledger
