"""Events that put tasks into queues: submission, and the end of the parents of dependent tasks."""

from __future__ import annotations

import itertools

from simenv.model import TaskSpec
from simenv.scheduler import core
from simenv.scheduler.events import devices
from simenv.scheduler.events.stops import unqueued_waits
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.state import dependencies, scheduler_state


def submit(
    state: scheduler_state.SchedulerState,
    batch: core.SubmitBatch,
    specs: list[TaskSpec],
    routes: list[core.Route],
    units: list[int] | None = None,
    attempts: list[int] | None = None,
    failed_parent: int = 0,
) -> list[core.Action]:
    """Queue tasks with numbers from `batch.first`; tasks with unfinished parents wait for them
    first.

    - `units`: units of its reservation for each task; None: no reservation
    - `attempts`: after a restart, the number of times that each task was assigned
    - `failed_parent`: after a restart, a parent that did not end as DONE; 0 if there is none
    """
    tasks, estimator = state.tasks, state.estimator
    by_pool: dict[str, list[core.TaskRecord]] = {}
    last, key, cost_us, records, has_short = None, (-1, -1), 0.0, [], False
    for number, (spec, route) in enumerate(zip(specs, routes, strict=True), batch.first):
        if route is not last or (spec.shots, spec.count) != key:
            last, key = route, (spec.shots, spec.count)
            cost_us = estimator.cost_us(route, spec)
            if not estimator.kernels_compiled:
                cost_us += estimator.compile_us(route, batch.terms)
            records = by_pool.setdefault(route.pool, [])
            has_short = has_short or (route.ranks == 1 and cost_us <= LONG_US)
        record = tasks[number] = core.TaskRecord(number, spec, batch, route, cost_us)
        records.append(record)
    size_bytes = batch.share_bytes * len(specs) or sum(len(s.program) for s in specs)
    state.tasks.queued_bytes += size_bytes
    if attempts is not None:
        for number, count in enumerate(attempts, batch.first):
            tasks[number].attempts = count
    if batch.account:
        state.shares.fair_share.name(batch.association, batch.account, batch.owner)
    if batch.owner:
        state.tasks.by_owner.add(batch, tasks, len(specs))
    if batch.account or batch.qos:
        state.tasks.by_association.add(batch, len(specs), size_bytes)
    if units is not None:
        _hold_units(state, batch, units, by_pool)
        queued = itertools.chain.from_iterable(by_pool.values())
        has_short = any(r.route.ranks == 1 and r.cost_us <= LONG_US for r in queued)
    if batch.terms.after:
        parents = dependencies.unfinished(batch.terms.after, tasks)
        if parents or failed_parent:
            span = range(batch.first, batch.first + len(specs))
            state.tasks.dependencies.add([tasks[number] for number in span], parents, failed_parent)
            by_pool, has_short = {}, False
    for records in by_pool.values():
        pool = state.cluster.pools.get(records[0].route.pool) or state.pool_of(records[0].route)
        pool.queue.append(records)
        if not pool.workers:
            state.cluster.lacks_workers = True
    state.tasks.next_number = max(state.tasks.next_number, batch.first + len(specs))
    if has_short:
        state.dispatch.last_short_ns = batch.accepted_ns
    if batch.terms.queue_timeout_s:
        when_ns = batch.accepted_ns + round(batch.terms.queue_timeout_s * 1e9)
        span = range(batch.first, batch.first + len(specs))
        state.tasks.deadlines.wait_until(when_ns, span, tasks, len(tasks))
    return []


def _hold_units(
    state: scheduler_state.SchedulerState,
    batch: core.SubmitBatch,
    units: list[int],
    by_pool: dict[str, list[core.TaskRecord]],
) -> None:
    """Let new tasks, which are in no queue yet, hold units of their reservation; remove those that
    must wait for units from `by_pool`. Units -1: the task ran before, and its units are spent."""
    ledger, tasks = state.reservations, state.tasks
    reservation = ledger.all.get(batch.terms.reservation)
    if reservation is None:
        return
    parked = False
    for number, units_taken in enumerate(units, batch.first):
        if units_taken >= 0:
            parked |= not reservation.take(tasks[number], units_taken)
            ledger.record_units(number, reservation, units_taken)
    if parked:
        for pool, records in list(by_pool.items()):
            by_pool[pool] = [r for r in records if r.phase == core.Phase.WAITING]
            if not by_pool[pool]:
                del by_pool[pool]


def rollback_submit(
    state: scheduler_state.SchedulerState, first: int, count: int, now_ns: int
) -> list[core.Action]:
    """Remove accepted tasks that could not be stored."""
    for number in range(first, first + count):
        record = state.tasks.pop(number)
        if record.phase == core.Phase.WAITING:
            state.cluster.pools[record.route.pool].queue.drop(record)
        elif record.phase not in core.UNQUEUED:
            worker = state.cluster.workers[record.worker]
            del worker.held[number]
            worker.held.cost_us -= record.cost_us
            pool = state.cluster.pools[worker.pool]
            pool.workers.open[worker.name] = worker
            pool.assigned -= 1
            if not worker.held:
                state.worker_became_idle(worker, now_ns)
        devices.withdraw_run(state, record, now_ns)
        state.forget_task(record)
    return []


def release_children(state: scheduler_state.SchedulerState, now_ns: int) -> None:
    """Queue the tasks whose parents have all ended as DONE."""
    by_queue: dict[tuple[str, int], list[core.TaskRecord]] = {}
    for record in state.tasks.dependencies.take_ready():
        record.waits = unqueued_waits(record, now_ns)
        by_queue.setdefault((record.route.pool, id(record.batch)), []).append(record)
        if record.route.ranks == 1 and record.cost_us <= LONG_US:
            state.dispatch.last_short_ns = now_ns
    for records in by_queue.values():
        state.pool_of(records[0].route).queue.append(records)
