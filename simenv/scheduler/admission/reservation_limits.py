"""The one check of the limits of reservations: which limit of its owner does one pass first?

Every refusal names the value, the limit and the way out.
"""

from __future__ import annotations

from simenv import model
from simenv.errors import LimitExceededError
from simenv.model.limits import Subject, owner_of
from simenv.scheduler.dispatch import dedicated_workers
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
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
        besides = f" in addition to {own_reserved} that {subject} has" if own_reserved else ""
        return _rejected(
            f"workers = {workers}{besides}: {subject} may reserve {percent} "
            f"% of the {pool_workers} workers of a pool, which are {max_count} "
            f"(max_reserved_percent); ask for fewer; {subject.way_out('max_reserved_percent')}"
        )
    if pool_reserved + workers >= pool_workers and percent < 100:
        message = (
            f"reservations have {pool_reserved} of the {pool_workers} workers of the pool; one is "
            "left for tasks without a reservation"
        )
        return PolicyVerdict(DELAYED, model.AdmissionReason.OVER_LIMIT, message, missing=1)
    return None


def _too_long(subject: Subject, limits: model.Limits, ttl_ns: int) -> str:
    return (
        f"ttl = {ttl_ns / NS:g} s is above the limit of {limits.max_reservation_s} s for "
        f"{subject} (max_reservation_s)"
    )


def _rejected(message: str) -> PolicyVerdict:
    return PolicyVerdict(REJECTED, model.AdmissionReason.SCOPE_LIMIT, message)
