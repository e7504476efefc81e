"""Events of tasks: submission, results, cancellation, timeouts, ends of their parents.

A task that no worker holds ends at once; one that a worker holds ends by its result, or after a
grace period. Tasks with unfinished parents are in no queue: `release_children` queues them once
their parents are DONE, `end_failed` ends them after a parent that is not.
"""

from __future__ import annotations

import itertools

import msgspec

from simenv.model import DEPENDENCY, TaskSpec, TaskState, Timing
from simenv.model.accounts import Used, WaitReason, Waits
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.dispatch.batching import WAITED_NS
from simenv.scheduler.events import devices
from simenv.scheduler.queueing.lanes import LONG_US, SMALL_US
from simenv.scheduler.reservations.reservation import REQUESTED
from simenv.scheduler.state import pools, scheduler_state, task_index
from simenv.wire.messages.client import STATES, AttemptResult

_DONE = STATES.index(TaskState.DONE)
_UNHELD = (*core.UNSENT, core.HELD)  # phases of tasks that no worker has
TELLING_US = 5_000.0  # shorter busy times say little about efficiency
OBSERVED = 8  # the estimator observes one of so many tasks of a chunk: they are alike
MAX_ENDED = 250  # tasks ended by one call, so that the event loop is not blocked


# --- submission ----------------------------------------------------------------------------


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
        parents = task_index.unfinished(batch.terms.after, tasks)
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
            worker.held_us -= record.cost_us
            pool = state.cluster.pools[worker.pool]
            pool.open_workers[worker.name] = worker
            pool.assigned -= 1
            if not worker.held:
                state.worker_became_idle(worker, now_ns)
        devices.withdraw_run(state, record, now_ns)
        state.forget_task(record)
    return []


# --- results -------------------------------------------------------------------------------


