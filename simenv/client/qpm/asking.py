"""Questions to the service whose refusals a host is told in the contract's errors."""

from __future__ import annotations

from collections.abc import Callable

from simenv.client.link import A, Link
from simenv.errors import Insufficient, NoService, NotFound, NotReserved, SimenvError
from simenv.qpm.errors import ExecutionError, NotReady, OutOfResources, QPMError, UnknownObject
from simenv.qpm.states import Reason
from simenv.wire import messages as m


def asked(link: Link, kind: type[A], make: Callable[[int], m.FromClient]) -> A:
    """As `Link.ask`. Raises QPMError alone."""
    try:
        return link.ask(kind, make)
    except SimenvError as error:
        raise told(error) from error


def told(error: SimenvError) -> QPMError:
    """A refusal of the service as a host catches it."""
    match error:
        case QPMError():
            return error
        case NoService():
            return NotReady(error.message, hint=error.hint)
        case Insufficient():
            return OutOfResources(error.message, hint=error.hint)
        case NotFound():
            return UnknownObject(error.message, hint=error.hint)
        case NotReserved():
            reason: str = Reason.RESERVATION_NOT_FOUND
        case _:
            reason = error.code
    return ExecutionError(error.message, hint=error.hint, reason=reason)
