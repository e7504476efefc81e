"""Admission by the present state, and pending reasons of tasks."""

from __future__ import annotations

import msgspec

from simenv import model, text
from simenv.errors import InsufficientError, NotReservedError, OptionError, SimenvError
from simenv.model import task_rules
from simenv.model.views import base_of
from simenv.scheduler.core import END_MARGIN_NS, RUNS, Phase, Route, TaskRecord
from simenv.scheduler.dispatch import (
    dedicated_workers,
    gang_scheduling,
    held_back,
    planned_reservations,
)
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.reservations.circuit_times import ProgramSize
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.scheduler.reservations.reservation import ReservationEntry, units_for
from simenv.scheduler.routing import ranks
from simenv.scheduler.scaling import jobs
from simenv.scheduler.state import device_state, pools, scheduler_state
from simulators import catalog

MIN_BOUND_NS = 20_000_000
MEMORY_RETRY_S = 5.0


def draining_refusal(state: scheduler_state.SchedulerState, routes: list[Route]) -> str:
    """Return why a draining device accepts none of these tasks; "" if all are accepted."""
    for name in {route.pool for route in routes}:
        device = base_of(name) or name
        if state.devices.controls.closed_state(device, starts=False):
            draining = state.devices.controls.of(device).state == device_state.DRAINING
            subject = f"pool {device}" if draining else "the environment"
            return f"{subject} is draining and accepts nothing new"
    return ""


def memory_refusal(state: scheduler_state.SchedulerState) -> InsufficientError:
    """Return the refusal of tasks while `state.lacks_memory`."""
    used, limit = state.service_bytes, state.limits.service_bytes
    return InsufficientError(
        f"the service uses {text.size(used)} of memory; above {text.size(limit)} it accepts no"
        " tasks",
        hint="wait for queued tasks to end, or raise max_service_bytes",
        retry_after_s=MEMORY_RETRY_S,
    )


def availability_veto(
    state: scheduler_state.SchedulerState, request: model.ReservationRequest
) -> PolicyVerdict | None:
    """Return why a valid request cannot be accepted, whatever credits or rate remain; None if it
    can."""
    pool = state.cluster.pools.get(request.device)
    if request.device and (pool is None or pool.base):
        names = ", ".join(name for name, each in state.cluster.pools.items() if not each.base)
        message = f"there is no device {request.device[:64]!r}; pools: {names}"
        return PolicyVerdict(REJECTED, model.AdmissionReason.DEVICE_NOT_FOUND, message)
    if pool is not None and pool.is_quarantined:
        message = f"pool {pool.spec.name} is quarantined: {pool.reason}"
        return PolicyVerdict(DELAYED, model.AdmissionReason.DEVICE_UNAVAILABLE, message)
    if state.devices.controls.closed_state(request.device, starts=False):
        message = f"{request.device or 'the environment'} is draining and accepts nothing new"
        return PolicyVerdict(DELAYED, model.AdmissionReason.DEVICE_UNAVAILABLE, message)
    widest = _widest(state, request.device)
    if 0 < widest < request.workload.qubits:
        subject = request.device or "the widest pool"
        message = f"{request.workload.qubits} qubits are asked for; {subject} has {widest}"
        return PolicyVerdict(REJECTED, model.AdmissionReason.TOO_LARGE, message)
    try:
        device = request.device or "of the environment"
        task_rules.check_shots(request.workload.shots, device, _max_shots(state, request.device))
    except OptionError as error:  # `submit` refuses it too
        message = f"{error.message}: {error.hint}"
        return PolicyVerdict(REJECTED, model.AdmissionReason.TOO_LARGE, message)
    if request.bound_ns and not request.workers:
        message = "a bound on the begin of tasks needs workers of one's own: ask for workers=1"
        return PolicyVerdict(REJECTED, model.AdmissionReason.UNSUPPORTED, message)
    if request.bound_ns and request.bound_ns < MIN_BOUND_NS:
        message = f"bound_ns = {request.bound_ns} cannot be promised: {MIN_BOUND_NS} is the least"
        return PolicyVerdict(REJECTED, model.AdmissionReason.UNSUPPORTED, message)
    return dedicated_workers.availability_verdict(state, request) if request.workers else None


def _widest(state: scheduler_state.SchedulerState, device: str) -> int:
    """Return the qubits of the widest circuit of a device, or of all for ""; 0: not known."""
    times = state.reservations.times
    widths = []
    for pool in state.cluster.pools.values():
        if pool.base or device not in ("", pool.spec.name):
            continue
        figures = None if times is None else times.figures(pool.spec.name)
        if figures is not None:
            widths.append(figures.num_qubits)
        elif pool.spec.device or pool.spec.provider:
            return 0
        elif pool.spec.engine == "any":
            cards = [card for card in catalog.engine_cards() if card.auto is not None]
            widths.append(max(card.max_qubits for card in cards))
        else:
            widths.append(ranks.widest_of(pool.spec, state.limits))
    return max(widths, default=0)


