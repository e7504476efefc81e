"""Events of workers: joined, heartbeats, silent, lost, and what follows for their tasks.

A worker is identified by its name and its start number: messages of an earlier start of the same
name are ignored.
"""

from __future__ import annotations

from simenv.model import WorkerState, task_name
from simenv.scheduler.core.actions import Action, KillWorker, RecordEvent, StopAttempt
from simenv.scheduler.core.types import Phase, TaskRecord, WorkerHeartbeat
from simenv.scheduler.events import memory, paced
from simenv.scheduler.state import crashes
from simenv.scheduler.state.indexes import STOP_GRACE_NS
from simenv.scheduler.state.nodes import AVOID_NS
from simenv.scheduler.state.owner_quotas import run_limit_s
from simenv.scheduler.state.pools import Worker
from simenv.scheduler.state.state import SchedulerState

# A provider's library may block all threads of its worker; the end of the process is seen anyway.
HARDWARE_SILENT_NS = 600_000_000_000
IDLE_BEATS = 3  # consecutive idle heartbeats of a worker that holds tasks


def worker_joined(
    state: SchedulerState, name: str, start: int, node: str, pid: int, now_ns: int
) -> bool:
    """Record that a started worker is ready; return False if this start of it is not expected."""
    worker = state.workers.get(name)
    if worker is None or worker.start != start or worker.state != WorkerState.STARTING:
        return False
    worker.node, worker.pid = node, pid
    state.pools[worker.pool].joined(worker, now_ns)
    if worker.leaving:
        state.begin_retirement(worker, worker.leaving, now_ns)
    return True


def task_started(
    state: SchedulerState, name: str, task: int, fence: int, now_ns: int
) -> list[Action]:
    """Record that a worker runs a task; long tasks are announced at once, others by heartbeat."""
    record = state.tasks.get(task)
    worker = state.workers.get(name)
    if worker is None or record is None or record.fence != fence:
        return []
    worker.heard_ns = now_ns
    if record.phase == Phase.SENT:
        record.phase = Phase.RUNNING
        record.started_ns = now_ns
        state.running += 1
        batch = record.batch
        limit_s = batch.terms.run_timeout_s
        if batch.owner:
            limit_s = run_limit_s(state.quotas.of(batch.owner), batch.terms)
        if limit_s:
            next_ns = now_ns + round(limit_s * 1e9)
            state.deadlines.run_until(next_ns, task, fence)
        if record.stopping:
            state.deadlines.stop_by(now_ns, task, fence, state.grace_ns(record))
    return []


def heartbeat_received(
    state: SchedulerState, beat: WorkerHeartbeat, now_ns: int
) -> tuple[bool, list[Action]]:
    """Record that a worker is alive; return False for an unknown worker or an earlier start.

    A worker that loads kernels runs no task and has not lost its tasks.
    """
    name, task, fence = beat.name, beat.task, beat.fence
    worker = state.workers.get(name)
    if worker is None or worker.start != beat.start:
        return False, []
    worker.heard_ns = now_ns
    worker.rss_bytes = beat.rss_bytes
    worker.passes = (task, *beat.passes)
    actions: list[Action] = []
    if beat.compiling and task and worker.compiling != task:
        text = f"{name} compiles kernels for it, once on this machine"
        actions.append(RecordEvent("task.compiling", task_name(task), text))
    worker.compiling = task if beat.compiling else 0
    if task:
        worker.idle_beats = 0
        if task in worker.skipped:
            return True, _not_skipped(state, worker, task, fence, now_ns)
        task_started(state, name, task, fence, now_ns)
        record = worker.held.get(task)
        if record is not None and record.fence == fence:  # else its grant may be over
            reason = memory.excess(state, worker, record)
            if reason:
                actions = memory.end_worker(worker, record, reason)
                return True, actions + declare_worker_lost(state, worker, reason, now_ns)
    elif worker.held and beat.waiting:
        worker.idle_beats += 1
        if worker.idle_beats >= IDLE_BEATS:  # the chunk or its results were lost in transport
            return True, worker_unusable(state, name, "it holds tasks and runs none", now_ns)
    return True, actions


def _not_skipped(
    state: SchedulerState, worker: Worker, task: int, fence: int, now_ns: int
) -> list[Action]:
    """Stop a task that had ended and that its worker started before the skip arrived; kill the
    worker after the grace period."""
    skipped_fence, until_ns = worker.skipped[task]
    if skipped_fence != fence:
        return []
    if not until_ns:
        worker.skipped[task] = fence, now_ns + STOP_GRACE_NS
        return [StopAttempt(worker.name, task, fence, "cancelled")]
    if now_ns < until_ns or worker.killed:
        return []
    return state.kill(worker, "did not stop a task that has ended")


