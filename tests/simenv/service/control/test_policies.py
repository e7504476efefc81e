"""Policies, audit and rights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from reservation_harness import ReservationHarness
from service import ServiceHarness, spec

from simenv.config import convert
from simenv.config.model import ADMISSION_POLICIES, QUEUE_KEYS, QUEUE_POLICIES
from simenv.errors import ConfigError
from simenv.model import AdmissionPolicy, Event, TaskOptions
from simenv.scheduler.queueing import policies
from simenv.scheduler.reservations import policies as policy
from simenv.service.support import fault_injection
from simenv.wire import codec
from simenv.wire.auth import CLIENT_ROUTE
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import (
    AddKey,
    DrainNode,
    GetKeys,
    ResumeNode,
    RevokeKey,
    Scale,
    SetLimits,
)
from simenv.wire.messages.reservations import (
    GetPolicy,
    GetTarget,
    PolicyReply,
    Release,
    SetOrder,
    SteerTarget,
    TargetReply,
)
from simenv.wire.transport.zmq_transport import PeerKind


def target(bench: ServiceHarness, device: str = "main") -> TargetReply:
    return next(a for a in bench.say(GetTarget(1, device)) if isinstance(a, TargetReply))


def admission(bench: ServiceHarness, device: str = "main") -> AdmissionPolicy:
    return next(a for a in bench.say(GetPolicy(1, device)) if isinstance(a, PolicyReply)).policy


def test_configured_policies_apply_after_start(tmp_path: Path) -> None:
    table = {
        "main": {
            "queue": "ordered",
            "keys": ["shortest"],
            "admission": "rate",
            "rate": 7,
            "span_s": 60.0,
        },
        "all": {"admission": "credit", "credits": 9},
    }
    bench = ServiceHarness(tmp_path, policies=table)
    assert target(bench).info.policy == "ordered"
    assert target(bench).info.options == (("keys", "shortest"),)
    assert (admission(bench).name, admission(bench).device_rate) == ("rate", 7)
    assert admission(bench).time_span_ns == 60 * 10**9
    assert (admission(bench, "").name, admission(bench, "").total_credits) == ("credit", 9)


def test_policy_set_by_admin_survives_restart_with_same_configuration(
    tmp_path: Path,
) -> None:
    bench = ServiceHarness(tmp_path, policies={"main": {"queue": "fifo"}})
    bench.say(SetOrder(1, "main", "round_robin"))
    bench.restart()
    assert target(bench).info.policy == "round_robin"


def test_changed_policy_configuration_is_applied_at_restart(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, policies={"main": {"queue": "fifo"}})
    bench.say(SetOrder(1, "main", "round_robin"))
    bench.config = convert(
        {"pools": [{"name": "main"}], "policies": {"main": {"queue": "ordered"}}}
    )
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
    with pytest.raises(ConfigError) as caught:
        convert({"pools": [{"name": "main"}], "policies": told})
    assert words in caught.value.message


def test_configuration_accepts_exactly_the_policies_of_scheduler() -> None:
    assert QUEUE_POLICIES == policies.POLICIES
    assert set(QUEUE_KEYS) == set(policies._KEYS)
    assert set(ADMISSION_POLICIES) == set(policy.POLICIES)


def test_queue_policy_of_all_pools_is_reported_for_each_pool(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path, policies={"all": {"queue": "round_robin"}})
    assert target(bench).info.policy == target(bench, "").info.policy == "round_robin"
    answers = bench.say(m.GetStatus(1))
    assert isinstance(answers[0], m.Status)


def entries(office: ReservationHarness) -> list[Event]:
    events = office.get(m.Events, m.GetEvents(1), office.ops).events
    return [event for event in events if event.is_of(["audit"])]


@pytest.mark.parametrize(
    ("question", "kind", "subject", "what"),
    [
        (AddKey(1, "eve", "client", "x" * 40), "keys.add", "eve", "role client"),
        (RevokeKey(1, "ben"), "keys.revoke", "ben", "revoked"),
        (SetLimits(1, "ana", {"max_priority": 5}), "limits.set", "ana", "max_priority = 5"),
        (Scale(1, "main", 1, 2), "scale", "main", "1 to 2 workers"),
        (DrainNode(1, "", "repair"), "drain", "", "repair"),
        (ResumeNode(1, "main"), "resume", "main", ""),
        (SteerTarget(1, "main", "pause", "lunch"), "device.paused", "main", "lunch"),
        (SetOrder(1, "main", "fifo"), "device.ordered", "main", "fifo"),
        (m.Shutdown(1), "shutdown", "default", ""),
    ],
)
def test_changes_by_admin_are_recorded_in_audit_log(
    office: ReservationHarness, question: object, kind: str, subject: str, what: str
) -> None:
    before = len(entries(office))
    office.say(question, office.ops)
    office.restart()
    office.arrive() if kind != "keys.revoke" else None
    events = office.get(m.Events, m.GetEvents(1)).events
    entry = [event for event in events if event.is_of(["audit"])][before]
    assert (entry.kind, entry.subject) == (f"audit.{kind}", subject)
    assert what in entry.message
    assert "by ops (admin) from this process" in entry.message
    assert entry.time_s > 0


def test_cancel_is_audited_only_for_tasks_of_another_owner(office: ReservationHarness) -> None:
    def submit(key: str) -> int:
        answers = office.say(m.Submit(5, key, 0, TaskOptions(), [spec()]), office.ana)
        return next(a.first for a in answers if isinstance(a, m.Accepted))

    before = len(entries(office))
    office.say(m.Cancel(1, [submit("~a")]), office.ana)
    assert len(entries(office)) == before
    office.say(m.Cancel(1, [submit("~b")]), office.ops)
    (entry,) = entries(office)[before:]
    assert (entry.kind, entry.subject) == ("audit.cancel", "ana")


def test_release_of_reservation_of_another_owner_is_audited(office: ReservationHarness) -> None:
    number = office.reserve(1, office.ana).reservation
    office.say(Release(1, number), office.ops)
    entry = entries(office)[-1]
    assert (entry.kind, entry.subject) == ("audit.reservation.release", str(number))


def test_audit_log_is_not_shown_to_clients(office: ReservationHarness) -> None:
    assert entries(office)
    events = office.get(m.Events, m.GetEvents(1), office.ana).events
    assert not [event for event in events if event.is_of(["audit"])]


def test_a_change_is_acknowledged_after_its_entry_is_stored(office: ReservationHarness) -> None:
    fault_injection.install("journal.commit.before:1:error,journal.commit.before:2:error")
    office.ops.send(codec.encode(SetLimits(1, "ana", {"max_priority": 5})))
    office.loop.run_once(timeout_s=0.0)
    assert office.loop.store_error
    assert not office.heard(office.ops)
    fault_injection.install("")
    office.step()
    assert office.heard(office.ops)
    assert entries(office)[-1].kind == "audit.limits.set"


def test_only_key_revocation_is_executed_while_journal_cannot_store(
    office: ReservationHarness,
) -> None:
    fault_injection.install(",".join(f"journal.commit.before:{n}:error" for n in range(1, 30)))
    office.say(SetOrder(1, "main", "fifo"))
    assert office.loop.store_error
    assert office.refusal(Scale(1, "main", 1, 1), office.ops).code == "journal"
    answers = office.say(RevokeKey(1, "ana"), office.ops)
    assert [type(answer).__name__ for answer in answers] == ["Keys"]
    assert "ana" not in office.key_commands.names
    fault_injection.install("")
    office.step()
    assert entries(office)[-1].kind == "audit.keys.revoke"


@pytest.mark.parametrize("with_key", [False, True], ids=["own socket", "admin key"])
def test_connection_with_the_rights_of_a_client_is_refused_administrative_requests(
    tmp_path: Path, with_key: bool
) -> None:
    bench = ServiceHarness(tmp_path)
    key = new_pair().public if with_key else None
    if key:
        bench.say(AddKey(1, "ops", "admin", key))
    lowered = bench.listener.connect(PeerKind.CLIENT, CLIENT_ROUTE + b"1", key)
    full = bench.listener.connect(PeerKind.CLIENT, b"~2", key)
    requests = (Scale(2, "main", 1, 1), GetKeys(3), m.Shutdown(4))
    for request in requests:
        (answer,) = bench.say(request, lowered)
        assert isinstance(answer, m.Refused), request
        assert answer.refusals[0].code == "not_allowed"
        assert "role client, which this connection requested" in answer.refusals[0].message
    (status,) = bench.say(m.GetStatus(5), lowered)
    assert isinstance(status, m.Status)
    for request in requests[:2]:
        assert not any(isinstance(a, m.Refused) for a in bench.say(request, full)), request
