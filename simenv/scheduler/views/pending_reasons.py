"""Why a task waits, as text for users."""

from __future__ import annotations

from simenv import model, text
from simenv.scheduler.core import END_MARGIN_NS, RUNS, Phase, TaskRecord
from simenv.scheduler.dispatch import (
    gang_scheduling,
    held_back,
    planned_reservations,
)
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.scaling import jobs
from simenv.scheduler.state import device_controls, nodes, pools, scheduler_state


def pending_reason(state: scheduler_state.SchedulerState, record: TaskRecord, now_ns: int) -> str:
    """Return the reason as text for clients; "" if the task runs."""
    if record.stop.reason:
        return f"stopping: {record.stop.reason}"
    if record.phase == Phase.RUNNING:
        worker = state.cluster.workers.get(record.worker)
        compiles = worker is not None and worker.report.compiling == record.number
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
    if state.closing_ns and planned_reservations.too_late(state, record, now_ns):
        left_s = (state.closing_ns - now_ns) / 1e9
        if state.limits.end_ns and state.closing_ns == state.limits.end_ns - END_MARGIN_NS:
            left_s = max(0, state.limits.end_ns - now_ns) / 1e9
            return f"the allocation ends in {text.duration(left_s)}, before it would"
        if left_s > 0:  # else it is under way, and the drained nodes are the reason
            return f"maintenance begins in {text.duration(left_s)}, before it would end"
    pool = state.cluster.pools[record.route.pool]
    if pool.held_until_ns and now_ns + record.cost_us * 1e3 > pool.held_until_ns:
        left_s = max(0, pool.held_until_ns - now_ns) / 1e9
        return f"a planned reservation begins in {text.duration(left_s)}, before it would end"
    if pool.spec.jobs is not None and nodes.never_fits(pool.spec, record):
        expected, longest = record.cost_us / 1e6, pool.spec.jobs.time_s
        message = f"its expected {text.duration(expected)} are too long for a job of its pool"
        return f"{message} ({text.duration(longest)})"
    unplaceable = state.cluster.unplaceable_reason(record.route)
    if unplaceable:
        return unplaceable
    if pool.device in state.devices.outages:
        return outage_reason(pool)
    held_back = _held_back(state, pool)
    if held_back:
        return held_back
    owner = record.batch.owner
    if owner in state.shares.limits.removed:
        return f"held: {owner} may not use the environment any more"
    limited = _limited(state, pool, record, now_ns)
    if limited:
        return limited
    ready = [w for w in pool.workers.values() if _is_ready(w)]
    if not ready:
        return _no_worker(state, pool)
    usable = [w for w in ready if w.dedication.reservation in (0, record.batch.terms.reservation)]
    if not usable:
        return f"all workers of pool {pool.spec.name} are kept for reservations"
    idle = [w for w in usable if w.state == model.WorkerState.IDLE]
    if pool.spec.pace and not state.devices.paced.all[pool.device].is_open(now_ns):
        return f"waiting for device {pool.spec.device}"
    if not idle:
        return _behind_others(pool, record) or "waiting for a worker"
    if all(nodes.is_late(worker.host, pool.spec, record, now_ns) for worker in idle):
        return "the rest of its pool's jobs is too short for it: it waits for the next"
    if pool.spec.ranks > 1:
        return _gang_reason(state, record, idle, now_ns)
    return _single_rank_reason(record, idle)


def _limited(
    state: scheduler_state.SchedulerState, pool: pools.Pool, record: TaskRecord, now_ns: int
) -> str:
    """Return the limit of running slots, or the budget, of the task's user or accounts that keeps
    it waiting; "" if none does. A limit below the task's ranks was lowered after its submission."""
    batch, ranks = record.batch, pool.spec.ranks
    for node, limit in state.shares.slot_limits(batch.association):
        if limit < ranks:
            name = node.removeprefix("@")
            text = f"it needs {ranks} slots, and never starts while the limit for {name} is"
            return f"{text} {limit} (max_running_slots): raise the limit or cancel the task"
    used_up = held_back.used_up_budgets(state, now_ns)
    if used_up and held_back.is_budget_used_up(state, batch.association, used_up):
        name = next(each for each in state.shares.accounts.path(batch.account) if each in used_up)
        text = f"the budget of {name} is spent, or needed by its running tasks: an admin can raise"
        return f"{text} it, and a month begins with a new one"
    if batch.association in pool.queue.lanes.held_back:
        return f"{batch.account or batch.owner} has reached its limit of running slots"
    return ""


def _behind_others(pool: pools.Pool, record: TaskRecord) -> str:
    """Return who goes before this task because of its account's share; "": nobody."""
    batch = record.batch
    head = pool.queue.head() if pool.queue.is_shared else None
    if head is None or head.batch.association == batch.association:
        return ""
    first, own = head.batch, batch.account or batch.owner
    other = first.owner if first.account == batch.account else first.account
    return f"{other or 'another'} goes first: {own} has used more of its share"


