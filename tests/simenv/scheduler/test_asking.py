"""What is asked for and decided: capacity, rates, owners, repeats, profiles and policies."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from checked_scheduler import SECOND
from claimant import Claimant

from simenv.errors import InsufficientError, NotReservedError, OptionError
from simenv.model import AdmissionPolicy, AdmissionReason, DeviceProfile, Workload
from simenv.scheduler.reservations import admission
from simenv.scheduler.reservations import ledger as ledgers
from simenv.scheduler.views import infos
from simenv.scheduler.views.infos import reservation_info


@pytest.fixture
def host() -> Claimant:
    """A pool with 10 credits and two workers."""
    claimant = Claimant()
    claimant.policy("credit", total_credits=10)
    return claimant


def test_credit_capacity_is_shared_by_all_reservations(host: Claimant) -> None:
    assert host.reserve(6).status == "accepted"
    delayed = host.reserve(5, ttl_ns=30 * SECOND)
    assert (delayed.status, delayed.code, delayed.capacity_available) == ("delayed", 7, 4)
    assert delayed.retry_after_ns == 100 * SECOND, "until the first one expires"
    assert delayed.reservation == 0
    assert host.reserve(11).code == AdmissionReason.TOO_LARGE
    host.end(1)
    assert host.reserve(5).status == "accepted"


def test_credit_limit_of_environment_is_shared_by_its_pools(host: Claimant) -> None:
    host.policy("credit", device="", total_credits=12)
    assert host.reserve(8).status == "accepted"
    assert host.reserve(5, device="side").code == AdmissionReason.INSUFFICIENT_CREDITS
    result = host.reserve(4, device="side")
    assert (result.status, result.credits_required) == ("accepted", 4)
    assert host.reserve(1, device="").code == AdmissionReason.INSUFFICIENT_CREDITS


def test_rate_is_shared_and_rounding_loses_no_units() -> None:
    host = Claimant()
    host.policy("rate", device_rate=10, time_span_ns=SECOND)
    result = host.reserve(100, walltime_ns=100 * SECOND)
    assert (result.status, result.rate_required) == ("accepted", 1)
    assert host.reserve(100, walltime_ns=10 * SECOND).code == AdmissionReason.INSUFFICIENT_RATE
    tasks = host.under(result.reservation, 100)
    assert not host.ledger[1].parked, "a hundred tasks of a unit are what it was made for"
    assert reservation_info(host.state, host.ledger[1]).rate_consumed == 1
    host.under(result.reservation)
    assert len(host.ledger[1].parked) == 1
    host.keep(host.scheduler.cancel(tasks[:1], host.now_ns)[1])
    host.settle()
    assert not host.ledger[1].parked


def test_reservation_serves_only_its_pool_and_gangs_of_that_pool(host: Claimant) -> None:
    number = host.reserve(6).reservation
    with pytest.raises(NotReservedError, match="is for 'main'; this is for pool 'side'"):
        host.under(number, pool="side")
    assert host.ledger[number].covers("main.x4", "main")
    everywhere = host.reserve(6, device="").reservation
    assert host.under(everywhere, pool="side")


def test_reservation_of_another_owner_looks_like_unknown_reservation(host: Claimant) -> None:
    number = host.reserve(6, owner="ada").reservation
    ledger = host.state.reservations
    entries, never = [], []
    for value, result in ((number, entries), (number + 1, never)):
        for ask in (
            lambda n: ledger.find(n, "eve"),
            lambda n: ledger.usable(n, "eve", host.wall_ns),
            lambda n: ledger.renew(n, "eve", SECOND, host.wall_ns),
            lambda n: host.under(n, owner="eve"),
            lambda n: host.under(n),  # the local user sees it, and may not use it
        ):
            with pytest.raises(NotReservedError) as caught:
                ask(value)
            result.append(str(caught.value).replace(str(value), "N"))
    assert entries == never
    assert list(ledger.visible_to("eve")) == []
    assert [each.grant.id for each in ledger.visible_to("")] == [number]


def test_repeated_request_id_returns_same_reservation(host: Claimant) -> None:
    first = host.reserve(6, request_id="r1", owner="ada")
    before = host.digest()
    again = host.reserve(6, request_id="r1", owner="ada")
    assert again.reservation == first.reservation
    assert (again.status, again.credits_required) == ("accepted", 6)
    assert host.reserve(5, request_id="r1", owner="ada").code == AdmissionReason.EXISTS
    assert host.digest() == before
    assert host.reserve(4, request_id="r1", owner="eve").reservation == 2
    host.end(1)
    assert host.reserve(6, request_id="r1", owner="ada").reservation == 3


def test_request_id_of_expired_reservation_makes_new_reservation(host: Claimant) -> None:
    host.policy("unlimited")
    first = host.reserve(6, request_id="r1", ttl_ns=SECOND).reservation
    host.now_ns += SECOND
    second = host.reserve(6, request_id="r1", ttl_ns=9 * SECOND).reservation
    assert second != first
    host.pass_time(0)
    assert host.ledger[first].state == "expired"
    assert host.reserve(6, request_id="r1", ttl_ns=9 * SECOND).reservation == second


def test_rates_of_different_time_spans_are_converted_before_addition() -> None:
    host = Claimant()
    host.policy("rate", device_rate=10, time_span_ns=SECOND)
    host.policy("rate", device="", device_rate=36_000, time_span_ns=3_600 * SECOND)
    result = host.reserve(60, walltime_ns=60 * SECOND)  # one a second
    assert (result.status, result.rate_required) == ("accepted", 3_600)
    ledger = host.state.reservations
    assert (ledger.reserved("main").rate, ledger.reserved("").rate) == (1, 3_600)
    more = host.reserve(9 * 60, walltime_ns=60 * SECOND)
    assert more.status == "accepted", more.message
    assert host.reserve(60, walltime_ns=60 * SECOND).code == AdmissionReason.INSUFFICIENT_RATE
    host.under(result.reservation, shots=30_000)
    table = {device: infos.target_info(host.state, device).held.rate for device in ("main", "")}
    assert table == {"main": 1, "": 1_800}
    for rate, value in ((5, 10), (6, 6)):  # each is rounded up
        narrower = AdmissionPolicy("rate", device_rate=rate, time_span_ns=SECOND // 2)
        with pytest.raises(InsufficientError) if rate == 5 else nullcontext():
            ledger.set_policy("main", narrower, -1)
        assert ledger.reserved("main").rate == value


def test_retry_time_accounts_for_reservations_of_other_pools(host: Claimant) -> None:
    host.policy("unlimited")
    host.policy("credit", device="", total_credits=10)
    assert host.reserve(8, device="side", ttl_ns=50 * SECOND).status == "accepted"
    assert host.reserve(1, ttl_ns=90 * SECOND).status == "accepted"
    delayed = host.reserve(5)
    assert (delayed.status, delayed.retry_after_ns) == ("delayed", 50 * SECOND)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"device": "nowhere"}, AdmissionReason.DEVICE_NOT_FOUND),
        ({"device": "main.x2"}, AdmissionReason.DEVICE_NOT_FOUND),
        ({"bound_ns": SECOND}, AdmissionReason.UNSUPPORTED),
        ({"ttl_ns": -1}, AdmissionReason.INVALID_REQUEST),
        ({"ttl_ns": 2**63}, AdmissionReason.INVALID_REQUEST),
        ({"walltime_ns": 2**64 - 1}, AdmissionReason.INVALID_REQUEST),
        ({"walltime_ns": 1, "overhead_ns": 1}, AdmissionReason.WALLTIME_INFEASIBLE),
        ({"workload": Workload(count=0)}, AdmissionReason.INVALID_REQUEST),
        ({"workload": Workload(shots=2**62, gates_1q=2**62)}, AdmissionReason.TOO_LARGE),
        ({"workload": Workload(shots=-1)}, AdmissionReason.INVALID_REQUEST),
        ({"workload_kind": "classical"}, AdmissionReason.INVALID_REQUEST),
        ({"user": "x" * 300}, AdmissionReason.INVALID_REQUEST),
    ],
)
def test_rejected_reservation_request_changes_nothing(
    host: Claimant, asked: dict[str, object], code: AdmissionReason
) -> None:
    before = host.digest()
    result = host.reserve(1, **asked)
    assert (result.status, result.code, result.reservation) == ("rejected", code, 0)
    assert result.message
    assert host.digest() == before


def test_number_of_reservations_is_limited_per_owner_and_in_total(
    host: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "MAX_PER_OWNER", 2)
    monkeypatch.setattr(admission, "MAX_LIVE", 3)
    assert [host.reserve(owner="ada").status for _ in range(2)] == ["accepted"] * 2
    result = host.reserve(owner="ada")
    assert (result.status, result.code) == ("rejected", AdmissionReason.SCOPE_LIMIT)
    assert host.reserve(owner="eve").status == "accepted"
    crowded = host.reserve(owner="eve")
    assert (crowded.status, crowded.code) == ("delayed", AdmissionReason.OVER_LIMIT)
    host.end(1)
    assert host.reserve(owner="ada").status == "accepted"


def test_number_of_ended_reservation_records_is_bounded(
    host: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MAX_OVER", 5)
    for _ in range(20):
        host.end(host.reserve().reservation)
    host.pass_time(0)
    assert list(host.ledger) == [16, 17, 18, 19, 20]
    assert host.rows.execute("select id from reservation").fetchall() == [(n,) for n in host.ledger]


def test_a_policy_below_what_is_reserved_is_refused(host: Claimant) -> None:
    host.reserve(6)
    before = host.digest()
    with pytest.raises(InsufficientError, match="have 6 units of credit; there would be 5"):
        host.policy("credit", total_credits=5)
    with pytest.raises(InsufficientError, match="have 6 units of credit"):
        host.policy("credit", device="", total_credits=5)
    assert host.digest() == before
    host.policy("credit", total_credits=6)
    assert host.state.reservations.terms("main").policy_version == 3


def test_policy_change_with_unexpected_version_is_refused(host: Claimant) -> None:
    before = host.digest()
    with pytest.raises(OptionError, match="has version 2, 7 was expected"):
        host.state.reservations.set_policy("main", AdmissionPolicy(), 7)
    assert host.digest() == before
    assert not host.state.reservations.set_policy(
        "main", AdmissionPolicy("credit", total_credits=10), 7
    ), "a repeat of what was done is no change"


def test_new_baseline_does_not_change_units_of_existing_reservations(host: Claimant) -> None:
    number = host.reserve(6).reservation
    ledger = host.state.reservations
    half = Workload(1, 5, 10, 10, 5, 0, 1_000)  # 1.8 ms
    assert ledger.set_profile("main", DeviceProfile(baseline=half))
    assert ledger.terms("main").policy.baseline == half
    assert ledger.terms("main").policy_version == 3
    host.under(number)
    assert host.ledger[number].held == 1, "in the units it was made in"
    assert host.reserve(1).credits_required == 5  # 8.6 / 1.8


def test_device_limits_apply_to_tasks_of_its_reservations(host: Claimant) -> None:
    number = host.reserve(6).reservation
    host.state.reservations.set_profile("main", DeviceProfile(max_qubits=3, total_credits=10))
    with pytest.raises(NotReservedError, match="4 qubits; the device takes 3"):
        host.under(number)
    host.state.reservations.set_profile("main", DeviceProfile(max_shots=900, total_credits=10))
    with pytest.raises(NotReservedError, match="1000 shots; the device takes 900"):
        host.under(number)


def test_reservation_of_quarantined_pool_is_delayed(host: Claimant) -> None:
    host.state.pools["main"].failures = 7
    result = host.reserve(1)
    assert (result.status, result.code) == ("delayed", AdmissionReason.DEVICE_UNAVAILABLE)