def worker_unusable(state: SchedulerState, name: str, reason: str, now_ns: int) -> list[Action]:
    """Kill a worker; its tasks are queued again and none of them is charged."""
    worker = state.workers.get(name)
    if worker is None:
        return []
    return [*state.kill(worker, reason), *declare_worker_lost(state, worker, reason, now_ns)]


def worker_lost(
    state: SchedulerState,
    name: str,
    start: int,
    reason: str,
    now_ns: int,
    log: str = "",
    *,
    blame: bool = True,
) -> list[Action]:
    """Handle the end of a worker's processes; `blame`: a task or the pool may be the cause."""
    worker = state.workers.get(name)
    if worker is None or worker.start != start:
        if state.unreaped_workers.get(name) == start:
            del state.unreaped_workers[name]
        return []
    actions = declare_worker_lost(state, worker, reason, now_ns, log, blame=blame)
    del state.unreaped_workers[name]
    return actions


def declare_worker_lost(
    state: SchedulerState,
    worker: Worker,
    reason: str,
    now_ns: int,
    log: str = "",
    *,
    blame: bool = True,
) -> list[Action]:
    """Remove a worker; its name is not reused while its processes may live."""
    pool = state.pools[worker.pool]
    held = list(worker.held.values())
    state.remove_worker(worker)
    state.unreaped_workers[worker.name] = worker.start
    if worker.state == WorkerState.STARTING:
        for host, _ in worker.host_ranks:
            host.avoid_until_ns = now_ns + AVOID_NS
    retired = worker.state == WorkerState.DRAINING and not held
    worker.state = WorkerState.GONE if retired else WorkerState.LOST
    if retired:
        return []
    actions: list[Action] = [RecordEvent("worker.lost", worker.name, reason)]
    if held:
        charged = blame and not worker.killed
        actions += _lose(state, worker, held, reason, log, charged, now_ns)
    elif blame:
        actions.append(pool.record_failure(reason, now_ns))
    else:
        pool.back_off(now_ns)
    return actions


def _lose(
    state: SchedulerState,
    worker: Worker,
    held: list[TaskRecord],
    reason: str,
    log: str,
    charged: bool,
    now_ns: int,
) -> list[Action]:
    """Requeue the tasks of a lost worker at the front, except those that end here.

    Tasks that end spend units of their reservation for the time that they ran.
    """
    verdict = crashes.attribute_crash(held, reason, log, worker.node, charged)
    state.incidents.record(verdict)
    actions: list[Action] = []
    requeued = []
    ran_ns = {r.number: now_ns - r.started_ns for r in held if r.phase == Phase.RUNNING}
    for record in held:
        state.running -= record.phase == Phase.RUNNING
        record.phase = Phase.WAITING
        record.worker = ""
        record.interrupted = False
    for ending in verdict.endings:
        number = ending.record.number
        state.tasks.pop(number)
        state.reservations.settle(number, ran_ns.get(number, 0))
        paced.withdraw(state, ending.record, now_ns)
        state.finalize(ending.record, ending.state)
        actions.append(ending)
    for record in held:
        if record.phase == Phase.WAITING:
            requeued.append(record)
            note = f"attempt {record.attempts + 1} ({worker.name} was lost: {reason})"
            actions.append(RecordEvent("task.requeued", task_name(record.number), note))
    state.lost_attempts += len(held)
    pool = state.pools[worker.pool]
    paced.lost(state, pool, requeued)
    pool.queue.requeue_front(requeued)
    return actions


def expire_silent_workers(state: SchedulerState, now_ns: int) -> list[Action]:
    """Declare workers without a heartbeat for too long lost."""
    actions: list[Action] = []
    for worker in list(state.workers.values()):
        if worker.state == WorkerState.DRAINING and (
            now_ns - worker.since_ns > state.limits.silent_ns
        ):
            actions += worker_unusable(
                state, worker.name, "it was asked to end and did not", now_ns
            )
            continue
        starting = worker.state == WorkerState.STARTING
        limit = state.limits.start_timeout_ns if starting else state.limits.silent_ns
        if worker.held and state.pools[worker.pool].is_exclusive:
            limit = max(limit, HARDWARE_SILENT_NS)
        if now_ns - worker.heard_ns > limit:
            problem = "not ready" if starting else "silent"
            reason = f"{problem} for {(now_ns - worker.heard_ns) / 1e9:.1f} s"
            actions.append(KillWorker(worker.name, reason, worker.start))
            actions += declare_worker_lost(state, worker, reason, now_ns)
    return actions
