"""Events of tasks: submitted, finished, cancelled, timed out."""

from __future__ import annotations

import itertools

import msgspec

from simenv.model import TaskSpec, TaskState, Timing
from simenv.scheduler.core.actions import Action, StopAttempt, TaskEnded
from simenv.scheduler.core.types import (
    HELD,
    HELD_RESULT,
    UNQUEUED,
    UNSENT,
    Phase,
    Route,
    SubmitBatch,
    TaskRecord,
    early_end,
    timing_of,
)
from simenv.scheduler.events import outages, paced
from simenv.scheduler.queueing.lanes import SMALL_US
from simenv.scheduler.queueing.queue import LONG_US
from simenv.scheduler.state.dependencies import unfinished
from simenv.scheduler.state.owner_quotas import run_limit_s
from simenv.scheduler.state.pools import Pool, Worker
from simenv.scheduler.state.state import SchedulerState
from simenv.wire.messages.client import STATES, AttemptResult

_DONE = STATES.index(TaskState.DONE)
_UNHELD = (*UNSENT, HELD)  # phases of tasks that no worker has
TELLING_US = 5_000.0  # shorter busy times say little about efficiency
OBSERVED = 8  # the estimator observes one of so many tasks of a chunk: they are alike


# --- submission ----------------------------------------------------------------------------


def submit(
    state: SchedulerState,
    batch: SubmitBatch,
    specs: list[TaskSpec],
    routes: list[Route],
    attempts: list[int] | None,
    units: list[int] | None = None,
    failed_parent: int = 0,
) -> list[Action]:
    """Queue tasks with numbers from `batch.first`; tasks with unfinished parents wait for them
    first.

    - `attempts`: at a replay, the number of times that each task was assigned
    - `units`: units of its reservation for each task
    - `failed_parent`: a parent that did not end as DONE; 0 if there is none
    """
    tasks = state.tasks
    by_pool: dict[str, list[TaskRecord]] = {}
    last, key, cost_us, records, has_short = None, (-1, -1), 0.0, [], False
    for number, (spec, route) in enumerate(zip(specs, routes, strict=True), batch.first):
        if route is not last or (spec.shots, spec.count) != key:
            last, key = route, (spec.shots, spec.count)
            cost_us = state.estimator.cost_us(route, spec)
            cost_us += state.estimator.compile_us(route, batch.terms)
            records = by_pool.setdefault(route.pool, [])
            has_short = has_short or (route.ranks == 1 and cost_us <= LONG_US)
        record = tasks[number] = TaskRecord(number, spec, batch, route, cost_us)
        records.append(record)
    state.queued_bytes += batch.share_bytes * len(specs) or sum(len(s.program) for s in specs)
    if attempts is not None:
        for number, count in enumerate(attempts, batch.first):
            tasks[number].attempts = count
    state.tasks_by_owner.add(batch, tasks, len(specs))
    if units is not None:
        _hold_units(state, batch, units, by_pool)
        queued = itertools.chain.from_iterable(by_pool.values())
        has_short = any(r.route.ranks == 1 and r.cost_us <= LONG_US for r in queued)
    if batch.terms.after:
        parents = unfinished(batch.terms.after, tasks)
        if parents or failed_parent:
            span = range(batch.first, batch.first + len(specs))
            state.dependencies.add([tasks[number] for number in span], parents, failed_parent)
            by_pool, has_short = {}, False
    for records in by_pool.values():
        state.pool_of(records[0].route).queue.append(records)
    state.next_task = max(state.next_task, batch.first + len(specs))
    if has_short:
        state.last_short_ns = batch.accepted_ns
    if batch.terms.queue_timeout_s:
        when_ns = batch.accepted_ns + round(batch.terms.queue_timeout_s * 1e9)
        span = range(batch.first, batch.first + len(specs))
        state.deadlines.wait_until(when_ns, span, tasks, len(tasks))
    return []


def _hold_units(
    state: SchedulerState,
    batch: SubmitBatch,
    units: list[int],
    by_pool: dict[str, list[TaskRecord]],
) -> None:
    """Let new tasks, which are in no queue yet, hold units of their reservation; remove those that
    must wait for units from `by_pool`.

    Units -1: the task ran before, and its units are spent.
    """
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
            by_pool[pool] = [r for r in records if r.phase == Phase.WAITING]
            if not by_pool[pool]:
                del by_pool[pool]


def rollback_submit(state: SchedulerState, first: int, count: int, now_ns: int) -> list[Action]:
    """Remove accepted tasks that could not be stored."""
    for number in range(first, first + count):
        record = state.tasks.pop(number)
        if record.phase == Phase.WAITING:
            state.pools[record.route.pool].queue.drop(record)
        elif record.phase not in UNQUEUED:
            worker = state.workers[record.worker]
            del worker.held[number]
            worker.held_us -= record.cost_us
            if not worker.held:
                state.worker_became_idle(worker, now_ns)
        paced.withdraw(state, record, now_ns)
        state.forget_task(record)
    return []


# --- results -------------------------------------------------------------------------------


