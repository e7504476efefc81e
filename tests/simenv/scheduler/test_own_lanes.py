"""Reservations with lanes of their own beside those that all share, under each policy."""

from __future__ import annotations

import random

import pytest
from checked_scheduler import SECOND, route

from simenv.model import TaskOptions, TaskSpec
from simenv.scheduler.core.types import Phase, SubmitBatch, TaskRecord
from simenv.scheduler.queueing.policies import STEP_NS, QueuePolicy
from simenv.scheduler.queueing.queue import PoolQueue

OWN = (1, 2)  # reservations whose workers are theirs alone
KEYS = [("shortest",), ("fifo",)]
ORDERS = (
    QueuePolicy("fifo"),
    QueuePolicy("round_robin"),
    *(QueuePolicy("ordered", keys) for keys in KEYS),
)
SPEC = TaskSpec(b"program", 100, 0)


def record(number: int, now_ns: int, priority: int, reservation: int, cost_us: float) -> TaskRecord:
    owner = "ada" if reservation else ("bob", "eve")[number % 2]
    terms = TaskOptions(priority=priority, reservation=reservation)
    batch = SubmitBatch(b"c", terms, "", 0, number, now_ns, owner=owner)
    return TaskRecord(number, SPEC, batch, route(cost_us), cost_us)


def popped(order: QueuePolicy, seed: int, priorities: tuple[int, ...]) -> list[int]:
    """The tasks in the order in which workers that all share take them; now and then one of a
    reservation's takes what is its own."""
    chance, queue, now_ns = random.Random(seed), PoolQueue(order), 0
    for reservation in OWN:
        queue.add_dedicated_lanes(reservation)
    entries: list[int] = []
    for number in range(1, 600):
        now_ns += chance.randrange(40) * SECOND
        reservation, cost_us = chance.choice((0, 0, 0, *OWN)), chance.choice((1e3, 2e3, 2e6))
        priority, own = priorities[chance.randrange(10) % len(priorities)], chance.choice((0, *OWN))
        queue.append([record(number, now_ns, priority, reservation, cost_us)])
        head = queue.head(
            allow_long=chance.random() < 0.8, reservation=own * (chance.random() < 0.2)
        )
        if head is not None and chance.random() < 0.9:
            queue.pop(head)
            head.phase = Phase.SENT
            entries.append(head.number)
    assert len(queue) + len(entries) == number
    return entries


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join((order.policy, *order.keys)))
@pytest.mark.parametrize("seed", range(5))
def test_priorities_do_not_change_order_of_policies_without_them(
    order: QueuePolicy, seed: int
) -> None:
    alike = popped(order, seed, (0,))
    assert len(alike) > 400
    assert popped(order, seed, (0, 1, 60, -3, 10**6)) == alike


@pytest.mark.parametrize(("priority", "first"), [(0, 2), (1, 1)])
def test_priority_counts_for_reservation_tasks_as_for_others(priority: int, first: int) -> None:
    """Under the policy of priorities a step is a minute, as among all others."""
    queue = PoolQueue()
    queue.add_dedicated_lanes(1)
    late_ns = 30 * SECOND
    queue.append([record(1, 0, priority, 1, 1e3)])
    queue.append([record(2, late_ns, 0, 0, 1e3)])
    head = queue.head()
    assert head is not None
    assert head.number == first
    assert late_ns < STEP_NS
