"""Devices paused, drained and bounded: nothing begins that should not, and nothing is lost."""

from __future__ import annotations

import pytest
from checked_scheduler import CheckedScheduler, route, wide

from simenv.errors import NotFoundError, OptionError
from simenv.model import AdmissionReason, PoolSpec, ReservationRequest, Workload
from simenv.scheduler.core.actions import RecordEvent
from simenv.scheduler.events import devices, reservations
from simenv.scheduler.views import infos
from simenv.scheduler.views.admission import draining_refusal
from simenv.scheduler.views.infos import closed_pools
from simenv.scheduler.views.pending_reason import pending_reason

TWO = (PoolSpec("main", "any", min=2, max=2), PoolSpec("other", "any", min=1, max=1))


def _say(machine: CheckedScheduler, verb: str, device: str = "main", **words: object) -> bool:
    table = {"reason": "", "mode": "", "timeout_s": 0.0, "wall_ns": 5, **words}
    return devices.set_state(machine.state, device, verb, **table)  # type: ignore[arg-type]


def test_paused_device_sends_no_tasks_until_resumed() -> None:
    machine = CheckedScheduler()
    assert _say(machine, "pause", reason="calibration")
    (task,) = machine.submit()
    assert machine.assign() == []
    record = machine.state.tasks[task]
    assert (
        pending_reason(machine.state, record, machine.now_ns) == "pool main is paused: calibration"
    )
    assert closed_pools(machine.state) == (("main", "paused"),)
    assert infos.target_info(machine.state, "main").pause_reason == "calibration"
    assert _say(machine, "resume")
    assert machine.assign()[0].records == [record]
    assert closed_pools(machine.state) == ()


def test_no_workers_are_started_for_paused_device() -> None:
    machine = CheckedScheduler(min=0, max=2)
    _say(machine, "pause")
    machine.submit()
    machine.tick(1)
    assert machine.starts() == 0
    _say(machine, "resume")
    machine.tick(1)
    assert machine.starts() == 1


def test_reservation_of_draining_device_is_delayed() -> None:
    machine = CheckedScheduler()
    _say(machine, "drain")
    ask = ReservationRequest(device="main", workload=Workload(qubits=1, shots=1))
    decision = reservations.reserve(machine.state, ask, "", wall_ns=10**18)[0]
    assert (decision.status, decision.code) == ("delayed", AdmissionReason.DEVICE_UNAVAILABLE)


def test_pausing_one_pool_does_not_stop_others() -> None:
    machine = CheckedScheduler(specs=TWO)
    _say(machine, "pause")
    machine.submit()
    machine.submit(along=route(pool="other"))
    assert [send.worker for send in machine.assign()] == ["other-0"]


def test_pausing_all_devices_stops_every_pool() -> None:
    machine = CheckedScheduler(specs=TWO)
    _say(machine, "pause", device="")
    machine.submit()
    machine.submit(along=route(pool="other"))
    machine.submit(along=wide(2))
    assert machine.assign() == []
    assert {name for name, _ in closed_pools(machine.state)} >= {"main", "other"}


def test_draining_device_refuses_new_tasks_and_finishes_accepted_ones() -> None:
    machine = CheckedScheduler()
    machine.submit()
    _say(machine, "drain")
    assert draining_refusal(machine.state, [route()]) != ""
    assert draining_refusal(machine.state, [route(pool="main.x4")]) != ""
    assert draining_refusal(machine.state, [route(pool="other")]) == ""
    assert devices.tick(machine.state, 10) == []
    (send,) = machine.assign()
    assert devices.tick(machine.state, 10) == []
    machine.finish(send.records)
    (note,) = devices.tick(machine.state, 10)
    assert isinstance(note, RecordEvent)
    assert (note.kind, note.subject) == ("device.drained", "main")
    assert devices.tick(machine.state, 11) == []  # said once
    assert infos.target_info(machine.state, "main").state == "draining"


