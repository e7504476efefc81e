"""Tasks that end in time: before the allocation or a maintenance; slots kept for planned
reservations, and backfill before them.

A reservation of the calendar needs workers of its pool at its time. Until then all of them are
used, but a task that is expected to end later gets no slot that would be missing then. Shorter
tasks pass it, as in the backfill of batch schedulers: up to BACKFILL_DEPTH tasks of a pool are set
aside at a time. They are tried again when more slots are free at that time, see `readmit`. A task
counts as long as it takes on one slot. Tasks of a reservation run on the workers that it has.
"""

from __future__ import annotations

from simenv.scheduler.core import UNLIMITED, TaskRecord
from simenv.scheduler.state import nodes as state_nodes, pools as state_pools, scheduler_state
from simenv.scheduler.state.maintenance import PlannedReservation

SOON_US = 50_000.0  # a shorter task delays no reservation, see `dedicated_workers.SOON_US`
BACKFILL_DEPTH = 1_000


def head_in_time(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    now_ns: int,
    *,
    allow_long: bool = True,
    reservation: int = 0,
) -> TaskRecord | None:
    """Return the first waiting task that ends before the allocation, a maintenance or a planned
    reservation that needs its slots; set those aside that do not. `allow_long`, `reservation`: as
    for `PoolQueue.head`."""
    record = pool.queue.head(allow_long, reservation)
    if not (state.closing_ns or state.calendar.planned):
        return record
    while record is not None:
        if not (state.closing_ns and too_late(state, record, now_ns)):
            if reservation or not _is_held(state, pool, record, now_ns):
                return record
            pool.held_tasks += 1
            if pool.held_tasks > BACKFILL_DEPTH:
                return None if pool.spec.ranks > 1 else _first_short(state, pool, now_ns)
        pool.queue.postpone(record)
        record = pool.queue.head(allow_long, reservation)
    return None


def _is_held(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, record: TaskRecord, now_ns: int
) -> bool:
    """Return whether a task must not start now, and note that it is set aside."""
    if record.cost_us <= SOON_US:
        return False
    end_ns = now_ns + record.cost_us * 1e3
    for planned in state.calendar.planned:
        if planned.begin_ns >= end_ns:
            return False
        if _lacks(state, planned, pool, now_ns, pool.spec.ranks):
            pool.held_until_ns = planned.begin_ns
            return True
    return False


def _first_short(
    state: scheduler_state.SchedulerState, pool: state_pools.Pool, now_ns: int
) -> TaskRecord | None:
    """Return the first short task if it may start."""
    record = pool.queue.head(False)
    if record is None or _is_held(state, pool, record, now_ns):
        return None
    return record


def too_late(state: scheduler_state.SchedulerState, record: TaskRecord, now_ns: int) -> bool:
    """Return whether a task would end after `closing_ns`, even on all the slots that it could
    get."""
    return ends_after(state, record, now_ns, state.closing_ns)


def ends_after(
    state: scheduler_state.SchedulerState, record: TaskRecord, begin_ns: int, closing_ns: int
) -> bool:
    """Return whether a task that begins then would end after `closing_ns`, see `too_late`."""
    slots = 1
    if record.route.ranks == 1:
        max_slots = max((host.node.slots for host in state.cluster.nodes.up()), default=1)
        slots = max(1, min(record.route.max_slots, max_slots))
    return begin_ns + record.cost_us * 1e3 / slots > closing_ns


def spare_slots(
    state: scheduler_state.SchedulerState,
    pool: state_pools.Pool,
    record: TaskRecord,
    now_ns: int,
    besides: state_nodes.Worker | None = None,
) -> int:
    """Return the most slots that a task may take now, at least one. `besides`: the worker that runs
    it already."""
    end_ns = now_ns + record.cost_us * 1e3
    return max(
        1,
        min(
            (
                _spare(state, planned, pool, now_ns, besides)
                for planned in state.calendar.planned
                if planned.begin_ns < end_ns
            ),
            default=UNLIMITED,
        ),
    )


