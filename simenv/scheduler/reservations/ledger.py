"""Ledger of reservations, and decisions on requests for them.

Invariant (see `check_reservations` of the tests): the capacity that live reservations have of a
device never exceeds its total; a refusal changes nothing; `changes` names all that a restart needs
to restore the same state, with the estimates of unfinished tasks. Times are wall-clock nanoseconds.

Decisions on requests for reservations: accepted, delayed or rejected, with the reason. Pure
functions: a decision changes nothing; an accepted request comes with the grant for the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from simenv import model
from simenv.errors import InsufficientError, NotReservedError, OptionError
from simenv.model.views import base_of
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.circuit_times import DeviceTimes
from simenv.scheduler.reservations.reservation import PARTS, Grant, Progress, ReservationEntry

RETAINED_NS = 3_600 * 10**9  # time that a closed reservation stays in the ledger
MAX_OVER = 2_048  # closed ones in the ledger at most; the oldest are removed first
NEVER_NS = 2**63 - 1


class StoredReservations(msgspec.Struct, frozen=True):
    """Reservations and terms of devices as the journal stores them."""

    devices: dict[str, policies.DeviceTerms]
    reservations: list[tuple[Grant, Progress]]
    next_id: int


class UnstoredChanges(msgspec.Struct):
    """Changes that are not stored yet. `urgent`: a client waits until they are stored."""

    reservations: dict[int, None] = msgspec.field(default_factory=dict)
    forgotten: list[int] = msgspec.field(default_factory=list)
    devices: dict[str, None] = msgspec.field(default_factory=dict)
    units: dict[int, tuple[int, int] | None] = msgspec.field(default_factory=dict)
    urgent: bool = False


UNCHANGED = UnstoredChanges()  # for comparisons


class ReservationLedger:
    """All reservations. `by_task` is empty while there are none, so that tasks are not looked
    up."""

    def __init__(self) -> None:
        self.next_id = 1
        self.all: dict[int, ReservationEntry] = {}  # in the order they were made
        self.devices: dict[str, policies.DeviceTerms] = {}
        # Unfinished tasks that hold units or are parked.
        self.by_task: dict[int, ReservationEntry] = {}
        self.freed: dict[int, None] = {}  # reservations whose parked tasks may have units now
        self.emptying: dict[int, None] = {}  # closed reservations whose tasks wait to be ended
        self.times: DeviceTimes | None = None  # of devices without a profile; None: default
        self.changes = UnstoredChanges()
        self.live: dict[int, ReservationEntry] = {}
        self._requests: dict[tuple[str, str], int] = {}  # live ones, by owner and request id
        self._next_ns = NEVER_NS  # next expiry or removal

    def copy_without_parked(self) -> ReservationLedger:
        """Return a copy in which no task waits for units."""
        result = ReservationLedger()
        result.next_id, result.times, result._next_ns = self.next_id, self.times, self._next_ns
        result.devices, result._requests = self.devices.copy(), self._requests.copy()
        result.all = {number: each.copy_without_parked() for number, each in self.all.items()}
        result.live = {number: result.all[number] for number in self.live}
        result.by_task = {n: each for each in result.all.values() for n in each.holds}
        return result

    def terms(self, device: str) -> policies.DeviceTerms:
        """Return the terms of a device: as they were set, else the default terms with a modelled
        unit."""
        return self.devices.get(device) or self._modelled(device, _DEFAULT)

    def estimate(
        self, device: str, terms: policies.DeviceTerms, work: model.Workload
    ) -> policies.CostEstimate:
        """Return the expected cost of a workload on a device."""
        total_ns = None
        if terms.modelled_unit_ns and self.times is not None:
            total_ns = self.times.workload_ns(device, work)
        if total_ns is None:
            total_ns = policies.circuits_ns(work, terms.profile)
        return policies.CostEstimate(total_ns, policies.units_of(total_ns, terms.unit_ns))

    def _modelled(self, device: str, terms: policies.DeviceTerms) -> policies.DeviceTerms:
        """Return the terms with a unit from the device's cost model, if the device has one."""
        if self.times is None:
            return terms
        baseline = msgspec.structs.replace(terms.profile.baseline, count=1)
        unit_ns = self.times.workload_ns(device, baseline)
        return msgspec.structs.replace(terms, modelled_unit_ns=min(unit_ns or 0, policies.MOST))

    def set_profile(self, device: str, profile: model.DeviceProfile) -> bool:
        """Set a device's profile; return False if nothing changed. Its times replace modelled ones.
        Raises OptionError, and InsufficientError if live reservations have more than the new
        capacity."""
        old = self.terms(device)
        if profile == old.profile and not old.modelled_unit_ns:
            return False
        policies.check_profile(device, profile)
        policy = msgspec.structs.replace(old.policy, baseline=profile.baseline)
        policies.check_policy(device, policy, profile)
        terms = policies.DeviceTerms(
            profile, old.profile_version + 1, policy, old.policy_version + (policy != old.policy)
        )
        return self._set(device, terms)

    def set_policy(self, device: str, policy: model.AdmissionPolicy, expected: int) -> bool:
        """Set a device's admission policy; return False if nothing changed. `expected`: the present
        version of the policy; -1: any. Raises the errors of `set_profile`, and OptionError for
        another version."""
        old = self.terms(device)
        if policy == old.policy:
            return False
        if expected not in (-1, old.policy_version):
            text = f"the admission policy has version {old.policy_version}, {expected} was expected"
            raise OptionError(text, hint="read it again: it was changed")
        profile = policies.with_baseline(old.profile, policy.baseline)
        policies.check_profile(device, profile)
        policies.check_policy(device, policy, profile)
        terms = policies.DeviceTerms(
            profile,
            old.profile_version + (profile != old.profile),
            policy,
            old.policy_version + 1,
            old.modelled_unit_ns,
        )
        if old.modelled_unit_ns and profile != old.profile:
            terms = self._modelled(device, terms)
        return self._set(device, terms)

    def _set(self, device: str, terms: policies.DeviceTerms) -> bool:
        policy = terms.policy
        reserved = self._reserved(device, policies.scale(terms))
        for name, amount, capacity in (
            ("credit", reserved.credits, policies.credit_capacity),
            ("rate", reserved.rate, policies.rate_capacity),
        ):
            if policy.name == name and amount > capacity(terms):
                raise InsufficientError(
                    f"live reservations have {amount} units of {name}; there would be "
                    f"{capacity(terms)}",
                    hint="release them first, or wait until they expire",
                )
        self.devices[device] = terms
        self.changes.devices[device] = None
        self.changes.urgent = True
        return True

    def reserved(self, device: str) -> policies.ReservedCapacity:
        """Return the capacity that reservations have of a device; of all devices for ""."""
        return self._reserved(device, policies.scale(self.terms(device)))

    def _reserved(self, device: str, scale: policies.UnitScale) -> policies.ReservedCapacity:
        """Return the reserved capacity in this scale. Reservations of the device itself count in
        the units of their grant."""
        reservations = [
            reservation
            for reservation in self.all.values()
            if device in ("", reservation.grant.ask.device)
            and (reservation.holds or not reservation.is_over)
        ]
        parts = [reservation.reserved(device, scale) for reservation in reservations]
        live = sum(not reservation.is_over for reservation in reservations)
        return policies.ReservedCapacity(
            sum(part[0] for part in parts), sum(part[1] for part in parts), live
        )

    def add(self, grant: Grant, wall_ns: int) -> None:
        """Add a granted reservation."""
        request = grant.ask
        ttl_ns = request.ttl_ns or self.terms(request.device).profile.default_ttl_ns
        self.restore(grant, Progress(model.ReservationState.ACTIVE, wall_ns + ttl_ns))
        self._changed(grant.id, urgent=True)

    def find_repeated(self, owner: str, request_id: str, wall_ns: int) -> ReservationEntry | None:
        """Return the live reservation made for this request of its owner; None if there is none. An
        expired reservation does not count, even if it is not closed yet."""
        if not request_id:
            return None
        reservation = self.live.get(self._requests.get((owner, request_id), 0))
        return None if reservation is None or wall_ns >= reservation.expires_ns else reservation

    def find(self, number: int, scope: str) -> ReservationEntry:
        """Return the reservation if `scope` may see it. Raises NotReservedError."""
        reservation = self.all.get(number)
        if reservation is None or scope not in ("", reservation.grant.owner):
            hint = "client.reservations() lists yours"
            raise NotReservedError(f"there is no reservation {number}", hint=hint)
        return reservation

    def usable(self, number: int, owner: str, wall_ns: int) -> ReservationEntry:
        """Return the live reservation for a task of its owner. Raises NotReservedError."""
        reservation = self.all.get(number)
        if reservation is None or reservation.grant.owner != owner:
            hint = "client.reservations() lists yours"
            raise NotReservedError(f"there is no reservation {number}", hint=hint)
        self._check_live(reservation, wall_ns)
        return reservation

    def renew(self, number: int, scope: str, ttl_ns: int, wall_ns: int) -> ReservationEntry:
        """Extend a reservation to `ttl_ns` from now; 0: by its original duration. Raises
        NotReservedError, OptionError."""
        reservation = self.find(number, scope)
        self._check_live(reservation, wall_ns)
        ttl_ns = ttl_ns or self.default_ttl_ns(reservation)
        if ttl_ns > policies.MAX_TTL_NS:
            raise OptionError(f"ttl_ns = {ttl_ns}", hint=f"0 to {policies.MAX_TTL_NS} ns")
        reservation.expires_ns = wall_ns + ttl_ns
        self._next_ns = min(self._next_ns, reservation.expires_ns)
        self._changed(number, urgent=True)
        return reservation

    def set_account(self, reservation: ReservationEntry, account: str) -> None:
        """Set the account of a reservation that was made without one."""
        grant = reservation.grant
        ask = msgspec.structs.replace(grant.ask, account=account)
        reservation.grant = msgspec.structs.replace(grant, ask=ask)
        self._changed(grant.id)

    def default_ttl_ns(self, reservation: ReservationEntry) -> int:
        """Return the duration of a renewal that names none: the original duration of the
        reservation."""
        request = reservation.grant.ask
        return request.ttl_ns or self.terms(request.device).profile.default_ttl_ns

    def _check_live(self, reservation: ReservationEntry, wall_ns: int) -> None:
        if reservation.is_over or wall_ns >= reservation.expires_ns:
            state = reservation.state if reservation.is_over else model.ReservationState.EXPIRED
            why = f": {reservation.why}" if reservation.why else ""
            raise NotReservedError(
                f"reservation {reservation.grant.id} is over ({state}{why})", hint="make a new one"
            )

    def close(
        self, reservation: ReservationEntry, state: model.ReservationState, why: str, wall_ns: int
    ) -> None:
        """Close a reservation; units that its tasks hold are returned when the tasks end."""
        reservation.state, reservation.why, reservation.over_ns = state, why[:500], wall_ns
        del self.live[reservation.grant.id]
        request = reservation.grant.owner, reservation.grant.ask.request_id
        if self._requests.get(request) == reservation.grant.id:
            del self._requests[request]
        self._next_ns = min(self._next_ns, wall_ns + RETAINED_NS)
        self._changed(reservation.grant.id, urgent=True)

    def due(self, wall_ns: int) -> list[ReservationEntry]:
        """Return the reservations that have expired by now; remove those closed for RETAINED_NS."""
        if wall_ns < self._next_ns and len(self.all) - len(self.live) <= MAX_OVER:
            return []
        expired = [
            reservation for reservation in self.live.values() if wall_ns >= reservation.expires_ns
        ]
        over = [o for o in self.all.values() if o.is_over and not (o.holds or o.parked)]
        excess = len(over) - MAX_OVER
        for position, reservation in enumerate(
            sorted(over, key=lambda reservation: reservation.over_ns)
        ):
            if position < excess or wall_ns >= reservation.over_ns + RETAINED_NS:
                del self.all[reservation.grant.id]
                self.changes.reservations.pop(reservation.grant.id, None)
                self.changes.forgotten.append(reservation.grant.id)
        self._next_ns = min(
            (
                reservation.over_ns + RETAINED_NS if reservation.is_over else reservation.expires_ns
                for reservation in self.all.values()
                if not (reservation.is_over and (reservation.holds or reservation.parked))
            ),
            default=NEVER_NS,
        )
        return expired

    def settle(self, task: int, ran_ns: int, *, done: bool = False) -> None:
        """Return the units that an ended task held, if it is under a reservation. `ran_ns` 0: the
        task never ran; `done`: it has its result."""
        reservation = self.by_task.pop(task, None)
        if reservation is None:
            return
        reservation.settle(task, ran_ns, done=done)
        self.changes.units[task] = None
        self._changed(reservation.grant.id)
        if reservation.parked:
            self.freed[reservation.grant.id] = None
        if reservation.is_over and not (reservation.holds or reservation.parked):
            self._next_ns = min(self._next_ns, reservation.over_ns + RETAINED_NS)

    def record_units(self, task: int, reservation: ReservationEntry, units: int) -> None:
        """Record that a task holds units, or is parked."""
        self.by_task[task] = reservation
        if reservation.is_over and reservation.parked:
            self.emptying[reservation.grant.id] = None
        self.changes.units[task] = (reservation.grant.id, units)

    def restore(self, grant: Grant, progress: Progress) -> ReservationEntry:
        """Add a reservation, new or stored."""
        reservation = self.all[grant.id] = ReservationEntry(grant, progress)
        self.next_id = max(self.next_id, grant.id + 1)
        if reservation.is_over:
            self._next_ns = min(self._next_ns, reservation.over_ns + RETAINED_NS)
            return reservation
        self.live[grant.id] = reservation
        self._next_ns = min(self._next_ns, reservation.expires_ns)
        if grant.ask.request_id:
            self._requests[grant.owner, grant.ask.request_id] = grant.id
        return reservation

    def resume(self) -> None:
        """Mark reservations with parked tasks for a check; called after a start, when all tasks are
        restored."""
        self.freed = dict.fromkeys(
            number for number, reservation in self.live.items() if reservation.parked
        )

    def visible_to(self, scope: str) -> Iterator[ReservationEntry]:
        """Return an iterator over the reservations that a scope may see, oldest first."""
        return (
            reservation
            for reservation in list(self.all.values())
            if scope in ("", reservation.grant.owner)
        )

    def take_changes(self) -> UnstoredChanges:
        """Return the changes that are not stored yet; they count as stored from now on."""
        changes, self.changes = self.changes, UnstoredChanges()
        return changes

    def parked(self, device: str) -> int:
        """Return the number of parked tasks of a device, including tasks whose pool does not exist
        yet; of all devices for ""."""
        counts = [each.parked_in for each in self.all.values() if each.parked]
        return sum(
            count
            for by_pool in counts
            for name, count in by_pool.items()
            if device in ("", base_of(name) or name)
        )

    def _changed(self, number: int, urgent: bool = False) -> None:
        self.changes.reservations[number] = None
        self.changes.urgent = self.changes.urgent or urgent


