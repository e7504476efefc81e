"""Checks of the reservations that calls name: existence, ownership, state.

Invariant: the service decides. The cache spares requests and never decides: the pool of a
reservation and its metering do not change; an active state is trusted for SEEN_S, and not at all
where a circuit is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import msgspec

from simenv.client.connection.session import ServiceSession
from simenv.client.qpm.requests import arguments
from simenv.client.qpm.runtime.calls import as_qpm_error
from simenv.errors import NotReservedError, SimenvError
from simenv.model import ReservationInfo, ReservationState
from simenv.qpm.errors import ExecutionError
from simenv.qpm.states import Reason
from simenv.wire.messages.reservations import GetReservations, Reservations

NONE = 0  # the number of no reservation
SEEN_S = 0.05
KEPT = 1_024
MAX_ASKED = 2**63 - 1  # largest number of the service
LIVE = (ReservationState.PENDING, ReservationState.ACTIVE)


class ReservationRef(msgspec.Struct, frozen=True):
    """Constant part of a reservation. `metered`: its tasks may have to wait for credits."""

    number: int
    device: str
    metered: bool


UNCLAIMED = ReservationRef(NONE, "", metered=False)


class ReservationChecks:
    """Checks of reservations, with a cache. Thread-safe. `required`: a call that consumes capacity
    must name a reservation. `over`: called with each reservation that has ended."""

    def __init__(
        self, session: ServiceSession, *, required: bool, over: Callable[[int], None] | None = None
    ) -> None:
        self._session = session
        self._over = over
        self.required = required
        self._reservation_checks: dict[int, ReservationRef] = {}
        self._active_s: dict[int, float] = {}  # time of the last check that found it active

    # --- calls that cost something ------------------------------------------------------------

    def claim(self, reservation_id: Any) -> ReservationRef:
        """Return the reservation of a circuit. Raises ExecutionError if one is required and
        missing, or if it does not exist or is not active."""
        number = arguments.reservation(reservation_id)
        if number is None:
            if self.required:
                raise ExecutionError(
                    "no reservation_id was given",
                    hint="reserve(request={...}) gives one",
                    reason=Reason.RESERVATION_REQUIRED,
                )
            return UNCLAIMED
        existing = self._reservation_checks.get(number)
        if existing is not None:
            return existing
        self.check_active(number)
        return self._reservation_checks[number]

    def check(self, reservation_id: Any) -> int:
        """Return the number of an active reservation, or NONE. Raises ExecutionError."""
        number = arguments.reservation(reservation_id)
        if number is None:
            return NONE
        if not self.seen_active(number):
            self.check_active(number)
        return number

    def seen_active(self, number: int) -> bool:
        """Return whether the reservation was active within the last SEEN_S."""
        seen_s = self._active_s.get(number)
        return seen_s is not None and monotonic() - seen_s < SEEN_S

    def check_active(self, number: int) -> None:
        """Raises ExecutionError with the reason if the reservation is not active."""
        info = self.find(number)
        if info is None:
            raise ExecutionError(
                f"there is no reservation {number}",
                hint="list_reservations() shows yours",
                reason=Reason.RESERVATION_NOT_FOUND,
            )
        if info.state not in LIVE:
            raise ExecutionError(
                f"reservation {number} is {info.state}",
                hint="reserve(request={...}) gives another",
                reason=Reason.RESERVATION_NOT_ACTIVE,
            )

    def refusal(self, number: int, error: NotReservedError) -> ExecutionError:
        """Make the error of a circuit that the service refused under a reservation."""
        self.changed(number)
        try:
            self.check_active(number)
        except ExecutionError as why:
            return why
        return ExecutionError(error.message, hint=error.hint, reason=Reason.RESERVATION_EXCEEDED)

    # --- asking -------------------------------------------------------------------------------

    def find(self, number: int) -> ReservationInfo | None:
        """Present state of a reservation in the service; None if it does not exist or has another
        owner."""
        if number > MAX_ASKED:
            return None
        try:
            ask = partial(GetReservations, reservation=number)
            (info,) = self._session.request(Reservations, ask).reservations
        except NotReservedError:
            return None
        except SimenvError as error:
            raise as_qpm_error(error) from error
        if len(self._reservation_checks) >= KEPT:
            self._reservation_checks.clear()
            self._active_s.clear()
        metered = info.credits_reserved > 0 or info.rate_reserved > 0
        self._reservation_checks[number] = ReservationRef(number, info.device, metered)
        if info.state in LIVE:
            self._active_s[number] = monotonic()
        else:
            self.ended(number)
        return info

    def changed(self, number: int) -> None:
        """Discard the cached state of a reservation."""
        self._active_s.pop(number, None)

    def ended(self, number: int) -> None:
        """Note the end of a reservation."""
        self.changed(number)
        if self._over is not None:
            self._over(number)

    def active(self) -> list[ReservationInfo]:
        """Active reservations that the caller may see."""
        try:
            result = self._session.request(Reservations, GetReservations).reservations
        except SimenvError as error:
            raise as_qpm_error(error) from error
        return [info for info in result if info.state in LIVE]
