"""Events of reservations: reserve, renew, close and expire, and the effects on their tasks.

Tasks of a reservation that must wait for its units are parked. Events that end many tasks end a
part of them at each call, so that the event loop is not blocked.
"""

from __future__ import annotations

import itertools

from simenv import model
from simenv.errors import NotAllowedError
from simenv.model.accounts import WaitReason
from simenv.model.reservations import JOB_SCOPE
from simenv.scheduler.admission import reservation_limits
from simenv.scheduler.admission.availability import availability_veto
from simenv.scheduler.core import Action, Phase, RecordEvent
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.events.stops import cancel, end_unrun, unqueued_waits, waits_so_far
from simenv.scheduler.reservations.ledger import StoredReservations, decide, validate_request
from simenv.scheduler.reservations.policies import DELAYED, PolicyVerdict
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.state import scheduler_state

MAX_ENDED = 250  # tasks ended by one call
NOBODY = "@"  # the audience of events for admins alone: no key has that name
_ENDINGS = {
    model.ReservationState.RELEASED: "was released",
    model.ReservationState.EXPIRED: "has expired",
    model.ReservationState.CANCELLED: "was cancelled",
}


def reserve(
    state: scheduler_state.SchedulerState,
    request: model.ReservationRequest,
    owner: str,
    wall_ns: int,
    *,
    dry: bool = False,
    veto: PolicyVerdict | None = None,
    now_ns: int = 0,
) -> tuple[model.Decision, list[Action]]:
    """Decide on a request; an accepted request becomes a reservation at once, unless `dry`.
    `veto`: refusal by a budget. `now_ns`: 0 for the last tick."""
    now_ns = now_ns or state.last_tick_ns
    actions = [] if dry else expire(state, wall_ns, now_ns)  # they must not cause refusals
    invalid = validate_request(request)
    if invalid is not None:
        return invalid, actions
    ledger = state.reservations
    if veto is None and not request.scope.startswith(JOB_SCOPE):
        veto = reservation_limits.reservation_verdict(state, request, owner)
    veto = veto or availability_veto(state, request)
    decision, grant = decide(ledger, request, owner, wall_ns, veto)
    if dry:
        return decision, actions
    if grant is not None:
        ledger.add(grant, wall_ns)
        reservation = ledger.all[grant.id]
        actions += dedicated_workers.add_reservation(state, reservation, now_ns)
        note = f"of {request.device or 'all pools'}, {decision.units} units"
        audience = event_audience(reservation)
        actions.append(RecordEvent("reservation.made", str(grant.id), note, audience))
    elif (decision.code, decision.status) == (model.AdmissionReason.DEVICE_UNAVAILABLE, DELAYED):
        wait_ns = decision.retry_after_ns
        actions += dedicated_workers.hold_for_request(state, request, owner, wait_ns, now_ns)
    return decision, actions


def renew_reservation(
    state: scheduler_state.SchedulerState,
    number: int,
    scope: str,
    owner: str,
    ttl_ns: int,
    wall_ns: int,
) -> ReservationEntry:
    """Extend a reservation to `ttl_ns` from now; 0: by its original duration. `owner`: the
    requester, whose limits apply. Raises NotReservedError, OptionError and LimitExceededError."""
    ledger = state.reservations
    ttl_ns = ttl_ns or ledger.default_ttl_ns(ledger.find(number, scope))
    reservation_limits.check_renewal(state, owner, ttl_ns)
    return ledger.renew(number, scope, ttl_ns, wall_ns)


def set_default_accounts(state: scheduler_state.SchedulerState) -> None:
    """Set the accounts of reservations that were made when there were none: the default account of
    the owner. One whose owner is in no account stays without, and is not renewed."""
    if not state.shares.accounts:
        return
    for number, reservation in state.reservations.live.items():
        if reservation.grant.ask.account:
            continue
        try:
            account = state.shares.accounts.resolve(reservation.grant.owner, "")
        except NotAllowedError:
            continue
        state.reservations.set_account(reservation, account)
        dedicated = state.dedicated.all.get(number)
        if dedicated is not None:
            dedicated.account = account


def close_reservation(
    state: scheduler_state.SchedulerState,
    reservation: ReservationEntry,
    end_state: model.ReservationState,
    reason: str,
    wall_ns: int,
    now_ns: int,
) -> list[Action]:
    """End a reservation and its tasks that were never assigned; `dispatch` ends those above
    MAX_ENDED. If `end_state` is CANCELLED, the other tasks are asked to stop, also if the
    reservation was over already."""
    actions: list[Action] = []
    if not reservation.is_over:
        actions += close(state, reservation, end_state, reason, wall_ns, now_ns)
    if end_state is model.ReservationState.CANCELLED:
        actions += cancel(state, list(reservation.holds), now_ns)[1]
    return actions + cancel_parked(state, now_ns)