def tasks_finished(
    state: SchedulerState, name: str, results: list[AttemptResult], slots: int, now_ns: int
) -> list[TaskEnded]:
    """Finalize the tasks of these results; results of outdated attempts are ignored."""
    worker = state.workers.get(name)
    if worker is None:
        return []
    worker.heard_ns, held_us = now_ns, worker.held_us
    held, tasks, by_task = worker.held, state.tasks, state.reservations.by_task
    endings: list[TaskEnded] = []
    ended: list[TaskRecord] = []
    ran_us = 0
    states: list[TaskState] = []
    interrupted: list[TaskRecord] = []
    pool = state.pools[worker.pool]
    is_paced = pool.spec.pace
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
        is_telling = result.state == _DONE and not result.compile_us
        if is_telling and not (index % OBSERVED or worker.resized):
            state.estimator.observe(record.route, record.spec, slots, result.run_us)
        if record.interrupted and not record.stopping:
            interrupted.append(record)
            continue
        timing = timing_of(record, result, now_ns)
        if is_paced:
            if result.state == _DONE and paced.hold(state, record, timing, slots):
                continue
            paced.withdraw(state, record, now_ns)
        tasks.pop(number, None)
        if by_task:
            state.reservations.settle(number, result.run_us * 1000, done=result.state == _DONE)
        reason = record.stopping
        limit_s = _run_limit_s(state, record) if reason == "run_timeout" else 0.0
        endings.append(TaskEnded(record, final, slots, timing, index, reason, run_limit_s=limit_s))
        ended.append(record)
        states.append(final)
    worker.held_us = held_us
    outages.requeue(state, interrupted)
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


def _run_limit_s(state: SchedulerState, record: TaskRecord) -> float:
    return run_limit_s(state.quotas.of(record.batch.owner), record.batch.terms)


def _learn(pool: Pool, worker: Worker, ran_us: int, count: int, now_ns: int) -> None:
    """Learn the worker's efficiency, unless the chunk was short and nothing followed it."""
    has_more = bool(worker.held) or bool(pool.queue.count)
    busy_us = (now_ns - worker.working_since_ns) / 1000 if worker.working_since_ns else 0.0
    if busy_us > 0 and (has_more or busy_us > TELLING_US):
        efficiency = pool.small if ran_us <= count * SMALL_US else pool.large
        efficiency.learn(ran_us, busy_us)
    worker.working_since_ns = now_ns if has_more else 0


# --- cancellation --------------------------------------------------------------------------


def cancel(
    state: SchedulerState, task_numbers: list[int], now_ns: int
) -> tuple[list[str], list[Action]]:
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


def _stop(state: SchedulerState, record: TaskRecord, reason: str, now_ns: int) -> list[Action]:
    """End a task early: at once if it waits, else through its worker."""
    if record.phase in _UNHELD:
        index = HELD_RESULT if record.phase == Phase.HELD else -1
        ended = end_unrun(state, record, early_end(reason), reason, now_ns)
        return [msgspec.structs.replace(ended, index=index)]
    if record.stopping:
        return []
    record.stopping = reason
    deadlines = state.deadlines
    set_deadline = deadlines.skip_by if _waits_behind(state, record) else deadlines.stop_by
    set_deadline(now_ns, record.number, record.fence, state.grace_ns(record))
    return [StopAttempt(record.worker, record.number, record.fence, reason)]


def _waits_behind(state: SchedulerState, record: TaskRecord) -> bool:
    """Return whether the task was sent behind another one and is not known to have started."""
    if record.phase != Phase.SENT:
        return False
    return record is not next(iter(state.workers[record.worker].held.values()))


def end_unrun(
    state: SchedulerState,
    record: TaskRecord,
    final: TaskState,
    reason: str,
    now_ns: int,
    message: str = "",
) -> TaskEnded:
    """Finalize a task that no worker holds, without a result."""
    if record.phase == Phase.WAITING:
        state.pools[record.route.pool].queue.drop(record)
    paced.withdraw(state, record, now_ns)
    del state.tasks[record.number]
    state.finalize(record, final)
    waited_us = (now_ns - record.batch.accepted_ns) // 1000
    return TaskEnded(record, final, 0, Timing(waited_us, 0, 0), reason=reason, message=message)


def _unconfirmed(state: SchedulerState, record: TaskRecord, now_ns: int) -> list[Action]:
    """End a task whose worker did not confirm its skip within the grace period.

    Behind another task, the task ends here; if the worker runs it all the same, its heartbeat
    reports it. At the front, the task may have started, so the grace period of a stop begins.
    """
    if not _waits_behind(state, record):
        if record.phase == Phase.SENT:
            grace_ns = state.grace_ns(record)
            state.deadlines.stop_by(now_ns, record.number, record.fence, grace_ns)
        return []
    worker = state.workers[record.worker]
    del worker.held[record.number]
    worker.held_us = max(0.0, worker.held_us - record.cost_us)
    worker.skipped[record.number] = record.fence, 0
    reason = record.stopping
    return [end_unrun(state, record, early_end(reason), reason, now_ns)]


# --- timeouts ------------------------------------------------------------------------------


def end_overdue(state: SchedulerState, now_ns: int) -> list[Action]:
    actions: list[Action] = []
    for number in state.deadlines.queue_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and (record.phase in UNSENT or _waits_behind(state, record)):
            actions += _stop(state, record, "queue_timeout", now_ns)
    for number, fence in state.deadlines.run_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and record.fence == fence:
            actions += _stop(state, record, "run_timeout", now_ns)
    for number, fence in state.deadlines.skip_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and record.fence == fence and record.worker in state.workers:
            actions += _unconfirmed(state, record, now_ns)
    for number, fence in state.deadlines.stop_timeouts(now_ns):
        record = state.tasks.get(number)
        if record is not None and record.fence == fence and record.worker in state.workers:
            worker = state.workers[record.worker]
            actions += state.kill(worker, f"did not stop ({record.stopping})")
    return actions
