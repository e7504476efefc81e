"""Reservations: requested, waited for, renewed while they are used, and released.

Invariant: a reservation in a `with` block is renewed until the block ends, when a third of its time
has passed, and released then by the process that entered the block, not by a fork of it. Other
reservations expire. One thread of a client renews all its reservations.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from functools import partial
from threading import Event
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, SupportsIndex

from simenv.client.submission.arguments import (
    APP,
    MAX_RESERVATION,
    MAX_WORKERS,
    checked_seconds,
    checked_whole,
)
from simenv.config import application
from simenv.errors import NotReservedError, SimenvError, TimedOutError
from simenv.model import Decision, ReservationInfo, ReservationRequest, Workload, task_name
from simenv.wire.messages.reservations import (
    DecisionReply,
    GetReservations,
    Release,
    Released,
    Renew,
    Reservations,
    Reserve,
)

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession

LEAST_S = 0.001
LOOK_S = 0.25  # how often what is delayed is asked for again, at most
MAX_REASON_CHARS = 500
MOST = 2**62  # of any size


class Reservation:
    """A claim on a pool, or on the whole environment. Thread-safe."""

    def __init__(
        self, session: ServiceSession, renewer: LeaseRenewer, info: ReservationInfo, for_s: float
    ) -> None:
        self.for_s = for_s  # how long it lives when it is renewed
        self._session = session
        self._renewer = renewer
        self._made = info
        self._pid = os.getpid()

    @property
    def id(self) -> int:
        """What `submit(..., reservation=...)` takes as well, in any process of its owner."""
        return self._made.id

    @property
    def pool(self) -> str:
        """The pool it is for; "": all of them."""
        return self._made.device

    def info(self) -> ReservationInfo:
        """How it stands now. Raises NotReservedError when it is no longer kept."""
        return self._session.request(
            Reservations, partial(GetReservations, reservation=self.id)
        ).reservations[0]

    def renew(self, for_s: float | None = None) -> ReservationInfo:
        """It expires so many seconds from now; None: `for_s`. Raises NotReservedError if it is
        over."""
        ttl_ns = _nanoseconds("for_s", self.for_s if for_s is None else for_s)
        renew = partial(Renew, reservation=self.id, ttl_ns=ttl_ns)
        return self._session.request(Reservations, renew).reservations[0]

    def release(self, reason: str = "") -> list[str]:
        """It is over: what waits under it is cancelled, what runs may end; the ids of those.
        Idempotent."""
        return self._end(reason, cancel=False)

    def cancel(self, reason: str = "") -> list[str]:
        """The same, and what runs is stopped; the ids of what has not stopped yet."""
        return self._end(reason, cancel=True)

    def _end(self, reason: str, *, cancel: bool) -> list[str]:
        self._renewer.drop(self)
        return ended(self._session, self.id, reason, cancel=cancel)

    def __enter__(self) -> Reservation:
        self._pid = os.getpid()
        self._renewer.add(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return
        try:
            self.release()
        except SimenvError:
            if error is None:  # else it would hide what the block ends with; it expires by itself
                raise

    def __repr__(self) -> str:
        return f"<reservation {self.id} of {self.pool or 'all pools'}>"


def ended(session: ServiceSession, number: int, reason: str, *, cancel: bool) -> list[str]:
    """A reservation is over; the ids of its tasks that are not."""
    short_reason = reason[:MAX_REASON_CHARS]
    ask = partial(Release, reservation=number, reason=short_reason, cancel=cancel)
    return [task_name(task) for task in session.request(Released, ask).running]


def asked(
    pool: str | None,
    for_s: float,
    workers: SupportsIndex,
    bound_s: float | None,
    sizes: Sequence[SupportsIndex],
) -> ReservationRequest:
    """What `reserve` asks for; its request id makes a repeat one. `sizes`: the fields of a
    Workload. OptionError."""
    fields = zip(Workload.__struct_fields__, sizes, strict=True)
    counts = [checked_whole(name, value, int(name == "count"), MOST) for name, value in fields]
    app = application()
    ttl_ns = _nanoseconds("for_s", for_s)
    return ReservationRequest(
        request_id=secrets.token_hex(8),
        device=pool or "",
        ttl_ns=ttl_ns,
        walltime_ns=ttl_ns,
        workload=Workload(*counts),
        workers=checked_whole("workers", workers, 0, MAX_WORKERS),
        bound_ns=0 if bound_s is None else _nanoseconds("bound_s", bound_s),
        metadata=((APP, app),) if app else (),
    )


def decided(session: ServiceSession, ask: ReservationRequest, timeout_s: float | None) -> Decision:
    """Accepted, after waiting where it is delayed; None: as long as that takes. Raises
    NotReservedError when it is rejected, TimedOutError."""
    end_s = None if timeout_s is None else monotonic() + timeout_s
    waiting = Event()
    while True:
        decision = session.request(DecisionReply, partial(Reserve, ask=ask)).decision
        if decision.status == "accepted":
            return decision
        if decision.status != "delayed":
            raise NotReservedError(f"{decision.message} (reason {decision.code})")
        left_s = LOOK_S if end_s is None else end_s - monotonic()
        if left_s <= 0:
            raise TimedOutError(
                f"nothing could be reserved within {timeout_s:g} s: {decision.message}",
                hint="a longer timeout; client.reservations() shows what is reserved",
            )
        waiting.wait(min(LOOK_S, left_s, decision.retry_after_ns / 1e9))


def listed(session: ServiceSession, number: int = 0) -> list[ReservationInfo]:
    """Those that one may know of."""
    return session.request(Reservations, partial(GetReservations, reservation=number)).reservations


def checked_reservation(number: SupportsIndex) -> int:
    """The id of one."""
    return checked_whole("reservation", number, 1, MAX_RESERVATION)


def _nanoseconds(what: str, seconds: float) -> int:
    return round(checked_seconds(what, seconds) * 1e9)


PART = 3  # of its time, after which it is renewed
AGAIN_S = 1.0  # after a failure, at most


class LeaseRenewer:
    """Thread-safe; begins anew in a forked child."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._due: dict[Reservation, float] = {}  # monotonic
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, reservation: Reservation) -> None:
        """Renew this one from now on."""
        if os.getpid() != self._pid:
            self._begin()
        with self._changed:
            self._due[reservation] = monotonic() + reservation.for_s / PART
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simenv-renew", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drop(self, reservation: Reservation) -> None:
        """Renew it no longer; idempotent."""
        if os.getpid() != self._pid:
            self._begin()
        with self._changed:
            self._due.pop(reservation, None)

    def stop(self) -> None:
        """No more; what is reserved expires by itself."""
        if os.getpid() == self._pid:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def join(self) -> None:
        """After it was stopped, and the connection closed that it may be waiting at."""
        thread = self._thread if os.getpid() == self._pid else None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._stopped:
                    first_s = min(self._due.values(), default=None)
                    wait_s = None if first_s is None else first_s - monotonic()
                    if wait_s is not None and wait_s <= 0:
                        break
                    self._changed.wait(wait_s)
                if self._stopped:
                    return
                now_s = monotonic()
                ready = [reservation for reservation, due_s in self._due.items() if due_s <= now_s]
            for reservation in ready:
                self._renew(reservation)

    def _renew(self, reservation: Reservation) -> None:
        next_s = reservation.for_s / PART
        try:
            reservation.renew()
        except NotReservedError:
            self.drop(reservation)  # it is over: whoever submits under it is told
            return
        except SimenvError:
            next_s = min(AGAIN_S, next_s)
        with self._changed:
            if reservation in self._due:
                self._due[reservation] = monotonic() + next_s
