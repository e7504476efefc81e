"""Events of devices and of reservations."""

from __future__ import annotations

import itertools

import msgspec

from simenv import model
from simenv.errors import OptionError
from simenv.model import AdmissionReason
from simenv.model.reservations import MAX_INFLIGHT
from simenv.model.views import DeviceInfo
from simenv.scheduler.core import Action, Phase, RecordEvent
from simenv.scheduler.dispatch import gang_scheduling
from simenv.scheduler.events.tasks import cancel, end_unrun
from simenv.scheduler.queueing.lanes import parse_queue_policy
from simenv.scheduler.reservations import ledger as admission
from simenv.scheduler.reservations.ledger import StoredReservations
from simenv.scheduler.reservations.policies import DELAYED
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.state import owner_quotas, paced, scheduler_state
from simenv.scheduler.views.admission import availability_veto, owner_veto

# Events of devices: pause, drain, resume, limits of tasks in flight, queue policies.
#
# A device is a pool with the pools made on demand for it. The device "" is all devices together:
# its controls hold in addition to those of each device, but a device's own queue policy takes
# precedence. A paused device starts nothing. A draining one accepts nothing and completes the
# accepted tasks; after the drain's timeout it starts nothing more. Times are wall-clock
# nanoseconds.

MAX_DRAIN_S = 10**7


def refresh_restrictions(state: scheduler_state.SchedulerState) -> None:
    """Recompute whether any control restricts assignments; called after each change of a
    control."""
    controls = state.controls
    devices = {*controls.all, *state.reservations.devices}
    controls.is_restricting = any(
        controls.of(d).state != paced.ACTIVE or scheduler_state.inflight_limit(state, d)
        for d in devices
    )


# --- controls -----------------------------------------------------------------------------------


def set_state(
    state: scheduler_state.SchedulerState,
    device: str,
    verb: str,
    reason: str,
    mode: str,
    timeout_s: float,
    wall_ns: int,
) -> bool:
    """Pause, drain or resume a device; return False if nothing changed. Raises NotFoundError,
    OptionError."""
    scheduler_state.check_device(state, device)
    old = state.controls.of(device)
    active = msgspec.structs.replace(
        old, state=paced.ACTIVE, reason="", mode="", timeout_s=0.0, started_ns=0, drained=False
    )
    if verb == "pause":
        new = msgspec.structs.replace(active, state=paced.PAUSED, reason=reason)
    elif verb == "drain":
        _check_drain(mode, timeout_s)
        new = msgspec.structs.replace(
            active,
            state=paced.DRAINING,
            reason=reason,
            mode=mode or "graceful",
            timeout_s=timeout_s,
            started_ns=old.started_ns if old.state == paced.DRAINING else wall_ns,
            drained=old.drained,
        )
    elif verb == "resume":
        new = active
    else:
        raise OptionError(
            f"unknown command {verb[:64]!r} for a device", hint="one of: pause, resume, drain"
        )
    return _change(state, device, old, new)


def set_max_inflight(state: scheduler_state.SchedulerState, device: str, max_inflight: int) -> bool:
    """Limit the tasks that a device's workers hold; return False if nothing changed. Raises
    NotFoundError, OptionError."""
    scheduler_state.check_device(state, device)
    if not 0 <= max_inflight <= MAX_INFLIGHT:
        raise OptionError(f"max_inflight = {max_inflight}", hint="0 or more; 0: no limit")
    old = state.controls.of(device)
    return _change(state, device, old, msgspec.structs.replace(old, max_inflight=max_inflight))


def set_queue_policy(
    state: scheduler_state.SchedulerState,
    device: str,
    policy: str,
    options: tuple[tuple[str, str], ...],
) -> bool:
    """Reorder a device's queues; return False if nothing changed. Raises NotFoundError,
    OptionError."""
    scheduler_state.check_device(state, device)
    old = state.controls.of(device)
    if parse_queue_policy(policy, options) == state.controls.queue_policy(device):
        return False
    return _change(state, device, old, msgspec.structs.replace(old, policy=policy, options=options))


def set_profile(
    state: scheduler_state.SchedulerState, device: str, profile: model.DeviceProfile
) -> bool:
    """Set a device's profile; return False if nothing changed.

    Raises NotFoundError, OptionError, and InsufficientError if live reservations have more.
    """
    scheduler_state.check_device(state, device)
    changed = state.reservations.set_profile(device, profile)
    refresh_restrictions(state)
    return changed


