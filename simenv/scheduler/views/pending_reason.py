"""Pending reason of a task: the event that must happen before the task is assigned."""

from __future__ import annotations

from simenv.model import WorkerState, task_name
from simenv.scheduler.core.types import RUNS, Phase, TaskRecord
from simenv.scheduler.dispatch import gang_scheduling
from simenv.scheduler.dispatch.gang_scheduling import LAST_SLOTS
from simenv.scheduler.queueing.queue import LONG_US
from simenv.scheduler.state.device_controls import PAUSED
from simenv.scheduler.state.pools import Pool, Worker
from simenv.scheduler.state.state import SchedulerState
from simenv.text import duration, size


def pending_reason(state: SchedulerState, record: TaskRecord, now_ns: int) -> str:
    """Return the reason as text for clients; "" if the task runs."""
    if record.stopping:
        return f"stopping: {record.stopping}"
    if record.phase == Phase.RUNNING:
        worker = state.workers.get(record.worker)
        compiles = worker is not None and worker.compiling == record.number
        return "compiling kernels, once on this machine" if compiles else ""
    if record.phase == Phase.HELD:
        return _on_device(state, record, now_ns)
    if record.phase == Phase.SENT:
        return f"next on {record.worker}"
    if record.phase == Phase.PARKED:
        return f"waiting for units of reservation {record.batch.terms.reservation}"
    if record.phase == Phase.DEPENDENT:
        return _dependency_reason(state, record)
    if state.draining:
        return "the service is shutting down"
    if state.limits.end_ns and gang_scheduling.too_late(state, record, now_ns):
        left_s = max(0, state.limits.end_ns - now_ns) / 1e9
        return f"the allocation ends in {duration(left_s)}, before it would"
    pool = state.pools[record.route.pool]
    unplaceable = state.unplaceable_reason(record.route)
    if unplaceable:
        return unplaceable
    if pool.device in state.outages:
        return outage_reason(pool)
    held_back = _held_back(state, pool)
    if held_back:
        return held_back
    ready = [w for w in pool.workers.values() if _is_ready(w)]
    if not ready:
        return _no_worker(state, pool)
    usable = [w for w in ready if w.reservation_id in (0, record.batch.terms.reservation)]
    if not usable:
        return f"all workers of pool {pool.spec.name} are kept for reservations"
    idle = [w for w in usable if w.state == WorkerState.IDLE]
    if pool.spec.pace and not state.paced.all[pool.device].is_open(now_ns):
        return f"waiting for device {pool.spec.device}"
    if not idle:
        return "waiting for a worker"
    if pool.spec.ranks > 1:
        return _gang_reason(state, record, idle, now_ns)
    return _single_rank_reason(record, idle)


def outage_reason(pool: Pool) -> str:
    """Return the pending reason for an outage of the pool's device."""
    return f"outage of device {pool.spec.device}"


def _dependency_reason(state: SchedulerState, record: TaskRecord) -> str:
    """Return the first unfinished parent of the task with its state, and the number of further
    ones."""
    parent, count = state.dependencies.first_parent(record)
    if not parent:
        failed = state.dependencies.by_task[record.number].failed_parent
        return f"ends: {task_name(failed)} did not end as DONE" if failed else "next in its queue"
    runs = state.tasks[parent].phase in RUNS
    more = f" and {count - 1} more" if count > 1 else ""
    return f"waits for {task_name(parent)} ({'RUNNING' if runs else 'QUEUED'}){more}"


def _on_device(state: SchedulerState, record: TaskRecord, now_ns: int) -> str:
    """Return the position on the device of a run whose result is held."""
    run = state.paced.held[record.number].runs[record.number]
    name = state.pools[record.route.pool].spec.device
    if now_ns < run.begin_ns:
        return f"next on device {name}"
    return f"on device {name} for another {max(0, run.end_ns - now_ns) / 1e9:.3g} s"


