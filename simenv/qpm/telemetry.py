"""Answers of the telemetry and control bindings; `envelopes.plain` converts them to plain data.

The `qhw` records (device, coupling, calibration) share a head: schema, provider, device, metadata,
extensions, raw. Qubits are named by their number as text.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from simenv.qpm.states import Reason, ServiceState


class ShutdownRequest(msgspec.Struct, frozen=True):
    """Answer of `shutdown`; a second request gets the first answer with `repeated`."""

    status: str
    mode: str
    timeout_s: float | None
    reason: str | None
    state: ServiceState
    requested_at_ns: int
    repeated: bool = False


class ServiceStatus(msgspec.Struct, frozen=True):
    """Answer of `is_ready` and `get_service_status`."""

    state: ServiceState
    initialized: bool
    ready: bool
    accepting_requests: bool
    provider_ready: bool
    active_task_count: int
    active_reservation_count: int
    shutdown: ShutdownRequest | None


SUMMARY_SCHEMA = "qfw-qpm-service-summary-v1"
ALLOCATIONS_SCHEMA = "qfw-scheduler-allocation-list-v1"


class SummaryState(enum.StrEnum):
    """`state` of the service summary, in the terms of a batch scheduler's node states."""

    IDLE = "IDLE"  # ready, without active reservations or circuits
    BUSY = "BUSY"
    DOWN = "DOWN"  # not ready
    MAINT = "MAINT"  # paused or draining


class SchedulerAllocation(msgspec.Struct, frozen=True):
    """Live reservations of one allocation of a batch scheduler. A name that the reservation did not
    give is "". `state`: ACTIVE, or PENDING while none of them is active. `active_task_count`
    repeats `active_tasks` for newer hosts."""

    scheduler: str
    cluster_name: str
    allocation_id: str
    job_id: str
    user: str
    state: str
    active_tasks: int
    active_task_count: int
    workload_kind: str
    created_at_ns: int


class SchedulerAllocations(msgspec.Struct, frozen=True):
    """Answer of `list_scheduler_allocations`."""

    allocations: list[SchedulerAllocation]
    schema: str = ALLOCATIONS_SCHEMA


class SelfTest(msgspec.Struct, frozen=True):
    """Answer of `test`; `status`: "ok" or "not-ready"."""

    status: str
    rpc_ready: bool
    service: ServiceStatus


class Reconciliation(msgspec.Struct, frozen=True):
    """Answer of `reconcile_runtime_state`: lists of qtask ids by kind of fault."""

    target_id: str
    timestamp_ns: int
    pending_removed: list[int]
    stale_runtime_tasks: list[int]
    capacity_hold_faults: list[int]
    unfinished_scheduler_tasks: list[int]
    provider_handle_faults: list[int]
    directory_generation_faults: list[int]


class Visibility(msgspec.Struct, frozen=True):
    """Access class at the end of every snapshot; recorded, not enforced."""

    object: str
    access_class: str
    enforced: bool = False


class WorkBlock(msgspec.Struct, frozen=True):
    """Work that is held (waiting) or in flight. Units, credits and rate: shares of its tasks in
    their reservations."""

    qtask_count: int
    estimated_ns: int
    baseline_units: int = 0
    credits: int = 0
    rate_units: int = 0


class WaitEstimate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A forecast. `estimated_ns` None: not available, with the `reason`."""

    available: bool
    kind: str
    reason: str | None
    timestamp_ns: int
    confidence: str
    policy_context: dict[str, Any]
    estimated_ns: int | None = None


def unavailable(kind: str, timestamp_ns: int, policy: dict[str, Any]) -> WaitEstimate:
    """Make a forecast without an estimate."""
    return WaitEstimate(False, kind, Reason.UNAVAILABLE, timestamp_ns, "unavailable", policy)


class AvailableCapacity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Free capacity. `credits`, `rate_units`: not reserved; None if unlimited."""

    slots: int
    workers: int
    memory_bytes: int
    credits: int | None = None
    rate_units: int | None = None


class CapacitySnapshot(msgspec.Struct, frozen=True):
    """Answer of `get_capacity_snapshot`."""

    target_id: str
    device_id: str
    scope_id: str | None
    timestamp_ns: int
    access_class: str
    pending_qtask_count: int
    scheduler_queue_depth: int
    scheduler_task_count: int
    active_reservation_count: int
    held_capacity: WorkBlock
    in_flight_capacity: WorkBlock
    available_capacity: AvailableCapacity
    estimated_queued_device_time: WaitEstimate
    scheduler_policy: dict[str, Any]
    device_available: bool
    confidence: str
    telemetry: Visibility


class QueueMetrics(msgspec.Struct, frozen=True):
    """Answer of `get_queue_metrics`."""

    target_id: str
    device_id: str
    timestamp_ns: int
    access_class: str
    pending_qtask_count: int
    scheduler_depth: int
    scheduler_task_count: int
    active_task_count: int
    selected_task_count: int
    provider_inflight_count: int
    dispatch_limits: dict[str, int]
    held_capacity: WorkBlock
    in_flight_capacity: WorkBlock
    policy_state: dict[str, Any]
    wait_estimate: WaitEstimate
    estimated_start: WaitEstimate
    estimated_queued_device_time: WaitEstimate
    telemetry: Visibility


class LifecycleEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of the service."""

    event: str
    target_id: str
    timestamp_ns: int
    reason: str | None = None
    details: dict[str, Any] | None = None
    source: str | None = None


class LifecycleTelemetry(msgspec.Struct, frozen=True):
    """Answer of `get_service_lifecycle_telemetry`."""

    target_id: str
    timestamp_ns: int
    access_class: str
    lifecycle_events: list[LifecycleEvent]
    audit_records: list[dict[str, Any]]
    reconciliation_faults: list[dict[str, Any]]
    telemetry: Visibility


class DeviceHead(msgspec.Struct, frozen=True, omit_defaults=True):
    """`device` of a qhw record."""

    id: str
    name: str
    version: str
    num_qubits: int
    technology: str = "simulator"
    provider_device_id: str | None = None


class QhwRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Common head of the qhw records."""

    schema: str
    provider: str
    device: dict[str, Any]
    metadata: dict[str, Any]
    extensions: dict[str, Any]
    raw: dict[str, Any]


class QhwDevice(QhwRecord, frozen=True, kw_only=True):
    """Device record. `qubits`: [{"id": str}]."""

    qubits: list[dict[str, str]]


class QhwCoupling(QhwRecord, frozen=True, kw_only=True):
    """Coupling record. `coupling`: nodes, edges, directed, source; `operations`: name, arity,
    supported_loci."""

    coupling: dict[str, Any]
    operations: list[dict[str, Any]]


class QhwCalibration(QhwRecord, frozen=True, kw_only=True):
    """Calibration record. `calibration`: summaries and numbers of the measured figures."""

    calibration: dict[str, Any]