def readmit(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """Try the tasks again that were set aside for a reservation, if it was granted or removed, or
    more slots will be free at its begin."""
    for pool in state.cluster.pools.values():
        if not pool.held_until_ns:
            continue
        until_ns = pool.held_until_ns
        planned = [each for each in state.calendar.planned if each.begin_ns <= until_ns]
        ranks = max(1, pool.spec.ranks)
        if not any(_lacks(state, each, pool, now_ns, ranks) for each in planned):
            pool.held_until_ns = pool.held_tasks = 0
            pool.queue.readmit_late()


def conflict(
    state: scheduler_state.SchedulerState, pool: str, workers: int, ttl_ns: int, max_workers: int
) -> PlannedReservation | None:
    """Return the planned reservation that would lack workers of a pool if another one got so many
    now, for `ttl_ns`; None: none would."""
    now_ns = state.last_tick_ns
    for planned in state.calendar.planned:
        if planned.pool == pool and now_ns < planned.begin_ns < now_ns + ttl_ns:
            reserved = sum(
                each.workers
                for number, each in state.dedicated.all.items()
                if each.pool == pool and _expiry_ns(state, number) > planned.begin_ns
            )
            if reserved + workers + planned.needed > max_workers:
                return planned
    return None


def _lacks(
    state: scheduler_state.SchedulerState,
    planned: PlannedReservation,
    pool: state_pools.Pool,
    now_ns: int,
    slots: int,
) -> bool:
    """Return whether a reservation would lack workers if a pool got so many slots beyond its
    begin."""
    if pool.spec.name == planned.pool and _spare_workers(state, planned, now_ns) < 1:
        return True
    return _spare(state, planned, pool, now_ns) < slots


def _spare_workers(
    state: scheduler_state.SchedulerState, planned: PlannedReservation, now_ns: int
) -> int:
    pool = state.cluster.pools[planned.pool]
    until = [_engaged_until_ns(state, worker, now_ns) for worker in pool.workers.values()]
    engaged = sum(end_ns > max(now_ns, planned.begin_ns) for end_ns in until)
    return pool.spec.max - engaged - planned.needed


def _spare(
    state: scheduler_state.SchedulerState,
    planned: PlannedReservation,
    pool: state_pools.Pool,
    now_ns: int,
    besides: state_nodes.Worker | None = None,
) -> int:
    """Return how many slots tasks may hold at the begin of a reservation in addition to those that
    they hold already; `besides`: but for this worker."""
    reserved = state.cluster.pools[planned.pool]
    if any(each.is_exclusive or each.spec.jobs for each in (reserved, pool)):
        return UNLIMITED  # their workers need no slots of others
    slots = sum(host.node.slots for host in state.cluster.nodes.expected() if not host.node.pool)
    engaged = [
        worker.slots
        for worker in state.cluster.workers.values()
        if worker.slots
        and worker is not besides
        and not worker.host.node.pool
        and _engaged_until_ns(state, worker, now_ns) > max(now_ns, planned.begin_ns)
    ]
    return slots - sum(engaged) - planned.needed


def _engaged_until_ns(
    state: scheduler_state.SchedulerState, worker: state_nodes.Worker, now_ns: int
) -> int:
    """Return when a worker is expected to be free."""
    if worker.dedication.reservation > 0:
        return _expiry_ns(state, worker.dedication.reservation)
    if not worker.held:
        return now_ns
    run_us = worker.held.cost_us / state_nodes.speedup_slots(worker) + worker.held.overrun_us
    return max(now_ns, (worker.held.since_ns or now_ns) + round(run_us * 1e3))


def _expiry_ns(state: scheduler_state.SchedulerState, number: int) -> int:
    reservation = state.reservations.live.get(number)
    return 0 if reservation is None else reservation.expires_ns - state.calendar.offset_ns
