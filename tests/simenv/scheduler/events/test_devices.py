"""Events of devices, outages, and memory of workers."""

import msgspec
import pytest
from checked_scheduler import LIMITS, SECOND, CheckedScheduler, cluster, route, wide
from failing import fails

from simenv.errors import InsufficientError, NotFoundError, OptionError
from simenv.model import AdmissionReason, PoolSpec, ReservationRequest, TaskState, Workload
from simenv.model.calls import AUTO, CALL_ENGINES
from simenv.model.options import VALUE
from simenv.scheduler import core
from simenv.scheduler.admission.availability import draining_refusal, memory_refusal
from simenv.scheduler.events import devices, reservations, workers
from simenv.scheduler.events.workers import MAX_PROCESSES, OVER_BEATS, memory_bound
from simenv.scheduler.views import cluster_info
from simenv.scheduler.views.cluster_info import closed_pools
from simenv.scheduler.views.pending_reasons import pending_reason
from simenv.text import size

TWO = (PoolSpec("main", "any", min=2, max=2), PoolSpec("other", "any", min=1, max=1))


def _say(machine: CheckedScheduler, verb: str, device: str = "main", **words: object) -> bool:
    table = {"reason": "", "mode": "", "timeout_s": 0.0, "wall_ns": 5, **words}
    return devices.set_device_state(machine.state, device, verb, **table)  # type: ignore[arg-type]


def test_paused_device_sends_no_tasks_until_resumed(pair: CheckedScheduler) -> None:
    assert _say(pair, "pause", reason="calibration")
    (task,) = pair.submit()
    assert pair.assign() == []
    record = pair.state.tasks[task]
    assert pending_reason(pair.state, record, pair.now_ns) == "pool main is paused: calibration"
    assert closed_pools(pair.state) == (("main", "paused"),)
    assert cluster_info.target_info(pair.state, "main").pause_reason == "calibration"
    assert _say(pair, "resume")
    assert pair.assign()[0].records == [record]
    assert closed_pools(pair.state) == ()


def test_no_workers_are_started_for_paused_device() -> None:
    machine = CheckedScheduler(min=0, max=2)
    _say(machine, "pause")
    machine.submit()
    machine.tick(1)
    assert machine.starts() == 0
    _say(machine, "resume")
    machine.tick(1)
    assert machine.starts() == 1


def test_reservation_of_draining_device_is_delayed(pair: CheckedScheduler) -> None:
    _say(pair, "drain")
    ask = ReservationRequest(device="main", workload=Workload(qubits=1, shots=1))
    decision = reservations.reserve(pair.state, ask, "", wall_ns=10**18)[0]
    assert (decision.status, decision.code) == ("delayed", AdmissionReason.DEVICE_UNAVAILABLE)


def test_pausing_stops_one_pool_or_all() -> None:
    machine = CheckedScheduler(specs=TWO)
    _say(machine, "pause")
    machine.submit()
    machine.submit(along=route(pool="other"))
    assert [send.worker for send in machine.assign()] == ["other-0"]
    machine = CheckedScheduler(specs=TWO)
    _say(machine, "pause", device="")
    machine.submit()
    machine.submit(along=route(pool="other"))
    machine.submit(along=wide(2))
    assert machine.assign() == []
    assert {name for name, _ in closed_pools(machine.state)} >= {"main", "other"}


def test_draining_device_refuses_tasks_and_finishes_accepted(pair: CheckedScheduler) -> None:
    pair.submit()
    _say(pair, "drain")
    assert draining_refusal(pair.state, [route()]) != ""
    assert draining_refusal(pair.state, [route(pool="main.x4")]) != ""
    assert draining_refusal(pair.state, [route(pool="other")]) == ""
    assert devices.complete_drains(pair.state, 10) == []
    (send,) = pair.assign()
    assert devices.complete_drains(pair.state, 10) == []
    pair.finish(send.records)
    (note,) = devices.complete_drains(pair.state, 10)
    assert isinstance(note, core.RecordEvent)
    assert (note.kind, note.subject) == ("device.drained", "main")
    assert devices.complete_drains(pair.state, 11) == []  # said once
    assert cluster_info.target_info(pair.state, "main").state == "draining"