_DEFAULT = policies.DeviceTerms()

MAX_PER_OWNER = 1_000  # live reservations at a time
MAX_LIVE = 4_096
RETRY_NS = 10**9  # if the waiting time is unknown

Decided = tuple[model.Decision, Grant | None]


def validate_request(request: model.ReservationRequest) -> model.Decision | None:
    """Return None if the values of a request are valid, else its rejection."""
    try:
        policies.check_request(request)
    except OptionError as error:
        return _rejected(model.AdmissionReason.INVALID_REQUEST, f"{error.message}; {error.hint}")
    return None


def decide(
    ledger: ReservationLedger,
    request: model.ReservationRequest,
    owner: str,
    wall_ns: int,
    veto: policies.PolicyVerdict | None,
) -> Decided:
    """Return the decision on a valid request. `veto`: refusal by its device or its owner's
    limits."""
    existing = ledger.find_repeated(owner, request.request_id, wall_ns)
    if existing is not None:
        return _repeated(existing, request), None
    terms = ledger.terms(request.device)
    cost = ledger.estimate(request.device, terms, request.workload)
    verdict = veto or _fixed_limits(ledger, cost, owner)
    capacity, span_ns, device = policies.PolicyVerdict(), 0, request.device
    if verdict is None:
        verdicts = [(terms, policies.evaluate(cost, request, terms, ledger.reserved(device)))]
        if request.device:  # the terms of all devices together hold for each device
            verdicts.append(_evaluate_all_devices(ledger, cost, request, terms.unit_ns))
        capacity, span_ns = _combined(verdicts, cost, request)
        verdict = min((verdict for _, verdict in verdicts), key=_severity)
        device = device if verdict is verdicts[0][1] else ""
        if verdict.status == policies.ACCEPTED and capacity.rate > policies.MOST:
            text = f"{capacity.rate} units a time span are needed; the most is {policies.MOST}"
            too_large = model.AdmissionReason.TOO_LARGE
            verdict = policies.PolicyVerdict(policies.REJECTED, too_large, text)
    if verdict.status == policies.ACCEPTED:
        one_ns = terms.unit_ns
        granted = (capacity.credits, capacity.rate, span_ns, policies.bound_of(request))
        parts = PARTS if terms.modelled_unit_ns else 1
        grant = Grant(
            ledger.next_id, owner, request, wall_ns, one_ns, cost.total_ns, *granted, parts
        )
        return _decision(verdict, cost, capacity, wall_ns, 0, grant), grant
    is_delayed = verdict.status == policies.DELAYED
    wait_ns = _until_free(ledger, device, verdict, wall_ns) if is_delayed else 0
    return _decision(verdict, cost, capacity, wall_ns, wait_ns, None), None


