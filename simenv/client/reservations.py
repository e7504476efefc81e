"""Reservations: requested, renewed while they are used, and released.

Invariant: a reservation in a `with` block is renewed each time that a third of its time has passed.
The process that entered the block releases it at the end; a fork of that process does not. Other
reservations expire. One thread of a client renews all its reservations.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, SupportsIndex, TypedDict, get_type_hints

import msgspec

from simenv import model
from simenv.client.submission.options import check_names
from simenv.config import application
from simenv.errors import NotReservedError, SimenvError, TimedOutError
from simenv.model import AdmissionReason, task_rules
from simenv.model.reservations import APP, DAY_S, CalendarEntry, time_zone
from simenv.wire.messages import admin

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession

log = logging.getLogger("simenv.client")

POLL_S = 0.25  # longest pause before a delayed request is repeated
MAX_WORKLOAD_FIELD = 2**62  # upper bound of each field of a workload


class Reservation:
    """A claim on a pool, or on the whole environment. Thread-safe."""

    def __init__(
        self,
        session: ServiceSession,
        renewer: LeaseRenewer,
        info: model.ReservationInfo,
        for_s: float,
    ) -> None:
        self.for_s = for_s  # seconds from a renewal to the expiry
        self._session = session
        self._renewer = renewer
        self._info = info
        self._pid = os.getpid()

    @property
    def id(self) -> int:
        """Number of the reservation; `submit(..., reservation=...)` accepts it in any process of
        its owner."""
        return self._info.id

    @property
    def pool(self) -> str:
        """The reserved pool; "": all pools."""
        return self._info.device

    def info(self) -> model.ReservationInfo:
        """Return its present state. Raises NotReservedError when the service has removed it."""
        return listed(self._session, self.id)[0]

    def renew(self, for_s: float | None = None) -> model.ReservationInfo:
        """Set the expiry to `for_s` seconds from now; None: `self.for_s`. Raises NotReservedError
        if it is over."""
        ttl_ns = _nanoseconds("for_s", self.for_s if for_s is None else for_s)
        return self._session.request(admin.Renew(0, self.id, ttl_ns)).reservations[0]

    def release(self, reason: str = "") -> list[str]:
        """End the reservation: its waiting tasks are cancelled, its running tasks may finish.
        Return the ids of the running ones. Idempotent."""
        return self._end(reason, cancel=False)

    def cancel(self, reason: str = "") -> list[str]:
        """End the reservation and stop its running tasks; return the ids of those that still
        run."""
        return self._end(reason, cancel=True)

    def _end(self, reason: str, *, cancel: bool) -> list[str]:
        self._renewer.drop(self)
        return ended(self._session, self.id, reason, cancel=cancel)

    def __enter__(self) -> Reservation:
        self._pid = os.getpid()
        self._renewer.add(self)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self.release()
        except SimenvError:
            if kind is None:  # else it would hide the error of the block; it expires by itself
                raise

    def __repr__(self) -> str:
        return f"<reservation {self.id} of {self.pool or 'all pools'}>"


def ended(session: ServiceSession, number: int, reason: str, *, cancel: bool) -> list[str]:
    """End a reservation; return the ids of its tasks that have not ended."""
    text = reason[: task_rules.MAX_REASON_CHARS]
    released = session.request(admin.Release(0, number, text, cancel))
    return [model.task_name(task) for task in released.running]


class ReserveOptions(TypedDict, total=False):
    """Options of `reserve` about its size, as documented there."""

    workers: Annotated[SupportsIndex, 0]
    for_s: Annotated[float, 600.0]
    bound_s: Annotated[float | None, None]
    count: Annotated[SupportsIndex, 1]
    qubits: Annotated[SupportsIndex, 0]
    depth: Annotated[SupportsIndex, 0]
    gates_1q: Annotated[SupportsIndex, 0]
    gates_2q: Annotated[SupportsIndex, 0]
    measurements: Annotated[SupportsIndex, 0]
    shots: Annotated[SupportsIndex, 0]
    account: Annotated[str, ""]
    timeout_s: Annotated[float | None, None]


DEFAULTS: dict[str, Any] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(ReserveOptions, include_extras=True).items()
}


def reservation_request(pool: str | None, options: ReserveOptions) -> model.ReservationRequest:
    """Return the request of `reserve`; its request id makes a repeat idempotent. Raises
    OptionError, and TypeError for an option that does not exist."""
    check_names(options, ReserveOptions)
    asked = {**DEFAULTS, **options}
    counts = [
        task_rules.checked_integer(name, asked[name], int(name == "count"), MAX_WORKLOAD_FIELD)
        for name in model.Workload.__struct_fields__
    ]
    app, bound_s = application(), asked["bound_s"]
    ttl_ns = _nanoseconds("for_s", asked["for_s"])
    return model.ReservationRequest(
        request_id=secrets.token_hex(8),
        device=pool or "",
        ttl_ns=ttl_ns,
        walltime_ns=ttl_ns,
        workload=model.Workload(*counts),
        workers=task_rules.checked_integer("workers", asked["workers"], 0, task_rules.MAX_WORKERS),
        bound_ns=0 if bound_s is None else _nanoseconds("bound_s", bound_s),
        account=asked["account"],
        metadata=((APP, app),) if app else (),
    )


def request_decision(
    session: ServiceSession,
    request: model.ReservationRequest,
    timeout_s: float | None,
    *,
    owner: str = "",
) -> model.Decision:
    """Send the request until it is accepted; a delayed request is repeated. `timeout_s` None: no
    limit. `owner`: for whom an admin asks. Raises NotReservedError when it is rejected,
    TimedOutError, NotAllowedError."""
    timeout_s = task_rules.checked_timeout(timeout_s)
    end_s = None if timeout_s is None else monotonic() + timeout_s
    waiting = Event()
    while True:
        decision = _decision(session, admin.Reserve(0, request, owner=owner))
        if decision.status == "accepted":
            return decision
        left_s = POLL_S if end_s is None else end_s - monotonic()
        if left_s <= 0:
            message = f"nothing could be reserved within {timeout_s:g} s: {decision.message}"
            hint = "a longer timeout; client.reservations() shows what is reserved"
            raise TimedOutError(message, hint=hint)
        waiting.wait(min(POLL_S, left_s, decision.retry_after_ns / 1e9))


def dry_decision(session: ServiceSession, request: model.ReservationRequest) -> model.Decision:
    """Return what the service would decide now. Raises NotReservedError if it is a refusal for
    good."""
    return _decision(session, admin.Reserve(0, request, dry=True))


def _decision(session: ServiceSession, message: admin.Reserve) -> model.Decision:
    decision = session.request(message).decision
    if decision.status not in ("accepted", "delayed"):
        raise NotReservedError(f"{decision.message} ({AdmissionReason(decision.code).text})")
    return decision


def listed(session: ServiceSession, number: int = 0) -> list[model.ReservationInfo]:
    """Return the reservations that the client may see; `number`: only this one, 0: all."""
    return session.request(admin.GetReservations(0, number)).reservations


def checked_reservation(number: SupportsIndex) -> int:
    """Check the number of a reservation. Raises OptionError."""
    return task_rules.checked_integer("reservation", number, 1, task_rules.MAX_RESERVATION)


def _nanoseconds(name: str, seconds: float) -> int:
    return round(task_rules.checked_seconds(name, seconds) * 1e9)


def local_zone() -> str:
    """Return the name of this machine's time zone: that of TZ, else of /etc/localtime; "": it has
    no name."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        name = os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]
    return name if name and time_zone(name) is not None else ""