def test_drain_past_its_timeout_sends_no_tasks_until_resumed(pair: CheckedScheduler) -> None:
    pair.submit()
    _say(pair, "drain", timeout_s=1.0)
    devices.complete_drains(pair.state, 2 * 10**9)
    assert pair.assign() == []
    _say(pair, "resume")
    assert len(pair.assign()) == 1


def test_sent_and_running_tasks_stay_within_max_inflight(pair: CheckedScheduler) -> None:
    devices.set_max_inflight(pair.state, "main", 3)
    pair.submit(10)
    sent = [record for send in pair.assign() for record in send.records]
    assert len(sent) == 3
    assert pair.assign() == []
    pair.finish([record for record in sent if record.worker == sent[0].worker])
    pair.assign()
    info = cluster_info.target_info(pair.state, "main")
    assert (info.sent + info.running, info.max_inflight) == (3, 3)
    devices.set_max_inflight(pair.state, "main", 0)
    pair.assign()
    assert cluster_info.target_info(pair.state, "main").queued == 0


def test_max_inflight_of_all_devices_bounds_all_pools_together() -> None:
    machine = CheckedScheduler(specs=TWO)
    devices.set_max_inflight(machine.state, "", 1)
    machine.submit(2, cost=2e6)
    machine.submit(2, cost=2e6, along=route(2e6, pool="other"))
    assert len(machine.assign()) == 1


def test_provider_queue_depth_of_profile_bounds_sent_tasks(pair: CheckedScheduler) -> None:
    profile = pair.state.reservations.terms("main").profile
    fields = {name: getattr(profile, name) for name in profile.__struct_fields__}
    fields["max_provider_queue_depth"] = 1
    pair.state.reservations.set_profile("main", type(profile)(**fields))
    devices.refresh_restrictions(pair.state)
    pair.submit(5)
    assert sum(len(send.records) for send in pair.assign()) == 1


def test_invalid_device_commands_are_refused_without_changes(pair: CheckedScheduler) -> None:
    for wrong in (
        lambda: _say(pair, "stop"),
        lambda: _say(pair, "drain", mode="at once"),
        lambda: _say(pair, "drain", timeout_s=float("nan")),
        lambda: devices.set_max_inflight(pair.state, "main", -1),
        lambda: devices.set_queue_policy(pair.state, "main", "by mood", ()),
        lambda: devices.set_queue_policy(pair.state, "main", "fifo", (("keys", "fifo"),)),
        lambda: devices.set_queue_policy(pair.state, "main", "ordered", (("keys", "mood"),)),
        lambda: devices.set_queue_policy(pair.state, "main", "ordered", (("keys", "fifo,fifo"),)),
    ):
        fails(OptionError, "", wrong)
    fails(NotFoundError, "", _say, pair, "pause", device="nowhere")
    assert cluster_info.target_info(pair.state, "main").version == 1
    assert pair.state.devices.controls.changes == {}


def test_device_version_grows_only_with_changes(pair: CheckedScheduler) -> None:
    assert not devices.set_queue_policy(pair.state, "main", "priority", ())
    assert not _say(pair, "resume")
    assert _say(pair, "pause")
    assert not _say(pair, "pause")
    assert devices.set_max_inflight(pair.state, "main", 2)
    assert not devices.set_max_inflight(pair.state, "main", 2)
    assert cluster_info.target_info(pair.state, "main").version == 3


def test_device_settings_survive_restart(pair: CheckedScheduler) -> None:
    _say(pair, "pause", reason="cold")
    devices.set_queue_policy(pair.state, "main", "fifo", ())
    devices.set_max_inflight(pair.state, "", 7)
    new = CheckedScheduler()
    for device, value in pair.state.devices.controls.all.items():
        devices.restore_control(new.state, device, value)
    for device in ("", "main"):
        assert cluster_info.target_info(new.state, device) == cluster_info.target_info(
            pair.state, device
        )
    new.submit()
    assert (new.assign(), new.state.devices.controls.changes) == ([], {})


