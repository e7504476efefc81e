"""Answers of the control, scheduler and admission bindings.

Ids are whole numbers from 1 on; times ending in `_ns` are ns since 1970, or durations. A name that
was not given is None: these fields are always present.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from simenv.model import AdmissionReason, ReservationState
from simenv.qpm.envelopes import ServiceState


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


class SchedulerControl(msgspec.Struct, frozen=True):
    """Pause and drain state of a device. `dispatch_depth`: tasks that are assigned to workers."""

    paused: bool
    draining: bool
    drain_mode: str | None
    drain_timeout_s: float | None
    drain_started_at_ns: int | None
    pause_reason: str | None
    dispatch_depth: int


class SchedulerPolicy(msgspec.Struct, frozen=True):
    """Queue policy of a device."""

    policy_name: str
    options: dict[str, str]


class DispatchLimits(msgspec.Struct, frozen=True):
    """Limits of dispatch. `max_inflight`: tasks assigned to workers at a time; 0: no limit."""

    max_inflight: int


class SchedulerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `get_scheduler_status`. Counts cover all callers: `task_count` unfinished tasks, of
    these `pending_capacity_count` tasks that wait for credits and `runtime_task_count` all others;
    of the tasks with a worker, `selected_task_count` have not started and `provider_inflight_count`
    have."""

    target_id: str
    state: str
    scheduler_available: bool
    threading_mode: str
    policy: SchedulerPolicy
    control: SchedulerControl
    versions: dict[str, int]
    task_count: int
    pending_capacity_count: int
    runtime_task_count: int
    selected_task_count: int
    provider_inflight_count: int
    dispatch_limits: DispatchLimits


class Steered(msgspec.Struct, frozen=True):
    """Answer of pause, resume and drain."""

    status: str
    version: int
    target_id: str
    control: SchedulerControl


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `get_scheduler_queue_state`: envelopes of the tasks that came through this QPM,
    with `include_restricted` also of others that its owner may see."""

    target_id: str
    include_restricted: bool
    pending_capacity: list[dict[str, Any]]
    scheduler_task_count: int
    selected_qtask_ids: list[int]
    provider_inflight_qtask_ids: list[int]
    dispatch_limits: DispatchLimits
    runtime_tasks: list[dict[str, Any]]


DECISIONS = {"accepted": 1, "delayed": 2, "rejected": 3}
STATE_CODES = {state: code for code, state in enumerate(ReservationState, 1)}


def reason_text(code: int) -> str:
    """Text of a reason code for hosts: `accepted`, or `reason-7`. The code is formatted as a plain
    number: in a process that initialises Python twice, as DEFw does, the text of an IntEnum is its
    repr."""
    is_accepted = code in (AdmissionReason.NONE, AdmissionReason.ACCEPTED)
    return "accepted" if is_accepted else f"reason-{int(code):d}"


class AdmissionDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answer of `evaluate` and `reserve`. `reservation_id`: set by an accepted `reserve` only.
    `state`: state of the service if that is the reason of a rejection. `bound_ns`: a task of the
    reservation starts within this time after its acceptance; 0: no bound."""

    status: str
    decision: int
    request_id: str | None
    device_id: str
    scope_id: str | None
    reservation_id: int | None
    reason: str
    reason_code: int
    credits_required: int
    rate_required: int
    capacity_available: int
    estimated_total_ns: int
    estimated_start_ns: int
    estimated_finish_ns: int
    retry_after_ns: int
    message: str
    bound_ns: int = 0
    state: str | None = None


class ReservationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `get_reservation`. `*_consumed`: spent units and units held for unfinished
    tasks."""

    reservation_id: int
    request_id: str | None
    device_id: str
    scope_id: str | None
    user_id: str | None
    job_id: str | None
    workload_kind: str
    state: ReservationState
    state_code: int
    credits_reserved: int
    credits_consumed: int
    rate_reserved: int
    rate_consumed: int
    quantum_budget_ns: int
    estimated_total_ns: int
    actual_total_ns: int
    created_at_ns: int
    expires_at_ns: int
    request_metadata: dict[str, str]


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of `renew`, `release` and `cancel`. The status "pending" means that tasks of the
    reservation have not ended; `pending_qtask_ids` lists those that came through this QPM."""

    status: str
    reservation_id: int
    reason: str | None = None
    pending_qtask_ids: list[int] | None = None


class ProfileRecord(msgspec.Struct, frozen=True):
    """Answer of `get_device_profile`; `configure_device_profile` adds a status."""

    version: int
    device_profile: dict[str, Any]


class Policy(msgspec.Struct, frozen=True):
    """Answer of `get_admission_policy`; `set_admission_policy` adds a status."""

    version: int
    configuration: dict[str, Any]
