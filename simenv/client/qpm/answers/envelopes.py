"""Envelopes and checks that several methods share; nothing here asks anybody.

A run that has ended, in the shape of either revision.
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
    """A checked registration."""
    if not callable(getattr(ep, "put", None)):
        raise arguments.wrong("ep", ep, "an endpoint with a method put(event)")
    if not isinstance(evtype, str):
        arguments.integer("evtype", evtype, 0, 2**31 - 1)
    return EventSubscription(
        ep,
        evtype,
        arguments.text("class_id", class_id),
        dict(arguments.optional_table("filters", filters)),
        reservation,
    )


def accepted(run: CircuitRun) -> StatusEnvelope:
    """The answer to what was taken: under a reservation it holds its part of that."""
    return under_way(run, Lifecycle.CAPACITY_HELD if run.reservation else Lifecycle.QUEUED)


def under_way(run: CircuitRun, lifecycle: Lifecycle) -> StatusEnvelope:
    """Of what has not ended."""
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
    """Of what has not ended, as the service sees its tasks; of those that are open the one that is
    furthest counts. At least one must be."""
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
    """Its completion was asked for."""
    return about(
        retired,
        Lifecycle.NO_LONGER_RETAINED,
        reason=Reason.NO_LONGER_RETAINED,
        evicted_at_ns=retired.at_ns,
        retention_reason=retired.reason,
    )


def remembered(retired: RetiredCircuit) -> StatusEnvelope:
    """How it ended; its result is no longer kept."""
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
    """A question that names no reservation, or one that does not do."""
    return status(
        Lifecycle.INVALID_RESERVATION,
        reservation_id=reservation_id,
        reason=reason,
        message=message,
    )


class Found(msgspec.Struct, frozen=True):
    """What is told of a run in any shape."""

    state: TaskState
    result: dict[str, Any]
    error: SimenvError | None
    metadata: dict[str, Any] = {}

    @property
    def message(self) -> str | None:
        return None if self.error is None else str(self.error)


def find(run: CircuitRun) -> Found:
    """Its end, its result, and why it is no success; a result that cannot be read is none."""
    state, error = run.final_state(), run.error()
    if state is TaskState.DONE:
        try:
            return Found(state, run.result(), None, run.metadata())
        except SimenvError as unreadable:
            state, error = TaskState.FAILED, unreadable
    settings = CompletionMetadata(warnings=list(run.warnings))
    return Found(state, {"counts": {}}, error, plain(settings))


def revision1(
    run: CircuitRun, outcome: Found | None = None, *, dequeued_s: float = NOT_REACHED
) -> dict[str, Any]:
    """Revision 1: counts alone where nothing else was asked for; a text where it failed."""
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
    outcome: Found | None = None,
    *,
    poll: str | None = None,
    dequeued_s: float = NOT_REACHED,
) -> dict[str, Any]:
    """Revision 2. `poll`: the operation that reads it; None in an event."""
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