def _held_back(state: SchedulerState, pool: Pool) -> str:
    """Return the control of the pool's device that holds its tasks back; "" if none does."""
    if not state.controls.is_restricting:
        return ""
    for device in (pool.device, ""):
        control = state.controls.of(device)
        if control.state == PAUSED:
            name, note = f"pool {device}" if device else "everything", f": {control.reason}"
            return f"{name} is paused{note if control.reason else ''}"
    if state.controls.assignable_tasks(pool):
        return ""
    return f"pool {pool.device} has reached its limit of tasks in flight"


def _is_ready(worker: Worker) -> bool:
    return worker.state in (WorkerState.IDLE, WorkerState.BUSY) and not worker.leaving


def _no_worker(state: SchedulerState, pool: Pool) -> str:
    name = pool.spec.name
    if pool.is_quarantined:
        return f"pool {name} is quarantined: {pool.reason}"
    if pool.spec.max == 0:
        return f"pool {name} was scaled down to no workers"
    if any(w.state == WorkerState.STARTING and not w.leaving for w in pool.workers.values()):
        return f"pool {name} is starting"
    if pool.failures:
        return f"pool {name} retries after: {pool.reason}"
    if pool.shortage:
        return f"waiting for room for a worker: {pool.shortage}"
    unavailable = [h for h in state.nodes.hosts.values() if not h.is_up]
    if unavailable and not state.nodes.up():
        states = ", ".join(f"{h.node.name} is {h.state}" for h in unavailable)
        return f"no node is in use: {states}"
    return f"pool {name} is starting"


def _gang_reason(state: SchedulerState, record: TaskRecord, idle: list[Worker], now_ns: int) -> str:
    """Return the reason of a task of several ranks whose worker is ready."""
    worker = min(idle, key=_missing_slots)
    if not gang_scheduling.may_use_last_slots(state, worker.ranks, record, now_ns):
        return LAST_SLOTS
    if _missing_slots(worker):
        free = sum(min(ranks, host.free_slots) for host, ranks in worker.host_ranks)
        nodes = len(worker.host_ranks)
        where = f" on {nodes} nodes" if nodes > 1 else ""
        verb = "is" if free == 1 else "are"
        return f"waiting for {worker.ranks} slots{where}: {free} {verb} free"
    if gang_scheduling.missing(worker):
        return "free slots are kept for another task of several ranks, which came before"
    return f"waiting for {size(record.route.memory_bytes)} in each rank"


def _missing_slots(worker: Worker) -> int:
    """Return the slots that its nodes do not have free, whoever claims them: it may be this task
    itself."""
    return sum(max(0, ranks - host.free_slots) for host, ranks in worker.host_ranks)


def _single_rank_reason(record: TaskRecord, idle: list[Worker]) -> str:
    """Return the reason of a task of one rank while workers are idle."""
    need = record.route.memory_bytes
    hosts = {w.host.node.name: w.host for w in idle}.values()
    reserved = max(w.reserved for w in idle)
    if all(need > max(h.node.memory_bytes, reserved) for h in hosts):
        return f"waiting for a worker on a node with {size(need)}"
    if all(need > h.free_memory + reserved for h in hosts):
        return f"waiting for {size(need)} of memory"
    is_long = record.cost_us > LONG_US
    free = [h for h in hosts if h.free_slots > 0]
    if free and all(h.free_slots <= h.claimed_slots + is_long * h.backfill_slots for h in free):
        names = ", ".join(h.node.name for h in free if h.node.name)
        return f"free slots{' on ' if names else ''}{names} are kept for a task of several ranks"
    if free and is_long:
        return "the last slot is kept for short tasks for now"
    claimed = [h.claimed_memory + is_long * h.backfill_memory for h in hosts]
    if any(claimed) and not any(
        need <= h.free_memory - claims + reserved for h, claims in zip(hosts, claimed, strict=True)
    ):
        return "free memory is kept for a worker of several ranks"
    return "waiting for a slot"
