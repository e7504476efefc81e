"""The first task of many lanes is found without asking each of them."""

from __future__ import annotations

import random

import pytest
from checked_scheduler import SECOND, route

from simenv.model import TaskOptions, TaskSpec
from simenv.scheduler.core.types import FINAL, SENT, WAITING, SubmitBatch, TaskRecord
from simenv.scheduler.queueing.lanes import LONG_US, Lanes
from simenv.scheduler.queueing.policies import aged_priority
from simenv.scheduler.queueing.queue import PoolQueue

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
    lane, _ = queue.upcoming()
    assert lane[0].batch.terms.priority == PRIORITIES - 101
    assert queue.has_short()
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
            heads = [lanes.head(allow_long) for lanes in queue._lanes.values()]
            least = min(
                (each for each in heads if each is not None), key=aged_priority, default=None
            )
            assert queue.head(allow_long) is least