def _fixed_limits(
    ledger: ReservationLedger, cost: policies.CostEstimate, owner: str
) -> policies.PolicyVerdict | None:
    """Return the verdict of limits that hold under every policy; None if they allow the request."""
    if cost.total_ns > policies.MOST:
        message = f"it would take {cost.total_ns} ns; the most is {policies.MOST}"
        return policies.PolicyVerdict(policies.REJECTED, model.AdmissionReason.TOO_LARGE, message)
    own = sum(reservation.grant.owner == owner for reservation in ledger.live.values())
    if own >= MAX_PER_OWNER:
        message = f"{own} reservations of this owner are active, which is the maximum: release some"
        return policies.PolicyVerdict(policies.REJECTED, model.AdmissionReason.SCOPE_LIMIT, message)
    if len(ledger.live) >= MAX_LIVE:
        message = f"{len(ledger.live)} reservations are active, which is the maximum"
        return policies.PolicyVerdict(
            policies.DELAYED, model.AdmissionReason.OVER_LIMIT, message, missing=1
        )
    return None


def _evaluate_all_devices(
    ledger: ReservationLedger,
    cost: policies.CostEstimate,
    request: model.ReservationRequest,
    one_ns: int,
) -> tuple[policies.DeviceTerms, policies.PolicyVerdict]:
    """Return the terms and the verdict of all devices together, in their unit. The figures of the
    verdict are converted to units of `one_ns`, except `missing`."""
    terms = ledger.terms("")
    device_unit_ns = terms.unit_ns
    estimate = policies.CostEstimate(
        cost.total_ns, policies.units_of(cost.total_ns, device_unit_ns)
    )
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
    device_verdicts: list[tuple[policies.DeviceTerms, policies.PolicyVerdict]],
    cost: policies.CostEstimate,
    request: model.ReservationRequest,
) -> tuple[policies.PolicyVerdict, int]:
    """Return the capacity that would be taken of each device, and the time span of its rate in
    ns."""
    verdicts = [verdict for _, verdict in device_verdicts]
    limits = [v.available for v in verdicts if v.credits or v.rate]
    spans = [policies.span_ns(terms) for terms, verdict in device_verdicts if verdict.rate]
    capacity = policies.PolicyVerdict(
        credits=max(v.credits for v in verdicts),
        rate=_rate(cost, request, max(spans)) if spans else 0,
        available=min(limits, default=0),
    )
    return capacity, max(spans, default=0)


