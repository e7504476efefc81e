"""Admission by the present state of pools and of the memory, and the units of a reservation."""

from __future__ import annotations

import msgspec

from simenv import model, text
from simenv.errors import InsufficientError, NotReservedError, OptionError, SimenvError
from simenv.model import task_rules
from simenv.model.views import base_of
from simenv.scheduler.core import Route
from simenv.scheduler.dispatch import (
    dedicated_workers,
)
from simenv.scheduler.reservations.circuit_times import ProgramSize
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.scheduler.reservations.reservation import ReservationEntry, units_for
from simenv.scheduler.routing import ranks
from simenv.scheduler.state import device_controls, scheduler_state
from simulators import catalog

MIN_BOUND_NS = 20_000_000
MEMORY_RETRY_S = 5.0


def draining_refusal(state: scheduler_state.SchedulerState, routes: list[Route]) -> str:
    """Return why a draining device accepts none of these tasks; "" if all are accepted."""
    for name in {route.pool for route in routes}:
        device = base_of(name) or name
        if state.devices.controls.closed_state(device, starts=False):
            draining = state.devices.controls.of(device).state == device_controls.DRAINING
            subject = f"pool {device}" if draining else "the environment"
            return f"{subject} is draining and accepts nothing new"
    return ""


def memory_refusal(state: scheduler_state.SchedulerState) -> InsufficientError:
    """Return the refusal of tasks while `state.lacks_memory`."""
    used, limit = state.service_bytes, state.limits.service_bytes
    return InsufficientError(
        f"the service uses {text.size(used)} of memory; above {text.size(limit)} it accepts no"
        " tasks",
        hint="wait for queued tasks to end, or raise max_service_bytes",
        retry_after_s=MEMORY_RETRY_S,
    )


def availability_veto(
    state: scheduler_state.SchedulerState, request: model.ReservationRequest
) -> PolicyVerdict | None:
    """Return why a valid request cannot be accepted, whatever credits or rate remain; None if it
    can."""
    pool = state.cluster.pools.get(request.device)
    if request.device and (pool is None or pool.base):
        names = ", ".join(name for name, each in state.cluster.pools.items() if not each.base)
        message = f"there is no device {request.device[:64]!r}; pools: {names}"
        return PolicyVerdict(REJECTED, model.AdmissionReason.DEVICE_NOT_FOUND, message)
    if pool is not None and pool.starts.is_quarantined:
        message = f"pool {pool.spec.name} is quarantined: {pool.starts.reason}"
        return PolicyVerdict(DELAYED, model.AdmissionReason.DEVICE_UNAVAILABLE, message)
    if state.devices.controls.closed_state(request.device, starts=False):
        message = f"{request.device or 'the environment'} is draining and accepts nothing new"
        return PolicyVerdict(DELAYED, model.AdmissionReason.DEVICE_UNAVAILABLE, message)
    widest = _widest(state, request.device)
    if 0 < widest < request.workload.qubits:
        subject = request.device or "the widest pool"
        message = f"{request.workload.qubits} qubits are asked for; {subject} has {widest}"
        return PolicyVerdict(REJECTED, model.AdmissionReason.TOO_LARGE, message)
    try:
        device = request.device or "of the environment"
        task_rules.check_shots(request.workload.shots, device, _max_shots(state, request.device))
    except OptionError as error:  # `submit` refuses it too
        message = f"{error.message}: {error.hint}"
        return PolicyVerdict(REJECTED, model.AdmissionReason.TOO_LARGE, message)
    if request.bound_ns and not request.workers:
        message = "a bound on the begin of tasks needs workers of one's own: ask for workers=1"
        return PolicyVerdict(REJECTED, model.AdmissionReason.UNSUPPORTED, message)
    if request.bound_ns and request.bound_ns < MIN_BOUND_NS:
        message = f"bound_ns = {request.bound_ns} cannot be promised: {MIN_BOUND_NS} is the least"
        return PolicyVerdict(REJECTED, model.AdmissionReason.UNSUPPORTED, message)
    return dedicated_workers.availability_verdict(state, request) if request.workers else None


def _widest(state: scheduler_state.SchedulerState, device: str) -> int:
    """Return the qubits of the widest circuit of a device, or of all for ""; 0: not known."""
    times = state.reservations.times
    widths = []
    for pool in state.cluster.pools.values():
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


def _max_shots(state: scheduler_state.SchedulerState, device: str) -> int:
    """Return the shots of one circuit that a device takes, or that any of all takes for ""; 0: any
    number, or not known."""
    times = state.reservations.times
    names = [each.spec.name for each in state.cluster.pools.values() if not each.base]
    if times is None:
        return 0
    figures = [times.figures(name) for name in names if device in ("", name)]
    limits = [0 if each is None else each.max_shots for each in figures]
    return max(limits, default=0) if all(limits) else 0


def reservation_units(
    state: scheduler_state.SchedulerState,
    reservation: ReservationEntry,
    specs: list[model.TaskSpec],
    routes: list[Route],
    sizes: list[ProgramSize],
    terms: model.TaskOptions,
) -> tuple[list[int], list[SimenvError]]:
    """Return the units of a reservation that each task takes, and an error for each task that
    cannot have them. `sizes`: of each task's program; `terms`: the options of all."""
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
            message = f"reservation {number}: {problem} ({model.AdmissionReason.TOO_LARGE.text})"
            errors.append(NotReservedError(message, index=index))
            continue
        refusal = reservation.can_never_fit(needed)
        if refusal is not None:
            message = f"{refusal[1]} ({model.AdmissionReason(refusal[0]).text})"
            hint = "fewer shots, or a larger reservation"
            errors.append(NotReservedError(message, hint=hint, index=index))
        units.append(needed)
    return units, errors
