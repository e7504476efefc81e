"""Workers above their grant are ended and their task charged; a service above its limit takes no
tasks."""

from __future__ import annotations

import msgspec
import pytest
from checked_scheduler import LIMITS, CheckedScheduler

from simenv.errors import InsufficientError
from simenv.model import TaskState
from simenv.scheduler.core.actions import KillWorker
from simenv.scheduler.core.types import WorkerHeartbeat
from simenv.scheduler.events.memory import OVER_BEATS, granted_bytes
from simenv.scheduler.views.admission import memory_refusal

GIB, MIB = 2**30, 2**20


def _beats(machine: CheckedScheduler, rss_bytes: int, count: int) -> list[KillWorker]:
    """Heartbeats of the running task with this memory; returns the kills that follow."""
    (record,) = machine.state.workers["main-0"].held.values()
    before = len(machine.actions)
    start = machine.start_of("main-0")
    beat = WorkerHeartbeat("main-0", start, record.number, record.fence, rss_bytes)
    for _ in range(count):
        machine.keep(machine.scheduler.heartbeat_received(beat, machine.now_ns)[1])
    return [each for each in machine.actions[before:] if isinstance(each, KillWorker)]


def test_worker_above_its_grant_is_ended_and_its_task_charged() -> None:
    machine = CheckedScheduler(workers=1)
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    (kill,) = _beats(machine, 4 * GIB, OVER_BEATS)
    assert kill.worker == "main-0"
    assert "4.0 GiB" in kill.reason
    assert "513.0 MiB" in kill.reason
    assert machine.state.tasks[number].deaths == 1


def test_task_that_leaks_in_each_worker_fails_as_poison_with_both_numbers() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0)
    for _ in range(3):
        machine.assign()
        (kill,) = _beats(machine, 4 * GIB, OVER_BEATS)
        ended = machine.scheduler.worker_lost("main-0", kill.start, "killed", machine.now_ns)
        machine.keep(ended)
        machine.revive()
    (ending,) = machine.endings
    assert (ending.state, ending.reason) == (TaskState.FAILED, "poison")
    assert "used 4.0 GiB of memory where 513.0 MiB were granted" in ending.message


@pytest.mark.parametrize(
    ("share", "margin", "ends"), [(1.4, 0, 0), (1.0, 200 * MIB, 0), (1.6, 0, 1)]
)
def test_both_bounds_must_be_passed(share: float, margin: int, ends: int) -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0)
    machine.assign()
    granted = granted_bytes(machine.state.workers["main-0"])
    assert len(_beats(machine, round(share * granted) + margin, OVER_BEATS)) == ends


def test_peak_between_two_heartbeats_and_one_that_is_late_end_no_worker() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0)
    (sent,) = machine.assign()
    for _ in range(3):
        assert not _beats(machine, 4 * GIB, OVER_BEATS - 1)
        assert not _beats(machine, 100 * MIB, 1)
    late = WorkerHeartbeat(
        "main-0", machine.start_of("main-0"), sent.records[0].number + 1, 7, 4 * GIB
    )
    for _ in range(3):
        assert machine.scheduler.heartbeat_received(late, machine.now_ns) == (True, [])


def test_only_the_task_that_ran_is_charged() -> None:
    machine = CheckedScheduler(workers=1)
    numbers = machine.submit(4, cost=10.0)
    machine.assign()
    worker = machine.state.workers["main-0"]
    record = worker.held[numbers[2]]
    beat = WorkerHeartbeat("main-0", worker.start, record.number, record.fence, 4 * GIB)
    for _ in range(OVER_BEATS):
        machine.keep(machine.scheduler.heartbeat_received(beat, machine.now_ns)[1])
    deaths = [machine.state.tasks[number].deaths for number in numbers]
    assert deaths == [0, 0, 1, 0]


def test_service_above_its_limit_accepts_no_tasks_until_it_is_below() -> None:
    machine = CheckedScheduler(limits=msgspec.structs.replace(LIMITS, service_bytes=GIB))
    assert memory_refusal(machine.state) is None
    machine.keep(machine.scheduler.service_memory(2 * GIB))
    refused = memory_refusal(machine.state)
    assert isinstance(refused, InsufficientError)
    assert "2.0 GiB" in refused.message
    assert "1.0 GiB" in refused.message
    assert refused.retry_after_s > 0
    machine.keep(machine.scheduler.service_memory(GIB // 2))
    assert memory_refusal(machine.state) is None