def _rate(cost: policies.CostEstimate, request: model.ReservationRequest, span_ns: int) -> int:
    return policies.rate_of(cost.units, span_ns, policies.budget_ns(request))


def _severity(verdict: policies.PolicyVerdict) -> int:
    return (policies.REJECTED, policies.DELAYED, policies.ACCEPTED).index(verdict.status)


def _until_free(
    ledger: ReservationLedger, device: str, verdict: policies.PolicyVerdict, wall_ns: int
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
            model.AdmissionReason.INSUFFICIENT_CREDITS: credit,
            model.AdmissionReason.INSUFFICIENT_RATE: rate,
        }
        missing -= freed.get(model.AdmissionReason(verdict.code), 1)
        if missing <= 0:
            return max(1, reservation.expires_ns - wall_ns)
    return RETRY_NS


def _repeated(reservation: ReservationEntry, request: model.ReservationRequest) -> model.Decision:
    """Return the answer to a request that a live reservation was made for."""
    grant = reservation.grant
    if grant.ask != request:
        message = (
            f"reservation {grant.id} was made for request {request.request_id!r} with other values"
        )
        return _rejected(model.AdmissionReason.EXISTS, message)
    cost = policies.CostEstimate(grant.total_ns, policies.units_of(grant.total_ns, grant.one_ns))
    capacity = policies.PolicyVerdict(credits=grant.credits, rate=grant.rate)
    return _decision(policies.PolicyVerdict(), cost, capacity, grant.created_ns, 0, grant)


