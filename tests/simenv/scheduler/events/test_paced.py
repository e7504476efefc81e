"""A paced device runs one task at a time, as long as the machine would."""

import itertools
import random

import pytest
from checked_scheduler import SECOND, CheckedScheduler, expected_starts, route
from scheduler_invariants import check

from simenv.model import PoolSpec, TaskState
from simenv.model.accounts import Account, AccountTree, Billing, association
from simenv.scheduler.core import Phase, TaskRecord
from simenv.scheduler.state.paced_devices import LOOKAHEAD_NS, StoredRun

MS = 1_000_000
WALL_NS = 1_700_000_000 * SECOND


def paced(workers: int = 2) -> CheckedScheduler:
    spec = PoolSpec("lab", min=workers, max=workers, device="chip", pace=True)
    scheduler = CheckedScheduler(specs=(spec,))
    scheduler.scheduler.set_clock(WALL_NS, scheduler.now_ns)
    return scheduler


def along(length_ns: float) -> dict[str, object]:
    """A route whose 100 shots take so long."""
    return {"along": route(pool="lab", device_shot_ns=length_ns / 100, paced=True)}


def simulated(machine: CheckedScheduler, record: TaskRecord, device_ns: int) -> None:
    """The worker returns the result of a task."""
    machine.finish([record], device_ns=device_ns)


def intervals(machine: CheckedScheduler) -> list[tuple[int, int]]:
    """Begin and end of each finished task on the device, by wall clock, in the order of ends."""
    return [
        (each.timing.begun_ns, each.timing.begun_ns + each.timing.device_ns)
        for each in machine.endings
        if each.state is TaskState.DONE
    ]


def all_at_once(machine: CheckedScheduler, length_ns: int) -> list[TaskRecord]:
    """Send and simulate all that may be sent now."""
    done: list[TaskRecord] = []
    while sent := machine.assign():
        for assignment in sent:
            for record in assignment.records:
                simulated(machine, record, length_ns)
                done.append(record)
    return done


def test_result_is_held_until_the_device_has_run_its_task() -> None:
    machine = paced()
    machine.submit(3, **along(500 * MS))
    assert [record.phase for record in all_at_once(machine, 500 * MS)] == [Phase.HELD]
    assert machine.state.tasks.running == 1
    machine.tick(0.499)
    machine.assign()
    assert not machine.endings
    machine.tick(0.001)
    machine.assign()
    (ending,) = machine.endings
    assert (ending.timing.begun_ns, ending.timing.device_ns) == (WALL_NS, 500 * MS)


def test_next_task_is_sent_just_before_the_device_is_free() -> None:
    machine = paced()
    machine.submit(2, **along(500 * MS))
    assert len(all_at_once(machine, 500 * MS)) == 1
    machine.tick((500 * MS - LOOKAHEAD_NS - 1) / SECOND)
    assert not machine.assign()
    machine.tick(1e-9)
    assert len(machine.assign()) == 1
    machine = paced(1)
    machine.submit(1, **along(10 * SECOND))
    (record,) = all_at_once(machine, 10 * SECOND)
    assert machine.state.cluster.workers[record.worker].state == "IDLE"
    assert machine.free_slots == machine.state.limits.slots


def test_5000_tasks_do_not_overlap_with_cancels_and_lost_workers() -> None:
    random_ = random.Random(7)
    machine = paced()
    lengths: dict[int, int] = {}
    cancelled: set[int] = set()
    pending: list[TaskRecord] = []
    while machine.state.tasks or len(lengths) < 5_000:
        while len(machine.state.tasks) < 60 and len(lengths) < 5_000:
            length_ns = random_.randrange(1, 40) * MS // 4
            task = machine.submit(10, **along(length_ns))
            lengths.update(dict.fromkeys(task, length_ns))
        for assignment in machine.assign():
            pending += assignment.records
        dice = random_.random()
        if pending and dice < 0.02:
            machine.lose(pending[0].worker, blame=False)
            pending = [r for r in pending if r.phase in (Phase.SENT, Phase.RUNNING)]
            machine.revive()
        elif dice < 0.06 and machine.state.tasks:  # `assign` may have ended the last one
            number = random_.choice(list(machine.state.tasks)[:8])
            if machine.state.tasks[number].phase in (Phase.WAITING, Phase.HELD):
                cancelled.add(number)
                machine.keep(machine.scheduler.cancel([number], machine.now_ns)[1])
        for record in pending:
            if record.phase in (Phase.SENT, Phase.RUNNING):
                simulated(machine, record, lengths[record.number])
        pending = []
        machine.hear()
        machine.tick(random_.random() * 0.02)
    ended = [each.record.number for each in machine.endings if each.state is TaskState.DONE]
    assert set(ended) == set(lengths) - cancelled
    assert len(cancelled) > 20
    result = intervals(machine)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(result))
    assert [end - begin for begin, end in result] == [lengths[number] for number in ended]


def test_device_never_waits_while_tasks_do() -> None:
    machine = paced()
    machine.submit(300, **along(7 * MS))
    while machine.state.tasks:
        all_at_once(machine, 7 * MS)
        machine.hear()
        machine.tick(0.05)
    result = intervals(machine)
    assert result == [(WALL_NS + k * 7 * MS, WALL_NS + (k + 1) * 7 * MS) for k in range(300)]


def test_cancelled_run_lets_those_behind_it_move_up() -> None:
    machine = paced()
    machine.submit(3, **along(100 * MS))
    first, second, third = all_at_once(machine, 100 * MS)
    machine.tick(0.04)
    machine.keep(machine.scheduler.cancel([second.number], machine.now_ns)[1])
    machine.keep(machine.scheduler.cancel([first.number], machine.now_ns)[1])
    machine.tick(0.1)
    machine.assign()
    assert machine.endings[-1].record is third
    assert machine.endings[-1].timing.begun_ns == WALL_NS + 40 * MS


