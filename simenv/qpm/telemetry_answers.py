"""Answers of the telemetry bindings.

The `qhw` records (device, coupling, calibration) share a head: schema, provider, device, metadata,
extensions, raw. Qubits are named by their number as text. Times ending in `_ns` are ns since 1970,
or durations.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.qpm.envelopes import Reason


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


class TelemetryHistory(msgspec.Struct, frozen=True):
    """Answer of `get_telemetry_history`. `points`: of each step its begin in seconds since 1970,
    and mean, least and largest sample. Without a series: the names of all."""

    target_id: str
    timestamp_ns: int
    access_class: str
    series: str
    unit: str
    points: list[tuple[float, float, float, float]]
    names: list[str]
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