def _rejected(code: model.AdmissionReason, message: str) -> model.Decision:
    return model.Decision(policies.REJECTED, code, message)


def _decision(
    verdict: policies.PolicyVerdict,
    cost: policies.CostEstimate,
    capacity: policies.PolicyVerdict,
    wall_ns: int,
    wait_ns: int,
    grant: Grant | None,
) -> model.Decision:
    """Return the decision as it is sent: every figure is limited to 64 bits."""
    begin_ns = wall_ns + wait_ns
    return model.Decision(
        status=verdict.status,
        code=verdict.code,
        message=verdict.message or "accepted",
        reservation=grant.id if grant is not None else 0,
        units=min(cost.units, policies.MOST),
        credits_required=min(max(verdict.credits, capacity.credits), policies.MOST),
        rate_required=min(max(verdict.rate, capacity.rate), policies.MOST),
        capacity_available=min(
            verdict.available if grant is None else capacity.available, policies.MOST
        ),
        estimated_total_ns=min(cost.total_ns, policies.MOST),
        estimated_start_ns=begin_ns,
        estimated_finish_ns=min(begin_ns + cost.total_ns, 2 * policies.MOST),
        retry_after_ns=wait_ns,
        bound_ns=grant.bound_ns if grant is not None else 0,
    )