def outage_reason(pool: pools.Pool) -> str:
    """Return the pending reason for an outage of the pool's device."""
    return f"outage of device {pool.spec.device}"


def _dependency_reason(state: scheduler_state.SchedulerState, record: TaskRecord) -> str:
    """Return the first unfinished parent of the task with its state, and the number of further
    ones."""
    parent, count = state.tasks.dependencies.first_parent(record)
    if not parent:
        failed = state.tasks.dependencies.by_task[record.number].failed_parent
        ending = f"ends: {model.task_name(failed)} did not end as DONE"
        return ending if failed else "next in its queue"
    runs = state.tasks[parent].phase in RUNS
    more = f" and {count - 1} more" if count > 1 else ""
    return f"waits for {model.task_name(parent)} ({'RUNNING' if runs else 'QUEUED'}){more}"


def _on_device(state: scheduler_state.SchedulerState, record: TaskRecord, now_ns: int) -> str:
    """Return the position on the device of a run whose result is held."""
    run = state.devices.paced.held[record.number].runs[record.number]
    name = state.cluster.pools[record.route.pool].spec.device
    if now_ns < run.begin_ns:
        return f"next on device {name}"
    left_s = max(0, run.end_ns - now_ns) / 1e9
    return f"on device {name} for another {text.duration(left_s)}"


def _held_back(state: scheduler_state.SchedulerState, pool: pools.Pool) -> str:
    """Return the control of the pool's device that holds its tasks back; "" if none does."""
    if not state.devices.controls.is_restricting:
        return ""
    for device in (pool.device, ""):
        control = state.devices.controls.of(device)
        if control.state == device_controls.PAUSED:
            name, note = f"pool {device}" if device else "everything", f": {control.reason}"
            return f"{name} is paused{note if control.reason else ''}"
    if state.devices.controls.assignable_tasks(pool):
        return ""
    return f"pool {pool.device} has reached its limit of tasks in flight"


def _is_ready(worker: nodes.Worker) -> bool:
    return worker.state in (model.WorkerState.IDLE, model.WorkerState.BUSY) and not worker.leaving


def _no_worker(state: scheduler_state.SchedulerState, pool: pools.Pool) -> str:
    name = pool.spec.name
    if pool.starts.is_quarantined:
        return f"pool {name} is quarantined: {pool.starts.reason}"
    if pool.spec.max == 0:
        return f"pool {name} was scaled down to no workers"
    if any(w.state == model.WorkerState.STARTING and not w.leaving for w in pool.workers.values()):
        return f"pool {name} is starting"
    if pool.spec.jobs is not None and not pool.starts.reason:
        return jobs.text(state, pool)
    if pool.starts.reason:
        return f"pool {name} retries after: {pool.starts.reason}"
    unavailable = [h for h in state.cluster.nodes.hosts.values() if not h.is_up]
    if unavailable and not state.cluster.nodes.up():
        states = (
            f"{h.node.name} ({': '.join(filter(None, (h.state, h.lost or h.drained)))})"
            for h in unavailable
        )
        return f"no node is in use: {', '.join(states)}"
    if pool.shortage:
        return f"waiting for room for a worker: {pool.shortage}"
    return f"pool {name} is starting"


def _gang_reason(
    state: scheduler_state.SchedulerState, record: TaskRecord, idle: list[nodes.Worker], now_ns: int
) -> str:
    """Return the reason of a task of several ranks whose worker is ready."""
    worker = min(idle, key=_missing_slots)
    if not gang_scheduling.may_use_last_slots(state, worker.ranks, record, now_ns):
        return gang_scheduling.LAST_SLOTS
    if _missing_slots(worker):
        free = sum(min(ranks, host.free_slots) for host, ranks in worker.host_ranks)
        nodes = len(worker.host_ranks)
        where = f" on {nodes} nodes" if nodes > 1 else ""
        verb = "is" if free == 1 else "are"
        return f"waiting for {worker.ranks} slots{where}: {free} {verb} free"
    if gang_scheduling.missing_slots(worker):
        return "free slots are kept for another task of several ranks, which came before"
    return f"waiting for {text.size(record.route.memory_bytes)} in each rank"


def _missing_slots(worker: nodes.Worker) -> int:
    """Return the slots that its nodes do not have free, whoever claims them: it may be this task
    itself."""
    return sum(max(0, ranks - host.free_slots) for host, ranks in worker.host_ranks)


def _single_rank_reason(record: TaskRecord, idle: list[nodes.Worker]) -> str:
    """Return the reason of a task of one rank while workers are idle."""
    need = record.route.memory_bytes
    hosts = {w.host.node.name: w.host for w in idle}.values()
    reserved = max(w.reserved for w in idle)
    if all(need > max(h.node.memory_bytes, reserved) for h in hosts):
        return f"waiting for a worker on a node with {text.size(need)}"
    if all(need > h.free_memory + reserved for h in hosts):
        return f"waiting for {text.size(need)} of memory"
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
