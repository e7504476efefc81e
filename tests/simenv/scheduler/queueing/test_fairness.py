"""Fair order between owners: a flood of one does not keep another waiting, however it is made."""

from itertools import groupby

import numpy as np
import pytest
from checked_scheduler import SECOND, CheckedScheduler, cluster
from scheduler_invariants import check

from simenv.model import CLIENT_LIMITS, Limits, ReservationRequest
from simenv.scheduler.core import FINAL, WAITING, TaskRecord
from simenv.scheduler.events import devices

ALONE_US = 2_500.0  # such a task travels alone


def submit(
    machine: CheckedScheduler, owner: str, count: int = 1, cost_us: float = ALONE_US,
    priority: int = 0,
) -> list[int]:  # fmt: skip
    return machine.submit(count, cost_us, owner=owner, priority=priority)


def sent(machine: CheckedScheduler, passes: int = 10**6) -> list[TaskRecord]:
    """All tasks in the order they are sent."""
    order: list[TaskRecord] = []
    while machine.state.tasks and passes:
        passes -= 1
        for send in machine.assign():
            turns = list(dict.fromkeys(record.batch.owner for record in send.records))
            assert turns == [owner for owner, _ in groupby(r.batch.owner for r in send.records)]
            waiting = {r.batch.owner for r in machine.state.tasks.values() if r.phase == WAITING}
            assert waiting.isdisjoint(turns[:-1]), "a turn ended with a chunk that has room"
            order += send.records
        check(machine.state)
        for worker in list(machine.state.cluster.workers.values()):
            if worker.held:
                machine.finish(list(worker.held.values()))
    return order


def owners(records: list[TaskRecord]) -> str:
    return "".join(record.batch.owner or "-" for record in records)


@pytest.mark.parametrize("cost_us", [ALONE_US, 100.0])
@pytest.mark.parametrize("priority", [-60, 0, 60])
def test_later_owner_is_not_delayed_by_many_tasks_of_another(cost_us: float, priority: int) -> None:
    machine = CheckedScheduler(workers=1)
    submit(machine, "a", 2_000, cost_us, priority)
    machine.now_ns += 600 * SECOND
    submit(machine, "b", 1, cost_us)
    assert "b" in owners(sent(machine, passes=2))


def test_owners_get_equal_work_not_equal_numbers_of_tasks(machine: CheckedScheduler) -> None:
    submit(machine, "a", 40, 20_000.0)
    submit(machine, "b", 400, 2_000.0)
    machine.now_ns += SECOND
    first = sent(machine, passes=110)
    work = {owner: sum(r.cost_us for r in first if r.batch.owner == owner) for owner in "ab"}
    assert abs(work["a"] - work["b"]) <= 40_000.0


def test_owner_that_was_idle_gets_equal_share_and_no_more(machine: CheckedScheduler) -> None:
    submit(machine, "a", 100)
    submit(machine, "b", 100)
    sent(machine, passes=40)
    submit(machine, "c", 100)
    following = owners(sent(machine, passes=30))
    assert abs(following.count("c") - len(following) / 3) <= 1