class ServiceCalendar:
    """Planned maintenance and reservations of an environment. Times are in seconds since 1970."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session

    def __iter__(self) -> Iterator[CalendarEntry]:
        """Iterate over the entries, the next first: all maintenance, and the client's planned
        reservations; for admins those of all."""
        return iter(self._session.request(admin.GetCalendar(0)).entries)

    def plan_maintenance(
        self,
        node: str = "",
        *,
        start_s: float,
        for_s: float,
        every_s: float = 0.0,
        zone: str = "",
        reason: str = "",
    ) -> CalendarEntry:
        """Drain a node, or all nodes ("") at a time, and use it again `for_s` seconds later.

        Before a maintenance of all nodes no task starts that would not end, and expected starts
        behind it are later. `every_s`: again each time so many seconds have passed; whole days
        are counted by the clocks of `zone`, see `add`. Raises OptionError, NotFoundError,
        NotAllowedError."""
        reason = reason[: task_rules.MAX_REASON_CHARS]
        return self.add(CalendarEntry(start_s, for_s, every_s, node, reason, zone=zone))

    def add(self, entry: CalendarEntry) -> CalendarEntry:
        """Add an entry; return it with its number. One that comes again after whole days and names
        no `zone` gets that of this machine: it begins at the same local time all year. With the
        zone UTC all intervals have the same length. Raises as `plan_maintenance`."""
        if entry.every_s and not (entry.every_s % DAY_S or entry.zone):
            entry = msgspec.structs.replace(entry, zone=local_zone())
        return self._session.request(admin.AddCalendarEntry(0, entry)).entries[0]

    def remove(self, number: SupportsIndex) -> CalendarEntry:
        """Remove an entry; a maintenance that is under way ends. Raises NotFoundError,
        NotAllowedError."""
        entry = task_rules.checked_integer("number", number, 1, task_rules.MAX_RESERVATION)
        return self._session.request(admin.RemoveCalendarEntry(0, entry)).entries[0]


RENEWALS_PER_LEASE = 3  # a reservation is renewed after for_s / RENEWALS_PER_LEASE
MAX_RETRY_S = 1.0  # longest pause after a failed renewal


class LeaseRenewer:
    """Thread that renews the reservations of a client. Thread-safe; restarts in a forked child."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._next_renewal_s: dict[Reservation, float] = {}  # monotonic time of the next renewal
        self._refused: set[Reservation] = set()  # of which the log has a warning
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, reservation: Reservation) -> None:
        """Renew this reservation from now on."""
        if os.getpid() != self._pid:
            self._begin()
        with self._changed:
            self._next_renewal_s[reservation] = monotonic() + reservation.for_s / RENEWALS_PER_LEASE
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simenv-renew", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drop(self, reservation: Reservation) -> None:
        """Renew this reservation no longer. Idempotent."""
        if os.getpid() != self._pid:
            self._begin()
        with self._changed:
            self._next_renewal_s.pop(reservation, None)
            self._refused.discard(reservation)

    def stop(self) -> None:
        """Renew nothing more; the reservations expire."""
        if os.getpid() == self._pid:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def join(self) -> None:
        """Wait for the end of the thread. Precondition: `stop` was called, and the connection is
        closed, on which the thread may be waiting."""
        thread = self._thread if os.getpid() == self._pid else None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped:
                    first_s = min(self._next_renewal_s.values(), default=None)
                    wait_s = None if first_s is None else first_s - monotonic()
                    if wait_s is not None and wait_s <= 0:
                        break
                    self._changed.wait(wait_s)
                if self._stopped:
                    return
                now_s = monotonic()
                ready = [
                    reservation
                    for reservation, next_s in self._next_renewal_s.items()
                    if next_s <= now_s
                ]
            for reservation in ready:
                self._renew(reservation)

    def _renew(self, reservation: Reservation) -> None:
        next_s = reservation.for_s / RENEWALS_PER_LEASE
        try:
            reservation.renew()
        except NotReservedError as error:
            self._warn(reservation, error)
            self.drop(reservation)  # it is over: a submit with it raises NotReservedError
            return
        except SimenvError as error:
            next_s = min(MAX_RETRY_S, next_s)
            if not error.retryable:  # a budget, for example; tried again until it is over
                self._warn(reservation, error)
        with self._changed:
            if reservation in self._next_renewal_s:
                self._next_renewal_s[reservation] = monotonic() + next_s

    def _warn(self, reservation: Reservation, error: SimenvError) -> None:
        """Log the first refusal of a reservation, unless it was dropped meanwhile."""
        with self._changed:
            if reservation in self._refused or reservation not in self._next_renewal_s:
                return
            self._refused.add(reservation)
        log.warning("%r is not renewed: %s", reservation, error)
