"""Envelopes and checks that several methods share; nothing here asks anybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from simenv.client.qpm import fields
from simenv.client.qpm.book import Gone
from simenv.client.qpm.notices import Registration
from simenv.client.qpm.run import Run
from simenv.model import FINAL_STATES, TaskInfo
from simenv.qpm import states
from simenv.qpm.envelopes import UNKNOWN_WAIT, Status, status, wait
from simenv.qpm.states import Lifecycle, Reason


def registered(
    ep: Any, evtype: Any, class_id: Any, filters: Any = None, reservation: int = 0
) -> Registration:
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
        reservation,
    )


def accepted(run: Run) -> Status:
    """The answer to what was taken: under a reservation it holds its part of that."""
    return under_way(run, Lifecycle.CAPACITY_HELD if run.reservation else Lifecycle.QUEUED)


def under_way(run: Run, lifecycle: Lifecycle) -> Status:
    """Of what has not ended."""
    return about(run, lifecycle, scheduler_task_id=run.task_id, wait_estimate=UNKNOWN_WAIT)


def about(found: Run | Gone, lifecycle: Lifecycle, **more: Any) -> Status:
    """An envelope with the names of a circuit, and `more`."""
    return status(
        lifecycle,
        cid=found.cid,
        qtask_id=found.number,
        reservation_id=found.reservation_id,
        **more,
    )


def standing(run: Run, infos: Sequence[TaskInfo]) -> Status:
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


def _furthest(found: tuple[Lifecycle, TaskInfo]) -> int:
    return _ORDER.index(found[0])


def unknown(cid: str | None, number: int | None) -> Status:
    return status(Lifecycle.UNKNOWN, cid=cid, qtask_id=number, reason=Reason.NOT_FOUND)


def gone(found: Gone) -> Status:
    """Its completion was asked for."""
    return about(
        found,
        Lifecycle.NO_LONGER_RETAINED,
        reason=Reason.NO_LONGER_RETAINED,
        evicted_at_ns=found.at_ns,
        retention_reason=found.reason,
    )


def remembered(found: Gone) -> Status:
    """How it ended; its result is no longer kept."""
    stand = states.STANDS[found.state]
    return about(
        found,
        stand.lifecycle,
        scheduler_state=str(found.state),
        reason=stand.reason,
        evicted_at_ns=found.at_ns,
        retention_reason=found.reason,
    )


def invalid(reservation_id: int | None, reason: Reason, message: str) -> Status:
    """A question that names no reservation, or one that does not do."""
    return status(
        Lifecycle.INVALID_RESERVATION,
        reservation_id=reservation_id,
        reason=reason,
        message=message,
    )
