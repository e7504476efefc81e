"""Queueing policies, and the heads of lanes."""

import random
from itertools import islice

import msgspec
import pytest
from checked_scheduler import SECOND, CheckedScheduler, route

from simenv.model import TaskOptions, TaskSpec
from simenv.scheduler.core import FINAL, SENT, WAITING, SubmitBatch, TaskRecord
from simenv.scheduler.events import devices
from simenv.scheduler.queueing.lanes import (
    LONG_US,
    Lanes,
    QueuePolicy,
    SortedLane,
    aged_priority,
    priority_credit_ns,
)
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.views import cluster_info

ALONE = 1_500.0  # such a task travels alone


def _ran(machine: CheckedScheduler) -> list[int]:
    """All tasks in the order they are sent; what is listed agrees with it."""
    order: list[int] = []
    while machine.state.tasks:
        listed = [record.number for record in machine.state.cluster.pools["main"].queue]
        sent = [r for send in machine.assign() for r in send.records]
        assert [record.number for record in sent] == listed[: len(sent)]
        order += [record.number for record in sent]
        for worker in list(machine.state.cluster.workers.values()):
            if worker.held:
                machine.finish(list(worker.held.values()))
    return order


def _order(machine: CheckedScheduler, policy: str, **options: str) -> None:
    devices.set_queue_policy(machine.state, "main", policy, tuple(options.items()))


def _submit_as(machine: CheckedScheduler, owner: str, count: int, cost: float = ALONE) -> list[int]:
    return machine.submit(count, cost, owner=owner)


@pytest.mark.parametrize(
    ("priority", "under_s", "over_s"),
    [
        pytest.param(1, 59, 61, id="one step: a minute"),
        pytest.param(10**6, 7_100, 7_201, id="the highest: less than two hours"),
    ],
)
def test_priority_is_worth_some_time_of_waiting(
    machine: CheckedScheduler, priority: int, under_s: int, over_s: int
) -> None:
    start_ns = machine.now_ns
    (old,) = machine.submit(cost=ALONE)
    machine.now_ns = start_ns + under_s * SECOND
    (urgent,) = machine.submit(cost=ALONE, priority=priority)
    machine.now_ns = start_ns + over_s * SECOND
    (late,) = machine.submit(cost=ALONE, priority=priority)
    machine.hear()
    assert _ran(machine) == [urgent, old, late]


def test_priority_credit_grows_strictly_and_stays_below_two_hours() -> None:
    steps = [*range(1_000), *range(1_000, 1_000_000, 997), 999_999, 1_000_000]
    worth = [priority_credit_ns(step) for step in steps]
    assert worth == sorted(set(worth))
    assert worth[-1] < 7_200 * SECOND
    assert [priority_credit_ns(-step) for step in steps] == [-each for each in worth]
    assert worth[:61] == [60 * SECOND * step for step in range(61)]


def test_first_tasks_of_a_sorted_lane_are_found_without_a_sort_of_all() -> None:
    compared = 0

    class Key(tuple[float, ...]):
        def __lt__(self, other: tuple[float, ...]) -> bool:
            nonlocal compared
            compared += 1
            return tuple(self) < tuple(other)

    class Order(QueuePolicy, frozen=True):
        def sort_key(self, record: TaskRecord) -> tuple[float, ...]:
            return Key((record.cost_us, record.number))

    lane = SortedLane(Order("ordered", ("shortest",)))
    costs_us = [float(number * 7_919 % 1_000) for number in range(1_000)]
    for number, cost_us in enumerate(costs_us):
        lane.append(record(number, 0, cost_us=cost_us))
    compared = 0
    assert [each.cost_us for each in islice(lane, 5)] == sorted(costs_us)[:5]
    assert compared < 100
    assert [each.cost_us for each in lane] == sorted(costs_us)


def test_fifo_ignores_priorities(machine: CheckedScheduler) -> None:
    _order(machine, "fifo")
    entries = [machine.submit(cost=ALONE, priority=p)[0] for p in (0, 5, 1, -3)]
    assert _ran(machine) == entries


def test_ordered_policy_applies_its_keys_in_given_order() -> None:
    costs = (4_000.0, 1_500.0, 9_000.0, 1_500.0)
    for keys, expected in (
        ("shortest", (2, 4, 1, 3)),
        ("longest", (3, 1, 2, 4)),
        ("priority,longest", (2, 3, 1, 4)),
        ("fifo", (1, 2, 3, 4)),
    ):
        machine = CheckedScheduler(workers=1)
        _order(machine, "ordered", keys=keys)
        for cost, priority in zip(costs, (0, 1, 0, 0), strict=True):
            machine.submit(cost=cost, priority=priority)
        assert _ran(machine) == list(expected), keys


