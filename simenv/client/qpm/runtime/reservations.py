"""The reservations that calls name: is one needed, is it there, is it one's own and active?

Invariant: the service decides. What is remembered here spares a question, never an answer: which
pool a reservation is for and whether it is metered do not change; that it is active is believed for
SEEN_S, and not at all where a circuit is accepted under it.
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
MAX_ASKED = 2**63 - 1  # the service counts no higher
LIVE = (ReservationState.PENDING, ReservationState.ACTIVE)


class ReservationRef(msgspec.Struct, frozen=True):
    """What of a reservation never changes. `metered`: its tasks may have to wait for credits."""

    number: int
    device: str
    metered: bool


UNCLAIMED = ReservationRef(NONE, "", metered=False)


class ReservationChecks:
    """Thread-safe. `required`: a call that costs something must name a reservation. `over`: told
    of each that is seen to have ended."""

    def __init__(
        self, session: ServiceSession, *, required: bool, over: Callable[[int], None] | None = None
    ) -> None:
        self._session = session
        self._over = over
        self.required = required
        self._reservation_checks: dict[int, ReservationRef] = {}
        self._active_s: dict[int, float] = {}  # when it was seen to be

    # --- calls that cost something ------------------------------------------------------------

    def claim(self, reservation_id: Any) -> ReservationRef:
        """To run under. ExecutionError where none is given and one is needed, or none is there."""
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
        """NONE, or the number of an active one. ExecutionError."""
        number = arguments.reservation(reservation_id)
        if number is None:
            return NONE
        if not self.seen_active(number):
            self.check_active(number)
        return number

    def seen_active(self, number: int) -> bool:
        """Was it a moment ago?"""
        seen_s = self._active_s.get(number)
        return seen_s is not None and monotonic() - seen_s < SEEN_S

    def check_active(self, number: int) -> None:
        """ExecutionError says why it is not."""
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
        """Of a circuit that was not accepted under it."""
        self.changed(number)
        try:
            self.check_active(number)
        except ExecutionError as why:
            return why
        return ExecutionError(error.message, hint=error.hint, reason=Reason.RESERVATION_EXCEEDED)

    # --- asking -------------------------------------------------------------------------------

    def find(self, number: int) -> ReservationInfo | None:
        """As the service sees it now; None: it is nobody's, or another owner's."""
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
        """What was believed of it may be so no longer."""
        self._active_s.pop(number, None)

    def ended(self, number: int) -> None:
        """It is over."""
        self.changed(number)
        if self._over is not None:
            self._over(number)

    def active(self) -> list[ReservationInfo]:
        """Those that one may know of, and that have not ended."""
        try:
            result = self._session.request(Reservations, GetReservations).reservations
        except SimenvError as error:
            raise as_qpm_error(error) from error
        return [info for info in result if info.state in LIVE]