def chunks(
    owner_count: int, tasks: int, total: int = 200, cost_us: float = 10.0
) -> list[list[TaskRecord]]:
    """The chunks in which small tasks travel, which so many owners have submitted, each so many at
    a time."""
    machine, result = CheckedScheduler(workers=1), list[list[TaskRecord]]()
    for number in range(total // tasks):
        submit(machine, f"u{number % owner_count}", tasks, cost_us)
    while machine.state.tasks:
        result += [send.records for send in machine.assign()]
        machine.finish([r for w in machine.state.cluster.workers.values() for r in w.held.values()])
    return result


def test_few_tasks_of_many_owners_take_few_messages() -> None:
    assert len(chunks(40, 5)) == len(chunks(1, 5))


def test_a_turn_that_fills_a_message_does_not_cut_the_next_one_in_two() -> None:
    for records in chunks(2, 100):
        assert len({record.batch.owner for record in records}) == 1


def test_a_message_takes_the_little_rest_of_a_turn_along() -> None:
    assert [len(records) for records in chunks(3, 120, 360, 12.7)] == [120, 120, 120]


def test_a_turn_that_passes_the_work_of_a_chunk_by_little_is_not_put_off(
    machine: CheckedScheduler,
) -> None:
    for owner in "abc":
        submit(machine, owner, 9, 100.0)
    (send, *_) = machine.assign()
    assert owners(send.records) == 9 * "a" + 9 * "b"


def test_a_turn_of_which_more_follows_is_not_cut_in_two(machine: CheckedScheduler) -> None:
    for owner, priority in (("a", 0), ("b", 0), ("b", -1)):
        submit(machine, owner, 9, 100.0, priority)
    machine.now_ns += 100 * SECOND
    submit(machine, "b", 9, 100.0)  # behind those of priority -1
    (send, *_) = machine.assign()
    assert owners(send.records) == 9 * "a"


def test_a_message_that_is_nearly_full_is_not_filled_from_the_next_turn() -> None:
    machine = CheckedScheduler(workers=1)
    for owner, count in (("a", 115), ("b", 5), ("c", 115)):
        submit(machine, owner, count, 12.0)
    assert {record.batch.owner for record in machine.assign()[0].records} == {"a"}


def test_order_of_waiting_small_tasks_is_that_in_which_they_are_sent() -> None:
    machine = CheckedScheduler(workers=1)
    for number in range(40):
        submit(machine, f"u{number % 7}", 50, 14.0)
    foretold = [record.number for record in machine.state.cluster.pools["main"].queue]
    assert [record.number for record in sent(machine)] == foretold


def test_order_of_more_tasks_than_are_counted_is_read_to_its_end(machine: CheckedScheduler) -> None:
    for owner in "ab":
        submit(machine, owner, 400, 10.0)
    queue = machine.state.cluster.pools["main"].queue
    queue.count = 10
    assert len(list(queue.shared())) == 800


def test_turn_ends_before_a_task_that_travels_alone_and_that_is_foretold() -> None:
    machine = CheckedScheduler(workers=1)
    for owner in "ab":
        for count, cost_us in ((2, 400.0), (1, ALONE_US), (300, 400.0)):
            submit(machine, owner, count, cost_us)
    foretold = [record.number for record in machine.state.cluster.pools["main"].queue]
    order = sent(machine)
    assert [record.batch.owner for record in order[:5]] == ["a", "a", "b", "b", "a"]
    assert [record.number for record in order[:5]] == foretold[:5]


def test_tasks_that_share_a_message_know_their_own_waits(machine: CheckedScheduler) -> None:
    submit(machine, "busy", 2)
    held = [record for send in machine.assign() for record in send.records]
    for owner in "ab":
        submit(machine, owner, 5, 10.0)
        machine.assign()
        machine.now_ns += 10 * SECOND
        machine.assign()
    machine.finish(held)
    (records,) = (s.records for s in machine.assign() if s.records[0].batch.owner == "a")
    waits = {r.batch.owner: sum(us for _, us in r.waits) for r in records}
    assert waits == {"a": 20_000_000, "b": 10_000_000}


def test_priorities_reorder_only_tasks_of_same_owner(machine: CheckedScheduler) -> None:
    submit(machine, "a", 3, priority=5)
    (low,) = submit(machine, "b")
    (high,) = submit(machine, "b", priority=1)
    order = [record.number for record in sent(machine)]
    assert order.index(high) == 1
    assert order.index(high) < order.index(low) <= 3


def test_priority_of_service_user_counts_against_other_owners(machine: CheckedScheduler) -> None:
    submit(machine, "a", 3)
    submit(machine, "", 3, priority=1)
    submit(machine, "", 3, priority=-1)
    assert owners(sent(machine)) == "---aaa---"


def test_urgent_tasks_of_service_user_alternate_with_aged_ones(machine: CheckedScheduler) -> None:
    submit(machine, "a", 20)
    machine.now_ns += 61 * SECOND
    submit(machine, "", 20, priority=1)
    assert owners(sent(machine))[:6].count("a") == 3


@pytest.mark.parametrize("policy", ["priority", "fair_share", "fifo", "ordered", "round_robin"])
def test_limit_of_slots_counts_tasks_behind_those_of_others(policy: str) -> None:
    machine = CheckedScheduler(workers=3, limits=cluster(3))
    devices.set_queue_policy(machine.state, "main", policy, ())
    machine.state.shares.limits.set_owners({"a": Limits(max_running_slots=1)}, CLIENT_LIMITS)
    for _ in range(40):
        submit(machine, "b", 1, 400.0)
        submit(machine, "a", 3, 400.0)
    ended = 0
    while machine.state.tasks:
        machine.assign()
        workers = machine.state.cluster.workers.values()
        held = [list(worker.held.values()) for worker in workers]
        assert sum(any(r.batch.owner == "a" for r in records) for records in held) <= 1
        for records in filter(None, held):  # the first tasks that a worker holds
            machine.finish(records[: 1 + ended % 3])
            ended += 1


def reserve(machine: CheckedScheduler, owner: str, workers: int) -> int:
    """Reserve workers of the pool; return the number of the reservation."""
    request = ReservationRequest(device="main", workers=workers, ttl_ns=600 * SECOND)
    decision, _ = machine.scheduler.reserve(request, owner, 1_800_000_000 * SECOND)
    assert decision.reservation, decision
    return decision.reservation


@pytest.mark.parametrize("cost_us", [100.0, ALONE_US, 5e6])
def test_limit_of_slots_counts_tasks_on_workers_of_a_reservation(cost_us: float) -> None:
    machine = CheckedScheduler(workers=3, limits=cluster(4))
    machine.state.shares.limits.set_owners({"a": Limits(max_running_slots=2)}, CLIENT_LIMITS)
    number = reserve(machine, "a", 3)
    machine.submit(30, cost=cost_us, owner="a", reservation=number)
    slots: list[int] = []
    while machine.state.tasks:
        machine.assign()
        busy = [worker for worker in machine.state.cluster.workers.values() if worker.held]
        slots.append(sum(worker.slots for worker in busy))
        machine.finish(list(busy[0].held.values()))
    assert max(slots) == 2


def test_task_of_a_reservation_waits_for_slots_on_other_workers_too() -> None:
    machine = CheckedScheduler(workers=3, limits=cluster(3))
    machine.state.shares.limits.set_owners({"a": Limits(max_running_slots=1)}, CLIENT_LIMITS)
    number = reserve(machine, "a", 1)
    machine.submit(3, cost=5e6, owner="a", reservation=number)
    machine.now_ns += 100 * SECOND  # so long that any worker takes them
    assert [send.slots for send in machine.assign()] == [1]
    check(machine.state)


@pytest.mark.parametrize("seed", range(5))
def test_work_of_a_queue_is_never_negative_and_none_when_it_is_empty(seed: int) -> None:
    machine, drawn = CheckedScheduler(workers=1), np.random.default_rng(seed)
    for owner in ("a", "b", "a"):
        for cost_us in drawn.uniform(0.1, 2_000.0, 40):
            submit(machine, owner, 1, float(cost_us))
    (pool,) = machine.state.cluster.pools.values()
    for number in drawn.permutation(list(machine.state.tasks)).tolist():
        pool.queue.drop(machine.state.tasks[number])
        assert pool.queue.backlog_us >= 0.0
    assert pool.queue.backlog_us == 0.0


def test_programs_of_cancelled_tasks_leave_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """However few of them there are, and though nothing of their pool starts."""
    monkeypatch.setattr("simenv.scheduler.queueing.queue.MAX_STALE_BYTES", 70)
    monkeypatch.setattr("simenv.scheduler.queueing.queue.SWEPT_BYTES", 0)
    machine = CheckedScheduler(workers=1)
    submit(machine, "a", 50)
    (pool,) = machine.state.cluster.pools.values()
    for record in list(machine.state.tasks.values())[1:]:
        record.phase = FINAL
        pool.queue.drop(record)
        entries = [
            each for lanes in pool.queue.lanes.all() for lane in lanes.all() for each in lane
        ]
        assert sum(each.size_bytes for each in entries if each.phase == FINAL) <= 70
    assert len(pool.queue) == 1
