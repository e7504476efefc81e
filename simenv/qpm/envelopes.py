"""What the execution binding answers; it leaves through `plain` as dicts, lists, str and numbers.

Times ending in `_time` are float seconds since 1970, those ending in `_ns` integer nanoseconds;
-1 marks what was not reached. A field whose default is None is left out where it is None.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.qpm.states import OUTCOMES, Lifecycle, Outcome, Reason

NOT_REACHED = -1.0


class Times(msgspec.Struct, frozen=True):
    """The seven times of a record, in the order in which they come."""

    creation_time: float  # accepted
    resources_consumed_time: float  # granted to a worker
    launch_time: float  # sent to it
    exec_time: float  # begun
    completion_time: float  # ended
    cq_enqueue_time: float  # queued or pushed
    cq_dequeue_time: float  # set by read_cq


class Record(Times, frozen=True, kw_only=True, omit_defaults=True):
    """A completion in the shape of revision 1.

    `result`: counts, or {"counts", "statevector"} where amplitudes were asked for; a text where
    `rc` is not 0. `metadata`: see `CompletionMetadata`; left out where there is nothing in it.
    """

    cid: str
    result: dict[str, Any] | str
    rc: int
    metadata: dict[str, Any] = {}


class CompletionEnvelope(Times, frozen=True, kw_only=True, omit_defaults=True):
    """A completion in the shape of revision 2. `result`: {"counts"} and perhaps {"statevector"};
    the counts of what failed are empty."""

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


class CompletionMetadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The emulated device of a completion, and what the caller is warned of; an addition of ours
    to the records of both revisions. Layouts have the device's qubit of each of the circuit's."""

    device: str | None = None
    snapshot: str | None = None  # SHA-256 of the calibration or noise model
    snapshot_age_s: float | None = None
    noise: dict[str, float] = {}  # factors that were given
    compiled: str | None = None
    initial_layout: list[int] | None = None
    layout: list[int] | None = None  # at the circuit's end
    gates: dict[str, int] | None = None  # that ran, by name
    warnings: list[str] = []
    device_time_s: float | None = None  # that the task takes on the device


class Timeout(msgspec.Struct, frozen=True):
    """Why `sync_run` came back early."""

    reason: Reason
    message: str
    timestamp_ns: int


class Wait(msgspec.Struct, frozen=True, omit_defaults=True):
    """When a task will begin: in `estimated_ns`, or why that is not known."""

    available: bool
    reason: str | None = None
    kind: str | None = None
    estimated_ns: int | None = None
    confidence: str | None = None


UNKNOWN_WAIT = Wait(False, Reason.UNAVAILABLE)


def wait(us: float) -> Wait:
    """`us`: until it begins; below 0: not known."""
    if us < 0:
        return UNKNOWN_WAIT
    return Wait(True, None, "wait", round(1e3 * us), "estimated")


class Access(msgspec.Struct, frozen=True):
    """Who may see an object; recorded, not enforced."""

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
    """A status envelope; `outcome` where it is not the state's own."""
    return StatusEnvelope(
        outcome=outcome or OUTCOMES[lifecycle],
        lifecycle_state=lifecycle,
        state=lifecycle,
        telemetry=Access(),
        **fields,
    )


class TaskTiming(msgspec.Struct, frozen=True):
    """Answer of `get_task_timing`; `timing` is empty where the task is not known."""

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
    """What a registered endpoint's `put` is given; `payload`: a completion as plain data."""

    evtype: int | str
    payload: dict[str, Any]


def plain(answer: msgspec.Struct) -> dict[str, Any]:
    """As a host's transport carries it."""
    built: dict[str, Any] = msgspec.to_builtins(answer)
    return built