def tasks_finished(
    state: scheduler_state.SchedulerState,
    name: str,
    results: list[AttemptResult],
    slots: int,
    now_ns: int,
) -> list[core.TaskEnded]:
    """Finalize the tasks of these results; results of outdated attempts are ignored."""
    worker = state.cluster.workers.get(name)
    if worker is None:
        return []
    worker.heard_ns, held_us = now_ns, worker.held_us
    pool = state.cluster.pools[worker.pool]
    pool.open_workers[name] = worker
    held, tasks, by_task = worker.held, state.tasks, state.reservations.by_task
    num_held = len(held)
    is_paced = pool.spec.pace
    reservation = worker.reservation_id or REQUESTED  # of which there are no tasks
    endings: list[core.TaskEnded] = []
    ended: list[core.TaskRecord] = []
    ran_us = 0
    states: list[TaskState] = []
    interrupted: list[core.TaskRecord] = []
    # Of the last tasks of one batch and route that were sent together: they are counted together.
    batch: core.SubmitBatch | None = None
    route: core.Route | None = None
    sent_ns, had_paid = 0, False
    count, cost_us, charged, is_prepaid = 0, 0.0, 0.0, False
    for index, result in enumerate(results):
        number = result.task
        record = held.get(number)
        if record is None or record.fence != result.attempt:
            worker.skipped.pop(number, None)
            continue
        del held[number]
        held_us -= record.cost_us
        ran_us += result.run_us + result.compile_us
        final = STATES[result.state]
        if final is TaskState.DONE and record.stopping == "cancelled":
            final = TaskState.CANCELLED  # whoever cancelled it was answered that it ends so
        is_telling = result.state == _DONE and not result.compile_us
        kind = record.route.engine, bool(record.batch.terms.snapshot)
        if kind not in worker.kinds:  # its first run includes imports and loading of kernels
            worker.kinds.add(kind)
        elif is_telling and not (index % OBSERVED or worker.resized):
            state.estimator.observe(record.route, record.spec, slots, result.run_us)
        if (record.interrupted or (record.preempted and result.state != _DONE)) and (
            not record.stopping
        ):
            why = WaitReason.PREEMPTED if record.preempted else WaitReason.DEVICE
            record.waits += ((int(why), (now_ns - record.sent_ns) // 1000),)
            if record.preempted:
                _charge_preempted(state, worker, record, result, slots, now_ns)
            interrupted.append(record)
            continue
        has_paid = record.prepaid is not None  # a reservation has paid a part
        if (
            record.batch is not batch
            or record.route is not route
            or record.sent_ns != sent_ns
            or has_paid is not had_paid
        ):
            if batch is not None and count:
                state.shares.charge_ended(pool, batch, count, cost_us, charged)
            batch, route, sent_ns, had_paid = record.batch, record.route, record.sent_ns, has_paid
            count, cost_us, charged = 0, 0.0, 0.0
            meter = state.shares.meter(pool, record, slots)
            is_prepaid = has_paid or batch.terms.reservation == reservation
            queued_us = (sent_ns - batch.accepted_ns) // 1000
            since_sent_us = (now_ns - sent_ns) // 1000
        timing = _timing_of(record, result, queued_us, since_sent_us)
        device_ns = result.device_ns
        if is_paced:
            if final is TaskState.DONE and devices.hold_result(state, record, timing, slots):
                if reservation != REQUESTED:
                    _, on_device_ns = record.prepaid or (0, 0)
                    simulated_us = dedicated_workers.paid_us(worker, record, now_ns)
                    record.prepaid = simulated_us, on_device_ns
                continue
            devices.withdraw_run(state, record, now_ns)
            device_ns = 0
        tasks.pop(number, None)
        if by_task:
            state.reservations.settle(number, result.run_us * 1000, done=final is TaskState.DONE)
        reason = record.stopping
        limit_s = 0.0
        if reason == "run_timeout":
            limit_s = state.shares.limits.run_limit_s(record.batch)
        if is_prepaid:
            paid = dedicated_workers.paid_us(worker, record, now_ns), 0
            used, units = dedicated_workers.use_of(
                state, record, slots, result.run_us, device_ns, paid
            )
        else:
            used, units = meter[result.run_us, device_ns]
        count += 1
        cost_us += record.cost_us
        charged += units
        if record.used is not None:
            used, units = used + record.used, units + record.units
        endings.append(
            core.TaskEnded(
                record,
                final,
                slots,
                timing,
                index,
                reason,
                record.stop_message,
                run_limit_s=limit_s,
                used=used,
                units=units,
            )
        )
        ended.append(record)
        states.append(final)
    worker.held_us = held_us
    pool.assigned -= num_held - len(held)
    if batch is not None and count:
        state.shares.charge_ended(pool, batch, count, cost_us, charged)
    devices.requeue_interrupted(state, interrupted)
    state.finalize_many(ended, states)
    worker.tasks += len(endings)
    worker.idle_beats = 0
    if endings:
        if pool.failures or pool.next_start_ns:
            pool.record_success()
        if not is_paced:
            _learn(pool, worker, ran_us, len(endings), now_ns)
    if not held:
        state.worker_became_idle(worker, now_ns)
    return endings


def _charge_preempted(
    state: scheduler_state.SchedulerState,
    worker: pools.Worker,
    record: core.TaskRecord,
    result: AttemptResult,
    slots: int,
    now_ns: int,
) -> None:
    """Charge a preempted attempt now: what it computed is not lost where it wrote a checkpoint."""
    paid = dedicated_workers.paid_us(worker, record, now_ns), 0
    used, units = dedicated_workers.use_of(
        state, record, slots, result.run_us, result.device_ns, paid
    )
    record.used = used if record.used is None else record.used + used
    record.units += units
    state.shares.fair_share.charge(record.batch.association, units)


def _timing_of(
    record: core.TaskRecord, result: AttemptResult, queued_us: int, since_sent_us: int
) -> Timing:
    """Return the duration of each stage of a task whose result arrived now."""
    start_us, run_us, compile_us = result.start_us, result.run_us, result.compile_us
    transfer_us = since_sent_us - start_us - run_us - compile_us
    return Timing(
        queued_us,
        start_us,
        run_us,
        result.decode_us,
        result.plan_us,
        result.engine_us,
        result.encode_us,
        transfer_us if transfer_us > 0 else 0,
        compile_us,
        result.device_ns,
        0,
        record.waits,
    )


def _learn(pool: pools.Pool, worker: pools.Worker, ran_us: int, count: int, now_ns: int) -> None:
    """Learn the worker's efficiency, unless the chunk was short and nothing followed it."""
    has_more = bool(worker.held) or bool(pool.queue.count)
    busy_us = (now_ns - worker.working_since_ns) / 1000 if worker.working_since_ns else 0.0
    if busy_us > 0 and (has_more or busy_us > TELLING_US):
        efficiency = pool.small if ran_us <= count * SMALL_US else pool.large
        efficiency.learn(ran_us, busy_us)
    worker.working_since_ns = now_ns if has_more else 0


# --- cancellation --------------------------------------------------------------------------


def cancel(
    state: scheduler_state.SchedulerState, task_numbers: list[int], now_ns: int
) -> tuple[list[str], list[core.Action]]:
    """Cancel tasks; return "cancelled", "cancelling" or "unknown" for each of them, and the
    actions."""
    answers, actions = [], []
    for number in task_numbers:
        record = state.tasks.get(number)
        if record is None:
            answers.append("unknown")
            continue
        answers.append("cancelled" if record.phase in _UNHELD else "cancelling")
        actions += _stop(state, record, "cancelled", now_ns)
    return answers, actions


def end_early(
    state: scheduler_state.SchedulerState,
    task_numbers: list[int],
    reason: str,
    message: str,
    now_ns: int,
) -> list[core.Action]:
    """End unfinished tasks for a reason, which `message` explains."""
    records = [record for record in map(state.tasks.get, task_numbers) if record is not None]
    return [each for r in records for each in _stop(state, r, reason, now_ns, message)]


def _stop(
    state: scheduler_state.SchedulerState,
    record: core.TaskRecord,
    reason: str,
    now_ns: int,
    message: str = "",
) -> list[core.Action]:
    """End a task early: at once if it waits, else through its worker."""
    if record.phase in _UNHELD:
        index = core.HELD_RESULT if record.phase == core.Phase.HELD else -1
        ended = end_unrun(state, record, core.early_end(reason), reason, now_ns, message)
        return [msgspec.structs.replace(ended, index=index)]
    if record.stopping:
        return []
    record.stopping, record.stop_message = reason, message
    deadlines = state.tasks.deadlines
    set_deadline = deadlines.skip_by if _waits_behind(state, record) else deadlines.stop_by
    set_deadline(now_ns, record.number, record.fence, state.cluster.grace_ns(record))
    return [core.StopAttempt(record.worker, record.number, record.fence, reason)]


def _waits_behind(state: scheduler_state.SchedulerState, record: core.TaskRecord) -> bool:
    """Return whether the task was sent behind another one and is not known to have started."""
    if record.phase != core.Phase.SENT:
        return False
    return record is not next(iter(state.cluster.workers[record.worker].held.values()))


def end_unrun(
    state: scheduler_state.SchedulerState,
    record: core.TaskRecord,
    final: TaskState,
    reason: str,
    now_ns: int,
    message: str = "",
) -> core.TaskEnded:
    """Finalize a task that no worker holds, without a result."""
    waits = waits_so_far(state, record, now_ns)
    if record.phase == core.Phase.WAITING:
        state.cluster.pools[record.route.pool].queue.drop(record)
    devices.withdraw_run(state, record, now_ns)
    del state.tasks[record.number]
    state.finalize(record, final)
    timing = Timing((now_ns - record.batch.accepted_ns) // 1000, 0, 0, waits=waits)
    used, units = record.used or Used(), record.units
    return core.TaskEnded(
        *(record, final, 0, timing), reason=reason, message=message, used=used, units=units
    )


def waits_so_far(
    state: scheduler_state.SchedulerState, record: core.TaskRecord, now_ns: int
) -> Waits:
    """Return why a task that no worker holds has waited until now."""
    if record.phase in core.UNQUEUED:
        return unqueued_waits(record, now_ns)
    if record.phase == core.Phase.WAITING and now_ns - record.batch.accepted_ns > WAITED_NS:
        clock = state.cluster.pools[record.route.pool].queue.clock
        return record.waits + clock.read(record.batch.association, now_ns, assigned=False)
    return record.waits


def unqueued_waits(record: core.TaskRecord, now_ns: int) -> Waits:
    """Return the waits of a task that was in no queue until now."""
    if record.waits:
        return record.waits
    parked = record.phase == core.Phase.PARKED
    reason = WaitReason.UNITS if parked else WaitReason.PARENTS
    return ((int(reason), (now_ns - record.batch.accepted_ns) // 1000),)


# --- timeouts ------------------------------------------------------------------------------


def end_overdue(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.Action]:
    actions: list[core.Action] = []
    for number in state.tasks.deadlines.queue_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and (record.phase in core.UNSENT or _waits_behind(state, record)):
            actions += _stop(state, record, "queue_timeout", now_ns)
    for number, fence in state.tasks.deadlines.run_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and record.fence == fence:
            actions += _stop(state, record, "run_timeout", now_ns)
    for number, fence in state.tasks.deadlines.skip_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and record.fence == fence and record.worker in state.cluster.workers:
            actions += _unconfirmed(state, record, now_ns)
    for number, fence in state.tasks.deadlines.stop_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and record.fence == fence and record.worker in state.cluster.workers:
            worker = state.cluster.workers[record.worker]
            actions += state.cluster.kill(worker, f"did not stop ({record.stopping})")
    return actions


def _unconfirmed(
    state: scheduler_state.SchedulerState, record: core.TaskRecord, now_ns: int
) -> list[core.Action]:
    """End a task whose worker did not confirm its skip within the grace period. Behind another
    task, the task ends here; if the worker runs it all the same, its heartbeat reports it. At the
    front, the task may have started, so the grace period of a stop begins."""
    if not _waits_behind(state, record):
        if record.phase == core.Phase.SENT:
            grace_ns = state.cluster.grace_ns(record)
            state.tasks.deadlines.stop_by(now_ns, record.number, record.fence, grace_ns)
        return []
    worker = state.cluster.workers[record.worker]
    del worker.held[record.number]
    worker.held_us = max(0.0, worker.held_us - record.cost_us)
    pool = state.cluster.pools[worker.pool]
    pool.open_workers[worker.name] = worker
    pool.assigned -= 1
    worker.skipped[record.number] = record.fence, 0
    reason = record.stopping
    final, message = core.early_end(reason), record.stop_message
    return [end_unrun(state, record, final, reason, now_ns, message)]


# --- parents -------------------------------------------------------------------------------


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


def end_failed(state: scheduler_state.SchedulerState, now_ns: int) -> list[core.TaskEnded]:
    """End tasks with a parent that did not end as DONE, and the tasks that come after these. A
    chain is followed task by task, without recursion. At most MAX_ENDED tasks are ended; the next
    call ends the rest."""
    endings: list[core.TaskEnded] = []
    failed = state.tasks.dependencies.failed
    while failed and len(endings) < MAX_ENDED:
        group = next(iter(failed))
        left = MAX_ENDED - len(endings)
        for record in list(itertools.islice(group.tasks.values(), left)):
            ended = end_unrun(state, record, TaskState.FAILED, DEPENDENCY, now_ns)
            endings.append(msgspec.structs.replace(ended, parent=group.failed_parent))
    return endings
