"""Views of pools, nodes, devices and reservations, as clients see them.

Figures are counted by reservations and workers, never by waiting tasks: these may be very many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from simenv.model import HeldCapacity, NodeInfo, PoolInfo, ReservationInfo, TargetInfo, WorkerState
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.routing import ranks
from simenv.scheduler.state import (
    device_controls,
    nodes as state_nodes,
    pools as state_pools,
    scheduler_state,
)


def closed_pools(state: scheduler_state.SchedulerState) -> tuple[tuple[str, str], ...]:
    """Return the pools that accept no program now, with the reasons."""
    closed = []
    for pool in state.cluster.pools.values():
        info = pool_info(state, pool)
        reason = state.devices.controls.closed_state(pool.device)
        if reason or info.state != "up":
            closed.append((info.name, reason or info.state))
    return tuple(closed)


def target_info(state: scheduler_state.SchedulerState, device: str) -> TargetInfo:
    """Return the controls of a device and the counts of its tasks. Raises NotFoundError."""
    state.cluster.check_device(device)
    control, order = state.devices.controls.of(device), state.devices.controls.queue_policy(device)
    pools = state.cluster.pools_of(device)
    sent, running = state.cluster.inflight(device)
    live, held, in_flight = device_usage(state, device)
    options = control.options if control.policy else state.devices.controls.of("").options
    return TargetInfo(
        device=device,
        state=control.state,
        version=control.version,
        policy=order.policy,
        options=options,
        max_inflight=control.max_inflight,
        pause_reason=control.reason if control.state == device_controls.PAUSED else "",
        drain_mode=control.mode,
        drain_timeout_s=control.timeout_s,
        drain_started_ns=control.started_ns,
        queued=sum(len(pool.queue) for pool in pools),
        parked=state.reservations.parked(device),
        sent=sent,
        running=running,
        queued_ns=round(sum(pool.queue.backlog_us for pool in pools) * 1e3),
        reservations=live,
        held=held,
        in_flight=in_flight,
    )


def pool_infos(state: scheduler_state.SchedulerState) -> list[PoolInfo]:
    """Return all pools, without their waits."""
    return [pool_info(state, pool) for pool in state.cluster.pools.values()]


def pool_info(state: scheduler_state.SchedulerState, pool: state_pools.Pool) -> PoolInfo:
    """Return one pool, without its wait."""
    spec, workers = pool.spec, list(pool.workers.values())
    ready = sum(w.state in (WorkerState.IDLE, WorkerState.BUSY) for w in workers)
    busy = sum(w.state == WorkerState.BUSY for w in workers)
    reason = pool.starts.reason or pool.shortage
    closed = state.devices.controls.closed_state(pool.device)
    closed_reason = state.devices.controls.reason_of(closed, pool.device) if closed else ""
    if pool.starts.is_quarantined:
        status = "quarantined"
    elif pool.starts.reason:
        status = "degraded"
    elif closed:
        status, reason = closed, closed_reason or reason
    else:
        status = "up" if ready >= spec.min else "starting"
    return PoolInfo(
        name=spec.name,
        engine=spec.engine,
        workers=ready,
        target=max(spec.min, pool.workers.live()),
        busy=busy,
        waiting=len(pool.queue),
        state=status,
        reason=reason,
        backlog_us=pool.queue.backlog_us,
        held_us=sum(worker.held.cost_us for worker in workers),
        ranks=spec.ranks,
        least=spec.min,
        most=spec.max,
        max_qubits=pool.hardware_qubits or ranks.widest_of(spec, state.cluster.capacity.limits),
        nodes=tuple(dict.fromkeys(h.node.name for w in workers for h, _ in w.host_ranks)),
        on_demand=bool(pool.base),
        kept=pool.workers.kept(),
        closed=closed,
        closed_reason=closed_reason,
    )


def node_infos(state: scheduler_state.SchedulerState) -> list[NodeInfo]:
    """Return all nodes but those that come by jobs and have none."""
    return [
        node_info(state, host)
        for host in state.cluster.nodes.hosts.values()
        if host.job is None or host.job.phase is not state_nodes.NodeJobPhase.OFF
    ]


def node_info(state: scheduler_state.SchedulerState, host: state_nodes.NodeState) -> NodeInfo:
    """Return one node and the workers on it."""
    node, job = host.node, host.job
    reason = host.lost or host.drained
    if job is not None and host.is_absent:
        reason = job.detail
    end_ns = host.end_ns + state.devices.paced.offset_ns if host.end_ns else 0
    return NodeInfo(
        name=node.name,
        state=host.state,
        reason=reason,
        slots=node.slots,
        slots_granted=node.slots - host.free_slots,
        memory_bytes=node.memory_bytes,
        memory_granted=node.memory_bytes - host.free_memory,
        workers=len(host.workers),
        ranks=host.ranks,
        gpus=node.gpus,
        features=node.features,
        source=job.source if job is not None else "",
        end_s=end_ns / 1e9,
    )


def device_usage(
    state: scheduler_state.SchedulerState, device: str
) -> tuple[int, HeldCapacity, HeldCapacity]:
    """Return (active reservations, capacity held by tasks without a worker, capacity held by tasks
    with one). The values are of one device, or of all devices for ""."""
    ledger = state.reservations
    reservations = [r for r in ledger.all.values() if device in ("", r.grant.ask.device)]
    assigned: dict[int, int] = {}  # units by reservation
    if ledger.by_task:
        for worker in state.cluster.workers.values():
            for task in worker.held:
                reservation = ledger.by_task.get(task)
                if reservation is not None:
                    number = reservation.grant.id
                    assigned[number] = assigned.get(number, 0) + reservation.holds.get(task, 0)
    scale = policies.scale(ledger.terms(device))
    in_flight = _total_capacity(
        r.held_capacity(assigned.get(r.grant.id, 0), device, scale) for r in reservations
    )
    held = _total_capacity(
        r.held_capacity(r.held - assigned.get(r.grant.id, 0), device, scale) for r in reservations
    )
    return sum(not r.is_over for r in reservations), held, in_flight


def _total_capacity(parts: Iterable[HeldCapacity]) -> HeldCapacity:
    units = price = rate = 0
    for part in parts:
        units, price, rate = units + part.units, price + part.credits, rate + part.rate
    return HeldCapacity(*(min(policies.MOST, each) for each in (units, price, rate)))


def running_tasks(
    state: scheduler_state.SchedulerState, reservation: ReservationEntry
) -> list[int]:
    """Return a reservation's tasks that a worker holds; for a closed one, all that are yet to
    end."""
    if reservation.is_over:
        return list(reservation.holds)
    by_task = state.reservations.by_task
    held = (task for worker in state.cluster.workers.values() for task in worker.held)
    return sorted(task for task in held if by_task.get(task) is reservation)


def running_counts(state: scheduler_state.SchedulerState) -> Counter[int]:
    """Return how many tasks of each live reservation workers hold, by reservation number."""
    by_task = state.reservations.by_task
    held = (by_task.get(task) for worker in state.cluster.workers.values() for task in worker.held)
    return Counter(reservation.grant.id for reservation in held if reservation is not None)


def reservation_info(
    state: scheduler_state.SchedulerState,
    reservation: ReservationEntry,
    counts: Mapping[int, int] | None = None,
) -> ReservationInfo:
    """Return one reservation. `counts`: result of `running_counts`, for a caller that lists
    many."""
    if reservation.is_over:
        count = len(reservation.holds)
    elif counts is None:
        count = len(running_tasks(state, reservation))
    else:
        count = counts.get(reservation.grant.id, 0)
    return reservation.info(count, dedicated_workers.worker_count(state, reservation.grant.id))