def test_length_by_the_calibration_in_force_replaces_the_expected_one() -> None:
    machine = paced()
    machine.submit(2, **along(100 * MS))
    first, second = (a.records[0] for a in machine.assign() + machine.assign())
    simulated(machine, second, 100 * MS)
    simulated(machine, first, 150 * MS)
    machine.tick(0.3)
    machine.assign()
    assert intervals(machine) == [
        (WALL_NS, WALL_NS + 150 * MS),
        (WALL_NS + 150 * MS, WALL_NS + 250 * MS),
    ]


def test_run_goes_on_while_its_task_is_sent_again() -> None:
    machine = paced(1)
    machine.submit(1, **along(2 * SECOND))
    (assignment,) = machine.assign()
    machine.tick(1.0)
    machine.lose(assignment.worker, blame=False)
    machine.revive()
    (record,) = all_at_once(machine, 2 * SECOND)
    machine.tick(1.0)
    machine.assign()
    assert record.attempts == 2
    assert intervals(machine) == [(WALL_NS, WALL_NS + 2 * SECOND)]


def restarted(
    before: CheckedScheduler, tasks: int, length_ns: int, down_s: int
) -> CheckedScheduler:
    """A new scheduler with the stored runs; the service was down so long."""
    elapsed_ns = before.now_ns - 1_000 * SECOND + down_s * SECOND
    after = paced()
    after.scheduler.set_clock(WALL_NS + elapsed_ns, after.now_ns)
    after.submit(tasks, **along(length_ns))
    after.scheduler.restore_paced(before.state.devices.paced.stored)
    check(after.state)
    return after


def test_run_goes_on_after_a_restart() -> None:
    before = paced()
    before.submit(2, **along(10 * SECOND))
    all_at_once(before, 10 * SECOND)
    before.tick(4.0)
    before.assign()
    assert before.state.devices.paced.is_forced
    assert before.state.devices.paced.take_changes() == {1: StoredRun("lab", 1, WALL_NS)}

    after = restarted(before, 2, 10 * SECOND, 1)
    all_at_once(after, 10 * SECOND)
    after.tick(5.0)
    all_at_once(after, 10 * SECOND)
    after.tick(10.0)
    after.assign()
    assert intervals(after) == [
        (WALL_NS, WALL_NS + 10 * SECOND),
        (WALL_NS + 10 * SECOND, WALL_NS + 20 * SECOND),
    ]
    assert after.state.devices.paced.take_changes()[1] is None


def test_short_runs_that_were_sent_keep_their_places_after_a_restart() -> None:
    before = paced()
    before.submit(10, **along(60 * MS))
    sent = all_at_once(before, 60 * MS)
    assert [record.number for record in sent] == [1, 2, 3, 4]  # as far as 0.2 s ahead
    before.tick(0.07)
    before.assign()
    stored = before.state.devices.paced.stored
    assert {number: run.place for number, run in stored.items()} == {2: 2, 3: 3, 4: 4, 5: 5}
    assert before.state.devices.paced.take_changes()[1] is None
    assert stored[2].earliest_ns == WALL_NS + 60 * MS

    after = restarted(before, 10, 60 * MS, 3)
    ended = before.state.tasks.ended[TaskState.DONE]
    after.keep(after.scheduler.cancel(list(range(1, 1 + ended)), after.now_ns)[1])
    all_at_once(after, 60 * MS)
    after.assign()
    outcome = intervals(after)
    assert outcome == [(WALL_NS + k * 60 * MS, WALL_NS + (k + 1) * 60 * MS) for k in range(1, 5)]
    while after.state.tasks:
        after.tick(0.05)
        after.hear()
        all_at_once(after, 60 * MS)
    result = intervals(after)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(result))
    assert result[4][0] >= WALL_NS + 3_070 * MS


def test_run_of_a_task_that_ended_meanwhile_is_not_restored() -> None:
    host = paced()
    host.submit(1, **along(60 * MS))
    host.scheduler.restore_paced({7: StoredRun("lab", 3, WALL_NS), 1: StoredRun("x", 4, WALL_NS)})
    check(host.state)
    assert host.state.devices.paced.take_changes() == {7: None, 1: None}


def test_expected_starts_follow_the_clock_of_the_machine() -> None:
    machine = paced()
    task = machine.submit(4, **along(10 * SECOND))
    all_at_once(machine, 10 * SECOND)
    machine.tick(4.0)
    starts, now_ns = expected_starts(machine), machine.now_ns
    waits_us = [starts.task_us(machine.state.tasks[number], now_ns) for number in task[1:]]
    assert waits_us == pytest.approx([6e6, 16e6, 26e6])
    assert starts.new_us(machine.state.cluster.pools["lab"], now_ns) == pytest.approx(36e6)


def test_expected_submissions_take_the_time_of_the_machine() -> None:
    machine = paced()
    machine.scheduler.set_accounts(AccountTree({"a": Account(), "b": Account()}), Billing(), {})
    machine.state.shares.fair_share.charge(association("a", "ana"), 1e5)
    mine = machine.submit(10, **along(40 * SECOND), owner="ana", account="a")
    for _ in range(60):
        machine.submit(**along(30 * SECOND), owner="ben", account="b")
        machine.now_ns += 60 * SECOND
        machine.tick()
    # 60 tasks of ben wait, and then 10 of ana; ben's later ones take nearly half of the time.
    wait_us = expected_starts(machine).task_us(machine.state.tasks[mine[-1]], machine.now_ns)
    assert wait_us == pytest.approx(1.8 * (60 * 30e6 + 9 * 40e6), rel=0.15)
