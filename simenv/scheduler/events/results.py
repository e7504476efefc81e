"""Results of tasks: their ends, what they used, and what is learned from them.

Time is charged by the service's clock: a worker is charged from its first assignment until the
arrival of the answer with its last task, to the tasks whose results come meanwhile. What a worker
reports of itself is shown, and corrects forecasts within the time that the service has measured; a
worker that runs code of users (`Pool.runs_users_code`) is not believed even there.
"""

from __future__ import annotations

from collections.abc import Sequence

from simenv.model import TaskState, Timing
from simenv.model.accounts import WaitReason
from simenv.scheduler import core
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.events import devices
from simenv.scheduler.queueing.lanes import SMALL_US
from simenv.scheduler.reservations.reservation import REQUESTED
from simenv.scheduler.state import nodes, pools, scheduler_state
from simenv.wire.messages.client import FLUSH_NS, STATES, AttemptResult

_DONE = STATES.index(TaskState.DONE)
TELLING_US = 5_000.0  # shorter busy times say little about efficiency
DEVICE_DEVIATION = 4  # of a time on a device: drift, and delays whose values are parameters
OBSERVED = 8  # the estimator observes one of so many tasks of a chunk: they are alike


def tasks_finished(
    state: scheduler_state.SchedulerState,
    name: str,
    results: list[AttemptResult],
    now_ns: int,
    arrived_ns: int = 0,
) -> list[core.TaskEnded]:
    """Finalize the tasks of these results; results of outdated attempts are ignored. `arrived_ns`:
    when they came, if the service has moved their files since; 0: now."""
    worker = state.cluster.workers.get(name)
    if worker is None:
        return []
    arrived_ns = arrived_ns or now_ns
    worker.heard_ns, held_us = max(worker.heard_ns, arrived_ns), worker.held.cost_us
    slots = worker.held.slots
    charge_times(worker, results, arrived_ns)
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
        ended_us, mean_slots = held.charges.pop(number)
        since_sent_us = (arrived_ns - record.sent_ns) // 1000
        reported_us = min(result.run_us, since_sent_us)
        if pool.runs_users_code:
            reported_us = ended_us
        ran_us += reported_us + min(result.compile_us, since_sent_us - reported_us)
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
            state.estimator.observe(record.route, record.spec, slots, reported_us)
        if (record.interrupted or (record.preempted and result.state != _DONE)) and (
            not record.stop.reason
        ):
            why = WaitReason.PREEMPTED if record.preempted else WaitReason.DEVICE
            record.waits += ((int(why), (now_ns - record.sent_ns) // 1000),)
            if record.preempted:
                paid_us = dedicated_workers.paid_us(worker, record, arrived_ns)
                charge_attempt(state, record, ended_us, mean_slots, paid_us)
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
            meter = state.shares.meter(pool, record, mean_slots)
            is_prepaid = has_paid or batch.terms.reservation == reservation
            queued_us = (sent_ns - batch.accepted_ns) // 1000
        device_ns = 0
        if result.state == _DONE:
            device_ns = _device_ns(pool, record, result)
        timing = _timing_of(record, result, queued_us, since_sent_us, device_ns)
        if is_paced:
            if final is TaskState.DONE and devices.hold_result(
                state, record, timing, ended_us, mean_slots
            ):
                if reservation != REQUESTED:
                    _, on_device_ns = record.prepaid or (0, 0)
                    simulated_us = dedicated_workers.paid_us(worker, record, arrived_ns)
                    record.prepaid = simulated_us, on_device_ns
                continue
            devices.withdraw_run(state, record, now_ns)
            device_ns = 0
        tasks.pop(number, None)
        if by_task:
            state.reservations.settle(number, ended_us * 1000, done=final is TaskState.DONE)
        reason = record.stop.reason
        limit_s = 0.0
        if reason == "run_timeout":
            limit_s = state.shares.limits.run_limit_s(record.batch)
        if is_prepaid:
            paid = dedicated_workers.paid_us(worker, record, arrived_ns), 0
            used, units = dedicated_workers.use_of(
                state, record, mean_slots, ended_us, device_ns, paid
            )
        else:
            used, units = meter[ended_us, device_ns]
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
            _learn(pool, worker, ran_us, len(endings), arrived_ns)
    if not held:
        state.worker_became_idle(worker, now_ns)
    return endings


def results_arrived(
    state: scheduler_state.SchedulerState, name: str, results: Sequence[AttemptResult], now_ns: int
) -> list[core.Action]:
    """Charge the tasks of a message, before the files of some are moved and any of them ends."""
    worker = state.cluster.workers.get(name)
    if worker is not None:
        charge_times(worker, results, now_ns)
    return []


def charge_times(worker: nodes.Worker, results: Sequence[AttemptResult], arrived_ns: int) -> None:
    """Note the microseconds that each task of a message is charged: together those since the
    worker's last message, or since it got its first task. A message leaves the worker as soon as
    its tasks took FLUSH_NS, so that whatever it took longer was its last task; the rest is divided
    by the expected times."""
    held = worker.held
    ended = [
        record
        for result in results
        if (record := held.get(result.task)) is not None
        and record.fence == result.attempt
        and record.number not in held.charges
    ]
    if not ended:
        return
    spent_us, slots = held.uncharged_ns(arrived_ns) / 1e3, held.mean_slots(worker, arrived_ns)
    expected_us = sum(record.cost_us for record in ended) or 1.0
    shared_us = min(spent_us, max(expected_us, FLUSH_NS / 1e3))
    charged = {each.number: int(shared_us * each.cost_us / expected_us) for each in ended}
    # By the service's own order, in which it has sent them: that of the message is the worker's.
    last = next(number for number in reversed(held) if number in charged)
    charged[last] += int(spent_us) - sum(charged.values())
    held.charges |= {number: (each_us, slots) for number, each_us in charged.items()}
    held.charged_ns = max(arrived_ns, held.charged_ns)


def charge_attempt(
    state: scheduler_state.SchedulerState,
    record: core.TaskRecord,
    ran_us: int,
    slots: float,
    paid_us: int,
) -> None:
    """Charge an attempt without a result, after which the task runs again or ends. `paid_us`: of
    its time, by its reservation."""
    used, units = dedicated_workers.use_of(state, record, slots, ran_us, 0, (paid_us, 0))
    earlier = record.earlier or core.EarlierAttempts()
    use = earlier.used + used, earlier.units + units
    record.earlier = core.EarlierAttempts(*use, earlier.cut)
    state.shares.fair_share.charge(record.batch.association, units)


def _timing_of(
    record: core.TaskRecord,
    result: AttemptResult,
    queued_us: int,
    since_sent_us: int,
    device_ns: int,
) -> Timing:
    """Return the duration of each stage of a task whose result arrived now, as its worker reported
    them, and together at most what the service has measured since it sent the task."""
    start_us = min(result.start_us, since_sent_us)
    run_us = min(result.run_us, since_sent_us - start_us)
    compile_us = min(result.compile_us, since_sent_us - start_us - run_us)
    decode_us = min(result.decode_us, run_us)
    plan_us = min(result.plan_us, run_us - decode_us)
    engine_us = min(result.engine_us, run_us - decode_us - plan_us)
    encode_us = min(result.encode_us, run_us - decode_us - plan_us - engine_us)
    return Timing(
        queued_us,
        start_us,
        run_us,
        decode_us,
        plan_us,
        engine_us,
        encode_us,
        since_sent_us - start_us - run_us - compile_us,
        compile_us,
        device_ns,
        0,
        record.waits,
    )


def _device_ns(pool: pools.Pool, record: core.TaskRecord, result: AttemptResult) -> int:
    """Return the time of a task on its emulated device in ns: by the service, from the calibration
    at its acceptance; within DEVICE_DEVIATION of that, as the worker computed it from the
    calibration in force and the values of delays. Where code of users runs, no worker is asked."""
    expected_ns = core.expected_ns(record.route, record.spec)
    if pool.runs_users_code or not result.device_ns:
        return expected_ns
    if not expected_ns:  # of stim circuits and pulse sequences the worker alone knows the schedule
        return result.device_ns if record.batch.terms.snapshot else 0
    least, most = expected_ns // DEVICE_DEVIATION, expected_ns * DEVICE_DEVIATION
    return max(least, min(result.device_ns, most))


def _learn(pool: pools.Pool, worker: nodes.Worker, ran_us: int, count: int, now_ns: int) -> None:
    """Learn the worker's efficiency, unless the chunk was short and nothing followed it."""
    has_more = bool(worker.held) or bool(pool.queue.count)
    busy_us = (now_ns - worker.held.since_ns) / 1000 if worker.held.since_ns else 0.0
    ran_us = min(ran_us, round(busy_us))
    if busy_us > 0 and (has_more or busy_us > TELLING_US):
        efficiency = pool.small if ran_us <= count * SMALL_US else pool.large
        efficiency.learn(ran_us, busy_us)
    worker.held.since_ns = now_ns if has_more else 0
