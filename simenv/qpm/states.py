"""Names of states, outcomes and reasons, and the mapping of simenv's task states to them.

`STATE_MAP` is the only such mapping; docs/guides/qpm.md shows it as a table.
"""

from __future__ import annotations

import enum

import msgspec

from simenv.model import TaskInfo, TaskState


class Lifecycle(enum.StrEnum):
    """`lifecycle_state` of an envelope of revision 2."""

    CREATED = "created"
    CAPACITY_HELD = "capacity-held"
    PENDING_CAPACITY = "pending-capacity"
    QUEUED = "queued"
    SELECTED = "selected"
    RESOURCES_CONSUMED = "resources-consumed"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
    INVALID_RESERVATION = "invalid-reservation"
    MISSING_RESERVATION = "missing-reservation"
    NO_READY_COMPLETION = "no-ready-completion"
    NO_LONGER_RETAINED = "no-longer-retained"


class Outcome(enum.StrEnum):
    """`outcome` of an envelope of revision 2; the last two answer one call and are no states."""

    ACCEPTED = "ACCEPTED"
    DELAYED = "DELAYED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_RESERVATION = "INVALID_RESERVATION"
    MISSING_RESERVATION = "MISSING_RESERVATION"
    IN_PROGRESS = "IN_PROGRESS"
    NO_LONGER_RETAINED = "NO_LONGER_RETAINED"
    TIMEOUT = "TIMEOUT"
    CANCEL_PENDING = "CANCEL_PENDING"


OUTCOMES: dict[Lifecycle, Outcome] = {
    Lifecycle.CREATED: Outcome.ACCEPTED,
    Lifecycle.CAPACITY_HELD: Outcome.ACCEPTED,
    Lifecycle.PENDING_CAPACITY: Outcome.DELAYED,
    Lifecycle.QUEUED: Outcome.ACCEPTED,
    Lifecycle.SELECTED: Outcome.ACCEPTED,
    Lifecycle.RESOURCES_CONSUMED: Outcome.ACCEPTED,
    Lifecycle.SUBMITTED: Outcome.ACCEPTED,
    Lifecycle.COMPLETED: Outcome.COMPLETED,
    Lifecycle.FAILED: Outcome.FAILED,
    Lifecycle.CANCELLED: Outcome.CANCELLED,
    Lifecycle.UNKNOWN: Outcome.UNKNOWN,
    Lifecycle.INVALID_RESERVATION: Outcome.INVALID_RESERVATION,
    Lifecycle.MISSING_RESERVATION: Outcome.MISSING_RESERVATION,
    Lifecycle.NO_READY_COMPLETION: Outcome.IN_PROGRESS,
    Lifecycle.NO_LONGER_RETAINED: Outcome.NO_LONGER_RETAINED,
}


class Reason(enum.StrEnum):
    """`reason` of an envelope or record."""

    SYNC_TIMEOUT = "sync-timeout"
    SUBMISSION_FAILED = "provider-submission-failed"
    EXECUTION_FAILED = "provider-execution-failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    ALREADY_COMPLETED = "already-completed"
    ALREADY_CANCELLED = "already-cancelled"
    ALREADY_FAILED = "already-failed"
    NOT_FOUND = "not-found"
    NOT_READY = "completion-not-ready"
    RESERVATION_REQUIRED = "reservation-required"
    RESERVATION_MISMATCH = "reservation-mismatch"
    RESERVATION_NOT_FOUND = "reservation-not-found"
    RESERVATION_NOT_ACTIVE = "reservation-not-active"
    RESERVATION_EXCEEDED = "reservation-exceeded"
    CREDENTIAL = "credential-binding-failed"
    QUIESCING = "service-quiescing"
    CANCEL_PENDING = "provider-cancel-pending"
    UNSUPPORTED = "provider-unsupported"
    UNAVAILABLE = "telemetry-unavailable"
    DRAINING = "service-draining"
    NO_LONGER_RETAINED = "completion-no-longer-retained"
    # Reasons why a completion is no longer kept.
    READ = "completion-read"
    RETURNED = "returned-to-caller"
    DELETED = "deleted"
    TOO_OLD = "retention-age"
    TOO_MANY = "max-records-exceeded"
    TOO_LARGE = "max-bytes-exceeded"
    CLOSED = "retention-reservation"


class StateMapping(msgspec.Struct, frozen=True):
    """A task state in the terms of the contract.

    `rc`: code of a record; None: not ended, so that revision 1 raises InProgressError. `reason`:
    reason in the record of a failure. `already`: reason in the answer to a cancellation that comes
    too late.
    """

    lifecycle: Lifecycle
    rc: int | None = None
    reason: Reason | None = None
    already: Reason | None = None

    @property
    def outcome(self) -> Outcome:
        return OUTCOMES[self.lifecycle]


STATE_MAP: dict[TaskState, StateMapping] = {
    TaskState.QUEUED: StateMapping(Lifecycle.QUEUED),
    TaskState.RUNNING: StateMapping(Lifecycle.SUBMITTED),
    TaskState.DONE: StateMapping(Lifecycle.COMPLETED, 0, None, Reason.ALREADY_COMPLETED),
    TaskState.FAILED: StateMapping(
        Lifecycle.FAILED, 1, Reason.EXECUTION_FAILED, Reason.ALREADY_FAILED
    ),
    TaskState.CANCELLED: StateMapping(
        Lifecycle.CANCELLED, 2, Reason.CANCELLED, Reason.ALREADY_CANCELLED
    ),
    TaskState.EXPIRED: StateMapping(Lifecycle.FAILED, 3, Reason.EXPIRED, Reason.ALREADY_FAILED),
}


def under_way(info: TaskInfo) -> Lifecycle:
    """Lifecycle state of an unfinished task. A QUEUED task is pending capacity (it waits for
    credits of its reservation), selected (its worker has not started it) or queued."""
    if info.state is not TaskState.QUEUED:
        return STATE_MAP[info.state].lifecycle
    if info.parked:
        return Lifecycle.PENDING_CAPACITY
    return Lifecycle.SELECTED if info.worker else STATE_MAP[info.state].lifecycle


class ServiceState(enum.StrEnum):
    """`state` of the service status."""

    RUNNING = "running"
    DRAINING = "draining"
    QUIESCING = "quiescing"
    STOPPING = "stopping"
    STOPPED = "stopped"
