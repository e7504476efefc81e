"""Ledger of reservations, and the terms of each device. A pure state machine.

Invariant (see `check_reservations` of the tests): the capacity that live reservations have of a
device never exceeds its total; a refusal changes nothing; `changes` names all that a restart needs
to restore the same state, with the estimates of unfinished tasks. Times are wall-clock nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from simenv.errors import InsufficientError, NotReservedError, OptionError
from simenv.model import AdmissionPolicy, DeviceProfile, ReservationState, Workload
from simenv.scheduler.reservations import policies
from simenv.scheduler.reservations.circuit_times import DeviceTimes
from simenv.scheduler.reservations.policies import (
    MAX_TTL_NS,
    MOST,
    CostEstimate,
    DeviceTerms,
    ReservedCapacity,
    UnitScale,
    check_policy,
    check_profile,
    with_baseline,
)
from simenv.scheduler.reservations.reservation import Grant, Progress, ReservationEntry

RETAINED_NS = 3_600 * 10**9  # time that a closed reservation stays in the ledger
MAX_OVER = 2_048  # closed ones in the ledger at most; the oldest are removed first
NEVER_NS = 2**63 - 1


class StoredReservations(msgspec.Struct, frozen=True):
    """Reservations and terms of devices as the journal stores them."""

    devices: dict[str, DeviceTerms]
    reservations: list[tuple[Grant, Progress]]
    next_id: int


class UnstoredChanges(msgspec.Struct):
    """Changes that are not stored yet. `urgent`: a client waits until they are stored."""

    reservations: dict[int, None] = msgspec.field(default_factory=dict)
    forgotten: list[int] = msgspec.field(default_factory=list)
    devices: dict[str, None] = msgspec.field(default_factory=dict)
    units: dict[int, tuple[int, int] | None] = msgspec.field(default_factory=dict)
    urgent: bool = False

    def __bool__(self) -> bool:
        return bool(self.reservations or self.forgotten or self.devices or self.units)


class ReservationLedger:
    """All reservations.

    `by_task` is empty while there are none, so that tasks are not looked up.
    """

    def __init__(self) -> None:
        self.next_id = 1
        self.all: dict[int, ReservationEntry] = {}  # in the order they were made
        self.devices: dict[str, DeviceTerms] = {}
        # Unfinished tasks that hold units or are parked.
        self.by_task: dict[int, ReservationEntry] = {}
        self.freed: dict[int, None] = {}  # reservations whose parked tasks may have units now
        self.emptying: dict[int, None] = {}  # closed reservations whose tasks wait to be ended
        self.times: DeviceTimes | None = None  # of devices without a profile; None: default
        self.changes = UnstoredChanges()
        self.live: dict[int, ReservationEntry] = {}
        self._requests: dict[tuple[str, str], int] = {}  # live ones, by owner and request id
        self._next_ns = NEVER_NS  # next expiry or removal

    # --- devices --------------------------------------------------------------------------------

    def terms(self, device: str) -> DeviceTerms:
        """Return the terms of a device: as they were set, else the default terms with a modelled
        unit."""
        return self.devices.get(device) or self._modelled(device, _DEFAULT)

    def estimate(self, device: str, terms: DeviceTerms, work: Workload) -> CostEstimate:
        """Return the expected cost of a workload on a device."""
        total_ns = None
        if terms.modelled_unit_ns and self.times is not None:
            total_ns = self.times.workload_ns(device, work)
        if total_ns is None:
            total_ns = policies.circuits_ns(work, terms.profile)
        return CostEstimate(total_ns, policies.units_of(total_ns, terms.unit_ns))

    def _modelled(self, device: str, terms: DeviceTerms) -> DeviceTerms:
        """Return the terms with a unit from the device's cost model, if the device has one."""
        if self.times is None:
            return terms
        baseline = msgspec.structs.replace(terms.profile.baseline, count=1)
        unit_ns = self.times.workload_ns(device, baseline)
        return msgspec.structs.replace(terms, modelled_unit_ns=min(unit_ns or 0, MOST))

    def set_profile(self, device: str, profile: DeviceProfile) -> bool:
        """Set a device's profile; return False if nothing changed. Its times replace modelled ones.

        Raises OptionError, and InsufficientError if live reservations have more than the new
        capacity.
        """
        old = self.terms(device)
        if profile == old.profile and not old.modelled_unit_ns:
            return False
        check_profile(device, profile)
        policy = msgspec.structs.replace(old.policy, baseline=profile.baseline)
        check_policy(device, policy, profile)
        terms = DeviceTerms(
            profile,
            old.profile_version + 1,
            policy,
            old.policy_version + (policy != old.policy),
        )
        return self._set(device, terms)

    def set_policy(self, device: str, policy: AdmissionPolicy, expected: int) -> bool:
        """Set a device's admission policy; return False if nothing changed.

        `expected`: the present version of the policy; -1: any. Raises the errors of `set_profile`,
        and OptionError for another version.
        """
        old = self.terms(device)
        if policy == old.policy:
            return False
        if expected not in (-1, old.policy_version):
            raise OptionError(
                f"the admission policy has version {old.policy_version}, {expected} was expected",
                hint="read it again: it was changed",
            )
        profile = with_baseline(old.profile, policy.baseline)
        check_profile(device, profile)
        check_policy(device, policy, profile)
        terms = DeviceTerms(
            profile,
            old.profile_version + (profile != old.profile),
            policy,
            old.policy_version + 1,
            old.modelled_unit_ns,
        )
        if old.modelled_unit_ns and profile != old.profile:
            terms = self._modelled(device, terms)
        return self._set(device, terms)

    def _set(self, device: str, terms: DeviceTerms) -> bool:
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

    def reserved(self, device: str) -> ReservedCapacity:
        """Return the capacity that reservations have of a device; of all devices for ""."""
        return self._reserved(device, policies.scale(self.terms(device)))

    def _reserved(self, device: str, scale: UnitScale) -> ReservedCapacity:
        """Return the reserved capacity in this scale.

        Reservations of the device itself count in the units of their grant.
        """
        reservations = [
            reservation
            for reservation in self.all.values()
            if device in ("", reservation.grant.ask.device)
            and (reservation.holds or not reservation.is_over)
        ]
        parts = [reservation.reserved(device, scale) for reservation in reservations]
        live = sum(not reservation.is_over for reservation in reservations)
        return ReservedCapacity(
            sum(part[0] for part in parts), sum(part[1] for part in parts), live
        )

    # --- requests -------------------------------------------------------------------------------

    def add(self, grant: Grant, wall_ns: int) -> None:
        """Add a granted reservation."""
        request = grant.ask
        ttl_ns = request.ttl_ns or self.terms(request.device).profile.default_ttl_ns
        self.restore(grant, Progress(ReservationState.ACTIVE, wall_ns + ttl_ns))
        self._changed(grant.id, urgent=True)

    def find_repeated(self, owner: str, request_id: str, wall_ns: int) -> ReservationEntry | None:
        """Return the live reservation made for this request of its owner; None if there is none.

        An expired reservation does not count, even if it is not closed yet.
        """
        if not request_id:
            return None
        reservation = self.live.get(self._requests.get((owner, request_id), 0))
        return None if reservation is None or wall_ns >= reservation.expires_ns else reservation

    # --- reservations ----------------------------------------------------------------------------

    def find(self, number: int, scope: str) -> ReservationEntry:
        """Return the reservation if `scope` may see it. Raises NotReservedError."""
        reservation = self.all.get(number)
        if reservation is None or scope not in ("", reservation.grant.owner):
            raise NotReservedError(
                f"there is no reservation {number}", hint="client.reservations() lists yours"
            )
        return reservation

    def usable(self, number: int, owner: str, wall_ns: int) -> ReservationEntry:
        """Return the live reservation for a task of its owner. Raises NotReservedError."""
        reservation = self.all.get(number)
        if reservation is None or reservation.grant.owner != owner:
            raise NotReservedError(
                f"there is no reservation {number}", hint="client.reservations() lists yours"
            )
        self._check_live(reservation, wall_ns)
        return reservation

    def renew(self, number: int, scope: str, ttl_ns: int, wall_ns: int) -> ReservationEntry:
        """Extend a reservation to `ttl_ns` from now; 0: by its original duration.

        Raises NotReservedError, OptionError.
        """
        reservation = self.find(number, scope)
        self._check_live(reservation, wall_ns)
        ttl_ns = ttl_ns or self.default_ttl_ns(reservation)
        if ttl_ns > MAX_TTL_NS:
            raise OptionError(f"ttl_ns = {ttl_ns}", hint=f"0 to {MAX_TTL_NS} ns")
        reservation.expires_ns = wall_ns + ttl_ns
        self._next_ns = min(self._next_ns, reservation.expires_ns)
        self._changed(number, urgent=True)
        return reservation

    def default_ttl_ns(self, reservation: ReservationEntry) -> int:
        """Return the duration of a renewal that names none: the original duration of the
        reservation."""
        request = reservation.grant.ask
        return request.ttl_ns or self.terms(request.device).profile.default_ttl_ns

    def _check_live(self, reservation: ReservationEntry, wall_ns: int) -> None:
        if reservation.is_over or wall_ns >= reservation.expires_ns:
            state = reservation.state if reservation.is_over else ReservationState.EXPIRED
            why = f": {reservation.why}" if reservation.why else ""
            raise NotReservedError(
                f"reservation {reservation.grant.id} is over ({state}{why})", hint="make a new one"
            )

    def close(
        self, reservation: ReservationEntry, state: ReservationState, why: str, wall_ns: int
    ) -> None:
        """Close a reservation; units that its tasks hold are returned when the tasks end."""
        reservation.state, reservation.why, reservation.over_ns = state, why[:500], wall_ns
        del self.live[reservation.grant.id]
        request = reservation.grant.owner, reservation.grant.ask.request_id
        if self._requests.get(request) == reservation.grant.id:
            del self._requests[request]
        self._next_ns = min(self._next_ns, wall_ns + RETAINED_NS)
        self._changed(reservation.grant.id, urgent=True)

    # --- expiry ---------------------------------------------------------------------------------

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

    # --- tasks ----------------------------------------------------------------------------------

    def settle(self, task: int, ran_ns: int, *, done: bool = False) -> None:
        """Return the units that an ended task held, if it is under a reservation.

        `ran_ns` 0: the task never ran; `done`: it has its result.
        """
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

    # --- storage --------------------------------------------------------------------------------

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

    def _changed(self, number: int, urgent: bool = False) -> None:
        self.changes.reservations[number] = None
        self.changes.urgent = self.changes.urgent or urgent


_DEFAULT = DeviceTerms()
