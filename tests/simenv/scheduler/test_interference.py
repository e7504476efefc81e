"""Cancelling, deadlines, pools that grow and shrink."""

from __future__ import annotations

from checked_scheduler import CheckedScheduler, cluster

from simenv.model import TaskState, WorkerState
from simenv.scheduler.core.actions import Action, KillWorker, RetireWorker, StartWorker, StopAttempt
from simenv.scheduler.core.types import TaskRecord, WorkerHeartbeat
from simenv.wire.messages.client import STATES
from simenv.worker.runner import ENDED_EARLY


def test_cancel_of_a_waiting_task_ends_it_at_once() -> None:
    machine = CheckedScheduler(workers=1)
    task = machine.submit(3, cost=60_000.0)
    machine.assign()
    value, actions = machine.scheduler.cancel(task[1:2], machine.now_ns)
    machine.keep(actions)
    assert value == ["cancelled"]
    assert [e.state for e in machine.endings] == [TaskState.CANCELLED]
    assert len(machine.state.pools["main"].queue) == 1


def test_cancel_of_running_task_sends_one_stop_request_to_its_worker() -> None:
    machine = CheckedScheduler(workers=1)
    (number,) = machine.submit(1, cost=60_000.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    value, actions = machine.scheduler.cancel([number, 999], machine.now_ns)
    assert value == ["cancelling", "unknown"]
    assert [type(action) for action in actions] == [StopAttempt]
    again, more = machine.scheduler.cancel([number], machine.now_ns)
    assert (again, more) == (["cancelling"], [])
    (ending,) = machine.finish(send.records, TaskState.CANCELLED)
    assert ending.reason == "cancelled"


def test_worker_is_killed_when_its_cancelled_task_does_not_stop() -> None:
    machine = CheckedScheduler(workers=1)
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.keep(machine.scheduler.cancel([number], machine.now_ns)[1])
    assert not any(isinstance(action, KillWorker) for action in machine.tick(1.0))
    assert any(isinstance(action, KillWorker) for action in machine.tick(1.5))
    machine.lose("main-0")
    assert [e.state for e in machine.endings] == [TaskState.CANCELLED]


def test_waiting_task_expires_at_its_queue_timeout() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.submit(1, cost=60_000.0, queue_timeout_s=2.0)
    machine.tick(1.0)
    assert machine.endings == []
    machine.tick(1.5)
    assert [(e.state, e.reason) for e in machine.endings] == [(TaskState.EXPIRED, "queue_timeout")]


def test_a_task_is_stopped_at_its_run_timeout() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0, run_timeout_s=1.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    actions = machine.tick(1.5)
    assert [a.reason for a in actions if isinstance(a, StopAttempt)] == ["run_timeout"]


def test_a_pool_without_workers_starts_one_on_demand() -> None:
    machine = CheckedScheduler(min=0, max=2)
    assert machine.state.workers == {}
    machine.submit(1)
    assert [type(a) for a in machine.tick()] == [StartWorker]


def test_a_pool_grows_with_its_backlog_and_shrinks_when_idle() -> None:
    machine = CheckedScheduler(min=1, max=3, idle_s=5.0)
    machine.submit(100, cost=90_000.0)
    (first,) = machine.assign()
    machine.tick(0.1)
    assert len(machine.state.workers) == 2
    machine.revive()
    machine.finish(first.records)
    while sends := machine.assign():
        for send in sends:
            machine.finish(send.records)
    machine.tick(1.0)
    actions = machine.tick(6.0)
    assert any(isinstance(action, RetireWorker) for action in actions)
    idle = [w for w in machine.state.workers.values() if w.state == WorkerState.IDLE]
    assert len(idle) == 1


def test_withdrawn_tasks_are_removed_and_their_slots_freed() -> None:
    machine = CheckedScheduler(workers=1)
    task = machine.submit(10)
    machine.assign()
    machine.scheduler.rollback_submit(task[0], len(task), machine.now_ns)
    machine.tick()
    assert machine.state.tasks == {}
    assert machine.state.free_slots == 2


def test_cancel_of_prefetched_task_does_not_stop_running_task() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(2, cost=4_000.0)
    front, behind = (send.records[0] for send in machine.assign())
    machine.begin(front)
    machine.keep(machine.scheduler.cancel([behind.number], machine.now_ns)[1])
    assert not any(isinstance(action, KillWorker) for action in machine.tick(1.5))
    machine.finish([front])
    machine.begin(behind)
    assert any(isinstance(action, KillWorker) for action in machine.tick(2.5))


def test_cancelled_tasks_do_not_stay_in_memory_behind_a_waiting_one() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.submit(1, cost=60_000.0)
    task = machine.submit(3_000)
    machine.keep(machine.scheduler.cancel(task, machine.now_ns)[1])
    queue = machine.state.pools["main"].queue
    assert len(queue) == 1
    assert sum(len(lanes.short) for lanes in queue._lanes.values()) < 1_500


def test_retired_worker_that_does_not_exit_is_removed() -> None:
    machine = CheckedScheduler(min=0, max=1, idle_s=1.0)
    machine.submit(1)
    machine.revive()
    for send in machine.assign():
        machine.finish(send.records)
    assert any(isinstance(action, RetireWorker) for action in machine.tick(1.5))
    for _ in range(12):
        for worker in machine.state.workers.values():
            worker.heard_ns = machine.now_ns
        machine.tick(1.0)
    assert machine.state.workers == {}


def sent_behind(machine: CheckedScheduler, **terms: object) -> tuple[TaskRecord, TaskRecord]:
    """A task that runs, and a small one that its worker holds behind it."""
    (first,) = machine.submit(1, cost=3_000.0)
    machine.assign()
    machine.begin(machine.state.tasks[first])
    (number,) = machine.submit(1, cost=10.0, **terms)
    (send,) = machine.assign()
    assert send.worker == "main-0"
    return machine.state.tasks[first], machine.state.tasks[number]


def beat(machine: CheckedScheduler, running: TaskRecord) -> list[Action]:
    worker, start = "main-0", machine.start_of("main-0")
    _, actions = machine.scheduler.heartbeat_received(
        WorkerHeartbeat(worker, start, running.number, running.fence), machine.now_ns
    )
    return machine.keep(actions)


def test_prefetched_task_expires_at_its_queue_timeout() -> None:
    machine = CheckedScheduler(1, cluster(1))
    front, behind = sent_behind(machine, queue_timeout_s=2.0)
    assert machine.tick(1.0) == []
    (stop,) = machine.tick(1.0)
    assert stop == StopAttempt("main-0", behind.number, behind.fence, "queue_timeout")
    machine.finish([front])
    (ending,) = machine.finish([behind], TaskState.EXPIRED)
    assert (ending.state, ending.reason) == (TaskState.EXPIRED, "queue_timeout")
    assert ENDED_EARLY["queue_timeout"] == STATES.index(TaskState.EXPIRED)


def test_expired_prefetched_task_ends_after_grace_period_and_its_worker_is_not_killed() -> None:
    machine = CheckedScheduler(1, cluster(1))
    front, behind = sent_behind(machine, queue_timeout_s=2.0)
    machine.tick(2.0)
    assert machine.endings == []
    machine.tick(2.1)
    assert [(e.record, e.state) for e in machine.endings] == [(behind, TaskState.EXPIRED)]
    machine.finish([front])
    assert machine.finish([behind], TaskState.EXPIRED) == [], "it was told before"
    assert not any(isinstance(action, KillWorker) for action in machine.actions)
    assert machine.state.workers["main-0"].skipped == {}


def test_skipped_task_that_begins_is_stopped_and_then_its_worker_is_killed() -> None:
    machine = CheckedScheduler(1, cluster(1))
    _, behind = sent_behind(machine)
    machine.keep(machine.scheduler.cancel([behind.number], machine.now_ns)[1])
    machine.tick(2.1)
    assert [e.state for e in machine.endings] == [TaskState.CANCELLED]
    assert [type(action) for action in beat(machine, behind)] == [StopAttempt]
    machine.tick(1.0)
    assert beat(machine, behind) == []
    machine.tick(1.0)
    assert [type(action) for action in beat(machine, behind)] == [KillWorker]


def test_cancelled_task_that_may_have_begun_gets_usual_grace_period() -> None:
    machine = CheckedScheduler(1, cluster(1))
    front, behind = sent_behind(machine)
    machine.keep(machine.scheduler.cancel([behind.number], machine.now_ns)[1])
    machine.finish([front])
    machine.tick(2.1)
    assert machine.endings[1:] == [], "it may have begun"
    assert any(isinstance(action, KillWorker) for action in machine.tick(2.1))
    machine.lose("main-0")
    assert [e.state for e in machine.endings] == [TaskState.DONE, TaskState.CANCELLED]


def test_nothing_is_prefetched_to_worker_whose_result_is_late() -> None:
    machine = CheckedScheduler(1, cluster(1))
    machine.submit(1, cost=100.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    machine.submit(1, cost=100.0)
    assert len(machine.assign()) == 1, "sent ahead"
    machine.tick(0.5)
    machine.submit(1, cost=100.0)
    assert machine.assign() == []
    machine.finish(send.records)
    assert len(machine.assign()) == 1, "it has answered"
