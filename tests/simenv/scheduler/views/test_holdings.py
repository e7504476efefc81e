"""What unfinished tasks have of reservations is split by whether they have a worker."""

from __future__ import annotations

import msgspec
from claimant import Claimant

from simenv.model import HeldCapacity, TargetInfo
from simenv.scheduler.events import devices
from simenv.scheduler.reservations import policies
from simenv.scheduler.views import infos


def _target(host: Claimant, device: str) -> TargetInfo:
    return infos.target_info(host.state, device)


def test_units_of_tasks_are_counted_once_as_held_or_in_flight() -> None:
    host = Claimant()
    host.policy("credit", total_credits=10)
    assert (_target(host, "main").reservations, _target(host, "").held) == (0, HeldCapacity())
    number = host.reserve(9).reservation
    first, *_ = host.under(number, 4, shots=2_000)  # four times two units
    for device in ("main", ""):
        result = _target(host, device)
        assert (result.reservations, result.held) == (1, HeldCapacity(8, 8, 0))
        assert result.in_flight == HeldCapacity()
    devices.set_max_inflight(host.state, "main", 1)
    sent = len([record for send in host.assign() for record in send.records])
    result = _target(host, "main")
    assert sent == 1
    assert (result.in_flight, result.held) == (HeldCapacity(2, 2, 0), HeldCapacity(6, 6, 0))
    host.ran(first, 10**6)
    result = _target(host, "main")
    assert (result.in_flight, result.held) == (HeldCapacity(), HeldCapacity(6, 6, 0))


def ten_times(host: Claimant) -> None:
    """All devices together count in circuits of ten times the shots."""
    ledger = host.state.reservations
    profile = ledger.terms("").profile
    longer = msgspec.structs.replace(profile.baseline, shots=10 * profile.baseline.shots)
    assert ledger.set_profile("", msgspec.structs.replace(profile, baseline=longer))
    assert policies.unit_ns(ledger.terms("").profile) == 86_000_000
    host.settle()


def test_credits_in_different_units_are_converted_before_addition() -> None:
    host = Claimant()
    host.policy("credit", device="", total_credits=10)
    ten_times(host)
    decision = host.reserve(35)
    assert decision.status == "accepted"
    assert (decision.credits_required, decision.capacity_available) == (35, 100)
    assert host.state.reservations.reserved("").credits == 4  # of 3.5
    assert host.state.reservations.reserved("main").credits == 35
    refused = host.reserve(61)
    assert (refused.status, refused.credits_required, refused.capacity_available) == (
        "delayed", 61, 60,
    )  # fmt: skip
    assert "7 credits are needed, 6 of 10 are free" in refused.message
    assert refused.retry_after_ns == 100 * 10**9  # once the first expires
    host.under(decision.reservation, 4, shots=2_000)  # of two units each
    host.assign()
    assert _target(host, "main").in_flight == HeldCapacity(8, 8, 0)
    assert _target(host, "").in_flight == HeldCapacity(1, 1, 0)


def test_rates_in_different_units_are_converted_before_addition() -> None:
    host = Claimant()
    host.policy("rate", device="", device_rate=10, time_span_ns=10**9)
    ten_times(host)
    host.policy("rate", device="main", device_rate=100, time_span_ns=10**9)
    walltime_ns = 2 * 10**9
    first = host.reserve(50, walltime_ns=walltime_ns)
    assert first.rate_required == 25
    reserved = host.state.reservations.reserved
    assert (reserved("main").rate, reserved("").rate) == (25, 3)  # of 2.5
    assert host.ledger[first.reservation].units == 50
    refused = host.reserve(150, walltime_ns=walltime_ns)
    assert (refused.status, refused.capacity_available) == ("delayed", 70)
    assert "8 units a time span are needed, 7 of 10 are free" in refused.message
