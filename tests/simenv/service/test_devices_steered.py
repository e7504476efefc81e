"""Devices steered through the service: by admins, durable, refusing what they do not take."""

from __future__ import annotations

from reservation_harness import ReservationHarness

from simenv.model import TargetInfo
from simenv.wire.messages import client as m
from simenv.wire.messages.admin import GetTarget, SetDispatch, SetOrder, SteerTarget, TargetReply


def _target(office: ReservationHarness, device: str = "main") -> TargetInfo:
    return office.get(TargetReply, GetTarget(1, device), office.ana).info


def test_device_settings_survive_crash(office: ReservationHarness) -> None:
    office.get(TargetReply, SteerTarget(1, "main", "pause", "cold"))
    office.get(TargetReply, SetOrder(2, "main", "ordered", (("keys", "shortest,fifo"),)))
    office.get(TargetReply, SetDispatch(3, "", 4))
    before = [_target(office, device) for device in ("", "main")]
    office.begin_again()
    assert [_target(office, device) for device in ("", "main")] == before
    assert (before[0].max_inflight, before[1].state, before[1].version) == (4, "paused", 3)
    assert isinstance(office.submit(), m.Accepted)
    office.join()
    assert office.assigned() == []
    assert (_target(office).queued, office.view(1).reason) == (1, "pool main is paused: cold")
    office.get(TargetReply, SteerTarget(1, "main", "resume"))
    assert len(office.assigned()) == 1
    assert _target(office).sent == 1


def test_draining_device_refuses_tasks_and_finishes_accepted(office: ReservationHarness) -> None:
    assert isinstance(office.submit(), m.Accepted)
    got = office.get(TargetReply, SteerTarget(1, "main", "drain", "", "graceful", 60.0))
    assert (got.changed, got.info.state, got.info.drain_mode) == (True, "draining", "graceful")
    assert got.info.drain_started_ns > 0
    refused = office.submit(key="~b")
    assert isinstance(refused, m.Refused)
    assert refused.refusals[0].code == "insufficient"
    assert "pool main is draining" in refused.refusals[0].message
    assert refused.refusals[0].hint
    office.join()
    office.finish(office.assigned())
    office.loop.executor.execute(office.loop.scheduler.wall_clock_tick(0))
    kinds = [e.kind for e in office.get(m.Events, m.GetEvents(9)).events]
    assert kinds.count("device.drained") == 1
    assert _target(office).state == "draining"
    office.get(TargetReply, SteerTarget(1, "main", "resume"))
    assert isinstance(office.submit(key="~b"), m.Accepted)


def test_only_admin_changes_devices_and_repeats_do_nothing(office: ReservationHarness) -> None:
    for question in (
        SteerTarget(1, "main", "pause"),
        SetDispatch(1, "main", 1),
        SetOrder(1, "main", "fifo"),
    ):
        assert office.refusal(question, office.ana).code == "not_allowed"
        assert office.get(TargetReply, question, office.ops).changed
        assert not office.get(TargetReply, question, office.ops).changed
    assert office.refusal(SteerTarget(1, "nowhere", "pause")).code == "not_found"
    assert office.refusal(SteerTarget(1, "main", "halt")).code == "option"
    assert _target(office).version == 4
