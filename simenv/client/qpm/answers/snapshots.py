"""The service's figures as snapshots of the contract. Pure: values in, values out.

Counts and estimates are of the device as a whole, whoever's tasks they are. Held is what waits, for
a worker or for credits; in flight is what workers have.

The service's events under the contract's names; our own name of each stands in `details`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from simenv.model import Event, HeldCapacity, PoolInfo, ServiceInfo, TargetInfo
from simenv.qpm.telemetry import (
    AvailableCapacity,
    CapacitySnapshot,
    LifecycleEvent,
    QueueMetrics,
    Visibility,
    WaitEstimate,
    WorkBlock,
    unavailable,
)

ACTIVE = "active"
CONFIDENCE = "observed-controller-state"
ESTIMATED = "estimated"


class DeviceSnapshot(msgspec.Struct, frozen=True):
    """What was seen of a device at `now_ns`. `room`: units of its admission policy that are not
    reserved; None where they are unlimited. `begins`: it is neither paused nor draining."""

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
        """In which order its tasks go."""
        return {"policy_name": self.target.policy, "options": dict(self.target.options)}

    @property
    def policies(self) -> dict[str, Any]:
        """What estimates depend on."""
        return {"scheduler": self.scheduler, "admission": self.admission}

    @property
    def is_available(self) -> bool:
        """Would a circuit sent now be begun, once its turn comes?"""
        return self.begins and is_available(self.pools)


def begins(target: TargetInfo, overall: TargetInfo) -> bool:
    """What is said of all devices together holds for each."""
    return target.state == overall.state == ACTIVE


def is_available(pools: Sequence[PoolInfo]) -> bool:
    """Can a circuit sent now be run? A pool that is starting, or starts on demand, will run it."""
    return any(pool.state != "quarantined" for pool in pools)


def pool(info: PoolInfo) -> dict[str, Any]:
    """One pool in short."""
    return {
        "name": info.name,
        "engine": info.engine,
        "state": info.state,
        "reason": info.reason,
        "workers": info.workers,
        "busy": info.busy,
        "waiting": info.waiting,
    }


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
        available_capacity=_room(seen),
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
    """What waits. Parked tasks hold nothing yet: they are counted as pending."""
    return _block(target.queued, target.queued_ns, target.held)


def in_flight(seen: DeviceSnapshot) -> WorkBlock:
    """What workers have."""
    expected_ns = round(1e3 * sum(pool.held_us for pool in seen.pools))
    return _block(seen.target.sent + seen.target.running, expected_ns, seen.target.in_flight)


def wait(seen: DeviceSnapshot) -> WaitEstimate:
    """Until a circuit sent now would begin."""
    return _forecast(seen, "wait", 0)


def start(seen: DeviceSnapshot) -> WaitEstimate:
    """When a circuit sent now would begin, ns since 1970."""
    return _forecast(seen, "start", seen.now_ns)


def queued_time(seen: DeviceSnapshot) -> WaitEstimate:
    """Expected work that waits, on one slot."""
    return _estimate(seen, "queued-device-time", seen.target.queued_ns)


def _forecast(seen: DeviceSnapshot, kind: str, since_ns: int) -> WaitEstimate:
    if seen.target.wait_ns < 0:
        return unavailable(kind, seen.now_ns, seen.policies)
    return _estimate(seen, kind, since_ns + seen.target.wait_ns)


def _estimate(seen: DeviceSnapshot, kind: str, estimated_ns: int) -> WaitEstimate:
    return WaitEstimate(True, kind, None, seen.now_ns, ESTIMATED, seen.policies, estimated_ns)


def _block(count: int, expected_ns: int, units: HeldCapacity) -> WorkBlock:
    return WorkBlock(count, expected_ns, units.units, units.credits, units.rate)


def _room(seen: DeviceSnapshot) -> AvailableCapacity:
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
    """One of `target_id`'s."""
    return LifecycleEvent(
        event=_NAMES.get(event.kind, OTHER_EVENT),
        target_id=target_id,
        timestamp_ns=round(event.time_s * 1e9),
        reason=event.message or None,
        details={"kind": event.kind, "subject": event.subject, "seq": event.seq},
        source="simenv",
    )
