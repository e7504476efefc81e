"""Service class for DEFw in either revision: each method calls the QPM's own.

Invariant: the constructor with `start=False` has no effect; only a registration of events waits for
the connection to the environment.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from simenv.frontends.qfw import defw, plugin, service_record
from simenv.frontends.qfw.errors import carried
from simenv.frontends.qfw.sessions import QfwSession
from simenv.qpm.bindings import (
    EXTENSIONS1,
    REVISION1,
    Arguments,
    method_signature,
    revision2_methods,
)
from simenv.qpm.envelopes import plain
from simenv.qpm.errors import ExecutionError, NotReadyError
from simenv.qpm.states import ServiceState
from simenv.qpm.telemetry import SelfTest, ServiceStatus

REACH_S = 30.0
T = TypeVar("T", bound=type)
Plain = dict[str, Any]


def base() -> type:
    """Class of the revision that this DEFw uses."""
    return ServiceClassRevision1 if defw.revision() == 1 else ServiceClassRevision2


def instance_mode() -> str:
    """Number of objects that DEFw makes: in revision 1 one for each client connection, in revision
    2 one, which all bindings share."""
    return "per_connection" if defw.revision() == 1 else "singleton"


def forwarding(methods: Mapping[str, Arguments]) -> Callable[[T], T]:
    """Decorator that adds each of these methods that the class lacks."""

    def registered(kind: T) -> T:
        for name, arguments in methods.items():
            if not hasattr(kind, name):
                setattr(kind, name, carried(_forward(name, arguments)))
        return kind

    return registered


def _forward(name: str, arguments: Arguments) -> Callable[..., Any]:
    signature = method_signature(arguments)

    def call(self: ServiceClassBase, *args: Any, **named: Any) -> Any:
        try:
            bound = signature.bind(self, *args, **named)
        except TypeError as error:
            raise ExecutionError(f"{name}: {error}", hint=f"{name}{signature}") from error
        values = dict(list(bound.arguments.items())[1:])
        deployed = plugin.the_plugin().deployed
        return getattr(self._qpm(), name)(**service_record.own_words(values, deployed))

    call.__name__ = call.__qualname__ = name
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


class ServiceClassBase:
    """Common part of both revisions. `start`: False to read the service record only."""

    @carried
    def __init__(self, *_: Any, start: bool = True, **__: Any) -> None:
        if start:
            plugin.the_plugin().begin()

    @carried
    def query(self) -> Any:
        """Service record in DEFw's class."""
        return defw.service_info(plugin.the_plugin().record(type(self)))

    def _qpm(self) -> Any:
        raise NotReadyError("of neither revision")


@forwarding({**REVISION1, **EXTENSIONS1})
class ServiceClassRevision1(ServiceClassBase):
    """Class of revision 1: one object for each client connection, with its own session."""

    @carried
    def __init__(self, *_: Any, start: bool = True, **__: Any) -> None:
        super().__init__(start=start)
        self._session = plugin.the_plugin().sessions.open() if start else None
        if self._session is not None:
            weakref.finalize(self, self._session.close).atexit = False

    def _qpm(self) -> Any:
        return self._own_session().qpm()

    def _own_session(self) -> QfwSession:
        if self._session is None:
            raise NotReadyError("this object is for a look at the service record alone")
        return self._session

    def reserve(self, svc: Any, client_ep: Any, *args: Any, **kwargs: Any) -> None:
        """Accept a client; no capacity is set aside for it."""

    def release(self, services: Any = None) -> None:
        """End a client's use; its circuits go on."""

    def shutdown(self) -> None:
        """End this client's queue and registration; the pool and other clients are not affected."""
        if self._session is not None:
            self._session.close()

    def test(self) -> str:
        """Return a text, also without an environment: DEFw ends a QPM that does not answer."""
        try:
            return str(self._qpm().test())
        except NotReadyError as error:
            return f"simenv QPM, not ready: {error.message}"

    @carried
    def register_event_notification(self, ep: Any, evtype: Any, class_id: Any) -> None:
        """Register the queue to which later records are put in place of the completion queue."""
        mine = plugin.the_plugin()
        ear = mine.ears.of(ep, class_id)
        self._own_session().register(ear, evtype, class_id, REACH_S)
        mine.sessions.sweep()


@forwarding(revision2_methods())
class ServiceClassRevision2(ServiceClassBase):
    """Class of revision 2: all bindings in one object."""

    def _qpm(self) -> Any:
        return plugin.the_plugin().hub.now()

    @carried
    def is_ready(self, token: str | None = None) -> Plain:
        """Service status; `ready` is True only after the registration in the directory."""
        return self._status(token)

    @carried
    def get_service_status(self, token: str | None = None) -> Plain:
        """Service status, as `is_ready`."""
        return self._status(token)

    @carried
    def test(self, token: str | None = None) -> Plain:
        """Check that calls arrive and whether the QPM is ready; no circuit is submitted."""
        if plugin.the_plugin().hub.qpm is None:
            return plain(SelfTest("not-ready", True, _unreached()))
        result: Plain = self._qpm().test(token)
        return result

    @carried
    def register_event_notification(
        self,
        ep: Any,
        evtype: int | str,
        class_id: str,
        token: str | None = None,
        reservation_id: int | None = None,
        filters: Plain | None = None,
    ) -> Plain:
        """Register the queue to which matching completions are put; they are queued as well."""
        mine = plugin.the_plugin()
        qpm = mine.hub.wait(REACH_S)
        qpm.get_service_status(token)  # checks the token before any object is made
        ear = mine.ears.of(ep, class_id)
        result: Plain = qpm.register_event_notification(
            ear, evtype, class_id, token, reservation_id, filters
        )
        return result

    @carried
    def reserve(self, token: Any = None, request: Plain | None = None) -> Plain | None:
        """Decide on a reservation. DEFw's own call of that name, for the service as a whole, has no
        effect."""
        if defw.is_service_info(token):
            return None
        kwargs = service_record.own_words({"request": request}, plugin.the_plugin().deployed)
        result: Plain = self._qpm().reserve(token, **kwargs)
        return result

    @carried
    def release(
        self, token: Any = None, reservation_id: int | None = None, reason: str | None = None
    ) -> Plain | None:
        """Release a reservation; no effect for the service as a whole."""
        if token is not None and not isinstance(token, str) and reservation_id is None:
            return None
        result: Plain = self._qpm().release(token, reservation_id, reason)
        return result

    @carried
    def shutdown(
        self,
        token: str | None = None,
        mode: str = "graceful",
        timeout_s: float | None = None,
        reason: str | None = None,
    ) -> Plain:
        """Accept no more circuits and leave the directory; the environment stays."""
        result: Plain = self._qpm().shutdown(token, mode, timeout_s, reason)
        plugin.the_plugin().registration.leave()
        return result

    def _status(self, token: str | None) -> Plain:
        mine = plugin.the_plugin()
        if mine.hub.qpm is None:
            return plain(_unreached())
        result: Plain = self._qpm().get_service_status(token)
        return result | {"ready": result["ready"] and mine.is_registered()}


def _unreached() -> ServiceStatus:
    return ServiceStatus(ServiceState.RUNNING, False, False, False, False, 0, 0, None)
