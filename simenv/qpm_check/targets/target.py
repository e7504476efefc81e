"""Interfaces of targets of checks.

A `CheckTarget` opens a `QPMInstance`, a running QPM with any number of clients. A client has the
methods of the contract; it raises `DEFwError` of the double, or an error with that name in
`defw_name`.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

from simenv.errors import SimenvError
from simenv.qpm_check.contract.event_inbox import ReceivedEvent

FAMILY = frozenset(
    {
        "DEFwError", "DEFwNotReady", "DEFwInProgress", "DEFwOutOfResources", "DEFwExecutionError",
        "DEFwNotFound", "DEFwReserveError", "DEFwCommError",
    }
)  # fmt: skip


class NothingToCheckError(SimenvError):
    """No plugin or check has the given name."""

    code = "no_plugin"
    exit_code = 4


class Card(msgspec.Struct, frozen=True):
    """Service record. `properties`: revision 2; None if there are none."""

    service_name: Any
    description: Any
    class_name: Any
    module_name: Any
    types: Any
    capabilities: Any
    text: Any
    max_capacity: Any
    properties: Any
    home: tuple[str, str]  # module and name of the class that answered


class ClientEventSink(Protocol):
    """Event queue of a client."""

    class_id: str
    ep: Any  # argument of register_event_notification

    def take(self, timeout_s: float) -> ReceivedEvent | None:
        """Return the next event; None after `timeout_s`."""
        ...

    def seen(self) -> int:
        """Number of events that came, taken or not."""
        ...

    def fail(self) -> None:
        """Make every later `put` raise; these events are counted too."""
        ...


class ClientConnection(Protocol):
    """One client of a QPM."""

    @property
    def methods(self) -> Any:
        """The contract's methods."""
        ...

    def sink(self) -> ClientEventSink: ...

    def impure(self) -> dict[str, str]:
        """Methods with answers that were not plain data before they were sent."""
        ...

    def die(self) -> None:
        """Disconnect without a message, in the middle of running calls."""
        ...


class QPMInstance(Protocol):
    """One running QPM."""

    def connect(self) -> ClientConnection: ...

    def other_owner(self) -> ClientConnection | None:
        """Connect a client that acts for another owner; None if there are no other owners."""
        ...

    def card(self) -> Card:
        """Answer of `query`."""
        ...

    def exit_reason(self) -> str:
        """ "" while the QPM lives, else the reason of its end."""
        ...

    def signatures(self) -> dict[str, inspect.Signature]:
        """Signatures of every public method, without self."""
        ...


class Outage(Protocol):
    """Control over a plugin's backend: a service or machine."""

    def begin(self) -> None:
        """Stop the backend without warning (kill -9); returns when it has ended."""
        ...

    def end(self) -> None:
        """Start the backend again, with all accepted tasks; returns when it answers."""
        ...


class CheckTarget(Protocol):
    """Target of checks. `outage`: None if the backend cannot be stopped."""

    name: str
    has_package: bool
    has_transport: bool
    outage: Outage | None

    def serves(self, revision: int) -> str:
        """ "" if the target serves the revision, else the reason."""
        ...

    def open(self, revision: int) -> AbstractContextManager[QPMInstance]:
        """Open a separate QPM that ends with the `with` block."""
        ...


def named(error: BaseException) -> str:
    """Class name of the error that a host sees."""
    return str(getattr(type(error), "defw_name", type(error).__name__))