def test_round_robin_alternates_owners_also_within_chunks(machine: CheckedScheduler) -> None:
    _order(machine, "round_robin")
    first = _submit_as(machine, "ann", 4)
    second = _submit_as(machine, "bob", 2)
    assert _ran(machine) == [first[0], second[0], first[1], second[1], first[2], first[3]]
    _order(machine, "round_robin")
    first, second = _submit_as(machine, "ann", 50, 10.0), _submit_as(machine, "bob", 50, 10.0)
    (send, *_) = machine.assign()
    entries = [record.number for record in send.records]
    assert entries[:4] == [first[0], second[0], first[1], second[1]]


@pytest.mark.parametrize("policy", ["priority", "fifo", "ordered", "round_robin"])
def test_task_of_lost_worker_returns_to_front(machine: CheckedScheduler, policy: str) -> None:
    _order(machine, policy)
    first = machine.submit(1, cost=9_000.0)
    machine.assign()
    machine.submit(3, cost=9_000.0)
    machine.lose("main-0")
    machine.revive()
    assert machine.assign()[0].records[0].number == first[0]


def test_policy_changes_lose_no_tasks() -> None:
    chance = random.Random(5)
    machine = CheckedScheduler(workers=2)
    left: set[int] = set()
    policies = ["fifo", "priority", "ordered", "round_robin"]
    for _ in range(120):
        left.update(machine.submit(chance.randrange(1, 4), cost=chance.choice([10.0, 2e6])))
        left.update(_submit_as(machine, chance.choice("ab"), 2, chance.choice([10.0, ALONE])))
        keys = {"keys": chance.choice(["shortest", "priority,longest"])}
        policy = chance.choice(policies)
        _order(machine, policy, **(keys if policy == "ordered" else {}))
        if chance.random() < 0.5:
            number = chance.choice(sorted(machine.state.tasks))
            machine.keep(machine.scheduler.cancel([number], machine.now_ns)[1])
        for send in machine.assign():
            machine.finish(send.records)
    while machine.state.tasks:
        for send in machine.assign():
            machine.finish(send.records)
        machine.now_ns += 20 * SECOND
    assert sorted([ending.record.number for ending in machine.endings]) == sorted(left)


def test_policy_of_pool_overrides_policy_of_all_devices(machine: CheckedScheduler) -> None:
    devices.set_queue_policy(machine.state, "", "fifo", ())
    assert cluster_info.target_info(machine.state, "main").policy == "fifo"
    _order(machine, "priority")
    assert cluster_info.target_info(machine.state, "main").policy == "priority"
    assert msgspec.structs.asdict(cluster_info.target_info(machine.state, ""))["policy"] == "fifo"


PRIORITIES = 201


def record(number: int, priority: int, owner: str = "", cost_us: float = 10.0) -> TaskRecord:
    batch = SubmitBatch(
        b"c", TaskOptions(priority=priority), "k", 0, 1, number * SECOND, owner=owner
    )
    return TaskRecord(number, TaskSpec(b"p", 1, 1), batch, route(cost_us), cost_us)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Lanes]:
    """Every lane that was asked for its first task."""
    asked: list[Lanes] = []
    head = Lanes.head
    monkeypatch.setattr(Lanes, "head", lambda self, long: asked.append(self) or head(self, long))
    return asked


def test_next_task_among_many_priorities_is_found_by_asking_few_lanes(asked: list[Lanes]) -> None:
    queue = PoolQueue()
    for number in range(1, PRIORITIES + 1):
        queue.append([record(number, number - 100)])
    queue.head()
    asked.clear()
    first = queue.head()
    assert first is not None
    queue.pop(first)
    assert queue.head() is not first
    lane, _ = queue.lanes.upcoming()
    assert lane[0].batch.terms.priority == PRIORITIES - 101
    assert queue.lanes.has_short()
    assert len(asked) < 10


@pytest.mark.parametrize("seed", range(20))
def test_queue_head_has_least_aged_priority_of_all_lanes_after_random_events(seed: int) -> None:
    chosen, queue, number = random.Random(seed), PoolQueue(), 0
    waiting: dict[int, TaskRecord] = {}
    sent: list[TaskRecord] = []
    for _ in range(400):
        what = chosen.randrange(5)
        if what == 0 or not waiting:
            cost_us = chosen.choice([10.0, 2 * LONG_US])
            number += 1
            result = record(number, chosen.randrange(-3, 4), cost_us=cost_us)
            queue.append([result])
            waiting[number] = result
        elif what == 1:
            item = waiting.pop(chosen.choice(sorted(waiting)))
            queue.drop(item)
            item.phase = FINAL
        elif what == 2 and sent:
            back = sent.pop(chosen.randrange(len(sent)))
            back.phase, waiting[back.number] = WAITING, back
            queue.requeue_front([back])
        else:
            head = queue.head(what == 3)
            if head is not None:
                queue.pop(head)
                head.phase, head.attempts = SENT, head.attempts + 1
                sent.append(waiting.pop(head.number))
        for allow_long in (True, False):
            heads = [lanes.head(allow_long) for lanes in queue.lanes.shared.values()]
            least = min((h for h in heads if h is not None), key=aged_priority, default=None)
            assert queue.head(allow_long) is least
