"""Decisions on requests for reservations: accepted, delayed or rejected, with the reason.

Pure functions: a decision changes nothing; an accepted request comes with the grant for the ledger.
"""

from __future__ import annotations

import msgspec

from simenv.errors import OptionError
from simenv.model import AdmissionReason, Decision, ReservationRequest
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.ledger import ReservationLedger
from simenv.scheduler.reservations.policies import (
    ACCEPTED,
    DELAYED,
    MOST,
    REJECTED,
    CostEstimate,
    DeviceTerms,
    PolicyVerdict,
    bound_of,
    check_request,
)
from simenv.scheduler.reservations.reservation import PARTS, Grant, ReservationEntry

MAX_PER_OWNER = 1_000  # live reservations at a time
MAX_LIVE = 4_096
RETRY_NS = 10**9  # if the waiting time is unknown

Decided = tuple[Decision, Grant | None]


def validate_request(request: ReservationRequest) -> Decision | None:
    """Return None if the values of a request are valid, else its rejection."""
    try:
        check_request(request)
    except OptionError as error:
        return _rejected(AdmissionReason.INVALID_REQUEST, f"{error.message}; {error.hint}")
    return None


def decide(
    ledger: ReservationLedger,
    request: ReservationRequest,
    owner: str,
    wall_ns: int,
    veto: PolicyVerdict | None,
) -> Decided:
    """Return the decision on a valid request. `veto`: refusal by its device or its owner's
    limits."""
    existing = ledger.find_repeated(owner, request.request_id, wall_ns)
    if existing is not None:
        return _repeated(existing, request), None
    terms = ledger.terms(request.device)
    cost = ledger.estimate(request.device, terms, request.workload)
    verdict = veto or _fixed_limits(ledger, cost, owner)
    capacity, span_ns, device = PolicyVerdict(), 0, request.device
    if verdict is None:
        verdicts = [(terms, policies.evaluate(cost, request, terms, ledger.reserved(device)))]
        if request.device:  # the terms of all devices together hold for each device
            verdicts.append(_evaluate_all_devices(ledger, cost, request, terms.unit_ns))
        capacity, span_ns = _combined(verdicts, cost, request)
        verdict = min((verdict for _, verdict in verdicts), key=_severity)
        device = device if verdict is verdicts[0][1] else ""
    if verdict.status == ACCEPTED:
        one_ns = terms.unit_ns
        granted = (capacity.credits, capacity.rate, span_ns, bound_of(request))
        parts = PARTS if terms.modelled_unit_ns else 1
        grant = Grant(
            ledger.next_id, owner, request, wall_ns, one_ns, cost.total_ns, *granted, parts
        )
        return _decision(verdict, cost, capacity, wall_ns, 0, grant), grant
    wait_ns = _until_free(ledger, device, verdict, wall_ns) if verdict.status == DELAYED else 0
    return _decision(verdict, cost, capacity, wall_ns, wait_ns, None), None


def _fixed_limits(
    ledger: ReservationLedger, cost: CostEstimate, owner: str
) -> PolicyVerdict | None:
    """Return the verdict of limits that hold under every policy; None if they allow the request."""
    if cost.total_ns > MOST:
        message = f"it would take {cost.total_ns} ns; the most is {MOST}"
        return PolicyVerdict(REJECTED, AdmissionReason.TOO_LARGE, message)
    own = sum(reservation.grant.owner == owner for reservation in ledger.live.values())
    if own >= MAX_PER_OWNER:
        message = f"{own} reservations of this owner are active, which is the maximum: release some"
        return PolicyVerdict(REJECTED, AdmissionReason.SCOPE_LIMIT, message)
    if len(ledger.live) >= MAX_LIVE:
        message = f"{len(ledger.live)} reservations are active, which is the maximum"
        return PolicyVerdict(DELAYED, AdmissionReason.OVER_LIMIT, message, missing=1)
    return None


