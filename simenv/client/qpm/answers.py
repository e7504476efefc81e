"""Envelopes and checks that several methods share; nothing here asks anybody."""

from __future__ import annotations

from typing import Any

from simenv.client.qpm import fields
from simenv.client.qpm.book import Gone
from simenv.client.qpm.notices import Registration
from simenv.client.qpm.run import Run
from simenv.qpm.envelopes import Availability, Status, status
from simenv.qpm.errors import ExecutionError
from simenv.qpm.states import Lifecycle, Reason


def registered(ep: Any, evtype: Any, class_id: Any, filters: Any = None) -> Registration:
    """A checked registration."""
    if not callable(getattr(ep, "put", None)):
        raise fields.wrong("ep", ep, "an endpoint with a method put(event)")
    if not isinstance(evtype, str):
        fields.whole("evtype", evtype, 0, 2**31 - 1)
    return Registration(
        ep,
        evtype,
        fields.text("class_id", class_id),
        dict(fields.optional_table("filters", filters)),
    )


def under_way(run: Run, lifecycle: Lifecycle) -> Status:
    """Of what has not ended."""
    return status(
        lifecycle,
        cid=run.cid,
        qtask_id=run.number,
        scheduler_task_id=run.task_id,
        wait_estimate=Availability(False, Reason.UNAVAILABLE),
    )


def unknown(cid: str | None, number: int | None) -> Status:
    return status(Lifecycle.UNKNOWN, cid=cid, qtask_id=number, reason=Reason.NOT_FOUND)


def gone(found: Gone) -> Status:
    return status(
        Lifecycle.NO_LONGER_RETAINED,
        cid=found.cid,
        qtask_id=found.number,
        evicted_at_ns=found.at_ns,
        retention_reason=found.reason,
    )


def question(reservation_id: Any, token: Any) -> Status | None:
    """A question about a reservation that is none is answered so."""
    fields.optional_text("token", token)
    if fields.reservation(reservation_id) is None:
        return None
    return status(
        Lifecycle.INVALID_RESERVATION,
        reservation_id=reservation_id,
        reason=Reason.RESERVATION_MISMATCH,
        message=_no_reservation(reservation_id),
    )


def costs(reservation_id: Any, token: Any) -> None:
    """A call that costs something, in the name of a reservation that is none, is refused."""
    fields.optional_text("token", token)
    if fields.reservation(reservation_id) is not None:
        raise ExecutionError(
            _no_reservation(reservation_id),
            hint="leave reservation_id out",
            reason=Reason.RESERVATION_MISMATCH,
        )


def _no_reservation(number: int) -> str:
    return f"reservation {number} is not active: admission is unlimited here, without reservations"


def patience(
    reservation_id: Any, token: Any, timeout: Any, cancel_on_timeout: Any
) -> tuple[float | None, bool]:
    costs(reservation_id, token)
    patience_s = fields.seconds("timeout", timeout)
    return patience_s, fields.truth("cancel_on_timeout", cancel_on_timeout)
