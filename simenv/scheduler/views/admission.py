"""Admission of tasks and reservations by the present state, besides the capacity that a ledger
counts."""

from __future__ import annotations

import msgspec

from simenv.errors import NotReservedError, SimenvError
from simenv.model import AdmissionReason, ReservationRequest, TaskSpec, Workload
from simenv.scheduler.core.types import Route, base_of
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.scheduler.reservations.reservation import ReservationEntry, units_for
from simenv.scheduler.state import owner_quotas, owner_usage
from simenv.scheduler.state.device_controls import DRAINING
from simenv.scheduler.state.state import SchedulerState

MIN_BOUND_NS = 20_000_000


def draining_refusal(state: SchedulerState, routes: list[Route]) -> str:
    """Return why a draining device accepts none of these tasks; "" if all are accepted."""
    if state.controls.is_restricting:
        for name in {route.pool for route in routes}:
            device = base_of(name) or name
            if state.controls.closed_state(device, starts=False):
                draining = state.controls.of(device).state == DRAINING
                subject = f"pool {device}" if draining else "the environment"
                return f"{subject} is draining and accepts nothing new"
    return ""


def availability_veto(state: SchedulerState, request: ReservationRequest) -> PolicyVerdict | None:
    """Return why a valid request cannot be accepted, whatever credits or rate remain; None if it
    can."""
    pool = state.pools.get(request.device)
    if request.device and (pool is None or pool.base):
        names = ", ".join(name for name, each in state.pools.items() if not each.base)
        message = f"there is no device {request.device[:64]!r}; pools: {names}"
        return PolicyVerdict(REJECTED, AdmissionReason.DEVICE_NOT_FOUND, message)
    if pool is not None and pool.is_quarantined:
        message = f"pool {pool.spec.name} is quarantined: {pool.reason}"
        return PolicyVerdict(DELAYED, AdmissionReason.DEVICE_UNAVAILABLE, message)
    if state.controls.closed_state(request.device, starts=False):
        message = f"{request.device or 'the environment'} is draining and accepts nothing new"
        return PolicyVerdict(DELAYED, AdmissionReason.DEVICE_UNAVAILABLE, message)
    if request.bound_ns and not request.workers:
        message = "a bound on the begin of tasks needs workers of one's own: ask for workers=1"
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    if request.bound_ns and request.bound_ns < MIN_BOUND_NS:
        message = f"bound_ns = {request.bound_ns} cannot be promised: {MIN_BOUND_NS} is the least"
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    return dedicated_workers.veto(state, request) if request.workers else None


def owner_veto(
    state: SchedulerState, request: ReservationRequest, owner: str
) -> PolicyVerdict | None:
    """Return the verdict of the owner's limit that a reservation would pass; None if there is
    none."""
    if not owner:
        return None
    limits, use = state.quotas.of(owner), owner_usage.of_owner(state, owner)
    ttl_ns = request.ttl_ns or state.reservations.terms(request.device).profile.default_ttl_ns
    pool = dedicated_workers.pool_name(state, request)
    pool_workers, reserved = dedicated_workers.capacity_of(state, request)
    dedicated = state.dedicated.all
    own = sum(
        dedicated[number].workers
        for number, reservation in state.reservations.live.items()
        if reservation.grant.owner == owner and number in dedicated
        if dedicated[number].pool == pool
    )
    workers = request.workers if pool else 0  # `availability_veto` rejects an unknown pool
    return owner_quotas.veto(limits, owner, use, workers, ttl_ns, pool_workers, reserved, own)


def reservation_units(
    state: SchedulerState,
    reservation: ReservationEntry,
    specs: list[TaskSpec],
    routes: list[Route],
    works: list[Workload],
) -> tuple[list[int], list[SimenvError]]:
    """Return the units of a reservation that each task takes, and an error for each task that
    cannot have them.

    `works`: the size of each task's program.
    """
    units: list[int] = []
    errors: list[SimenvError] = []
    number, device = reservation.grant.id, reservation.grant.ask.device
    terms = state.reservations.terms(device)
    times = state.reservations.times if terms.modelled_unit_ns else None
    last: tuple[object, ...] = ()
    for index, (spec, route, work) in enumerate(zip(specs, routes, works, strict=True)):
        key = (route, work, spec.count, spec.shots)
        if units and key == last and not errors:  # neighbours are mostly alike
            units.append(units[-1])
            continue
        last = key
        if not reservation.covers(route.pool, base_of(route.pool)):
            message = f"reservation {number} is for {device!r}; this is for pool {route.pool!r}"
            hint = f"pool={device!r}, or a reservation of the other"
            errors.append(NotReservedError(message, hint=hint, index=index))
            continue
        task_work = msgspec.structs.replace(work, count=spec.count, shots=spec.shots)
        modelled_ns = times.task_ns(route, spec, task_work) if times is not None else None
        needed, problem = units_for(reservation, task_work, terms, modelled_ns)
        if problem:
            message = f"reservation {number}: {problem} ({AdmissionReason.TOO_LARGE.text})"
            errors.append(NotReservedError(message, index=index))
            continue
        refusal = reservation.can_never_fit(needed)
        if refusal is not None:
            message = f"{refusal[1]} ({AdmissionReason(refusal[0]).text})"
            hint = "fewer shots, or a larger reservation"
            errors.append(NotReservedError(message, hint=hint, index=index))
        units.append(needed)
    return units, errors