def set_admission_policy(
    state: scheduler_state.SchedulerState,
    device: str,
    policy: model.AdmissionPolicy,
    expected_version: int,
) -> bool:
    """Set a device's admission policy; return False if nothing changed. `expected_version` -1:
    any.

    Raises the errors of `set_profile`.
    """
    scheduler_state.check_device(state, device)
    changed = state.reservations.set_policy(device, policy, expected_version)
    refresh_restrictions(state)
    return changed


def restore_control(
    state: scheduler_state.SchedulerState, device: str, control: paced.DeviceControl
) -> None:
    """Restore stored controls of a device; controls of an unknown pool have no effect."""
    state.controls.all[device] = control
    _apply(state)


def _check_drain(mode: str, timeout_s: float) -> None:
    if mode not in ("", "graceful"):
        raise OptionError(f"mode {mode[:64]!r} of a drain", hint="graceful: what was accepted ends")
    if not 0 <= timeout_s <= MAX_DRAIN_S:  # False for a NaN too
        raise OptionError(f"timeout_s = {timeout_s}", hint=f"0 to {MAX_DRAIN_S} s; 0: none")


def _change(
    state: scheduler_state.SchedulerState,
    device: str,
    old: paced.DeviceControl,
    new: paced.DeviceControl,
) -> bool:
    if new == old:
        return False
    state.controls.put(device, msgspec.structs.replace(new, version=old.version + 1))
    _apply(state)
    return True


def _apply(state: scheduler_state.SchedulerState) -> None:
    for pool in state.pools.values():
        pool.queue.arrange(state.controls.queue_policy(pool.device))
    refresh_restrictions(state)


# --- progress -----------------------------------------------------------------------------------


def described(
    state: scheduler_state.SchedulerState, name: str, epoch: int, start: int, info: DeviceInfo
) -> tuple[str, list[Action]]:
    """Record the hardware that a worker holds; return the name of its pool, and the event to
    record.

    The name is "" if this start of the worker is over or its pool holds no hardware.
    """
    worker = state.workers.get(name)
    if worker is None or (epoch, start) != (state.epoch, worker.start):
        return "", []
    pool = state.pools[worker.pool]
    if not pool.is_exclusive:
        return "", []
    pool.hardware_qubits = info.num_qubits
    message = f"{info.model}, {info.num_qubits} qubits, of {info.provider}"
    return pool.spec.name, [RecordEvent("device.described", pool.spec.name, message)]


def tick(state: scheduler_state.SchedulerState, wall_ns: int) -> list[Action]:
    """Record an event for each draining device whose last task has ended."""
    state.controls.wall_ns = wall_ns
    actions: list[Action] = []
    for device, control in list(state.controls.all.items()):
        if (
            control.state == paced.DRAINING
            and not control.drained
            and not _unfinished(state, device)
        ):
            state.controls.put(device, msgspec.structs.replace(control, drained=True))
            actions.append(
                RecordEvent("device.drained", device or "all", "its last task has ended")
            )
    return actions


def _unfinished(state: scheduler_state.SchedulerState, device: str) -> int:
    waiting = sum(len(pool.queue) for pool in scheduler_state.pools_of(state, device))
    waiting += state.dependencies.count(device)
    return (
        waiting
        + sum(scheduler_state.inflight(state, device))
        + scheduler_state.parked(state, device)
    )


# Events of reservations: reserve, renew, close and expire, and the effects on their tasks.
#
# Events that end many tasks end a part of them at each call, so that the event loop is not blocked.

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
) -> tuple[model.Decision, list[Action]]:
    """Decide on a request; an accepted request becomes a reservation at once, unless `dry`."""
    actions = [] if dry else expire(state, wall_ns)  # expired ones must not cause refusals
    invalid = admission.validate_request(request)
    if invalid is not None:
        return invalid, actions
    ledger = state.reservations
    veto = owner_veto(state, request, owner) or availability_veto(state, request)
    decision, grant = admission.decide(ledger, request, owner, wall_ns, veto)
    if dry:
        return decision, actions
    if grant is not None:
        ledger.add(grant, wall_ns)
        reservation = ledger.all[grant.id]
        gang_scheduling.begin(state, reservation)
        note = f"of {request.device or 'all pools'}, {decision.units} units"
        audience = event_audience(reservation)
        actions.append(RecordEvent("reservation.made", str(grant.id), note, audience))
    elif (decision.code, decision.status) == (AdmissionReason.DEVICE_UNAVAILABLE, DELAYED):
        gang_scheduling.remember_request(state, request, decision.retry_after_ns, wall_ns)
    return decision, actions