def close(
    state: scheduler_state.SchedulerState,
    reservation: ReservationEntry,
    end_state: model.ReservationState,
    reason: str,
    wall_ns: int,
    now_ns: int = 0,
) -> list[Action]:
    """Close a live reservation, and park its tasks that were never assigned for `cancel_parked`.
    `now_ns`: 0 for the last tick."""
    ledger, number = state.reservations, reservation.grant.id
    ledger.close(reservation, end_state, reason, wall_ns)
    held = (state.tasks[task] for task in reservation.holds)
    unsent = (Phase.WAITING, Phase.DEPENDENT)
    waiting = [r for r in held if r.phase in unsent and not r.attempts]
    now_ns = now_ns or state.last_tick_ns
    for record in waiting:
        waited_us = max(0, now_ns - record.batch.accepted_ns) // 1000
        short = ((int(WaitReason.SERVICE), waited_us),)
        record.waits = waits_so_far(state, record, now_ns) or short  # not for units, as it ends
        if record.phase == Phase.WAITING:
            state.cluster.pools[record.route.pool].queue.drop(record)
    reservation.park_for_cancellation(waiting)
    charges = dedicated_workers.remove_reservation(state, number, now_ns)
    if reservation.parked:
        ledger.emptying[number] = None
    note, audience = reason or f"it {_ENDINGS[end_state]}", event_audience(reservation)
    return [*charges, RecordEvent(f"reservation.{end_state}", str(number), note, audience)]


def expire(state: scheduler_state.SchedulerState, wall_ns: int, now_ns: int = 0) -> list[Action]:
    """Close the reservations whose time is over; `now_ns`: as for `close`."""
    actions = dedicated_workers.release_held(state, now_ns or state.last_tick_ns)
    for reservation in state.reservations.due(wall_ns):
        expired = model.ReservationState.EXPIRED
        actions += close(state, reservation, expired, "", wall_ns, now_ns)
    return actions


def release_parked(state: scheduler_state.SchedulerState, now_ns: int) -> list[Action]:
    """Queue parked tasks whose reservation has units for them now, unless they wait for their
    parents; end tasks that can never have units."""
    actions: list[Action] = []
    ledger, left = state.reservations, MAX_ENDED
    while ledger.freed and left > 0:  # a task that ends releases units
        number = next(iter(ledger.freed))
        del ledger.freed[number]
        reservation = ledger.all.get(number)
        if reservation is None or reservation.is_over:
            continue
        ready, infeasible = reservation.release_parked(left)
        left -= len(ready) + len(infeasible)
        if left <= 0 and reservation.parked:
            ledger.freed[number] = None
        for record in ready:
            if record.number in state.tasks.dependencies.by_task:
                record.phase = Phase.DEPENDENT
            else:
                record.waits = unqueued_waits(record, now_ns)
                state.pool_of(record.route).queue.append([record])
        for record in infeasible:
            refusal = reservation.can_never_fit(reservation.parked[record.number][1])
            message = ""
            if refusal is not None:
                message = f"{refusal[1]} ({model.AdmissionReason(refusal[0]).text})"
            failed, reason = model.TaskState.FAILED, "reservation"
            actions.append(end_unrun(state, record, failed, reason, now_ns, message))
    return actions


def cancel_parked(state: scheduler_state.SchedulerState, now_ns: int) -> list[Action]:
    """End tasks that are parked under reservations that are over."""
    actions: list[Action] = []
    ledger = state.reservations
    while ledger.emptying and len(actions) < MAX_ENDED:
        number = next(iter(ledger.emptying))
        reservation = ledger.all.get(number)
        if reservation is None:  # forgotten, with no task left to end
            del ledger.emptying[number]
            continue
        message = f"its reservation, {number}, {_ENDINGS[reservation.state]}"
        left = MAX_ENDED - len(actions)
        cancelled, reason = model.TaskState.CANCELLED, "cancelled"
        for record, _ in list(itertools.islice(reservation.parked.values(), left)):
            actions.append(end_unrun(state, record, cancelled, reason, now_ns, message))
        if not reservation.parked:
            del ledger.emptying[number]
    return actions


def restore(state: scheduler_state.SchedulerState, stored: StoredReservations) -> None:
    """Restore reservations and the terms of devices; called before their tasks are queued again."""
    ledger = state.reservations
    ledger.devices.update(stored.devices)
    for grant, progress in stored.reservations:
        ledger.restore(grant, progress)
    ledger.next_id = max(ledger.next_id, stored.next_id)
    for reservation in ledger.live.values():
        dedicated_workers.add_reservation(state, reservation, state.last_tick_ns)


def finish_restore(state: scheduler_state.SchedulerState) -> None:
    """Resume reservations; called when all unfinished tasks are queued again."""
    state.reservations.resume()
    state.reservations.take_changes()  # all changes came from the journal
    set_default_accounts(state)


def event_audience(reservation: ReservationEntry) -> str:
    """Return the owner who sees events about a reservation besides admins; NOBODY for the
    environment's own user."""
    return reservation.grant.owner or NOBODY
