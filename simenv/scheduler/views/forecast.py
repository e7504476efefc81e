"""Forecasts of waiting times, from the work ahead of a task and the speed of its pool.

Expected work is slot time by the present estimator. The efficiency of busy workers is learned,
separately for small tasks, most of whose time is overhead. A forecast is a snapshot; -1 means
unknown.
"""

from __future__ import annotations

from heapq import heapreplace
from itertools import islice

import msgspec

from simenv.model import WorkerState
from simenv.scheduler.core.types import START_NS, Phase, TaskRecord
from simenv.scheduler.queueing.lanes import SMALL_US, Backlog
from simenv.scheduler.state.devices import inflight_limit
from simenv.scheduler.state.pools import Pool, Worker, speedup_slots
from simenv.scheduler.state.state import SchedulerState

UNKNOWN = -1.0
EXACT = 256  # tasks from the front that are placed one by one,
MAX_EXACT = 1_000  # and the most if many are requested: 10,000 would take the loop 50 to 160 ms
MIN_START_US = 50_000.0
MIN_US = 0.1


class PoolAvailability(msgspec.Struct, frozen=True):
    """First tasks of a queue: the time at which each starts, and at which each slot is free after
    them."""

    begins_us: dict[int, float]
    free_us: list[float]


class Forecast:
    """Snapshot of waiting times; `count`: number of tasks for which it will be used."""

    def __init__(self, state: SchedulerState, now_ns: int, count: int = 1) -> None:
        self._state = state
        self._now_ns = now_ns
        self._exact = min(MAX_EXACT, max(EXACT, count))
        self._availabilities: dict[str, PoolAvailability] = {}
        self._lanes: dict[tuple[str, int], list[float]] = {}
        self._costs: dict[tuple[int, int, int], float] = {}

    def pool_us(self, pool: Pool) -> float:
        """Return the time until a task of priority 0 that is accepted now would start."""
        if len(pool.queue) <= EXACT and pool.queue.is_line and _starts_tasks(self._state, pool):
            availability = self._availability(pool)
            return min(availability.free_us, default=UNKNOWN)
        return self._wait_us(pool, 0, pool.queue.work_before_new(self._now_ns))

    def task_us(self, record: TaskRecord) -> float:
        """Return the time until a waiting or sent task starts; UNKNOWN for others."""
        pool = self._state.pools.get(record.route.pool)
        if pool is None or record.stopping or record.phase in (Phase.PARKED, Phase.DEPENDENT):
            return UNKNOWN
        if pool.spec.pace and (run := self._state.paced.all[pool.device].runs.get(record.number)):
            wait_ns = run.begin_ns - self._now_ns
            return wait_ns / 1e3 if wait_ns > 0 else UNKNOWN
        if record.phase in (Phase.RUNNING, Phase.HELD):
            return UNKNOWN
        if record.phase == Phase.SENT:
            return self._sent_us(pool, record)
        if pool.queue.is_late(record) or not _starts_tasks(self._state, pool):
            return UNKNOWN
        reservation = pool.queue.dedicated_to(record)
        begins_us = None if reservation else self._availability(pool).begins_us.get(record.number)
        if begins_us is not None:
            return begins_us
        return self._wait_us(pool, reservation, pool.queue.work_before(record))

    def _availability(self, pool: Pool) -> PoolAvailability:
        """Place the first tasks of the pool's queue, each on the slot that is free first."""
        availability = self._availabilities.get(pool.spec.name)
        if availability is None:
            free_us = list(self._slots_us(pool, 0))
            begins_us: dict[int, float] = {}
            if free_us:
                for record in islice(pool.queue.shared(), self._exact):
                    begin_us = begins_us[record.number] = free_us[0]
                    heapreplace(free_us, begin_us + self._duration_us(pool, record))
            availability = PoolAvailability(begins_us, free_us)
            self._availabilities[pool.spec.name] = availability
        return availability

    def _sent_us(self, pool: Pool, record: TaskRecord) -> float:
        """Return the time until a task that its worker holds starts."""
        worker = self._state.workers[record.worker]
        ahead_us = 0.0
        for number, other in worker.held.items():
            if number == record.number:
                break
            ahead_us += self._duration_us(pool, other)
        return max(0.0, ahead_us / speedup_slots(worker) - self._since_us(worker))

    def _duration_us(self, pool: Pool, record: TaskRecord) -> float:
        """Return the expected time that a worker needs for a task on one slot."""
        cost_us = self._cost_us(record)
        return cost_us / (pool.small if cost_us <= SMALL_US else pool.large).speed

    def _cost_us(self, record: TaskRecord) -> float:
        key = (id(record.route), record.spec.shots, record.spec.count)
        cost_us = self._costs.get(key)
        if cost_us is None:
            cost_us = self._costs[key] = self._state.estimator.cost_us(record.route, record.spec)
        return cost_us

    def _slots_us(self, pool: Pool, reservation: int) -> list[float]:
        key = (pool.spec.name, reservation)
        slots_us = self._lanes.get(key)
        if slots_us is None:
            slots_us = self._free_us(pool, reservation)
            if pool.spec.pace:  # one task at a time
                free_ns = self._state.paced.all[pool.device].free_ns
                slots_us = (
                    [max(slots_us[0], (free_ns - self._now_ns) / 1e3)] if slots_us else slots_us
                )
            self._lanes[key] = slots_us
        return slots_us

    def _wait_us(self, pool: Pool, reservation: int, backlog: Backlog) -> float:
        """Return the time until this work is done and a slot is free; `reservation`: on its
        workers."""
        if not _starts_tasks(self._state, pool):
            return UNKNOWN
        lanes = self._slots_us(pool, reservation)
        if not lanes:
            return UNKNOWN
        left_us = backlog.small_us / pool.small.speed + backlog.large_us / pool.large.speed
        head = pool.queue.head(reservation=reservation)
        if head is not None:  # a factor learned since applies to the others as to this one
            left_us *= self._cost_us(head) / max(head.cost_us, MIN_US)
        level, count = lanes[0], 1
        for free_us in lanes[1:]:
            filled_us = (free_us - level) * count
            if filled_us >= left_us:
                break
            left_us -= filled_us
            level, count = free_us, count + 1
        return level + left_us / count

    def _free_us(self, pool: Pool, reservation: int) -> list[float]:
        """Return the time until each slot that the pool's workers can have becomes free, in
        ascending order."""
        if pool.spec.ranks > 1:
            return self._gang_us(pool)
        starts_us: list[float] = []
        slots = 0
        soonest = min(
            (self._remaining_us(pool, w) for w in self._state.workers.values() if w.held),
            default=0.0,
        )
        for host in {
            worker.host.node.name: worker.host for worker in pool.workers.values()
        }.values():
            dedicated = sum(
                w.host is host and bool(w.reservation_id) for w in self._state.workers.values()
            )
            slots += host.node.slots - dedicated
        for worker in pool.workers.values():
            if worker.leaving or worker.reservation_id != reservation:
                continue
            if worker.state == WorkerState.STARTING:
                age_us = (self._now_ns - worker.since_ns) / 1e3
                starts_us.append(max(MIN_START_US, START_NS / 1e3 - age_us))
            elif worker.held:
                starts_us.append(self._remaining_us(pool, worker))
            elif worker.state == WorkerState.IDLE:
                host = worker.host
                free = (
                    pool.is_exclusive
                    or worker.reservation_id
                    or host.free_slots > host.claimed_slots
                )
                starts_us.append(0.0 if free else soonest)
        if not starts_us and not reservation:
            wait_us = max(0.0, (pool.next_start_ns - self._now_ns) / 1e3)
            starts_us = [wait_us + START_NS / 1e3]
        max_slots = len(starts_us) if reservation or pool.is_exclusive else max(1, slots)
        bounds = [
            n
            for n in (inflight_limit(self._state, pool.device), inflight_limit(self._state, ""))
            if n
        ]
        return sorted(starts_us)[: min([max_slots, *bounds])]

    def _gang_us(self, pool: Pool) -> list[float]:
        """Return the time until each worker of several ranks can start a task, with all its slots
        at once."""
        starts_us = []
        for worker in pool.workers.values():
            if worker.leaving:
                continue
            lacks_slots = not worker.held and any(
                host.free_slots < n for host, n in worker.host_ranks
            )
            hosts = [host for host, _ in worker.host_ranks]
            others = [w for w in self._state.workers.values() if w.held and w.host in hosts]
            if lacks_slots or worker.held:
                held = [worker] if worker.held else others
                pools = self._state.pools
                starts_us.append(
                    max((self._remaining_us(pools[w.pool], w) for w in held), default=0.0)
                )
            else:
                starts_us.append(START_NS / 1e3 if worker.state == WorkerState.STARTING else 0.0)
        return sorted(starts_us) or [START_NS / 1e3]

    def _remaining_us(self, pool: Pool, worker: Worker) -> float:
        """Return the time until a worker has completed the tasks that it holds."""
        took_us = sum(self._duration_us(pool, record) for record in worker.held.values())
        return max(0.0, took_us / speedup_slots(worker) - self._since_us(worker))

    def _since_us(self, worker: Worker) -> float:
        return (self._now_ns - worker.working_since_ns) / 1e3 if worker.working_since_ns else 0.0


def device_ns(state: SchedulerState, device: str, now_ns: int) -> int:
    """Return the time in ns until a task accepted now for a device would start, the least of all
    its pools; -1 if unknown."""
    forecast = Forecast(state, now_ns)
    pools = [pool for pool in state.pools.values() if not pool.base]
    matching = [
        pool for pool in pools if pool.spec.name == device or not (device or pool.is_exclusive)
    ]
    waits_us = [wait_us for pool in matching if (wait_us := forecast.pool_us(pool)) >= 0]
    return round(min(waits_us) * 1e3) if waits_us else -1


def _starts_tasks(state: SchedulerState, pool: Pool) -> bool:
    """Return whether the pool starts tasks: not draining, quarantined, scaled to zero, paused or in
    an outage."""
    if state.draining or pool.is_quarantined or not (pool.spec.max or pool.workers):
        return False
    return not (state.controls.starts_nothing(pool.device) or pool.device in state.outages)
