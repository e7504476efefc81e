"""Results of tasks: their ends, what they used, and what is learned from them."""

from __future__ import annotations

from simenv.model import TaskState, Timing
from simenv.model.accounts import WaitReason
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.events import devices
from simenv.scheduler.queueing.lanes import SMALL_US
from simenv.scheduler.reservations.reservation import REQUESTED
from simenv.scheduler.state import nodes, pools, scheduler_state
from simenv.wire.messages.client import STATES, AttemptResult

_DONE = STATES.index(TaskState.DONE)
TELLING_US = 5_000.0  # shorter busy times say little about efficiency
OBSERVED = 8  # the estimator observes one of so many tasks of a chunk: they are alike


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
    worker.heard_ns, held_us = now_ns, worker.held.cost_us
    pool = state.cluster.pools[worker.pool]
    pool.workers.open[name] = worker
    held, tasks, by_task = worker.held, state.tasks, state.reservations.by_task
    num_held = len(held)
    is_paced = pool.spec.pace
    reservation = worker.dedication.reservation or REQUESTED  # of which there are no tasks
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
            worker.held.skipped.pop(number, None)
            continue
        del held[number]
        held_us -= record.cost_us
        ran_us += result.run_us + result.compile_us
        final = STATES[result.state]
        if final is TaskState.DONE and record.stop.reason == "cancelled":
            final = TaskState.CANCELLED  # whoever cancelled it was answered that it ends so
        is_telling = result.state == _DONE and not result.compile_us
        kind = record.route.engine, bool(record.batch.terms.snapshot)
        if (
            kind not in worker.process.kinds
        ):  # its first run includes imports and loading of kernels
            worker.process.kinds.add(kind)
        elif is_telling and not (index % OBSERVED or worker.held.resized):
            state.estimator.observe(record.route, record.spec, slots, result.run_us)
        if (record.interrupted or (record.preempted and result.state != _DONE)) and (
            not record.stop.reason
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
        reason = record.stop.reason
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
        if record.earlier is not None:
            used, units = used + record.earlier.used, units + record.earlier.units
        endings.append(
            core.TaskEnded(
                record,
                final,
                slots,
                timing,
                index,
                reason,
                record.stop.message,
                run_limit_s=limit_s,
                used=used,
                units=units,
            )
        )
        ended.append(record)
        states.append(final)
    worker.held.cost_us = held_us
    pool.assigned -= num_held - len(held)
    if batch is not None and count:
        state.shares.charge_ended(pool, batch, count, cost_us, charged)
    devices.requeue_interrupted(state, interrupted)
    state.finalize_many(ended, states)
    worker.process.tasks += len(endings)
    worker.report.idle_beats = 0
    if endings:
        if pool.starts.failures or pool.starts.next_ns:
            pool.starts.record_success()
        if not is_paced:
            _learn(pool, worker, ran_us, len(endings), now_ns)
    if not held:
        state.worker_became_idle(worker, now_ns)
    return endings


def _charge_preempted(
    state: scheduler_state.SchedulerState,
    worker: nodes.Worker,
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
    earlier = record.earlier or core.EarlierAttempts()
    use = earlier.used + used, earlier.units + units
    record.earlier = core.EarlierAttempts(*use, earlier.cut)
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


def _learn(pool: pools.Pool, worker: nodes.Worker, ran_us: int, count: int, now_ns: int) -> None:
    """Learn the worker's efficiency, unless the chunk was short and nothing followed it."""
    has_more = bool(worker.held) or bool(pool.queue.count)
    busy_us = (now_ns - worker.held.since_ns) / 1000 if worker.held.since_ns else 0.0
    if busy_us > 0 and (has_more or busy_us > TELLING_US):
        efficiency = pool.small if ran_us <= count * SMALL_US else pool.large
        efficiency.learn(ran_us, busy_us)
    worker.held.since_ns = now_ns if has_more else 0
