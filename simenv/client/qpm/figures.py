"""The service's figures as snapshots of the contract. Pure: values in, values out.

Admission is unlimited, so nothing is credited; what is held is what waits, what is in flight is
what workers hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from simenv.model import Event, PoolInfo, ServiceInfo
from simenv.qpm.views import (
    Block,
    CapacitySnapshot,
    Estimate,
    LifecycleEvent,
    QueueMetrics,
    Room,
    Seen,
    unavailable,
)

SCHEDULER_POLICY: dict[str, Any] = {"policy_name": "priority", "options": {}}
ADMISSION_POLICY: dict[str, Any] = {"name": "unlimited", "options": {}}
UNLIMITED_DISPATCH = {"max_inflight": 0}
_EVENTS = {
    "service.started": "service-restart",
    "service.listens": "service-registration",
    "service.draining": "scheduler-draining",
    "service.stopped": "service-deregistration",
    "worker.lost": "peer-lost",
    "worker.ready": "service-recovered",
    "pool.quarantined": "service-timeout",
}
OTHER_EVENT = "service-state-change"


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


def capacity(
    info: ServiceInfo,
    pools: Sequence[PoolInfo],
    device_id: str,
    scope_id: str | None,
    access: str,
    now_ns: int,
) -> CapacitySnapshot:
    waiting, running = _waiting(info, pools), _running(info, pools)
    return CapacitySnapshot(
        target_id=info.name,
        device_id=device_id,
        scope_id=scope_id,
        timestamp_ns=now_ns,
        access_class=access,
        pending_qtask_count=0,
        scheduler_queue_depth=waiting,
        scheduler_task_count=waiting + running,
        active_reservation_count=0,
        held_capacity=_held(info, pools),
        in_flight_capacity=_in_flight(info, pools),
        available_capacity=Room(
            slots=info.slots - info.slots_granted,
            workers=sum(pool.workers - pool.busy for pool in pools),
            memory_bytes=info.memory_bytes,
        ),
        estimated_queued_device_time=_queued_time(pools, now_ns),
        scheduler_policy=SCHEDULER_POLICY,
        device_available=is_available(pools),
        confidence="observed-controller-state",
        telemetry=Seen("capacity-snapshot", access),
    )


def queue(
    info: ServiceInfo, pools: Sequence[PoolInfo], device_id: str, access: str, now_ns: int
) -> QueueMetrics:
    waiting, running = _waiting(info, pools), _running(info, pools)
    policy = {"scheduler": SCHEDULER_POLICY, "admission": ADMISSION_POLICY}
    return QueueMetrics(
        target_id=info.name,
        device_id=device_id,
        timestamp_ns=now_ns,
        access_class=access,
        pending_qtask_count=0,
        scheduler_depth=waiting,
        scheduler_task_count=waiting + running,
        active_task_count=running,
        selected_task_count=0,
        provider_inflight_count=running,
        dispatch_limits=UNLIMITED_DISPATCH,
        held_capacity=_held(info, pools),
        in_flight_capacity=_in_flight(info, pools),
        policy_state=policy,
        wait_estimate=unavailable("wait", now_ns, policy),
        estimated_start=unavailable("start", now_ns, policy),
        estimated_queued_device_time=_queued_time(pools, now_ns),
        telemetry=Seen("queue-metrics", access),
    )


def lifecycle(target_id: str, event: Event) -> LifecycleEvent:
    """An event of ours under the contract's name; our own name stands in `details`."""
    return LifecycleEvent(
        event=_EVENTS.get(event.kind, OTHER_EVENT),
        target_id=target_id,
        timestamp_ns=round(event.time_s * 1e9),
        reason=event.message or None,
        details={"kind": event.kind, "subject": event.subject, "seq": event.seq},
        source="simenv",
    )


def _is_whole(info: ServiceInfo, pools: Sequence[PoolInfo]) -> bool:
    return len(pools) == len(info.pools)


def _waiting(info: ServiceInfo, pools: Sequence[PoolInfo]) -> int:
    return info.queued if _is_whole(info, pools) else sum(pool.waiting for pool in pools)


def _running(info: ServiceInfo, pools: Sequence[PoolInfo]) -> int:
    return info.running if _is_whole(info, pools) else sum(pool.busy for pool in pools)


def _held(info: ServiceInfo, pools: Sequence[PoolInfo]) -> Block:
    return Block(_waiting(info, pools), _ns(sum(pool.backlog_us for pool in pools)))


def _in_flight(info: ServiceInfo, pools: Sequence[PoolInfo]) -> Block:
    return Block(_running(info, pools), _ns(sum(pool.held_us for pool in pools)))


def _queued_time(pools: Sequence[PoolInfo], now_ns: int) -> Estimate:
    return Estimate(
        available=True,
        kind="queued-device-time",
        reason=None,
        timestamp_ns=now_ns,
        confidence="estimated",
        policy_context={"scheduler": SCHEDULER_POLICY, "admission": ADMISSION_POLICY},
        estimated_ns=_ns(sum(pool.backlog_us for pool in pools)),
    )


def _ns(us: float) -> int:
    return round(1e3 * us)
