"""Status and completion envelopes that several methods share; no requests to the service.

A circuit that has ended is written as a record of revision 1 or of revision 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from simenv.client.qpm.requests import arguments
from simenv.client.qpm.runtime.circuit_run import CircuitRun
from simenv.client.qpm.runtime.completion_queues import RetiredCircuit
from simenv.client.qpm.runtime.notifications import EventSubscription
from simenv.errors import SimenvError
from simenv.model import FINAL_STATES, TaskInfo, TaskState
from simenv.qpm import states
from simenv.qpm.envelopes import (
    NOT_REACHED,
    UNKNOWN_WAIT,
    CompletionEnvelope,
    CompletionMetadata,
    Record,
    StatusEnvelope,
    Times,
    plain,
    status,
    wait,
)
from simenv.qpm.states import STATE_MAP, Lifecycle, Reason


def registered(
    ep: Any, evtype: Any, class_id: Any, filters: Any = None, reservation: int = 0
) -> EventSubscription:
    """Check the arguments of a registration and return the subscription."""
    if not callable(getattr(ep, "put", None)):
        raise arguments.wrong("ep", ep, "an endpoint with a method put(event)")
    if not isinstance(evtype, str):
        arguments.integer("evtype", evtype, 0, 2**31 - 1)
    return EventSubscription(
        ep,
        evtype,
        arguments.text("class_id", class_id),
        arguments.filters(filters),
        reservation,
    )


def accepted(run: CircuitRun) -> StatusEnvelope:
    """Envelope of an accepted circuit: CAPACITY_HELD under a reservation, else QUEUED."""
    return under_way(run, Lifecycle.CAPACITY_HELD if run.reservation else Lifecycle.QUEUED)


def under_way(run: CircuitRun, lifecycle: Lifecycle) -> StatusEnvelope:
    """Envelope of an unfinished circuit."""
    return about(run, lifecycle, scheduler_task_id=run.task_id, wait_estimate=UNKNOWN_WAIT)


def about(
    circuit: CircuitRun | RetiredCircuit, lifecycle: Lifecycle, **more: Any
) -> StatusEnvelope:
    """An envelope with the names of a circuit, and `more`."""
    return status(
        lifecycle,
        cid=circuit.cid,
        qtask_id=circuit.number,
        reservation_id=circuit.reservation_id,
        **more,
    )


def current_status(run: CircuitRun, infos: Sequence[TaskInfo]) -> StatusEnvelope:
    """Envelope of an unfinished circuit from the service's information on its tasks. The open task
    in the most advanced state counts; at least one task must be open."""
    opened = [info for info in infos if info.state not in FINAL_STATES]
    lifecycle, shown = min(((states.under_way(info), info) for info in opened), key=_furthest)
    return msgspec.structs.replace(
        under_way(run, lifecycle),
        scheduler_state=str(shown.state),
        provider_handle=shown.worker or None,
        message=shown.reason or None,
        pending_queue_position=shown.parked or None,
        wait_estimate=None if lifecycle is Lifecycle.SUBMITTED else wait(shown.wait_us),
    )


_ORDER = (
    Lifecycle.SUBMITTED, Lifecycle.SELECTED, Lifecycle.PENDING_CAPACITY, Lifecycle.QUEUED,
)  # fmt: skip


def _furthest(entry: tuple[Lifecycle, TaskInfo]) -> int:
    return _ORDER.index(entry[0])


def unknown(cid: str | None, number: int | None) -> StatusEnvelope:
    return status(Lifecycle.UNKNOWN, cid=cid, qtask_id=number, reason=Reason.NOT_FOUND)


def gone(retired: RetiredCircuit) -> StatusEnvelope:
    """Envelope of a completion that is no longer retained."""
    return about(
        retired,
        Lifecycle.NO_LONGER_RETAINED,
        reason=Reason.NO_LONGER_RETAINED,
        evicted_at_ns=retired.at_ns,
        retention_reason=retired.reason,
    )


def remembered(retired: RetiredCircuit) -> StatusEnvelope:
    """Envelope of an ended circuit whose result is no longer kept: its final state without the
    result."""
    stand = states.STATE_MAP[retired.state]
    return about(
        retired,
        stand.lifecycle,
        scheduler_state=str(retired.state),
        reason=stand.reason,
        evicted_at_ns=retired.at_ns,
        retention_reason=retired.reason,
    )


def invalid(reservation_id: int | None, reason: Reason, message: str) -> StatusEnvelope:
    """Envelope of a query whose reservation is missing or may not be used."""
    return status(
        Lifecycle.INVALID_RESERVATION,
        reservation_id=reservation_id,
        reason=reason,
        message=message,
    )


class CircuitOutcome(msgspec.Struct, frozen=True):
    """Outcome of a circuit, independent of the revision: state, result, error and metadata."""

    state: TaskState
    result: dict[str, Any]
    error: SimenvError | None
    metadata: dict[str, Any] = {}

    @property
    def message(self) -> str | None:
        return None if self.error is None else str(self.error)


def find(run: CircuitRun) -> CircuitOutcome:
    """Return the outcome of an ended circuit. A result that cannot be read makes it FAILED."""
    state, error = run.final_state(), run.error()
    if state is TaskState.DONE:
        try:
            return CircuitOutcome(state, run.result(), None, run.metadata())
        except SimenvError as unreadable:
            state, error = TaskState.FAILED, unreadable
    settings = CompletionMetadata(warnings=list(run.warnings))
    return CircuitOutcome(state, {"counts": {}}, error, plain(settings))


def revision1(
    run: CircuitRun, outcome: CircuitOutcome | None = None, *, dequeued_s: float = NOT_REACHED
) -> dict[str, Any]:
    """Completion record of revision 1: the counts alone unless amplitudes were requested; the error
    text if the circuit failed."""
    outcome = outcome or find(run)
    result: dict[str, Any] | str = outcome.result
    if outcome.message is not None:
        result = outcome.message
    elif not run.wants_amplitudes:
        result = outcome.result["counts"]
    times = run.times(dequeued_s)
    record = Record(
        cid=run.cid,
        result=result,
        rc=_rc(outcome.state),
        metadata=outcome.metadata,
        **_fields(times),
    )
    return plain(record)


def revision2(
    run: CircuitRun,
    outcome: CircuitOutcome | None = None,
    *,
    poll: str | None = None,
    dequeued_s: float = NOT_REACHED,
) -> dict[str, Any]:
    """Completion record of revision 2. `poll`: the operation that reads it; None in an event."""
    outcome = outcome or find(run)
    stand = STATE_MAP[outcome.state]
    times = run.times(dequeued_s)
    reason = stand.reason
    if run.refusal is not None:
        reason = Reason.SUBMISSION_FAILED
    record = CompletionEnvelope(
        cid=run.cid,
        qtask_id=run.number,
        reservation_id=run.reservation_id,
        scheduler_task_id=run.task_id,
        outcome=stand.outcome,
        result=outcome.result,
        rc=_rc(outcome.state),
        completion_ready=True,
        poll_operation=poll,
        reason=reason,
        message=outcome.message,
        metadata=outcome.metadata,
        qpm_cq_enqueue_time_ns=_ns(times.cq_enqueue_time),
        qpm_cq_dequeue_time_ns=_ns(times.cq_dequeue_time),
        **_fields(times),
    )
    return plain(record)


def _rc(state: TaskState) -> int:
    rc = STATE_MAP[state].rc
    return 0 if rc is None else rc


def _ns(seconds: float) -> int:
    return -1 if seconds == NOT_REACHED else round(seconds * 1e9)


def _fields(times: Times) -> dict[str, Any]:
    return msgspec.structs.asdict(times)