def _evaluate_all_devices(
    ledger: ReservationLedger, cost: CostEstimate, request: ReservationRequest, one_ns: int
) -> tuple[DeviceTerms, PolicyVerdict]:
    """Return the terms and the verdict of all devices together, in their unit.

    The figures of the verdict are converted to units of `one_ns`, except `missing`.
    """
    terms = ledger.terms("")
    device_unit_ns = terms.unit_ns
    estimate = CostEstimate(cost.total_ns, policies.units_of(cost.total_ns, device_unit_ns))
    verdicts = policies.evaluate(estimate, request, terms, ledger.reserved(""))
    if device_unit_ns == one_ns:
        return terms, verdicts
    return terms, msgspec.structs.replace(
        verdicts,
        credits=verdicts.credits and cost.units,
        rate=verdicts.rate and _rate(cost, request, policies.span_ns(terms)),
        available=verdicts.available * device_unit_ns // one_ns,
    )


def _combined(
    device_verdicts: list[tuple[DeviceTerms, PolicyVerdict]],
    cost: CostEstimate,
    request: ReservationRequest,
) -> tuple[PolicyVerdict, int]:
    """Return the capacity that would be taken of each device, and the time span of its rate in
    ns."""
    verdicts = [verdict for _, verdict in device_verdicts]
    limits = [v.available for v in verdicts if v.credits or v.rate]
    spans = [policies.span_ns(terms) for terms, verdict in device_verdicts if verdict.rate]
    capacity = PolicyVerdict(
        credits=max(v.credits for v in verdicts),
        rate=_rate(cost, request, max(spans)) if spans else 0,
        available=min(limits, default=0),
    )
    return capacity, max(spans, default=0)


def _rate(cost: CostEstimate, request: ReservationRequest, span_ns: int) -> int:
    return policies.rate_of(cost.units, span_ns, policies.budget_ns(request))


def _severity(verdict: PolicyVerdict) -> int:
    return (REJECTED, DELAYED, ACCEPTED).index(verdict.status)


def _until_free(
    ledger: ReservationLedger, device: str, verdict: PolicyVerdict, wall_ns: int
) -> int:
    """Return the time in ns until enough reservations of the device have expired, if none is
    renewed or released."""
    scale = policies.scale(ledger.terms(device))
    missing = verdict.missing
    if not missing:
        return verdict.wait_ns or RETRY_NS
    estimate = [
        reservation
        for reservation in ledger.live.values()
        if device in ("", reservation.grant.ask.device)
    ]
    for reservation in sorted(
        estimate or ledger.live.values(), key=lambda reservation: reservation.expires_ns
    ):
        credit, rate = reservation.reserved(device, scale)
        freed = {
            AdmissionReason.INSUFFICIENT_CREDITS: credit,
            AdmissionReason.INSUFFICIENT_RATE: rate,
        }
        missing -= freed.get(AdmissionReason(verdict.code), 1)
        if missing <= 0:
            return max(1, reservation.expires_ns - wall_ns)
    return RETRY_NS


def _repeated(reservation: ReservationEntry, request: ReservationRequest) -> Decision:
    """Return the answer to a request that a live reservation was made for."""
    grant = reservation.grant
    if grant.ask != request:
        message = (
            f"reservation {grant.id} was made for request {request.request_id!r} with other values"
        )
        return _rejected(AdmissionReason.EXISTS, message)
    cost = CostEstimate(grant.total_ns, policies.units_of(grant.total_ns, grant.one_ns))
    capacity = PolicyVerdict(credits=grant.credits, rate=grant.rate)
    return _decision(PolicyVerdict(), cost, capacity, grant.created_ns, 0, grant)


def _rejected(code: AdmissionReason, message: str) -> Decision:
    return Decision(REJECTED, code, message)


def _decision(
    verdict: PolicyVerdict,
    cost: CostEstimate,
    capacity: PolicyVerdict,
    wall_ns: int,
    wait_ns: int,
    grant: Grant | None,
) -> Decision:
    """Return the decision as it is sent: every figure is limited to 64 bits."""
    begin_ns = wall_ns + wait_ns
    return Decision(
        status=verdict.status,
        code=verdict.code,
        message=verdict.message or "accepted",
        reservation=grant.id if grant is not None else 0,
        units=min(cost.units, MOST),
        credits_required=min(max(verdict.credits, capacity.credits), MOST),
        rate_required=min(max(verdict.rate, capacity.rate), MOST),
        capacity_available=verdict.available if grant is None else capacity.available,
        estimated_total_ns=min(cost.total_ns, MOST),
        estimated_start_ns=begin_ns,
        estimated_finish_ns=min(begin_ns + cost.total_ns, 2 * MOST),
        retry_after_ns=wait_ns,
        bound_ns=grant.bound_ns if grant is not None else 0,
    )