def test_drain_past_its_timeout_sends_no_tasks_until_resumed() -> None:
    machine = CheckedScheduler()
    machine.submit()
    _say(machine, "drain", timeout_s=1.0)
    devices.tick(machine.state, 2 * 10**9)
    assert machine.assign() == []
    _say(machine, "resume")
    assert len(machine.assign()) == 1


def test_sent_and_running_tasks_stay_within_max_inflight() -> None:
    machine = CheckedScheduler()
    devices.set_max_inflight(machine.state, "main", 3)
    machine.submit(10)
    sent = [record for send in machine.assign() for record in send.records]
    assert len(sent) == 3
    assert machine.assign() == []
    machine.finish([record for record in sent if record.worker == sent[0].worker])
    machine.assign()
    info = infos.target_info(machine.state, "main")
    assert (info.sent + info.running, info.max_inflight) == (3, 3)
    devices.set_max_inflight(machine.state, "main", 0)
    machine.assign()
    assert infos.target_info(machine.state, "main").queued == 0


def test_max_inflight_of_all_devices_bounds_all_pools_together() -> None:
    machine = CheckedScheduler(specs=TWO)
    devices.set_max_inflight(machine.state, "", 1)
    machine.submit(2, cost=2e6)
    machine.submit(2, cost=2e6, along=route(2e6, pool="other"))
    assert len(machine.assign()) == 1


def test_provider_queue_depth_of_profile_bounds_sent_tasks() -> None:
    machine = CheckedScheduler()
    profile = machine.state.reservations.terms("main").profile
    fields = {name: getattr(profile, name) for name in profile.__struct_fields__}
    fields["max_provider_queue_depth"] = 1
    machine.state.reservations.set_profile("main", type(profile)(**fields))
    devices.refresh_restrictions(machine.state)
    machine.submit(5)
    assert sum(len(send.records) for send in machine.assign()) == 1


def test_invalid_device_commands_are_refused_without_changes() -> None:
    machine = CheckedScheduler()
    for wrong in (
        lambda: _say(machine, "stop"),
        lambda: _say(machine, "drain", mode="at once"),
        lambda: _say(machine, "drain", timeout_s=float("nan")),
        lambda: devices.set_max_inflight(machine.state, "main", -1),
        lambda: devices.set_queue_policy(machine.state, "main", "by mood", ()),
        lambda: devices.set_queue_policy(machine.state, "main", "fifo", (("keys", "fifo"),)),
        lambda: devices.set_queue_policy(machine.state, "main", "ordered", (("keys", "mood"),)),
        lambda: devices.set_queue_policy(
            machine.state, "main", "ordered", (("keys", "fifo,fifo"),)
        ),
    ):
        with pytest.raises(OptionError):
            wrong()
    with pytest.raises(NotFoundError):
        _say(machine, "pause", device="nowhere")
    assert infos.target_info(machine.state, "main").version == 1
    assert machine.state.controls.changes == {}


def test_device_version_grows_only_with_changes() -> None:
    machine = CheckedScheduler()
    assert not devices.set_queue_policy(machine.state, "main", "priority", ())
    assert not _say(machine, "resume")
    assert _say(machine, "pause")
    assert not _say(machine, "pause")
    assert devices.set_max_inflight(machine.state, "main", 2)
    assert not devices.set_max_inflight(machine.state, "main", 2)
    assert infos.target_info(machine.state, "main").version == 3


def test_device_settings_survive_restart() -> None:
    old = CheckedScheduler()
    _say(old, "pause", reason="cold")
    devices.set_queue_policy(old.state, "main", "fifo", ())
    devices.set_max_inflight(old.state, "", 7)
    new = CheckedScheduler()
    for device, value in old.state.controls.all.items():
        devices.restore_control(new.state, device, value)
    for device in ("", "main"):
        assert infos.target_info(new.state, device) == infos.target_info(old.state, device)
    new.submit()
    assert new.assign() == []
    assert new.state.controls.changes == {}
