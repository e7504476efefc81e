"""Targets of checks, and what they share: outcomes, event queues, plain data.

`CheckFailed` and `CheckSkipped` state the outcome of a check, and `expect` raises them.
`EventInbox` is the event queue behind an endpoint, used by both kinds of `ClientEventSink`.

A `CheckTarget` opens a `QPMInstance`, a running QPM with any number of clients. A client has the
methods of the contract; it raises `DEFwError` of the double, or an error with that name in
`defw_name`. The QPMs of `Objects` are objects of this process, shared by clients or one for each
client. `impurities` tests whether a value is plain data: exactly dict, list, str, int, float, bool
or None.
"""

from __future__ import annotations

import inspect
import itertools
import queue
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol

import msgspec

from simenv.errors import SimenvError


class CheckFailed(Exception):
    """The checked promise does not hold; the message states the actual behaviour."""


class CheckSkipped(Exception):
    """The check cannot run on this target; the message states the reason."""


def expect(condition: object, message: str) -> None:
    """Raise `CheckFailed(message)` unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def short_repr(value: Any) -> str:
    """Return the `repr` of a value, shortened to fit one line."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}... ({len(text)} characters)"


class ReceivedEvent(msgspec.Struct, frozen=True):
    """Event that reached a client."""

    evtype: Any
    payload: Any


class EventInbox:
    """A `ClientEventSink` without its endpoint; the endpoint calls `arrived` with each event."""

    def __init__(self) -> None:
        self.class_id = str(uuid.uuid4())
        self._events: queue.SimpleQueue[ReceivedEvent] = queue.SimpleQueue()
        self._seen = 0
        self._fails = False

    def arrived(self, event: ReceivedEvent) -> bool:
        """Return whether the event was taken. False simulates a client that has gone."""
        self._seen += 1
        if not self._fails:
            self._events.put(event)
        return not self._fails

    def take(self, timeout_s: float) -> ReceivedEvent | None:
        try:
            return self._events.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def seen(self) -> int:
        return self._seen

    def fail(self) -> None:
        self._fails = True


FAMILY = frozenset(
    {
        "DEFwError", "DEFwNotReady", "DEFwInProgress", "DEFwOutOfResources", "DEFwExecutionError",
        "DEFwNotFound", "DEFwReserveError", "DEFwCommError",
    }
)  # fmt: skip
REFUSED = tuple(FAMILY - {"DEFwNotReady", "DEFwInProgress", "DEFwCommError"})  # of a wrong request


class NothingToCheckError(SimenvError):
    """No plugin or check has the given name."""

    code = "no_plugin"
    remedy = "`simenv qpm check --list` has the names"
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

    def seen(self) -> int:
        """Number of events that came, taken or not."""

    def fail(self) -> None:
        """Make every later `put` raise; these events are counted too."""


class ClientConnection(Protocol):
    """One client of a QPM."""

    @property
    def methods(self) -> Any:
        """The contract's methods."""

    def sink(self) -> ClientEventSink: ...

    def impure(self) -> dict[str, str]:
        """Methods with answers that were not plain data before they were sent."""

    def die(self) -> None:
        """Disconnect without a message, in the middle of running calls."""


class QPMInstance(Protocol):
    """One running QPM."""

    def connect(self) -> ClientConnection: ...

    def other_owner(self) -> ClientConnection | None:
        """Connect a client that acts for another owner; None if there are no other owners."""

    def card(self) -> Card:
        """Answer of `query`."""

    def exit_reason(self) -> str:
        """ "" while the QPM lives, else the reason of its end."""

    def signatures(self) -> dict[str, inspect.Signature]:
        """Signatures of every public method, without self."""


class Outage(Protocol):
    """Control over a plugin's backend: a service or machine."""

    def begin(self) -> None:
        """Stop the backend without warning (kill -9); returns when it has ended."""

    def end(self) -> None:
        """Start the backend again, with all accepted tasks; returns when it answers."""


