"""Policies and devices: set by the configuration and admins, durable, refused in words."""

import math
from pathlib import Path

import pytest
from failing import fails
from reservation_harness import ReservationHarness
from service import ServiceHarness

from simenv.config import convert
from simenv.config.model import ADMISSION_POLICIES, QUEUE_KEYS, QUEUE_POLICIES
from simenv.errors import ConfigError
from simenv.model import AdmissionPolicy, AdmissionReason, DeviceProfile, TargetInfo, Workload
from simenv.scheduler.queueing import lanes
from simenv.scheduler.reservations import policies as policy
from simenv.wire.messages import admin, client as m


def target(bench: ServiceHarness, device: str = "main") -> admin.TargetReply:
    return bench.get(admin.TargetReply, admin.GetTarget(1, device))


def admission(bench: ServiceHarness, device: str = "main") -> AdmissionPolicy:
    return bench.get(admin.PolicyReply, admin.GetPolicy(1, device)).policy


def test_configured_policies_apply_after_start(tmp_path: Path) -> None:
    rate = {"admission": "rate", "rate": 7, "span_s": 60.0}
    main = {"queue": "ordered", "keys": ["shortest"], **rate}
    all_pools = {"admission": "credit", "credits": 9}
    bench = ServiceHarness(tmp_path, policies={"main": main, "all": all_pools})
    assert target(bench).info.policy == "ordered"
    assert target(bench).info.options == (("keys", "shortest"),)
    assert (admission(bench).name, admission(bench).device_rate) == ("rate", 7)
    assert admission(bench).time_span_ns == 60 * 10**9
    assert (admission(bench, "").name, admission(bench, "").total_credits) == ("credit", 9)


def test_policy_of_admin_survives_restart_until_configuration_changes(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, policies={"main": {"queue": "fifo"}})
    bench.say(admin.SetOrder(1, "main", "round_robin"))
    bench.restart()
    assert target(bench).info.policy == "round_robin"
    policies = {"main": {"queue": "ordered"}}
    bench.config = convert({"pools": [{"name": "main"}], "policies": policies})
    bench.restart()
    assert target(bench).info.policy == "ordered"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"other": {"queue": "fifo"}}, "policies.other: there is no such pool"),
        ({"main": {"queue": "lifo"}}, "queue = 'lifo' is not known"),
        ({"main": {"queue": "fifo", "keys": ["shortest"]}}, "keys go with queue = 'ordered'"),
        ({"main": {"queue": "ordered", "keys": ["size"]}}, "keys = 'size' is not known"),
        ({"main": {"admission": "money"}}, "admission = 'money' is not known"),
        ({"main": {"admission": "credit"}}, "credits = 0"),
        ({"main": {"admission": "credit", "credits": 5, "rate": 1}}, "rate = 1"),
        ({"main": {"admission": "rate", "rate": 5}}, "span_s = 0.0"),
        ({"main": {"order": "fifo"}}, "order"),
        ({"main": {"queue": "ordered", "keys": ["fifo"] * 9}}, "a key is given twice"),
        ({"main": {"admission": "credit", "credits": 10**30}}, "credits is outside"),
        ({"main": {"admission": "rate", "rate": 2**63, "span_s": 1.0}}, "rate is outside"),
        ({"main": {"admission": "rate", "rate": 1, "span_s": math.nan}}, "span_s is outside"),
        ({"main": {"admission": "rate", "rate": 1, "span_s": math.inf}}, "span_s is outside"),
    ],
)
def test_invalid_policy_configuration_is_refused_by_name(told: object, words: str) -> None:
    error = fails(ConfigError, "", convert, {"pools": [{"name": "main"}], "policies": told})
    assert words in error.message


def test_configuration_accepts_exactly_the_policies_of_scheduler() -> None:
    assert QUEUE_POLICIES == lanes.POLICIES
    assert (set(QUEUE_KEYS), set(ADMISSION_POLICIES)) == (set(lanes._KEYS), set(policy.POLICIES))


def test_queue_policy_of_all_pools_is_reported_for_each_pool(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, policies={"all": {"queue": "round_robin"}})
    assert target(bench).info.policy == target(bench, "").info.policy == "round_robin"
    assert isinstance(bench.say(m.GetStatus(1))[0], m.Status)