WALL_NS = 1_700_000_000 * SECOND


def lab(*, pace: bool) -> CheckedScheduler:
    spec = PoolSpec("lab", min=2, max=2, device="chip", pace=pace, drift="walk")
    scheduler = CheckedScheduler(specs=(spec,))
    scheduler.scheduler.set_clock(WALL_NS, scheduler.now_ns)
    return scheduler


def submit(machine: CheckedScheduler, count: int, length_s: float) -> list[int]:
    shot_ns = length_s * SECOND / 100
    return machine.submit(count, along=route(pool="lab", device_shot_ns=shot_ns, paced=True))


def wall_ns(machine: CheckedScheduler) -> int:
    return WALL_NS + machine.now_ns - 1_000 * SECOND


def fail(machine: CheckedScheduler) -> list[core.RecordEvent]:
    """The device fails now; the events."""
    actions = machine.keep(machine.scheduler.begin_outage("lab", wall_ns(machine)))
    return [each for each in actions if isinstance(each, core.RecordEvent)]


def sent(machine: CheckedScheduler) -> list[core.TaskRecord]:
    return [record for each in machine.assign() for record in each.records]


def test_run_on_a_paced_device_is_run_again_after_the_outage() -> None:
    machine = lab(pace=True)
    submit(machine, 2, 10.0)
    (record,) = sent(machine)
    machine.finish([record], device_ns=10 * SECOND)
    assert record.phase == core.Phase.HELD
    machine.tick(4.0)
    (event,) = fail(machine)
    assert (event.kind, event.message) == ("task.requeued", "attempt 2 (outage of device chip)")
    assert core.DropHeldResult(1) in machine.actions
    assert (record.phase, machine.state.tasks.running) == (core.Phase.WAITING, 0)
    assert pending_reason(machine.state, record, machine.now_ns) == "outage of device chip"
    machine.tick(20.0)
    assert not sent(machine)
    assert not machine.endings
    machine.keep(machine.scheduler.end_outage("lab"))
    (again,) = sent(machine)
    assert again is record
    assert again.attempts == 2
    begun_ns = wall_ns(machine)
    machine.finish([again], device_ns=10 * SECOND)
    machine.tick(10.0)
    machine.assign()
    (ending,) = machine.endings
    assert ending.state is TaskState.DONE
    assert ending.timing.begun_ns == begun_ns


@pytest.mark.parametrize("pace", [True, False])
def test_result_of_an_interrupted_simulation_is_discarded(pace: bool) -> None:
    machine = lab(pace=pace)
    submit(machine, 1, 10.0)
    (record,) = sent(machine)
    machine.begin(record)
    machine.tick(1.0)
    (event,) = fail(machine)
    assert "outage of device chip" in event.message
    assert machine.finish([record]) == []
    assert (record.phase, machine.state.tasks.running) == (core.Phase.WAITING, 0)
    machine.keep(machine.scheduler.end_outage("lab"))
    (again,) = sent(machine)
    machine.finish([again])
    machine.tick(10.0)
    machine.assign()
    assert [each.record.attempts for each in machine.endings] == [2]


def test_interrupted_task_whose_worker_is_lost_runs_again_once() -> None:
    machine = lab(pace=False)
    submit(machine, 1, 10.0)
    (record,) = sent(machine)
    machine.tick(1.0)
    fail(machine)
    machine.lose(record.worker, blame=False)
    machine.revive()
    machine.keep(machine.scheduler.end_outage("lab"))
    (again,) = sent(machine)
    assert [each.record for each in machine.finish([again])] == [record]


def test_interrupted_task_that_is_cancelled_ends() -> None:
    machine = lab(pace=False)
    submit(machine, 1, 10.0)
    (record,) = sent(machine)
    machine.begin(record)
    fail(machine)
    machine.keep(machine.scheduler.cancel([record.number], machine.now_ns)[1])
    (ending,) = machine.finish([record], TaskState.CANCELLED)
    assert ending.state is TaskState.CANCELLED


