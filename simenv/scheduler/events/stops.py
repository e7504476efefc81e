"""Ends of tasks before they have a result: cancellation, timeouts, failed parents.

A task that no worker holds ends at once; one that a worker holds ends by its result, or after a
grace period. Tasks with unfinished parents are in no queue: `end_failed` ends them after a parent
that is not DONE.
"""

from __future__ import annotations

import itertools

import msgspec

from simenv.model import DEPENDENCY, TaskState, Timing
from simenv.model.accounts import WaitReason, Waits
from simenv.scheduler import core
from simenv.scheduler.dispatch.batching import WAITED_NS
from simenv.scheduler.events import devices
from simenv.scheduler.state import scheduler_state

_UNHELD = (*core.UNSENT, core.HELD)  # phases of tasks that no worker has
MAX_ENDED = 250  # tasks ended by one call, so that the event loop is not blocked


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
    if record.stop.reason:
        return []
    record.stop = core.EarlyStop(reason, message)
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
    earlier = record.earlier or core.EarlierAttempts()
    return core.TaskEnded(
        *(record, final, 0, timing),
        reason=reason,
        message=message,
        used=earlier.used,
        units=earlier.units,
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
            actions += state.cluster.kill(worker, f"did not stop ({record.stop.reason})")
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
    worker.held.cost_us = max(0.0, worker.held.cost_us - record.cost_us)
    pool = state.cluster.pools[worker.pool]
    pool.workers.open[worker.name] = worker
    pool.assigned -= 1
    worker.held.skipped[record.number] = record.fence, 0
    stop = record.stop
    final = core.early_end(stop.reason)
    return [end_unrun(state, record, final, stop.reason, now_ns, stop.message)]


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
