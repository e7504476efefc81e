"""A run that has ended, in the shape of either revision."""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.client.qpm.run import Run
from simenv.errors import SimenvError
from simenv.model import TaskState
from simenv.qpm.envelopes import NOT_REACHED, Completion, Record, Times, plain
from simenv.qpm.states import STANDS, Reason


class Found(msgspec.Struct, frozen=True):
    """What is told of a run in any shape."""

    state: TaskState
    result: dict[str, Any]
    error: SimenvError | None

    @property
    def message(self) -> str | None:
        return None if self.error is None else str(self.error)


def find(run: Run) -> Found:
    """Its end, its result, and why it is no success; a result that cannot be read is none."""
    state, error = run.final_state(), run.error()
    if state is TaskState.DONE:
        try:
            return Found(state, run.result(), None)
        except SimenvError as unreadable:
            state, error = TaskState.FAILED, unreadable
    return Found(state, {"counts": {}}, error)


def revision1(
    run: Run, found: Found | None = None, *, dequeued_s: float = NOT_REACHED
) -> dict[str, Any]:
    """Revision 1: counts alone where nothing else was asked for; a text where it failed."""
    found = found or find(run)
    result: dict[str, Any] | str = found.result
    if found.message is not None:
        result = found.message
    elif not run.wants_amplitudes:
        result = found.result["counts"]
    times = run.times(dequeued_s)
    record = Record(cid=run.cid, result=result, rc=_rc(found.state), **_fields(times))
    return plain(record)


def revision2(
    run: Run,
    found: Found | None = None,
    *,
    poll: str | None = None,
    dequeued_s: float = NOT_REACHED,
) -> dict[str, Any]:
    """Revision 2. `poll`: the operation that reads it; None in an event."""
    found = found or find(run)
    stand = STANDS[found.state]
    times = run.times(dequeued_s)
    reason = stand.reason
    if run.refusal is not None:
        reason = Reason.SUBMISSION_FAILED
    record = Completion(
        cid=run.cid,
        qtask_id=run.number,
        reservation_id=run.reservation_id,
        scheduler_task_id=run.task_id,
        outcome=stand.outcome,
        result=found.result,
        rc=_rc(found.state),
        completion_ready=True,
        poll_operation=poll,
        reason=reason,
        message=found.message,
        qpm_cq_enqueue_time_ns=_ns(times.cq_enqueue_time),
        qpm_cq_dequeue_time_ns=_ns(times.cq_dequeue_time),
        **_fields(times),
    )
    return plain(record)


def _rc(state: TaskState) -> int:
    rc = STANDS[state].rc
    return 0 if rc is None else rc


def _ns(seconds: float) -> int:
    return -1 if seconds == NOT_REACHED else round(seconds * 1e9)


def _fields(times: Times) -> dict[str, Any]:
    return msgspec.structs.asdict(times)
