"""Snapshots of capacity and queue, and lifecycle events, in the contract's terms. Pure.

Counts and estimates cover the whole device, that is, the tasks of all callers. Held tasks wait for
a worker or for credits; in-flight tasks are assigned to workers. A lifecycle event has the
contract's name; `details` has simenv's own name of the event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from simenv.client.qpm.requests.reservation_request import ALLOCATION
from simenv.model import (
    Event,
    HeldCapacity,
    PoolInfo,
    ReservationInfo,
    ReservationState,
    ServiceInfo,
    TargetInfo,
)
from simenv.qpm.telemetry import (
    AvailableCapacity,
    CapacitySnapshot,
    LifecycleEvent,
    QueueMetrics,
    SchedulerAllocation,
    Visibility,
    WaitEstimate,
    WorkBlock,
    unavailable,
)

ACTIVE = "active"
CONFIDENCE = "observed-controller-state"
ESTIMATED = "estimated"


class DeviceSnapshot(msgspec.Struct, frozen=True):
    """State of a device at `now_ns`. `room`: units of its admission policy that are not reserved,
    None if unlimited. `begins`: True if the device is neither paused nor draining."""

    target_id: str
    device_id: str
    access_class: str
    now_ns: int
    service: ServiceInfo
    pools: tuple[PoolInfo, ...]
    target: TargetInfo
    admission: dict[str, Any]  # its admission policy, as it is configured
    room: int | None
    begins: bool

    @property
    def scheduler(self) -> dict[str, Any]:
        """Queue policy of the device, with its options."""
        return {"policy_name": self.target.policy, "options": dict(self.target.options)}

    @property
    def policies(self) -> dict[str, Any]:
        """Policies on which wait estimates depend."""
        return {"scheduler": self.scheduler, "admission": self.admission}

    @property
    def is_available(self) -> bool:
        """True if a circuit that is submitted now would start in its turn."""
        return self.begins and is_available(self.pools)


def begins(target: TargetInfo, overall: TargetInfo) -> bool:
    """Return whether the device starts tasks. A pause or drain of all devices (`overall`) applies
    to each."""
    return target.state == overall.state == ACTIVE


def is_available(pools: Sequence[PoolInfo]) -> bool:
    """Return whether a pool can run a circuit. A pool that is starting, or starts on demand,
    can."""
    return any(pool.state != "quarantined" for pool in pools)


def hosts(info: ServiceInfo) -> list[str]:
    """Nodes on which the workers of the pools run; before the first worker: all nodes."""
    own = {name for pool in info.pools for name in pool.nodes}
    return [node.name for node in info.nodes if node.name in own or not own]


def pool(info: PoolInfo) -> dict[str, Any]:
    """Summary of one pool."""
    return {
        "name": info.name,
        "engine": info.engine,
        "state": info.state,
        "reason": info.reason,
        "workers": info.workers,
        "busy": info.busy,
        "waiting": info.waiting,
    }


_AllocationNames = tuple[str, str, str, str, str]


def allocations(infos: Iterable[ReservationInfo]) -> list[SchedulerAllocation]:
    """Live reservations by the allocation of a batch scheduler that they name; without those that
    name neither an allocation nor a job."""
    groups: dict[_AllocationNames, list[ReservationInfo]] = {}
    for info in infos:
        scheduler, cluster, allocation = (dict(info.metadata).get(name, "") for name in ALLOCATION)
        names = (scheduler, cluster, allocation, info.job, info.user or info.owner)
        if allocation or info.job:
            groups.setdefault(names, []).append(info)
    return [_allocation(names, group) for names, group in groups.items()]


def _allocation(names: _AllocationNames, group: list[ReservationInfo]) -> SchedulerAllocation:
    tasks = sum(info.parked + info.waiting + info.running for info in group)
    states = [info.state for info in group]
    state = ReservationState.ACTIVE if ReservationState.ACTIVE in states else states[0]
    return SchedulerAllocation(
        *names, state=state.upper(), active_tasks=tasks, active_task_count=tasks,
        workload_kind=group[0].workload_kind, created_at_ns=min(info.created_ns for info in group),
    )  # fmt: skip


def capacity(seen: DeviceSnapshot, scope_id: str | None) -> CapacitySnapshot:
    target = seen.target
    return CapacitySnapshot(
        target_id=seen.target_id,
        device_id=seen.device_id,
        scope_id=scope_id,
        timestamp_ns=seen.now_ns,
        access_class=seen.access_class,
        pending_qtask_count=target.parked,
        scheduler_queue_depth=target.queued,
        scheduler_task_count=target.queued + target.sent + target.running,
        active_reservation_count=target.reservations,
        held_capacity=held(target),
        in_flight_capacity=in_flight(seen),
        available_capacity=_available_capacity(seen),
        estimated_queued_device_time=queued_time(seen),
        scheduler_policy=seen.scheduler,
        device_available=seen.is_available,
        confidence=CONFIDENCE,
        telemetry=Visibility("capacity-snapshot", seen.access_class),
    )


def queue(seen: DeviceSnapshot) -> QueueMetrics:
    target = seen.target
    return QueueMetrics(
        target_id=seen.target_id,
        device_id=seen.device_id,
        timestamp_ns=seen.now_ns,
        access_class=seen.access_class,
        pending_qtask_count=target.parked,
        scheduler_depth=target.queued,
        scheduler_task_count=target.queued + target.sent + target.running,
        active_task_count=target.running,
        selected_task_count=target.sent,
        provider_inflight_count=target.running,
        dispatch_limits={"max_inflight": target.max_inflight},
        held_capacity=held(target),
        in_flight_capacity=in_flight(seen),
        policy_state=seen.policies,
        wait_estimate=wait(seen),
        estimated_start=start(seen),
        estimated_queued_device_time=queued_time(seen),
        telemetry=Visibility("queue-metrics", seen.access_class),
    )


def held(target: TargetInfo) -> WorkBlock:
    """Waiting tasks. Parked tasks hold no capacity: they are counted as pending."""
    return _block(target.queued, target.queued_ns, target.held)


def in_flight(seen: DeviceSnapshot) -> WorkBlock:
    """Tasks that are assigned to workers."""
    expected_ns = round(1e3 * sum(pool.held_us for pool in seen.pools))
    return _block(seen.target.sent + seen.target.running, expected_ns, seen.target.in_flight)


def wait(seen: DeviceSnapshot) -> WaitEstimate:
    """Estimated wait of a circuit that is submitted now, ns."""
    return _forecast(seen, "wait", 0)


def start(seen: DeviceSnapshot) -> WaitEstimate:
    """Estimated start of a circuit that is submitted now, ns since 1970."""
    return _forecast(seen, "start", seen.now_ns)


def queued_time(seen: DeviceSnapshot) -> WaitEstimate:
    """Expected work of the waiting tasks on one slot, ns."""
    return _estimate(seen, "queued-device-time", seen.target.queued_ns)


def _forecast(seen: DeviceSnapshot, kind: str, since_ns: int) -> WaitEstimate:
    if seen.target.wait_ns < 0:
        return unavailable(kind, seen.now_ns, seen.policies)
    return _estimate(seen, kind, since_ns + seen.target.wait_ns)


def _estimate(seen: DeviceSnapshot, kind: str, estimated_ns: int) -> WaitEstimate:
    return WaitEstimate(True, kind, None, seen.now_ns, ESTIMATED, seen.policies, estimated_ns)


def _block(count: int, expected_ns: int, units: HeldCapacity) -> WorkBlock:
    return WorkBlock(count, expected_ns, units.units, units.credits, units.rate)


def _available_capacity(seen: DeviceSnapshot) -> AvailableCapacity:
    info, name = seen.service, seen.admission["name"]
    return AvailableCapacity(
        slots=info.slots - info.slots_granted,
        workers=sum(pool.workers - pool.busy for pool in seen.pools),
        memory_bytes=sum(node.memory_bytes - node.memory_granted for node in info.nodes),
        credits=seen.room if name == "credit" else None,
        rate_units=seen.room if name == "rate" else None,
    )


OTHER_EVENT = "service-state-change"
_NAMES = {
    "service.started": "service-restart",
    "service.listens": "service-registration",
    "service.resumed": "service-recovered",
    "service.draining": "service-shutdown-requested",
    "service.stopped": "service-deregistration",
    "allocation.ends": "service-shutdown-requested",
    "device.described": "binding-attached",
    "device.paused": "scheduler-paused",
    "device.resumed": "scheduler-resumed",
    "device.draining": "scheduler-draining",
    "device.ordered": "scheduler-policy-change",
    "device.bounded": "scheduler-dispatch-limits-change",
    "worker.lost": "peer-lost",
    "worker.killed": "service-timeout",
    "worker.ready": "service-recovered",
    "node.lost": "peer-lost",
    "node.back": "service-recovered",
    "pool.resumed": "service-recovered",
    "task.requeued": "reconciliation",
    "journal.damaged": "reconciliation-fault",
    "result.damaged": "reconciliation-fault",
    "history.removed": "retention-purge",
}


def lifecycle(target_id: str, event: Event) -> LifecycleEvent:
    """Convert an event of the service into a lifecycle event of `target_id`."""
    return LifecycleEvent(
        event=_NAMES.get(event.kind, OTHER_EVENT),
        target_id=target_id,
        timestamp_ns=round(event.time_s * 1e9),
        reason=event.message or None,
        details={"kind": event.kind, "subject": event.subject, "seq": event.seq},
        source="simenv",
    )
