"""Inputs of the simulation of starts: run times, and copies of queues."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, TypeVar

from simenv.model import TaskOptions, TaskSpec
from simenv.model.accounts import ROOT
from simenv.scheduler import core
from simenv.scheduler.queueing.lanes import SMALL_US
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.state import pools, scheduler_state

T = TypeVar("T")
MAX_TASKS = 100_000  # of one pool that are simulated, from the front of its queue
_FAR = 5.0  # standard deviations of the logarithm above which the tail is approximated


def starts_tasks(state: scheduler_state.SchedulerState, pool: pools.Pool) -> bool:
    """Return whether the pool starts tasks: not draining, quarantined, scaled to zero, paused or in
    an outage."""
    if state.draining or pool.is_quarantined or not (pool.spec.max or pool.workers):
        return False
    return not (state.controls.starts_nothing(pool.device) or pool.device in state.outages)


def work_us(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    record: core.TaskRecord,
    cost_us: float,
) -> float:
    """Return the time that a worker needs for a task on one slot; `cost_us`: as expected now."""
    if pool.spec.pace:
        return state.estimator.simulation_us(record.route, record.spec)
    return cost_us / (pool.small if cost_us <= SMALL_US else pool.large).speed


def worked_us(worker: pools.Worker, now_ns: int) -> float:
    """Return the time in microseconds for which a worker has worked on the tasks that it holds."""
    return (now_ns - worker.working_since_ns) / 1e3 if worker.working_since_ns else 0.0


def remaining_us(expected_us: float, elapsed_us: float, deviation: float) -> float:
    """Return the mean of the rest of a log-normal time whose mean is `expected_us` and that has
    lasted `elapsed_us`. `deviation`: mean of |ln(time / expected time)|."""
    sigma = deviation * math.sqrt(math.pi / 2)
    if elapsed_us <= 0 or sigma < 0.01 or expected_us <= 0:
        return max(0.0, expected_us - elapsed_us)
    z = math.log(elapsed_us / expected_us) / sigma + sigma / 2
    if z > _FAR:
        return elapsed_us * sigma / z
    tail, weighted = math.erfc(z / math.sqrt(2)), math.erfc((z - sigma) / math.sqrt(2))
    return max(0.0, expected_us * weighted / tail - elapsed_us)


def spread(slots: Mapping[T, int], ranks: int) -> tuple[tuple[T, int], ...]:
    """Return places for the ranks of a new worker, on the largest nodes. `slots`: by node."""
    shares, left = list[tuple[T, int]](), ranks
    for host in sorted(slots, key=lambda each: -slots[each]):
        if left:
            shares.append((host, min(left, slots[host])))
            left -= shares[-1][1]
    return tuple(shares)


def new_task(pool: pools.Pool, owner: str, number: int, now_ns: int) -> core.TaskRecord:
    """Return a new task like those that wait, of priority 0, which would be accepted now."""
    tree = pool.queue.fair_share.tree
    account = next(iter(tree.accounts_of(owner)), ROOT if tree else "")
    batch = core.SubmitBatch(
        b"", TaskOptions(), "", 0, number, now_ns, owner=owner, account=account
    )
    route = core.Route("", "", pool.spec.name, 0, 0, 0.0, 0.0, 1, pool.spec.ranks)
    cost_us = pool.queue.backlog_us / max(1, len(pool.queue))
    return core.TaskRecord(number, TaskSpec(b"", 0, 0), batch, route, cost_us)


def copied(queue: PoolQueue) -> PoolQueue:
    """Return a copy of a queue, with at least its first MAX_TASKS tasks. The objects of
    `simenv.scheduler.queueing` and their containers are copied, not the tasks."""
    result = _copied(queue, {})
    assert isinstance(result, PoolQueue)
    return result


_PACKAGE = PoolQueue.__module__.rpartition(".")[0]


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    if isinstance(value, deque):
        return value.copy() if len(value) <= MAX_TASKS else deque(islice(value, MAX_TASKS))
    if isinstance(value, list | set):
        return value.copy()
    if isinstance(value, dict):
        return {key: _copied(each, memo) for key, each in value.items()}
    if not type(value).__module__.startswith(_PACKAGE) or not hasattr(value, "__dict__"):
        return value
    result = memo.get(id(value))
    if result is None:
        result = memo[id(value)] = object.__new__(type(value))
        vars(result).update({name: _copied(each, memo) for name, each in vars(value).items()})
    return result