def test_run_that_is_over_when_the_outage_begins_stands() -> None:
    machine = lab(pace=True)
    submit(machine, 1, 2.0)
    (record,) = sent(machine)
    machine.tick(3.0)  # its simulation is late
    assert fail(machine) == []
    machine.finish([record])
    machine.assign()
    assert [each.state for each in machine.endings] == [TaskState.DONE]


def test_device_whose_snapshots_are_read_interrupts_nothing() -> None:
    machine = lab(pace=True)
    submit(machine, 1, 2.0)
    (record,) = sent(machine)
    assert machine.keep(machine.scheduler.begin_outage("lab", None)) == []
    machine.finish([record])
    assert record.phase == core.Phase.HELD


GIB, MIB = 2**30, 2**20


def _beats(
    machine: CheckedScheduler, rss_bytes: int, count: int, base_bytes: int = 0
) -> list[core.KillWorker]:
    """Heartbeats of the running task with this memory; returns the kills that follow."""
    (record,) = machine.state.cluster.workers["main-0"].held.values()
    before = len(machine.actions)
    start = machine.start_of("main-0")
    beat = core.WorkerHeartbeat(
        "main-0", start, record.number, record.fence, rss_bytes, base_bytes=base_bytes
    )
    for _ in range(count):
        machine.keep(machine.scheduler.heartbeat_received(beat, machine.now_ns)[1])
    return [each for each in machine.actions[before:] if isinstance(each, core.KillWorker)]


def test_worker_above_its_grant_is_ended_and_its_task_charged(machine: CheckedScheduler) -> None:
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    (kill,) = _beats(machine, 4 * GIB, OVER_BEATS)
    assert kill.worker == "main-0"
    assert "4.0 GiB" in kill.reason
    assert "513.0 MiB" in kill.reason
    assert machine.state.tasks[number].deaths == 1


def _measured(
    machine: CheckedScheduler, used_bytes: int, processes: int = 3
) -> list[core.KillWorker]:
    """What the service has measured of the running task's worker; returns the kills."""
    before, start = len(machine.actions), machine.start_of("main-0")
    figures = start, used_bytes, processes, machine.now_ns
    machine.keep(machine.scheduler.worker_measured("main-0", *figures))
    return [each for each in machine.actions[before:] if isinstance(each, core.KillWorker)]


def test_what_a_worker_reports_of_its_memory_decides_nothing_where_it_is_measured(
    machine: CheckedScheduler,
) -> None:
    machine.submit(1, cost=60_000.0)
    machine.assign()
    assert _measured(machine, 64 * MIB) == []
    assert _beats(machine, 2**62, 5) == []
    assert machine.state.cluster.workers["main-0"].report.rss_bytes == 64 * MIB
    bound = memory_bound(machine.state.cluster.workers["main-0"])
    assert _measured(machine, bound + MIB) == [], "it may be a peak"
    assert _beats(machine, 0, 5) == []
    assert len(_measured(machine, bound + MIB)) == 1


def test_worker_far_above_its_bound_or_of_too_many_processes_is_ended_at_once() -> None:
    for figures in ((4 * GIB, 3), (64 * MIB, MAX_PROCESSES + 1)):
        machine = CheckedScheduler(workers=1)
        (number,) = machine.submit(1, cost=60_000.0)
        machine.assign()
        assert len(_measured(machine, *figures)) == 1
        assert machine.state.tasks[number].deaths == 1


