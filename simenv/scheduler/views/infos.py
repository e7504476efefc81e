"""Pools, nodes, devices and reservations as clients see them.

Figures are counted by reservations and workers, never by waiting tasks: these may be very many.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from simenv.model import (
    HeldCapacity,
    NodeInfo,
    PoolInfo,
    ReservationInfo,
    TargetInfo,
    WorkerState,
)
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.policies import MOST
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.routing import ranks
from simenv.scheduler.state.device_controls import PAUSED
from simenv.scheduler.state.devices import check_device, inflight, parked, pools_of
from simenv.scheduler.state.nodes import NodeState
from simenv.scheduler.state.pools import Pool
from simenv.scheduler.state.state import SchedulerState
from simenv.scheduler.views.forecast import Forecast


def closed_pools(state: SchedulerState) -> tuple[tuple[str, str], ...]:
    """Return the pools that accept no program now, with the reasons."""
    closed = []
    for pool in state.pools.values():
        info = pool_info(state, pool)
        reason = state.controls.closed_state(pool.device)
        if reason or info.state != "up":
            closed.append((info.name, reason or info.state))
    return tuple(closed)


def target_info(state: SchedulerState, device: str) -> TargetInfo:
    """Return the controls of a device and the counts of its tasks. Raises NotFoundError."""
    check_device(state, device)
    control, order = state.controls.of(device), state.controls.queue_policy(device)
    pools = pools_of(state, device)
    sent, running = inflight(state, device)
    live, held, in_flight = device_usage(state, device)
    options = control.options if control.policy else state.controls.of("").options
    return TargetInfo(
        device=device,
        state=control.state,
        version=control.version,
        policy=order.policy,
        options=options,
        max_inflight=control.max_inflight,
        pause_reason=control.reason if control.state == PAUSED else "",
        drain_mode=control.mode,
        drain_timeout_s=control.timeout_s,
        drain_started_ns=control.started_ns,
        queued=sum(len(pool.queue) for pool in pools),
        parked=parked(state, device),
        sent=sent,
        running=running,
        queued_ns=round(sum(pool.queue.backlog_us for pool in pools) * 1e3),
        reservations=live,
        held=held,
        in_flight=in_flight,
    )


def pool_infos(state: SchedulerState, now_ns: int = 0) -> list[PoolInfo]:
    """Return all pools; `now_ns` 0: without forecasts of their waits."""
    listed = [pool_info(state, pool) for pool in state.pools.values()]
    if not now_ns:
        return listed
    forecast = Forecast(state, now_ns)
    waits_us = map(forecast.pool_us, state.pools.values())
    return [
        msgspec.structs.replace(info, wait_us=wait_us)
        for info, wait_us in zip(listed, waits_us, strict=True)
    ]


def pool_info(state: SchedulerState, pool: Pool) -> PoolInfo:
    """Return one pool, without a forecast."""
    spec, workers = pool.spec, list(pool.workers.values())
    ready = sum(w.state in (WorkerState.IDLE, WorkerState.BUSY) for w in workers)
    busy = sum(w.state == WorkerState.BUSY for w in workers)
    reason = pool.reason or pool.shortage
    if pool.is_quarantined:
        status = "quarantined"
    elif pool.failures:
        status = "degraded"
    else:
        status = "up" if ready >= spec.min else "starting"
    return PoolInfo(
        name=spec.name,
        engine=spec.engine,
        workers=ready,
        target=max(spec.min, pool.live()),
        busy=busy,
        waiting=len(pool.queue),
        state=status,
        reason=reason,
        backlog_us=pool.queue.backlog_us,
        held_us=sum(worker.held_us for worker in workers),
        ranks=spec.ranks,
        least=spec.min,
        most=spec.max,
        max_qubits=pool.hardware_qubits or ranks.widest_of(spec, state.capacity().limits),
        nodes=tuple(dict.fromkeys(h.node.name for w in workers for h, _ in w.host_ranks)),
        on_demand=bool(pool.base),
        kept=pool.kept(),
    )


def node_infos(state: SchedulerState) -> list[NodeInfo]:
    """Return all nodes."""
    return [node_info(state, host) for host in state.nodes.hosts.values()]


def node_info(state: SchedulerState, host: NodeState) -> NodeInfo:
    """Return one node and the workers on it."""
    node = host.node
    return NodeInfo(
        name=node.name,
        state=host.state,
        reason=host.lost or host.drained,
        slots=node.slots,
        slots_granted=node.slots - host.free_slots,
        memory_bytes=node.memory_bytes,
        memory_granted=node.memory_bytes - host.free_memory,
        workers=sum(any(h is host for h, _ in w.host_ranks) for w in state.workers.values()),
        ranks=host.ranks,
        gpus=node.gpus,
        features=node.features,
    )


def device_usage(state: SchedulerState, device: str) -> tuple[int, HeldCapacity, HeldCapacity]:
    """Return (active reservations, capacity held by tasks without a worker, capacity held by tasks
    with one).

    The values are of one device, or of all devices for "".
    """
    ledger = state.reservations
    reservations = [r for r in ledger.all.values() if device in ("", r.grant.ask.device)]
    assigned: dict[int, int] = {}  # units by reservation
    if ledger.by_task:
        for worker in state.workers.values():
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
    return HeldCapacity(min(MOST, units), min(MOST, price), min(MOST, rate))


def running_tasks(state: SchedulerState, reservation: ReservationEntry) -> list[int]:
    """Return a reservation's tasks that a worker holds; for a closed one, all that are yet to
    end."""
    if reservation.is_over:
        return list(reservation.holds)
    by_task = state.reservations.by_task
    held = (task for worker in state.workers.values() for task in worker.held)
    return sorted(task for task in held if by_task.get(task) is reservation)


def running_counts(state: SchedulerState) -> Counter[int]:
    """Return how many tasks of each live reservation workers hold, by reservation number."""
    by_task = state.reservations.by_task
    held = (by_task.get(task) for worker in state.workers.values() for task in worker.held)
    return Counter(reservation.grant.id for reservation in held if reservation is not None)


def reservation_info(
    state: SchedulerState, reservation: ReservationEntry, counts: Mapping[int, int] | None = None
) -> ReservationInfo:
    """Return one reservation. `counts`: result of `running_counts`, for a caller that lists
    many."""
    if reservation.is_over:
        count = len(reservation.holds)
    elif counts is None:
        count = len(running_tasks(state, reservation))
    else:
        count = counts.get(reservation.grant.id, 0)
    return reservation.info(count, dedicated_workers.count(state, reservation.grant.id))
