"""Answers of the execution binding, and the names of states, outcomes and reasons.

Names of states, outcomes and reasons, and the mapping of simenv's task states to them. `STATE_MAP`
is the only such mapping; docs/reference/qpm.md shows it as a table.

Times ending in `_time` are float seconds since 1970, those ending in `_ns` integer nanoseconds; -1
marks a time that was not reached. A field whose default is None is left out where it is None.
"""

from __future__ import annotations

import enum
from typing import Any

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


# The outcome has the name of the state; other states are ACCEPTED, with two exceptions.
OUTCOMES: dict[Lifecycle, Outcome] = {
    **{state: Outcome.__members__.get(state.name, Outcome.ACCEPTED) for state in Lifecycle},
    Lifecycle.PENDING_CAPACITY: Outcome.DELAYED,
    Lifecycle.NO_READY_COMPLETION: Outcome.IN_PROGRESS,
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
    """A task state in the terms of the contract. `rc`: code of a record; None: not ended, so that
    revision 1 raises InProgressError. `reason`: reason in the record of a failure. `already`:
    reason in the answer to a cancellation that comes too late."""

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


NOT_REACHED = -1.0


class Times(msgspec.Struct, frozen=True):
    """The seven times of a record, in chronological order."""

    creation_time: float  # accepted
    resources_consumed_time: float  # granted to a worker
    launch_time: float  # sent to it
    exec_time: float  # begun
    completion_time: float  # ended
    cq_enqueue_time: float  # queued or pushed
    cq_dequeue_time: float  # set by read_cq


class Record(Times, frozen=True, kw_only=True, omit_defaults=True):
    """Completion record of revision 1. `result`: counts, or {"counts", "statevector"} if amplitudes
    were requested; a text if `rc` is not 0. `metadata`: see `CompletionMetadata`; left out if
    empty."""

    cid: str
    result: dict[str, Any] | str
    rc: int
    metadata: dict[str, Any] = {}


class CompletionEnvelope(Times, frozen=True, kw_only=True, omit_defaults=True):
    """Completion of revision 2. `result`: {"counts"} and, if requested, {"statevector"}; the counts
    of a failed circuit are empty."""

    cid: str
    qtask_id: int
    reservation_id: int | None
    outcome: Outcome
    result: dict[str, Any]
    rc: int
    completion_ready: bool
    qpm_cq_enqueue_time_ns: int
    qpm_cq_dequeue_time_ns: int
    scheduler_task_id: str | None = None
    poll_operation: str | None = None
    reason: str | None = None
    message: str | None = None
    metadata: dict[str, Any] = {}  # see `CompletionMetadata`


class PulseFacts(msgspec.Struct, frozen=True):
    """What is known of the run of a pulse sequence. A bit string has the atoms in this order, the
    first one as its first character."""

    atoms: list[str]  # names
    basis: str  # ground-rydberg, digital or XY
    occupations: list[float]  # probability of 1 of each atom, without errors of detection
    error: float  # estimated bound on 1 - fidelity of the evolution
    steps: int
    trajectories: int  # draws of the noise
    simulator: str


class CompletionMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Emulated device of a completion, and warnings for the caller; simenv's addition to the
    records of both revisions. Layouts list the device's qubit of each qubit of the circuit."""

    device: str | None = None
    snapshot: str | None = None  # SHA-256 of the calibration or noise model
    snapshot_age_s: float | None = None
    noise: dict[str, float] = {}  # factors of the request
    compiled: str | None = None
    initial_layout: list[int] | None = None
    layout: list[int] | None = None  # at the circuit's end
    gates: dict[str, int] | None = None  # gates that ran, by name
    warnings: list[str] = []
    device_time_s: float | None = None  # time of the task on the device
    pulses: PulseFacts | None = None


class Timeout(msgspec.Struct, frozen=True):
    """Reason of a `sync_run` that returned before the end of its circuit."""

    reason: Reason
    message: str
    timestamp_ns: int


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """Estimated wait of a task: `estimated_ns`, or the `reason` why there is no estimate."""

    available: bool
    reason: str | None = None
    kind: str | None = None
    estimated_ns: int | None = None
    confidence: str | None = None


UNKNOWN_WAIT = Wait(False, Reason.UNAVAILABLE)


def wait(us: float) -> Wait:
    """Make the estimate from a wait in microseconds; negative: unknown."""
    if us < 0:
        return UNKNOWN_WAIT
    return Wait(True, None, "wait", round(1e3 * us), "estimated")


class Access(msgspec.Struct, frozen=True):
    """Access class of an object; recorded, not enforced."""

    access_class: str = "caller-owned"
    object: str = "managed-qtask"
    field_visibility: dict[str, str] = {}


class StatusEnvelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The status envelope. `state` repeats `lifecycle_state` for older hosts."""

    outcome: Outcome
    lifecycle_state: Lifecycle
    state: Lifecycle
    cid: str | None = None
    qtask_id: int | None = None
    reservation_id: int | None = None
    scheduler_task_id: str | None = None
    provider_handle: str | None = None  # the worker that runs it
    scheduler_state: str | None = None  # our own name of the state
    wait_estimate: Wait | None = None
    pending_queue_position: int | None = None
    reason: str | None = None
    message: str | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    timeout: Timeout | None = None
    completion_ready: bool | None = None
    poll_operation: str | None = None
    evicted_at_ns: int | None = None
    retention_reason: str | None = None
    provider_cancel_status: str | None = None
    task_id: int | None = None
    provider_metadata: dict[str, Any] | None = None
    telemetry: Access | None = None


def status(lifecycle: Lifecycle, outcome: Outcome | None = None, **fields: Any) -> StatusEnvelope:
    """Make a status envelope; `outcome` replaces the default outcome of the state."""
    return StatusEnvelope(
        outcome=outcome or OUTCOMES[lifecycle],
        lifecycle_state=lifecycle,
        state=lifecycle,
        telemetry=Access(),
        **fields,
    )


class TaskTiming(msgspec.Struct, frozen=True):
    """Answer of `get_task_timing`; `timing` is empty for an unknown task."""

    task_id: int
    reservation_id: int | None
    lifecycle_state: Lifecycle
    timing: dict[str, float]


class Registered(msgspec.Struct, frozen=True):
    """Answer of `register_event_notification`."""

    status: str
    class_id: str
    registration_count: int


class EventEnvelope(msgspec.Struct, frozen=True):
    """Argument of a registered endpoint's `put`; `payload`: a completion as plain data."""

    evtype: int | str
    payload: dict[str, Any]


def plain(answer: msgspec.Struct) -> dict[str, Any]:
    """Convert an answer to plain data for a host's transport."""
    built: dict[str, Any] = msgspec.to_builtins(answer)
    return built
