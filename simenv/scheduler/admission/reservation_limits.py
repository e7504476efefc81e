"""The one check of the limits of reservations: which limit of its owner does one pass first?

Planned reservations are checked when they are planned, when workers begin to be kept for them, and
as any other when they are requested.

Every refusal names the value, the limit and the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from simenv import model
from simenv.errors import LimitExceededError
from simenv.model.limits import Subject, owner_of
from simenv.model.reservations import JOB_SCOPE, CalendarEntry
from simenv.scheduler.core import UNLIMITED
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.scheduler.state.maintenance import PlannedRoom
from simenv.scheduler.state.scheduler_state import SchedulerState

NS = 10**9


def check_renewal(state: SchedulerState, owner: str, ttl_ns: int) -> None:
    """Raise LimitExceededError if a renewal would last longer than the owner's limit."""
    limits, subject = state.shares.limits.of(owner), owner_of(owner)
    if limits.max_reservation_s and ttl_ns > limits.max_reservation_s * NS:
        raise LimitExceededError(
            _too_long(subject, limits, ttl_ns),
            hint=f"renew it again before it expires; {subject.way_out('max_reservation_s')}",
        )


def reservation_verdict(
    state: SchedulerState, request: model.ReservationRequest, owner: str
) -> PolicyVerdict | None:
    """Return the verdict of the owner's limit that a reservation would pass; None if there is
    none."""
    if not owner:
        return None
    limits, use, subject = state.shares.limits.of(owner), state.use_of(owner), owner_of(owner)
    ttl_ns = request.ttl_ns or state.reservations.terms(request.device).profile.default_ttl_ns
    if limits.max_reservation_s and ttl_ns > limits.max_reservation_s * NS:
        hint = f"ask for less, and renew it; {subject.way_out('max_reservation_s')}"
        return _rejected(f"{_too_long(subject, limits, ttl_ns)}; {hint}")
    if limits.max_reservations and use.reservations >= limits.max_reservations:
        return _rejected(
            f"{subject} has {use.reservations} live reservations; the limit is "
            f"{limits.max_reservations} (max_reservations); release some; "
            f"{subject.way_out('max_reservations')}"
        )
    pool = dedicated_workers.pool_name(state, request)
    # `availability_veto` rejects an unknown pool.
    if not (pool and request.workers and limits.max_reserved_percent):
        return None
    return _workers_verdict(state, request, owner, pool)


def check_planned(state: SchedulerState, entry: CalendarEntry, now_s: float) -> None:
    """Raise LimitExceededError if the next occurrence of a planned reservation, with the others
    that its owner has planned for then, passes a limit of the owner or the size of its pool."""
    ask, owner, found = entry.ask, entry.owner, entry.occurrence(now_s)
    if ask is None or found is None:
        return
    pool, capacity = dedicated_workers.pool_name(state, ask), 0
    if pool and ask.workers:
        capacity, _ = dedicated_workers.capacity(state, ask)
        if ask.workers > capacity:
            text = f"pool {pool} has at most {capacity} that can be reserved"
            raise LimitExceededError(f"workers = {ask.workers}: {text}", hint="ask for fewer")
    if not owner or ask.scope.startswith(JOB_SCOPE):
        return
    limits, subject, ttl_ns = state.shares.limits.of(owner), owner_of(owner), entry.length_s * NS
    if limits.max_reservation_s and ttl_ns > limits.max_reservation_s * NS:
        hint = f"plan less, and renew it; {subject.way_out('max_reservation_s')}"
        raise LimitExceededError(_too_long(subject, limits, ttl_ns), hint=hint)
    own = [
        (*occurrence, each.ask)
        for each in state.calendar.entries.values()
        if each.owner == owner and each.ask is not None
        if (occurrence := each.occurrence(now_s)) is not None
    ]
    begins = {found[0], *(begin_s for begin_s, _, _ in own if found[0] < begin_s < found[1])}
    together = [[other for b_s, e_s, other in own if b_s <= at_s < e_s] for at_s in begins]
    count = max(map(len, together))
    if limits.max_reservations and count >= limits.max_reservations:
        text = f"{subject} has planned {count} reservations for that time; the limit is"
        hint = f"plan another time; {subject.way_out('max_reservations')}"
        raise LimitExceededError(f"{text} {limits.max_reservations} (max_reservations)", hint=hint)
    percent = limits.max_reserved_percent
    if not (capacity and percent):
        return
    planned = max(
        sum(each.workers for each in asks if dedicated_workers.pool_name(state, each) == pool)
        for asks in together
    )
    if planned + ask.workers > capacity * percent // 100:
        hint = f"ask for fewer; {subject.way_out('max_reserved_percent')}"
        text = _too_many(subject, ask.workers, planned, "has planned", percent, capacity)
        raise LimitExceededError(text, hint=hint)


