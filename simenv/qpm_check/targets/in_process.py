"""Target whose QPMs are objects of this process, shared by clients or one for each client."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from simenv.qpm_check.contract.event_inbox import EventInbox, ReceivedEvent
from simenv.qpm_check.targets.target import Card, ClientEventSink, Outage

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
