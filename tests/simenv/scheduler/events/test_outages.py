"""An outage of a device interrupts what runs there; it is run again afterwards."""

from __future__ import annotations

import pytest
from checked_scheduler import SECOND, CheckedScheduler, route

from simenv.model import PoolSpec, TaskState
from simenv.scheduler.core.actions import DropHeldResult, RecordEvent
from simenv.scheduler.core.types import Phase, TaskRecord
from simenv.scheduler.views.pending_reason import pending_reason

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


def fail(machine: CheckedScheduler) -> list[RecordEvent]:
    """The device fails now; the events."""
    actions = machine.keep(machine.scheduler.begin_outage("lab", wall_ns(machine)))
    return [each for each in actions if isinstance(each, RecordEvent)]


def sent(machine: CheckedScheduler) -> list[TaskRecord]:
    return [record for each in machine.assign() for record in each.records]


def test_run_on_a_paced_device_is_run_again_after_the_outage() -> None:
    machine = lab(pace=True)
    submit(machine, 2, 10.0)
    (record,) = sent(machine)
    machine.finish([record], device_ns=10 * SECOND)
    assert record.phase == Phase.HELD
    machine.tick(4.0)
    (event,) = fail(machine)
    assert event.kind == "task.requeued"
    assert event.message == "attempt 2 (outage of device chip)"
    assert DropHeldResult(1) in machine.actions
    assert record.phase == Phase.WAITING
    assert machine.state.running == 0
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
    assert record.phase == Phase.WAITING
    assert machine.state.running == 0
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
    assert record.phase == Phase.HELD