@pytest.mark.parametrize(
    ("base", "granted", "bound"),
    [
        (0, 64 * MIB, 832 * MIB),  # not reported: 512 MiB
        (120 * MIB, 64 * MIB, 440 * MIB),
        (900 * MIB, 64 * MIB, 832 * MIB),  # what earlier tasks leaked is not granted
        (120 * MIB, 512 * MIB, 888 * MIB),
        (120 * MIB, 4 * GIB, 120 * MIB + 6 * GIB),
    ],
)
def test_worker_is_ended_above_its_base_and_one_and_a_half_times_its_grant(
    monkeypatch: pytest.MonkeyPatch, base: int, granted: int, bound: int
) -> None:
    """At least 256 MiB above base and grant; a program of no size."""
    monkeypatch.setattr(workers, "PROGRAM_FACTOR", 0)
    machine = CheckedScheduler(workers=1, limits=cluster(1, per_slot=8 * GIB))
    machine.submit(1, along=route(60_000.0, memory_bytes=granted))
    machine.assign()
    assert not _beats(machine, bound, OVER_BEATS, base)
    (kill,) = _beats(machine, bound + 1, OVER_BEATS, base)
    assert f"{size(bound)} of memory where {size(min(base or 512 * MIB, 512 * MIB) + granted)}" in (
        kill.reason
    )


def test_large_program_is_granted_the_memory_of_its_plan(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=60_000.0)
    machine.assign()
    worker = machine.state.cluster.workers["main-0"]
    before = memory_bound(worker)
    (record,) = worker.held.values()
    record.batch = msgspec.structs.replace(record.batch, share_bytes=2**24)
    assert memory_bound(worker) >= before + 255 * MIB


@pytest.mark.parametrize("engine", [AUTO, *CALL_ENGINES])
def test_call_is_granted_the_memory_of_its_slots(engine: str, machine: CheckedScheduler) -> None:
    """A worker that compiles circuits of 120 qubits and 300 layers takes 1.3 GiB."""
    machine.submit(1, cost=60_000.0)
    machine.assign()
    worker = machine.state.cluster.workers["main-0"]
    worker.report.base_bytes = 120 * MIB
    assert memory_bound(worker) < GIB
    (record,) = worker.held.values()
    terms = msgspec.structs.replace(record.batch.terms, engine=engine, outputs=(VALUE,))
    record.batch = msgspec.structs.replace(record.batch, terms=terms)
    assert memory_bound(worker) >= 1.5 * worker.host.node.memory_bytes


def test_peak_between_heartbeats_and_a_late_one_end_no_worker(machine: CheckedScheduler) -> None:
    machine.submit(1, cost=60_000.0)
    (sent,) = machine.assign()
    for _ in range(3):
        assert not _beats(machine, 4 * GIB, OVER_BEATS - 1)
        assert not _beats(machine, 100 * MIB, 1)
    late = core.WorkerHeartbeat(
        "main-0", machine.start_of("main-0"), sent.records[0].number + 1, 7, 4 * GIB
    )
    for _ in range(3):
        assert machine.scheduler.heartbeat_received(late, machine.now_ns) == (True, [])


def test_only_the_task_that_ran_is_charged(machine: CheckedScheduler) -> None:
    numbers = machine.submit(4, cost=10.0)
    machine.assign()
    worker = machine.state.cluster.workers["main-0"]
    record = worker.held[numbers[2]]
    beat = core.WorkerHeartbeat("main-0", worker.start, record.number, record.fence, 4 * GIB)
    for _ in range(OVER_BEATS):
        machine.keep(machine.scheduler.heartbeat_received(beat, machine.now_ns)[1])
    assert [machine.state.tasks[number].deaths for number in numbers] == [0, 0, 1, 0]


def test_service_above_its_limit_accepts_no_tasks_until_it_is_below() -> None:
    machine = CheckedScheduler(limits=msgspec.structs.replace(LIMITS, service_bytes=GIB))
    assert not machine.state.lacks_memory
    machine.keep(machine.scheduler.service_memory(2 * GIB))
    assert machine.state.lacks_memory
    refused = memory_refusal(machine.state)
    assert isinstance(refused, InsufficientError)
    assert "2.0 GiB" in refused.message
    assert "1.0 GiB" in refused.message
    assert refused.retry_after_s > 0
    machine.keep(machine.scheduler.service_memory(GIB // 2))
    assert not machine.state.lacks_memory