class CheckTarget(Protocol):
    """Target of checks. `outage`: None if the backend cannot be stopped."""

    name: str
    has_package: bool
    has_transport: bool
    outage: Outage | None

    def serves(self, revision: int) -> str:
        """ "" if the target serves the revision, else the reason."""

    def open(self, revision: int) -> AbstractContextManager[QPMInstance]:
        """Open a separate QPM that ends with the `with` block."""


def named(error: BaseException) -> str:
    """Class name of the error that a host sees."""
    return str(getattr(type(error), "defw_name", type(error).__name__))


Open = Callable[[int], AbstractContextManager[Callable[[], Any]]]
OpenStrange = Callable[[], AbstractContextManager[Any]]


class Objects:
    """Target made of two functions. `open_qpm(revision)` starts a QPM, yields a function that
    returns the object for a new client, and ends the QPM; `open_strange()` gives an object of
    another owner over the same machine, where there are owners."""

    has_package = False
    has_transport = False
    outage: Outage | None = None

    def __init__(self, name: str, open_qpm: Open, open_strange: OpenStrange | None = None) -> None:
        self.name = name
        self._open = open_qpm
        self._open_strange = open_strange

    def serves(self, revision: int) -> str:  # noqa: ARG002 - each check tests the object
        return ""

    @contextmanager
    def open(self, revision: int) -> Iterator[_Subject]:
        with self._open(revision) as client, ExitStack() as strangers:
            yield _Subject(client, self._open_strange, strangers)


class _Subject:
    def __init__(
        self, client: Callable[[], Any], open_strange: OpenStrange | None, strangers: ExitStack
    ) -> None:
        self._client = client
        self._qpm = client()
        self._open_strange = open_strange
        self._strangers = strangers

    def connect(self) -> _Link:
        return _Link(self._client())

    def other_owner(self) -> _Link | None:
        if self._open_strange is None:
            return None
        return _Link(self._strangers.enter_context(self._open_strange()))

    def exit_reason(self) -> str:
        return ""

    def card(self) -> Card:
        result, kind = self._qpm.query(), type(self._qpm)
        return Card(
            result.service_name, result.service_description, result.class_name, result.module_name,
            result.qpm_type, result.qpm_capabilities, result.service_description,
            result.max_capacity, result.properties, (kind.__module__, kind.__name__),
        )  # fmt: skip

    def signatures(self) -> dict[str, inspect.Signature]:
        return signatures(type(self._qpm))


class _Link:
    def __init__(self, qpm: Any) -> None:
        self.methods = qpm

    def sink(self) -> ClientEventSink:
        return _Sink()

    def impure(self) -> dict[str, str]:
        return {}

    def die(self) -> None:
        """Do nothing: a caller of an object has no connection to break."""


class _Sink(EventInbox):
    """Endpoint with its event queue."""

    def __init__(self) -> None:
        super().__init__()
        self.ep = self

    def put(self, event: Any) -> None:
        if not self.arrived(ReceivedEvent(event.evtype, event.payload)):
            raise ConnectionError("the client has gone")


def signatures(kind: type) -> dict[str, inspect.Signature]:
    """Signatures of the public methods of a class, without self."""
    entries = {}
    for name, method in inspect.getmembers(kind, callable):
        if not name.startswith("_"):
            signature = inspect.signature(method)
            entries[name] = signature.replace(parameters=list(signature.parameters.values())[1:])
    return entries


_LEAVES = (str, int, float, bool, type(None))
_MOST = 5  # reported places of one value


def impurities(value: Any, place: str = "answer") -> list[str]:
    """First _MOST places that are not plain data, with their types. Subclasses count as impure:
    they are sent as objects of their class."""
    return list(itertools.islice(_impure(value, place), _MOST))


def _impure(value: Any, place: str) -> Iterator[str]:
    kind = type(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) not in _LEAVES:
                yield f"{place} has a key of type {_name(key)}"
            yield from _impure(item, f"{place}[{key!r}]")
    elif kind is list:
        for number, item in enumerate(value):
            yield from _impure(item, f"{place}[{number}]")
    elif kind not in _LEAVES:
        yield f"{place} is of type {_name(value)}"


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