def _max_shots(state: scheduler_state.SchedulerState, device: str) -> int:
    """Return the shots of one circuit that a device takes, or that any of all takes for ""; 0: any
    number, or not known."""
    times = state.reservations.times
    names = [each.spec.name for each in state.cluster.pools.values() if not each.base]
    if times is None:
        return 0
    figures = [times.figures(name) for name in names if device in ("", name)]
    limits = [0 if each is None else each.max_shots for each in figures]
    return max(limits, default=0) if all(limits) else 0


def reservation_units(
    state: scheduler_state.SchedulerState,
    reservation: ReservationEntry,
    specs: list[model.TaskSpec],
    routes: list[Route],
    sizes: list[ProgramSize],
    terms: model.TaskOptions,
) -> tuple[list[int], list[SimenvError]]:
    """Return the units of a reservation that each task takes, and an error for each task that
    cannot have them. `sizes`: of each task's program; `terms`: the options of all."""
    units: list[int] = []
    errors: list[SimenvError] = []
    number, device = reservation.grant.id, reservation.grant.ask.device
    device_terms = state.reservations.terms(device)
    is_modelled = device_terms.modelled_unit_ns and reservation.grant.is_modelled
    times = state.reservations.times if is_modelled else None
    last: tuple[object, ...] = ()
    for index, (spec, route, size) in enumerate(zip(specs, routes, sizes, strict=True)):
        key = (route, size, spec.count, spec.shots)
        if units and key == last and not errors:  # neighbours are mostly alike
            units.append(units[-1])
            continue
        last = key
        if not reservation.covers(route.pool, base_of(route.pool)):
            message = f"reservation {number} is for {device!r}; this is for pool {route.pool!r}"
            hint = f"pool={device!r}, or a reservation of the other"
            errors.append(NotReservedError(message, hint=hint, index=index))
            continue
        task_work = msgspec.structs.replace(size.work, count=spec.count, shots=spec.shots)
        modelled_ns = None
        if times is not None:
            granted = reservation.grant.ask, reservation.grant.total_ns
            modelled_ns = times.task_ns(*granted, route, spec, size, terms)
        needed, problem = units_for(reservation, task_work, device_terms, modelled_ns)
        if problem:
            message = f"reservation {number}: {problem} ({model.AdmissionReason.TOO_LARGE.text})"
            errors.append(NotReservedError(message, index=index))
            continue
        refusal = reservation.can_never_fit(needed)
        if refusal is not None:
            message = f"{refusal[1]} ({model.AdmissionReason(refusal[0]).text})"
            hint = "fewer shots, or a larger reservation"
            errors.append(NotReservedError(message, hint=hint, index=index))
        units.append(needed)
    return units, errors


def pending_reason(state: scheduler_state.SchedulerState, record: TaskRecord, now_ns: int) -> str:
    """Return the reason as text for clients; "" if the task runs."""
    if record.stopping:
        return f"stopping: {record.stopping}"
    if record.phase == Phase.RUNNING:
        worker = state.cluster.workers.get(record.worker)
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
    if pool.spec.jobs is not None and pools.never_fits(pool.spec, record):
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
    usable = [w for w in ready if w.reservation_id in (0, record.batch.terms.reservation)]
    if not usable:
        return f"all workers of pool {pool.spec.name} are kept for reservations"
    idle = [w for w in usable if w.state == model.WorkerState.IDLE]
    if pool.spec.pace and not state.devices.paced.all[pool.device].is_open(now_ns):
        return f"waiting for device {pool.spec.device}"
    if not idle:
        return _behind_others(pool, record) or "waiting for a worker"
    if all(pools.is_late(worker.host, pool.spec, record, now_ns) for worker in idle):
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
    if batch.association in pool.queue.held_back:
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
        if control.state == device_state.PAUSED:
            name, note = f"pool {device}" if device else "everything", f": {control.reason}"
            return f"{name} is paused{note if control.reason else ''}"
    if state.devices.controls.assignable_tasks(pool):
        return ""
    return f"pool {pool.device} has reached its limit of tasks in flight"


def _is_ready(worker: pools.Worker) -> bool:
    return worker.state in (model.WorkerState.IDLE, model.WorkerState.BUSY) and not worker.leaving


def _no_worker(state: scheduler_state.SchedulerState, pool: pools.Pool) -> str:
    name = pool.spec.name
    if pool.is_quarantined:
        return f"pool {name} is quarantined: {pool.reason}"
    if pool.spec.max == 0:
        return f"pool {name} was scaled down to no workers"
    if any(w.state == model.WorkerState.STARTING and not w.leaving for w in pool.workers.values()):
        return f"pool {name} is starting"
    if pool.spec.jobs is not None and not pool.reason:
        return jobs.text(state, pool)
    if pool.reason:
        return f"pool {name} retries after: {pool.reason}"
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
    state: scheduler_state.SchedulerState, record: TaskRecord, idle: list[pools.Worker], now_ns: int
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


def _missing_slots(worker: pools.Worker) -> int:
    """Return the slots that its nodes do not have free, whoever claims them: it may be this task
    itself."""
    return sum(max(0, ranks - host.free_slots) for host, ranks in worker.host_ranks)


def _single_rank_reason(record: TaskRecord, idle: list[pools.Worker]) -> str:
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