def renew(
    state: scheduler_state.SchedulerState,
    number: int,
    scope: str,
    owner: str,
    ttl_ns: int,
    wall_ns: int,
) -> ReservationEntry:
    """Extend a reservation to `ttl_ns` from now; 0: by its original duration.

    `owner`: the requester, whose limits apply. Raises NotReservedError, OptionError and
    LimitExceededError.
    """
    ledger = state.reservations
    ttl_ns = ttl_ns or ledger.default_ttl_ns(ledger.find(number, scope))
    owner_quotas.check_renewal(state.quotas.of(owner), owner, ttl_ns)
    return ledger.renew(number, scope, ttl_ns, wall_ns)


def restore(state: scheduler_state.SchedulerState, stored: StoredReservations) -> None:
    """Restore reservations and the terms of devices; called before their tasks are queued again."""
    ledger = state.reservations
    ledger.devices.update(stored.devices)
    for grant, progress in stored.reservations:
        ledger.restore(grant, progress)
    ledger.next_id = max(ledger.next_id, stored.next_id)
    for reservation in ledger.live.values():
        gang_scheduling.begin(state, reservation)


def finish_restore(state: scheduler_state.SchedulerState) -> None:
    """Resume reservations; called when all unfinished tasks are queued again."""
    state.reservations.resume()
    state.reservations.take_changes()  # all changes came from the journal


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
            if record.number in state.dependencies.by_task:
                record.phase = Phase.DEPENDENT
            else:
                state.pool_of(record.route).queue.append([record])
        for record in infeasible:
            refusal = reservation.can_never_fit(reservation.parked[record.number][1])
            message = (
                f"{refusal[1]} ({AdmissionReason(refusal[0]).text})" if refusal is not None else ""
            )
            failed, reason = model.TaskState.FAILED, "reservation"
            actions.append(end_unrun(state, record, failed, reason, now_ns, message))
    return actions


def close(
    state: scheduler_state.SchedulerState,
    reservation: ReservationEntry,
    end_state: model.ReservationState,
    reason: str,
    wall_ns: int,
    now_ns: int,
) -> list[Action]:
    """End a reservation. `cancel_parked` ends those of its tasks that were never assigned.

    If `end_state` is CANCELLED, the other tasks are asked to stop, also if the reservation was over
    already.
    """
    actions: list[Action] = []
    ledger, number = state.reservations, reservation.grant.id
    if not reservation.is_over:
        ledger.close(reservation, end_state, reason, wall_ns)
        held = (state.tasks[task] for task in reservation.holds)
        unsent = (Phase.WAITING, Phase.DEPENDENT)
        waiting = [r for r in held if r.phase in unsent and not r.attempts]
        for record in waiting:
            if record.phase == Phase.WAITING:
                state.pools[record.route.pool].queue.drop(record)
        reservation.park_for_cancellation(waiting)
        gang_scheduling.end(state, number)
        if reservation.parked:
            ledger.emptying[number] = None
        note, audience = reason or f"it {_ENDINGS[end_state]}", event_audience(reservation)
        actions.append(RecordEvent(f"reservation.{end_state}", str(number), note, audience))
    if end_state is model.ReservationState.CANCELLED:
        actions += cancel(state, list(reservation.holds), now_ns)[1]
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


def expire(state: scheduler_state.SchedulerState, wall_ns: int) -> list[Action]:
    """Close the reservations whose time is over."""
    actions: list[Action] = []
    gang_scheduling.tick(state, wall_ns)
    for reservation in state.reservations.due(wall_ns):
        actions += close(state, reservation, model.ReservationState.EXPIRED, "", wall_ns, 0)
    return actions


def event_audience(reservation: ReservationEntry) -> str:
    """Return the owner who sees events about a reservation besides admins; NOBODY for the
    environment's own user."""
    return reservation.grant.owner or NOBODY
