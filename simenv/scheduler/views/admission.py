"""Admission of tasks and reservations by the present state, besides the capacity that a ledger
counts."""

from __future__ import annotations

import msgspec

from simenv import text
from simenv.errors import InsufficientError, NotReservedError, SimenvError
from simenv.model import AdmissionReason, ReservationRequest, TaskOptions, TaskSpec
from simenv.scheduler.core.types import Route, base_of
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations.circuit_times import ProgramSize
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.scheduler.reservations.reservation import ReservationEntry, units_for
from simenv.scheduler.routing import ranks
from simenv.scheduler.state import owner_quotas, owner_usage
from simenv.scheduler.state.device_controls import DRAINING
from simenv.scheduler.state.state import SchedulerState
from simulators import catalog

MIN_BOUND_NS = 20_000_000
MEMORY_RETRY_S = 5.0


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


def memory_refusal(state: SchedulerState) -> SimenvError | None:
    """Return why the service accepts no tasks for lack of its own memory; None if it has enough."""
    used, limit = state.service_bytes, state.limits.service_bytes
    if not limit or used <= limit:
        return None
    return InsufficientError(
        f"the service uses {text.size(used)} of memory; above {text.size(limit)} it accepts no"
        " tasks",
        hint="wait for queued tasks to end, or raise max_service_bytes",
        retry_after_s=MEMORY_RETRY_S,
    )


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
    widest = _widest(state, request.device)
    if 0 < widest < request.workload.qubits:
        message = (
            f"{request.workload.qubits} qubits are asked for; "
            f"{request.device or 'the widest pool'} has {widest}"
        )
        return PolicyVerdict(REJECTED, AdmissionReason.TOO_LARGE, message)
    if request.bound_ns and not request.workers:
        message = "a bound on the begin of tasks needs workers of one's own: ask for workers=1"
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    if request.bound_ns and request.bound_ns < MIN_BOUND_NS:
        message = f"bound_ns = {request.bound_ns} cannot be promised: {MIN_BOUND_NS} is the least"
        return PolicyVerdict(REJECTED, AdmissionReason.UNSUPPORTED, message)
    return dedicated_workers.veto(state, request) if request.workers else None


def _widest(state: SchedulerState, device: str) -> int:
    """Return the qubits of the widest circuit of a device, or of all for ""; 0: not known."""
    times = state.reservations.times
    widths = []
    for pool in state.pools.values():
        if pool.base or device not in ("", pool.spec.name):
            continue
        figures = None if times is None else times.figures(pool.spec.name)
        if figures is not None:
            widths.append(figures.num_qubits)
        elif pool.spec.device or pool.spec.provider:
            return 0
        elif pool.spec.engine == "any":
            cards = [card for card in catalog.engine_cards() if card.auto is not None]
            widths.append(max(card.max_qubits for card in cards))
        else:
            widths.append(ranks.widest_of(pool.spec, state.limits))
    return max(widths, default=0)


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
    sizes: list[ProgramSize],
    terms: TaskOptions,
) -> tuple[list[int], list[SimenvError]]:
    """Return the units of a reservation that each task takes, and an error for each task that
    cannot have them.

    `sizes`: of each task's program; `terms`: the options of all.
    """
    units: list[int] = []
    errors: list[SimenvError] = []
    number, device = reservation.grant.id, reservation.grant.ask.device
    device_terms = state.reservations.terms(device)
    is_modelled = device_terms.modelled_unit_ns and reservation.grant.is_modelled
    times = state.reservations.times if is_modelled else None
    last: tuple[object, ...] = ()
    for index, (spec, route, size) in enumerate(zip(specs, routes, sizes, strict=True)):
        key = (route, size, spec.count, spec.shots)
        if units and key == last and not errors:  # neighbours are mostly alike
            units.append(units[-1])
            continue
        last = key
        if not reservation.covers(route.pool, base_of(route.pool)):
            message = f"reservation {number} is for {device!r}; this is for pool {route.pool!r}"
            hint = f"pool={device!r}, or a reservation of the other"
            errors.append(NotReservedError(message, hint=hint, index=index))
            continue
        task_work = msgspec.structs.replace(size.work, count=spec.count, shots=spec.shots)
        modelled_ns = None
        if times is not None:
            granted = reservation.grant.ask, reservation.grant.total_ns
            modelled_ns = times.task_ns(*granted, route, spec, size, terms)
        needed, problem = units_for(reservation, task_work, device_terms, modelled_ns)
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