def planned_rooms(state: SchedulerState) -> Callable[[CalendarEntry, int], PlannedRoom | None]:
    """Return the function that `Calendar.set_planned` asks in one pass."""

    @cache
    def pool_of(device: str) -> tuple[str, int]:
        request = model.ReservationRequest(device=device)
        return dedicated_workers.pool_name(state, request), dedicated_workers.capacity(
            state, request
        )[0]

    @cache
    def live_of(owner: str) -> list[tuple[int, str, int]]:
        """Expiry in ns since 1970, pool and workers of each reservation in force."""
        live, dedicated = state.reservations.live.items(), state.dedicated.all
        return [
            (reservation.expires_ns, dedicated[number].pool, dedicated[number].workers)
            if number in dedicated
            else (reservation.expires_ns, "", 0)
            for number, reservation in live
            if reservation.grant.owner == owner
        ]

    def room_of(entry: CalendarEntry, begin_ns: int) -> PlannedRoom | None:
        assert entry.ask is not None
        name, capacity = pool_of(entry.ask.device)
        if not name:
            return None
        limits = state.shares.limits.of(entry.owner)
        if entry.ask.scope.startswith(JOB_SCOPE):
            limits = model.UNLIMITED
        percent, most = limits.max_reserved_percent, limits.max_reservations
        if 0 < limits.max_reservation_s < entry.length_s:
            return None
        lasting = [each for each in live_of(entry.owner) if each[0] > begin_ns]
        reserved = sum(workers for _, pool, workers in lasting if pool == name)
        return PlannedRoom(
            name,
            capacity,
            capacity - 1 if 0 < percent < 100 else UNLIMITED,
            capacity * percent // 100 - reserved if percent else UNLIMITED,
            most - len(lasting) if most else UNLIMITED,
        )

    return room_of


def _workers_verdict(
    state: SchedulerState, request: model.ReservationRequest, owner: str, pool: str
) -> PolicyVerdict | None:
    """Return the verdict of the limit of an owner's dedicated workers in a pool."""
    subject, workers = owner_of(owner), request.workers
    percent = state.shares.limits.of(owner).max_reserved_percent
    pool_workers, pool_reserved = dedicated_workers.capacity(state, request)
    dedicated = state.dedicated.all
    own_reserved = sum(
        dedicated[number].workers
        for number, reservation in state.reservations.live.items()
        if reservation.grant.owner == owner and number in dedicated
        if dedicated[number].pool == pool
    )
    max_count = pool_workers * percent // 100
    if own_reserved + workers > max_count:
        text = _too_many(subject, workers, own_reserved, "has", percent, pool_workers)
        return _rejected(f"{text}; ask for fewer; {subject.way_out('max_reserved_percent')}")
    if pool_reserved + workers >= pool_workers and percent < 100:
        message = (
            f"reservations have {pool_reserved} of the {pool_workers} workers of the pool; one is "
            "left for tasks without a reservation"
        )
        return PolicyVerdict(DELAYED, model.AdmissionReason.OVER_LIMIT, message, missing=1)
    return None


def _too_many(
    subject: Subject, workers: int, others: int, has: str, percent: int, pool_workers: int
) -> str:
    besides = f" in addition to {others} that {subject} {has}" if others else ""
    return (
        f"workers = {workers}{besides}: {subject} may reserve {percent} % of the {pool_workers} "
        f"workers of a pool, which are {pool_workers * percent // 100} (max_reserved_percent)"
    )


def _too_long(subject: Subject, limits: model.Limits, ttl_ns: float) -> str:
    return (
        f"ttl = {ttl_ns / NS:g} s is above the limit of {limits.max_reservation_s} s for "
        f"{subject} (max_reservation_s)"
    )


def _rejected(message: str) -> PolicyVerdict:
    return PolicyVerdict(REJECTED, model.AdmissionReason.SCOPE_LIMIT, message)
