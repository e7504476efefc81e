"""Who is charged for a worker's death, and how it ends."""

from __future__ import annotations

from checked_scheduler import CheckedScheduler, cluster, route

from simenv.model import PoolSpec, TaskState
from simenv.scheduler.core.actions import KillWorker, RecordEvent, StartWorker
from simenv.scheduler.core.types import Phase, WorkerHeartbeat
from simenv.wire.messages.client import STATES, AttemptResult


def test_a_lost_task_goes_to_the_front_with_its_next_attempt() -> None:
    machine = CheckedScheduler(workers=1)
    first, second, third = machine.submit(3, cost=60_000.0)
    (send,) = machine.assign()
    machine.begin(send.records[0])
    machine.lose("main-0")
    machine.revive()
    (again,) = machine.assign()
    assert again.records[0].number == first
    assert again.records[0].attempts == 2
    assert [r.number for r in machine.state.pools["main"].queue] == [second, third]


def test_late_result_of_lost_attempt_is_ignored() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0)
    (send,) = machine.assign()
    record = send.records[0]
    late = AttemptResult(
        record.number, record.fence, STATES.index(TaskState.DONE), b"", 0, start_us=1, run_us=1
    )
    machine.lose("main-0")
    machine.revive()
    (again,) = machine.assign()
    assert machine.scheduler.tasks_finished("main-0", [late], 1, machine.now_ns) == []
    assert len(machine.finish(again.records)) == 1


def test_task_that_kills_three_workers_alone_fails_as_poison() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1)
    for _ in range(3):
        machine.assign()
        machine.lose("main-0", "signal 11 (SIGSEGV)")
        machine.revive()
    (ending,) = machine.endings
    assert ending.state is TaskState.FAILED
    assert ending.reason == "poison"
    assert "SIGSEGV" in ending.message


def test_only_crashing_task_of_chunk_is_charged() -> None:
    machine = CheckedScheduler(workers=1)
    task = machine.submit(20)
    guilty = task[7]
    finished: set[int] = set()
    for _ in range(200):
        for send in machine.assign():
            for place, record in enumerate(send.records):
                if record.number == guilty:
                    done = send.records[:place]
                    if done:
                        machine.finish(done)
                        finished.update(r.number for r in done)
                    machine.lose("main-0", "signal 11 (SIGSEGV)")
                    machine.revive()
                    break
            else:
                value = machine.state.workers["main-0"].held
                records = [r for r in send.records if r.number in value]
                if records:
                    machine.finish(records)
                    finished.update(r.number for r in records)
        if not machine.state.tasks:
            break
    poisoned = [e for e in machine.endings if e.state is TaskState.FAILED]
    assert [e.record.number for e in poisoned] == [guilty]
    assert finished == set(task) - {guilty}
    assert all(e.record.deaths == 0 for e in machine.endings if e.record.number != guilty)


def test_suspect_tasks_are_sent_one_at_a_time() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(10)
    machine.assign()
    machine.lose("main-0")
    machine.revive()
    sends = machine.assign()
    assert [len(send.records) for send in sends] == [1]


def test_other_suspects_are_cleared_once_crashing_task_is_known() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(10)
    machine.assign()
    machine.lose("main-0")
    machine.revive()
    machine.assign()
    machine.lose("main-0")  # alone this time: it is the one
    suspects = [r for r in machine.state.tasks.values() if r.incident]
    assert len(suspects) == 1


def test_running_task_is_charged_for_crash_and_prefetched_task_is_not() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(2, cost=4_000.0)
    sends = machine.assign()
    assert len(sends) == 2
    machine.begin(sends[0].records[0])
    machine.lose("main-0")
    first, second = (machine.state.tasks[s.records[0].number] for s in sends)
    assert (first.deaths, second.deaths) == (1, 0)
    assert second.incident == 0


def test_worker_without_heartbeats_is_killed_and_its_task_requeued() -> None:
    machine = CheckedScheduler(workers=1)
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    for _ in range(6):
        actions = machine.tick(2.0)
    assert any(isinstance(action, KillWorker) for action in machine.actions)
    assert machine.state.tasks[number].phase == Phase.WAITING
    assert actions is not None


