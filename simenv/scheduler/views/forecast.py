"""Forecasts of waiting times, and views of pools, nodes, devices and reservations.

Expected work is slot time by the present estimator. The efficiency of busy workers is learned,
separately for small tasks, most of whose time is overhead. A forecast is a snapshot; -1 means
unknown.

Pools, nodes, devices and reservations as clients see them. Figures are counted by reservations and
workers, never by waiting tasks: these may be very many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import heapreplace
from itertools import islice

import msgspec

from simenv.model import HeldCapacity, NodeInfo, PoolInfo, ReservationInfo, TargetInfo, WorkerState
from simenv.scheduler.core import START_NS, Phase, TaskRecord
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.queueing.lanes import SMALL_US, Backlog
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.routing import ranks
from simenv.scheduler.state import device_state, pools as state_pools, scheduler_state

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

    def __init__(self, state: scheduler_state.SchedulerState, now_ns: int, count: int = 1) -> None:
        self._state = state
        self._now_ns = now_ns
        self._exact = min(MAX_EXACT, max(EXACT, count))
        self._availabilities: dict[str, PoolAvailability] = {}
        self._lanes: dict[tuple[str, int], list[float]] = {}
        self._costs: dict[tuple[int, int, int], float] = {}

    def pool_us(self, pool: state_pools.Pool) -> float:
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

    def _availability(self, pool: state_pools.Pool) -> PoolAvailability:
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

    def _sent_us(self, pool: state_pools.Pool, record: TaskRecord) -> float:
        """Return the time until a task that its worker holds starts."""
        worker = self._state.workers[record.worker]
        ahead_us = 0.0
        for number, other in worker.held.items():
            if number == record.number:
                break
            ahead_us += self._duration_us(pool, other)
        return max(0.0, ahead_us / state_pools.speedup_slots(worker) - self._since_us(worker))

    def _duration_us(self, pool: state_pools.Pool, record: TaskRecord) -> float:
        """Return the expected time that a worker needs for a task on one slot."""
        cost_us = self._cost_us(record)
        return cost_us / (pool.small if cost_us <= SMALL_US else pool.large).speed

    def _cost_us(self, record: TaskRecord) -> float:
        key = (id(record.route), record.spec.shots, record.spec.count)
        cost_us = self._costs.get(key)
        if cost_us is None:
            cost_us = self._costs[key] = self._state.estimator.cost_us(record.route, record.spec)
        return cost_us

    def _slots_us(self, pool: state_pools.Pool, reservation: int) -> list[float]:
        key = (pool.spec.name, reservation)
        slots_us = self._lanes.get(key)
        if slots_us is None:
            slots_us = self._free_us(pool, reservation)
            if pool.spec.pace and slots_us:  # one task at a time
                free_ns = self._state.paced.all[pool.device].free_ns
                slots_us = [max(slots_us[0], (free_ns - self._now_ns) / 1e3)]
            self._lanes[key] = slots_us
        return slots_us

    def _wait_us(self, pool: state_pools.Pool, reservation: int, backlog: Backlog) -> float:
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

    def _free_us(self, pool: state_pools.Pool, reservation: int) -> list[float]:
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
        devices = (pool.device, "")
        limits = (scheduler_state.inflight_limit(self._state, device) for device in devices)
        return sorted(starts_us)[: min([max_slots, *filter(None, limits)])]

    def _gang_us(self, pool: state_pools.Pool) -> list[float]:
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

    def _remaining_us(self, pool: state_pools.Pool, worker: state_pools.Worker) -> float:
        """Return the time until a worker has completed the tasks that it holds."""
        took_us = sum(self._duration_us(pool, record) for record in worker.held.values())
        return max(0.0, took_us / state_pools.speedup_slots(worker) - self._since_us(worker))

    def _since_us(self, worker: state_pools.Worker) -> float:
        return (self._now_ns - worker.working_since_ns) / 1e3 if worker.working_since_ns else 0.0


def device_ns(state: scheduler_state.SchedulerState, device: str, now_ns: int) -> int:
    """Return the time in ns until a task accepted now for a device would start, the least of all
    its pools; -1 if unknown."""
    forecast = Forecast(state, now_ns)
    pools = [pool for pool in state.pools.values() if not pool.base]
    matching = [
        pool for pool in pools if pool.spec.name == device or not (device or pool.is_exclusive)
    ]
    waits_us = [wait_us for pool in matching if (wait_us := forecast.pool_us(pool)) >= 0]
    return round(min(waits_us) * 1e3) if waits_us else -1


def _starts_tasks(state: scheduler_state.SchedulerState, pool: state_pools.Pool) -> bool:
    """Return whether the pool starts tasks: not draining, quarantined, scaled to zero, paused or in
    an outage."""
    if state.draining or pool.is_quarantined or not (pool.spec.max or pool.workers):
        return False
    return not (state.controls.starts_nothing(pool.device) or pool.device in state.outages)


def closed_pools(state: scheduler_state.SchedulerState) -> tuple[tuple[str, str], ...]:
    """Return the pools that accept no program now, with the reasons."""
    closed = []
    for pool in state.pools.values():
        info = pool_info(state, pool)
        reason = state.controls.closed_state(pool.device)
        if reason or info.state != "up":
            closed.append((info.name, reason or info.state))
    return tuple(closed)


def target_info(state: scheduler_state.SchedulerState, device: str) -> TargetInfo:
    """Return the controls of a device and the counts of its tasks. Raises NotFoundError."""
    scheduler_state.check_device(state, device)
    control, order = state.controls.of(device), state.controls.queue_policy(device)
    pools = scheduler_state.pools_of(state, device)
    sent, running = scheduler_state.inflight(state, device)
    live, held, in_flight = device_usage(state, device)
    options = control.options if control.policy else state.controls.of("").options
    return TargetInfo(
        device=device,
        state=control.state,
        version=control.version,
        policy=order.policy,
        options=options,
        max_inflight=control.max_inflight,
        pause_reason=control.reason if control.state == device_state.PAUSED else "",
        drain_mode=control.mode,
        drain_timeout_s=control.timeout_s,
        drain_started_ns=control.started_ns,
        queued=sum(len(pool.queue) for pool in pools),
        parked=scheduler_state.parked(state, device),
        sent=sent,
        running=running,
        queued_ns=round(sum(pool.queue.backlog_us for pool in pools) * 1e3),
        reservations=live,
        held=held,
        in_flight=in_flight,
    )


def pool_infos(state: scheduler_state.SchedulerState, now_ns: int = 0) -> list[PoolInfo]:
    """Return all pools; `now_ns` 0: without forecasts of their waits."""
    listed = [pool_info(state, pool) for pool in state.pools.values()]
    if not now_ns:
        return listed
    forecast = Forecast(state, now_ns)
    waits_us = map(forecast.pool_us, state.pools.values())
    return [
        msgspec.structs.replace(info, wait_us=wait_us)
        for info, wait_us in zip(listed, waits_us, strict=True)
    ]


def pool_info(state: scheduler_state.SchedulerState, pool: state_pools.Pool) -> PoolInfo:
    """Return one pool, without a forecast."""
    spec, workers = pool.spec, list(pool.workers.values())
    ready = sum(w.state in (WorkerState.IDLE, WorkerState.BUSY) for w in workers)
    busy = sum(w.state == WorkerState.BUSY for w in workers)
    reason = pool.reason or pool.shortage
    if pool.is_quarantined:
        status = "quarantined"
    elif pool.failures:
        status = "degraded"
    else:
        status = "up" if ready >= spec.min else "starting"
    return PoolInfo(
        name=spec.name,
        engine=spec.engine,
        workers=ready,
        target=max(spec.min, pool.live()),
        busy=busy,
        waiting=len(pool.queue),
        state=status,
        reason=reason,
        backlog_us=pool.queue.backlog_us,
        held_us=sum(worker.held_us for worker in workers),
        ranks=spec.ranks,
        least=spec.min,
        most=spec.max,
        max_qubits=pool.hardware_qubits or ranks.widest_of(spec, state.capacity.limits),
        nodes=tuple(dict.fromkeys(h.node.name for w in workers for h, _ in w.host_ranks)),
        on_demand=bool(pool.base),
        kept=pool.kept(),
    )


def node_infos(state: scheduler_state.SchedulerState) -> list[NodeInfo]:
    """Return all nodes."""
    return [node_info(state, host) for host in state.nodes.hosts.values()]


def node_info(state: scheduler_state.SchedulerState, host: state_pools.NodeState) -> NodeInfo:
    """Return one node and the workers on it."""
    node = host.node
    return NodeInfo(
        name=node.name,
        state=host.state,
        reason=host.lost or host.drained,
        slots=node.slots,
        slots_granted=node.slots - host.free_slots,
        memory_bytes=node.memory_bytes,
        memory_granted=node.memory_bytes - host.free_memory,
        workers=sum(any(h is host for h, _ in w.host_ranks) for w in state.workers.values()),
        ranks=host.ranks,
        gpus=node.gpus,
        features=node.features,
    )


def device_usage(
    state: scheduler_state.SchedulerState, device: str
) -> tuple[int, HeldCapacity, HeldCapacity]:
    """Return (active reservations, capacity held by tasks without a worker, capacity held by tasks
    with one). The values are of one device, or of all devices for ""."""
    ledger = state.reservations
    reservations = [r for r in ledger.all.values() if device in ("", r.grant.ask.device)]
    assigned: dict[int, int] = {}  # units by reservation
    if ledger.by_task:
        for worker in state.workers.values():
            for task in worker.held:
                reservation = ledger.by_task.get(task)
                if reservation is not None:
                    number = reservation.grant.id
                    assigned[number] = assigned.get(number, 0) + reservation.holds.get(task, 0)
    scale = policies.scale(ledger.terms(device))
    in_flight = _total_capacity(
        r.held_capacity(assigned.get(r.grant.id, 0), device, scale) for r in reservations
    )
    held = _total_capacity(
        r.held_capacity(r.held - assigned.get(r.grant.id, 0), device, scale) for r in reservations
    )
    return sum(not r.is_over for r in reservations), held, in_flight


def _total_capacity(parts: Iterable[HeldCapacity]) -> HeldCapacity:
    units = price = rate = 0
    for part in parts:
        units, price, rate = units + part.units, price + part.credits, rate + part.rate
    return HeldCapacity(*(min(policies.MOST, each) for each in (units, price, rate)))


def running_tasks(
    state: scheduler_state.SchedulerState, reservation: ReservationEntry
) -> list[int]:
    """Return a reservation's tasks that a worker holds; for a closed one, all that are yet to
    end."""
    if reservation.is_over:
        return list(reservation.holds)
    by_task = state.reservations.by_task
    held = (task for worker in state.workers.values() for task in worker.held)
    return sorted(task for task in held if by_task.get(task) is reservation)


def running_counts(state: scheduler_state.SchedulerState) -> Counter[int]:
    """Return how many tasks of each live reservation workers hold, by reservation number."""
    by_task = state.reservations.by_task
    held = (by_task.get(task) for worker in state.workers.values() for task in worker.held)
    return Counter(reservation.grant.id for reservation in held if reservation is not None)


def reservation_info(
    state: scheduler_state.SchedulerState,
    reservation: ReservationEntry,
    counts: Mapping[int, int] | None = None,
) -> ReservationInfo:
    """Return one reservation. `counts`: result of `running_counts`, for a caller that lists
    many."""
    if reservation.is_over:
        count = len(reservation.holds)
    elif counts is None:
        count = len(running_tasks(state, reservation))
    else:
        count = counts.get(reservation.grant.id, 0)
    return reservation.info(count, dedicated_workers.worker_count(state, reservation.grant.id))
