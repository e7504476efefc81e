"""Slots of a wide task that runs are taken back for short tasks, and given again afterwards."""

from __future__ import annotations

from checked_scheduler import CheckedScheduler, cluster, route

from simenv.model import PoolSpec
from simenv.scheduler.core.actions import SetThreads
from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.dispatch.gang_scheduling import PATIENCE_NS

WIDE_US = 20e6


def wide(machine: CheckedScheduler, engine: str = "statevector") -> TaskRecord:
    """A task that runs on all slots of a node."""
    (number,) = machine.submit(1, along=route(WIDE_US, engine=engine, num_qubits=26))
    (send,) = machine.assign()
    assert send.slots == machine.state.limits.slots
    record = machine.state.tasks[number]
    machine.begin(record)
    return record


def told(machine: CheckedScheduler) -> list[int]:
    return [action.slots for action in machine.actions if isinstance(action, SetThreads)]


def test_short_task_gets_a_slot_of_a_running_wide_task_at_once() -> None:
    machine = CheckedScheduler(3, cluster(2))
    record = wide(machine)
    machine.submit(1, cost=1_000.0)
    (send,) = machine.assign()
    assert send.slots == 1
    assert machine.state.workers[record.worker].slots == 1
    machine.tick()
    assert told(machine) == [1]
    machine.submit(1, along=route(500_000.0))
    assert machine.assign() == [], "the last slot of a running task is never taken"


def test_wide_task_regains_slots_after_one_second_without_short_tasks() -> None:
    machine = CheckedScheduler(2, cluster(2))
    record = wide(machine)
    machine.submit(1, cost=1_000.0)
    (send,) = machine.assign()
    machine.finish(send.records)
    machine.tick(0.5)
    assert told(machine) == [1]
    machine.tick(0.6)
    assert told(machine) == [1, 2]
    assert machine.state.workers[record.worker].slots == 2
    assert machine.state.free_slots == 0


def test_long_task_takes_no_slot_of_a_running_task() -> None:
    machine = CheckedScheduler(2, cluster(2))
    wide(machine)
    machine.submit(1, along=route(WIDE_US))
    assert machine.assign() == []
    machine.tick()
    assert told(machine) == []


def test_engine_that_does_not_resize_keeps_its_slots() -> None:
    machine = CheckedScheduler(2, cluster(2))
    wide(machine, engine="aer")
    machine.submit(1, cost=1_000.0)
    assert machine.assign() == []


def test_task_that_was_sent_and_does_not_run_yet_keeps_its_slots() -> None:
    machine = CheckedScheduler(2, cluster(2))
    machine.submit(1, along=route(WIDE_US, num_qubits=26))
    machine.assign()
    machine.submit(1, cost=1_000.0)
    assert machine.assign() == []


def test_resized_run_does_not_change_cost_estimate() -> None:
    machine = CheckedScheduler(2, cluster(2))
    record = wide(machine)
    before = machine.state.estimator.cost_us(record.route, record.spec)
    machine.submit(1, cost=1_000.0)
    machine.assign()
    machine.finish([record])
    assert machine.state.estimator.cost_us(record.route, record.spec) == before
    assert machine.state.multi_slot_workers == {}


def test_wide_task_regains_all_but_one_slot_while_few_short_tasks_come() -> None:
    machine = CheckedScheduler(16, cluster(16))
    record = wide(machine)
    machine.submit(15 * 200, cost=1_000.0)
    while sends := machine.assign():
        for send in sends:
            machine.finish(send.records)
    worker = machine.state.workers[record.worker]
    assert worker.slots < 15
    for _ in range(3):
        machine.submit(1, cost=1_000.0)
        for send in machine.assign():
            machine.finish(send.records)
        machine.tick(0.9)
        machine.hear()
    assert worker.slots == 15, "one stays free for the short tasks that come"


def test_small_task_is_not_sent_behind_a_wide_task_that_lost_its_slots() -> None:
    machine = CheckedScheduler(2, cluster(2))
    machine.submit(1, along=route(40_000.0, num_qubits=20))
    (send,) = machine.assign()
    assert send.slots == 2
    machine.begin(send.records[0])
    machine.submit(1, along=route(900_000.0))
    assert len(machine.assign()) == 1
    machine.submit(1, cost=10.0)
    assert machine.assign() == []


def test_slot_taken_back_goes_to_the_short_task_although_a_long_one_has_waited() -> None:
    machine = CheckedScheduler(3, cluster(2))
    wide(machine)
    machine.submit(1, along=route(WIDE_US))
    machine.now_ns += 2 * PATIENCE_NS
    machine.hear()
    (short,) = machine.submit(1, cost=1_000.0)
    (send,) = machine.assign()
    assert [record.number for record in send.records] == [short]


def test_slot_is_taken_back_for_a_worker_that_reserves_the_memory_of_the_short_task() -> None:
    pool = PoolSpec("main", min=2, max=2, memory_bytes=2**28)
    machine = CheckedScheduler(limits=cluster(2, per_slot=2**28), specs=(pool,))
    wide(machine)
    assert machine.state.free_memory == 0
    machine.submit(1, cost=1_000.0)
    assert len(machine.assign()) == 1