def test_silent_hardware_worker_is_lost_only_without_a_task() -> None:
    machine = CheckedScheduler(specs=(PoolSpec("qpu", "hardware", provider="a:b"),))
    machine.submit(1, along=route(1e6, pool="qpu", engine="hardware"))
    (send,) = machine.assign()
    for _ in range(250):
        machine.tick(2.0)
    assert "qpu-0" in machine.state.workers
    machine.finish(send.records)
    for _ in range(4):
        machine.tick(2.0)
    assert "qpu-0" in machine.state.workers
    for _ in range(2):
        machine.tick(2.0)
    assert any("silent for" in str(action) for action in machine.actions)


def test_silent_worker_is_not_lost_after_service_was_suspended() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1, cost=60_000.0)
    machine.assign()
    machine.tick(3600.0)
    assert "main-0" in machine.state.workers


def test_start_failures_back_off_and_end_in_quarantine() -> None:
    machine = CheckedScheduler(workers=1)
    machine.lose("main-0", "exit 1")
    starts = 0
    for _ in range(300):
        for action in machine.tick(1.0):
            if isinstance(action, StartWorker):
                starts += 1
                machine.lose(action.worker, "exit 1")
    assert starts == 6
    assert machine.state.pools["main"].is_quarantined
    notes = [a.kind for a in machine.actions if isinstance(a, RecordEvent)]
    assert notes.count("pool.quarantined") == 1


def test_a_worker_that_dies_with_a_task_is_replaced_at_once() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(1)
    machine.assign()
    machine.lose("main-0")
    assert any(isinstance(action, StartWorker) for action in machine.tick())


def test_worker_that_gave_up_its_lease_charges_no_task() -> None:
    machine = CheckedScheduler(workers=1)
    (number,) = machine.submit(1)
    for _ in range(4):
        machine.assign()
        machine.lose("main-0", "exit 3", blame=False)
        machine.revive()
    assert machine.endings == []
    assert machine.state.tasks[number].deaths == 0


def test_repeated_launcher_failures_back_off_worker_starts() -> None:
    machine = CheckedScheduler(4, cluster(4))
    for name in list(machine.state.workers):
        machine.lose(name, blame=False)
    machine.tick(1.0)
    assert machine.starts() == 8, "those that die together count as one"
    for name in list(machine.state.workers):
        machine.join(name)
    begun = machine.starts()
    for _ in range(120):
        for name in list(machine.state.workers):
            machine.lose(name, "its DVM was lost", blame=False)
        machine.tick(1.0)
    assert 4 * 8 <= machine.starts() - begun <= 4 * 14
    assert machine.state.pools["main"].failures == 0


def test_worker_that_runs_none_of_its_tasks_is_replaced() -> None:
    machine = CheckedScheduler(workers=1)
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    heartbeat = WorkerHeartbeat("main-0", machine.start_of("main-0")), machine.now_ns
    for _ in range(2):
        assert machine.scheduler.heartbeat_received(*heartbeat) == (True, [])
    machine.keep(machine.scheduler.heartbeat_received(*heartbeat)[1])
    record = machine.state.tasks[number]
    assert (record.phase, record.deaths) == (Phase.WAITING, 0)
    assert any(isinstance(action, KillWorker) for action in machine.actions)


def test_a_worker_that_loads_kernels_keeps_the_tasks_it_was_sent() -> None:
    machine = CheckedScheduler(workers=1)
    (number,) = machine.submit(1, cost=60_000.0)
    machine.assign()
    start = machine.start_of("main-0")
    for _ in range(20):
        beat = WorkerHeartbeat("main-0", start, waiting=False)
        assert machine.scheduler.heartbeat_received(beat, machine.now_ns) == (True, [])
    assert machine.state.tasks[number].worker == "main-0"


def test_an_unannounced_task_seen_by_a_heartbeat_is_not_charged_alone() -> None:
    machine = CheckedScheduler(workers=1)
    machine.submit(4, cost=10.0)
    machine.submit(1, cost=4_000.0)
    first, second = machine.assign()
    assert (first.announce, second.announce) == (False, True)
    machine.begin(first.records[0])  # by a heartbeat; the next one may run by now
    machine.lose("main-0", "signal 11 (SIGSEGV)")
    assert all(record.incident for record in machine.state.tasks.values())
    assert all(record.deaths == 0 for record in machine.state.tasks.values())


def test_cancelling_all_suspects_closes_their_incident() -> None:
    machine = CheckedScheduler(workers=1)
    task = machine.submit(10)
    machine.assign()
    machine.lose("main-0")
    machine.keep(machine.scheduler.cancel(task, machine.now_ns)[1])
    assert machine.state.incidents.open == 0