def _target(office: ReservationHarness, device: str = "main") -> TargetInfo:
    return office.get(admin.TargetReply, admin.GetTarget(1, device), office.ana).info


def test_device_settings_survive_crash(office: ReservationHarness) -> None:
    office.get(admin.TargetReply, admin.SteerTarget(1, "main", "pause", "cold"))
    order = admin.SetOrder(2, "main", "ordered", (("keys", "shortest,fifo"),))
    office.get(admin.TargetReply, order)
    office.get(admin.TargetReply, admin.SetDispatch(3, "", 4))
    before = [_target(office, device) for device in ("", "main")]
    office.begin_again()
    assert [_target(office, device) for device in ("", "main")] == before
    assert (before[0].max_inflight, before[1].state, before[1].version) == (4, "paused", 3)
    assert isinstance(office.submit(), m.Accepted)
    office.join()
    assert office.assigned() == []
    assert (_target(office).queued, office.view(1).reason) == (1, "pool main is paused: cold")
    office.get(admin.TargetReply, admin.SteerTarget(1, "main", "resume"))
    assert len(office.assigned()) == 1
    assert _target(office).sent == 1


def test_draining_device_refuses_tasks_and_finishes_accepted(office: ReservationHarness) -> None:
    assert isinstance(office.submit(), m.Accepted)
    drain = admin.SteerTarget(1, "main", "drain", "", "graceful", 60.0)
    got = office.get(admin.TargetReply, drain)
    assert (got.changed, got.info.state, got.info.drain_mode) == (True, "draining", "graceful")
    assert not office.get(admin.TargetReply, drain).changed
    refused = office.refused(key="~b")
    assert (refused.code, "pool main is draining" in refused.message) == ("insufficient", True)
    assert refused.hint
    office.join()
    office.finish(office.assigned())
    office.loop.executor.execute(office.loop.scheduler.wall_clock_tick(0, 0))
    assert len(office.events("device.drained")) == 1
    office.get(admin.TargetReply, admin.SteerTarget(1, "main", "resume"))
    assert isinstance(office.submit(key="~b"), m.Accepted)
    assert office.refusal(admin.SteerTarget(1, "nowhere", "pause")).code == "not_found"
    assert office.refusal(admin.SteerTarget(1, "main", "halt")).code == "option"


MOST = policy.MOST
SMALL = Workload(1, 1, 1, 1, 0, 0, 1)  # one gate: with a gate of 1 ns a unit of 1 ns


def set_units(office: ReservationHarness, own: AdmissionPolicy, whole: AdmissionPolicy) -> None:
    """Set the policies of the pool, whose unit takes 1 ns, and of the environment."""
    for device, unit_ns, terms in (("main", 1, own), ("", 2**60, whole)):
        profile = DeviceProfile(baseline=SMALL, one_q_gate_ns=unit_ns)
        office.get(admin.PolicyReply, admin.SetPolicy(1, device, AdmissionPolicy("unlimited")))
        office.get(admin.ProfileReply, admin.SetProfile(1, device, profile))
        office.get(admin.PolicyReply, admin.SetPolicy(1, device, terms))


def test_capacity_of_largest_policy_is_answered_within_64_bits(office: ReservationHarness) -> None:
    whole = AdmissionPolicy("credit", SMALL, total_credits=MOST)
    set_units(office, AdmissionPolicy("unlimited", SMALL), whole)
    decision = office.reserve(workload=SMALL)
    assert (decision.status, decision.capacity_available) == ("accepted", MOST)


def test_rate_beyond_64_bits_is_rejected_with_its_limit(office: ReservationHarness) -> None:
    whole = AdmissionPolicy("rate", SMALL, device_rate=MOST, time_span_ns=MOST)
    set_units(office, AdmissionPolicy("unlimited", SMALL), whole)
    work = Workload(2**50, 1, 1, 1, 0, 0, 1)
    decision = office.reserve(workload=work, walltime_ns=1)
    assert (decision.status, decision.code) == ("rejected", AdmissionReason.TOO_LARGE)
    assert f"the most is {MOST}" in decision.message
    assert isinstance(office.submit(), m.Accepted)
