"""Service of QFw: event queues of clients, sessions, the plugin, and its classes.

Completions are put to a `ClientEventQueue`. Invariant: the same queue of the same client is one
object while it is registered, so that repeated registrations are one and no event comes twice.

A `QfwSession` is that of one client connection of revision 1, with its own queue, registration and
circuits. Invariant: a session starts no thread. It ends with the object that DEFw made for the
connection, when its client says that it leaves, or when its client's process is found to have gone:
DEFw itself keeps the object of a process that simply ended. The end of a client without an event
queue cannot be detected: its session ends once it is idle and empty.

`Plugin` is the QPM of this process. DEFw calls `initialize` when it loads the package and
`uninitialize` when it ends it. Invariant: no connection is made before `initialize` or the first
QPM that is to start; `initialize` returns at once.

The service classes of both revisions forward each method to the QPM. Invariant: the constructor
with `start=False` has no effect; only a registration of events waits for the connection to the
environment.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

from simenv.errors import ConfigError, NotAllowedError
from simenv.frontends.qfw import defw, deployment, registration
from simenv.frontends.qfw.defw import carried
from simenv.frontends.qfw.environment import EnvironmentConnection, QPMConfig, read_settings
from simenv.qpm import answers, contract, envelopes, methods

if TYPE_CHECKING:
    from simenv.client.qpm.provider import QPM, SingleQPM

MISSED = 3  # checks in a row that find the client disconnected: then it has gone
_PARTS = ("addr", "address", "listen_port", "pid", "name", "node_name", "hostname", "remote_uuid")
_PLAIN = (str, bytes, bool, int, float, list, tuple, dict, set)


class ClientEventQueue:
    """Event queue of one client; `put` returns when the client has the event, and raises if it
    cannot be delivered."""

    def __init__(self, endpoint: Any, class_id: str) -> None:
        self._queue = defw.event_queue(endpoint, class_id)
        self.peer = defw.peer(endpoint)
        self._missed = 0

    def put(self, event: envelopes.EventEnvelope) -> None:
        self._queue.put(defw.event(event.evtype, event.payload))

    def is_gone(self, peers: set[str]) -> bool:
        """Return whether the client was missing in MISSED checks in a row: DEFw's list may be
        incomplete at times."""
        if not self.peer or not peers or self.peer in peers:
            self._missed = 0
        else:
            self._missed += 1
        return self._missed >= MISSED

    def forsake(self) -> None:
        """Make a waiting `put` raise if its client has gone."""
        if self.peer and self.is_gone(defw.peers()):
            defw.give_up(self.peer)


class ClientEventQueues:
    """Event queues that are referenced elsewhere. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[tuple[str, ...], ClientEventQueue] = WeakValueDictionary()

    def of(self, endpoint: Any, class_id: Any) -> ClientEventQueue:
        """Return the queue's object. Raises ExecutionError if the arguments are no endpoint or no
        queue name."""
        if endpoint is None or isinstance(endpoint, _PLAIN):
            kind = type(endpoint).__name__
            raise contract.ExecutionError(f"ep is of type {kind}", hint="the endpoint of a client")
        if not isinstance(class_id, str) or not class_id:
            kind = type(class_id).__name__
            raise contract.ExecutionError(f"class_id is of type {kind}", hint="the name of a queue")
        name = (class_id, *(str(getattr(endpoint, part, "")) for part in _PARTS))
        with self._lock:
            result = self._known.get(name)
        if result is None:
            result = ClientEventQueue(endpoint, class_id)  # may connect to the client
        with self._lock:
            return self._known.setdefault(name, result)


SWEEP_S = 5.0
IDLE_S = 3_600.0  # without a call; the retention time of unread completions


class QfwSession:
    """Session of one client connection. Thread-safe."""

    def __init__(self, hub: EnvironmentConnection) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._qpm: SingleQPM | None = None
        self._used_s = monotonic()
        self.ear: ClientEventQueue | None = None  # queue of its events

    def qpm(self, timeout_s: float = 0.0) -> SingleQPM:
        """QPM of this session. Raises NotReadyError without a connection after `timeout_s`."""
        result = self._hub.wait(timeout_s)
        with self._lock:
            self._used_s = monotonic()
            if self._qpm is None:
                self._qpm = result.connection()
            return self._qpm

    def register(self, ear: ClientEventQueue, evtype: Any, class_id: str, timeout_s: float) -> None:
        """Register the client's event queue."""
        self.qpm(timeout_s).register_event_notification(ear, evtype, class_id)
        self.ear = ear

    def close(self) -> None:
        """End the session's queue and registration; a later call starts a new one."""
        with self._lock:
            qpm, self._qpm, self.ear = self._qpm, None, None
        if qpm is not None:
            qpm.shutdown()

    def expire(self) -> None:
        """End the session if it has no event queue, was not used for IDLE_S, and keeps no
        completion and no record of an eviction that its client could still read. A later call
        starts a new one."""
        with self._lock:
            idle = self.ear is None and monotonic() - self._used_s >= IDLE_S
            if self._qpm is None or not idle or not self._qpm.expire():
                return
            qpm, self._qpm = self._qpm, None
        qpm.shutdown()


class Sessions:
    """Sessions of this process. Thread-safe."""

    def __init__(self, hub: EnvironmentConnection) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._known: WeakSet[QfwSession] = WeakSet()
        self._swept_s = -SWEEP_S

    def open(self) -> QfwSession:
        """Open a session for a further client."""
        self.sweep()
        built = QfwSession(self._hub)
        with self._lock:
            self._known.add(built)
        return built

    def sweep(self) -> None:
        """Close sessions of clients that have gone, and sessions that have long been idle; runs
        every SWEEP_S at most."""
        with self._lock:
            if monotonic() - self._swept_s < SWEEP_S:
                return
            self._swept_s = monotonic()
            sessions = list(self._known)
        peers = defw.peers()
        for session in sessions:
            if session.ear is not None and session.ear.is_gone(peers):
                session.close()
            else:
                session.expire()


REACH_S = 60.0
log = logging.getLogger("simenv.qfw")


class Plugin:
    """QPM of one process. Thread-safe. `revision`: of the contract."""

    def __init__(self, environ: Mapping[str, str], revision: int) -> None:
        self.revision = revision
        self.deployed = deployment.read(environ)
        self.trouble = ""
        try:
            self.settings = read_settings(environ)
        except ConfigError as error:
            self.settings, self.trouble = QPMConfig(private=False, service_named=True), str(error)
        if self.settings.token_file is not None and revision == 1:
            self.trouble = (
                "SIMENV_QPM_TOKEN_FILE is set, but calls of revision 1 carry no token: nothing is "
                "served; unset it, or use a DEFw of revision 2"
            )
        if self.trouble:
            log.error("%s", self.trouble)
        self.hub = EnvironmentConnection(self.settings, self.deployed.site_config)
        self.hub.why = self.trouble or self.hub.why
        self.ears = ClientEventQueues()
        self.sessions = Sessions(self.hub)
        self.registration = registration.DirectoryRegistration(
            self._to_register, self.deployed.ready_file
        )
        self._kind: type | None = None
        self._ended = threading.Event()
        self._last: contract.ServiceRecord | None = None

    @property
    def registers(self) -> bool:
        return self.revision == 2 and self.deployed.registers

    def initialize(self, kind: type) -> None:
        """Start in a thread, because DEFw is still being loaded; no effect in a process that is no
        service."""
        self._kind = kind
        if not self.deployed.serves:
            return
        threading.Thread(target=self._begin, name="simenv-qfw", daemon=True).start()

    def begin(self) -> None:
        """Start to connect; idempotent. Raises QPMError if a variable is invalid."""
        defw.install()
        self._begin_hub()

    def close(self) -> None:
        """Leave the directory and close the connection."""
        self._ended.set()
        self.registration.leave()
        self.hub.close()

    def record(self, kind: type) -> contract.ServiceRecord:
        """Service record of this class, also before the connection."""
        return deployment.completed(
            self._service_record(), kind, self.settings, self.deployed, self.revision
        )

    def is_registered(self) -> bool:
        """Return whether the QPM is in the directory, or must not be there."""
        return not self.registers or self.registration.done

    def _begin(self) -> None:
        while not self._ended.wait(registration.LOOK_S) and not defw.is_up():
            pass
        try:
            self._begin_hub()
            if self.registers:
                self.registration.serve()
            else:
                self._say_ready()
        except contract.QPMError as error:
            log.error("%s", error)
        except Exception:
            log.exception("the QPM cannot be begun")

    def _say_ready(self) -> None:
        """Write the ready file once the environment is connected, however long that takes."""
        while not self._ended.is_set():
            try:
                self.hub.wait(REACH_S)
            except contract.NotReadyError as error:
                log.warning("%s", error)
            else:
                registration.say_ready(self.deployed.ready_file)
                return

    def _begin_hub(self) -> None:
        if self.trouble:
            raise contract.QPMError(self.trouble)
        if not self.deployed.serves:
            message = "this process is not a DEFw service"
            raise contract.QPMError(message, hint="DEFW_AGENT_TYPE=service")
        self.hub.begin()

    def _to_register(self) -> contract.ServiceRecord | None:
        if self._kind is None or self.hub.qpm is None:
            return None
        record = self.record(self._kind)
        width = (record.properties or {}).get("num_qubits", 0)
        return record if width else None  # None: a machine whose description has not arrived

    def _service_record(self) -> contract.ServiceRecord | None:
        """Service record from the environment; the last one if the environment does not answer."""
        qpm = self.hub.qpm
        if qpm is not None:
            try:
                self._last = qpm.query()
            except contract.QPMError as error:
                log.info("the environment does not answer: %s", error)
        return self._last


_making = threading.Lock()
_plugin: Plugin | None = None


def the_plugin() -> Plugin:
    """Plugin of this process; made at the first call."""
    global _plugin
    with _making:
        if _plugin is None:
            _plugin = Plugin(os.environ, defw.revision())
        return _plugin


def initialize(kind: type) -> None:
    """Start the plugin; DEFw calls it after the import of the package."""
    the_plugin().initialize(kind)


def uninitialize() -> None:
    """End the plugin; DEFw calls it at an orderly exit."""
    the_plugin().close()


CLIENT_REACH_S = 30.0
T = TypeVar("T", bound=type)
Plain = dict[str, Any]


def base() -> type:
    """Class of the revision that this DEFw uses."""
    return ServiceClassRevision1 if defw.revision() == 1 else ServiceClassRevision2


def instance_mode() -> str:
    """Number of objects that DEFw makes: in revision 1 one for each client connection, in revision
    2 one, which all bindings share."""
    return "per_connection" if defw.revision() == 1 else "singleton"


def forwarding(promised: Mapping[str, methods.Arguments]) -> Callable[[T], T]:
    """Decorator that adds each of these methods that the class lacks."""

    def registered(kind: T) -> T:
        for name, arguments in promised.items():
            if not hasattr(kind, name):
                setattr(kind, name, carried(_forward(name, arguments)))
        return kind

    return registered


def _forward(name: str, arguments: methods.Arguments) -> Callable[..., Any]:
    signature = methods.method_signature(arguments)

    def call(self: ServiceClassBase, *args: Any, **named: Any) -> Any:
        try:
            bound = signature.bind(self, *args, **named)
        except TypeError as error:
            raise contract.ExecutionError(f"{name}: {error}", hint=f"{name}{signature}") from error
        values = dict(list(bound.arguments.items())[1:])
        deployed = the_plugin().deployed
        return getattr(self._qpm(), name)(**deployment.own_words(values, deployed))

    call.__name__ = call.__qualname__ = name
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


class ServiceClassBase:
    """Common part of both revisions. `start`: False to read the service record only."""

    @carried
    def __init__(self, *_: Any, start: bool = True, **__: Any) -> None:
        if start:
            the_plugin().begin()

    @carried
    def query(self) -> Any:
        """Service record in DEFw's class."""
        return defw.service_info(the_plugin().record(type(self)))

    def _qpm(self) -> Any:
        raise contract.NotReadyError("of neither revision")


@forwarding({**methods.REVISION1, **methods.EXTENSIONS1})
class ServiceClassRevision1(ServiceClassBase):
    """Class of revision 1: one object for each client connection, with its own session."""

    @carried
    def __init__(self, *_: Any, start: bool = True, **__: Any) -> None:
        super().__init__(start=start)
        self._session = the_plugin().sessions.open() if start else None
        if self._session is not None:
            weakref.finalize(self, self._session.close).atexit = False

    def _qpm(self) -> Any:
        return self._own_session().qpm()

    def _own_session(self) -> QfwSession:
        if self._session is None:
            raise contract.NotReadyError("this object is for a look at the service record alone")
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
        except contract.NotReadyError as error:
            return f"simenv QPM, not ready: {error.message}"

    @carried
    def register_event_notification(self, ep: Any, evtype: Any, class_id: Any) -> None:
        """Register the queue to which later records are put in place of the completion queue."""
        mine = the_plugin()
        ear = mine.ears.of(ep, class_id)
        self._own_session().register(ear, evtype, class_id, CLIENT_REACH_S)
        mine.sessions.sweep()


@forwarding(methods.revision2_methods())
class ServiceClassRevision2(ServiceClassBase):
    """Class of revision 2: all bindings in one object."""

    def _qpm(self) -> QPM:
        return the_plugin().hub.now()

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
        if the_plugin().hub.qpm is None:
            return envelopes.plain(answers.SelfTest("not-ready", True, _unreached()))
        return self._qpm().test(token)

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
        mine = the_plugin()
        qpm = mine.hub.wait(CLIENT_REACH_S)
        qpm.get_service_status(token)  # checks the token before any object is made
        ear = mine.ears.of(ep, class_id)
        return qpm.register_event_notification(
            ear, evtype, class_id, token, reservation_id, filters
        )

    @carried
    def reserve(self, token: Any = None, request: Plain | None = None) -> Plain | None:
        """Decide on a reservation. DEFw's own call of that name, for the service as a whole, has no
        effect."""
        if defw.is_service_info(token):
            return None
        kwargs = deployment.own_words({"request": request}, the_plugin().deployed)
        return self._qpm().reserve(token, **kwargs)

    @carried
    def release(
        self, token: Any = None, reservation_id: int | None = None, reason: str | None = None
    ) -> Plain | None:
        """Release a reservation; no effect for the service as a whole."""
        if token is not None and not isinstance(token, str) and reservation_id is None:
            return None
        return self._qpm().release(token, reservation_id, reason)

    @carried
    def shutdown(
        self,
        token: str | None = None,
        mode: str = "graceful",
        timeout_s: float | None = None,
        reason: str | None = None,
    ) -> Plain:
        """Accept no more circuits and leave the directory; the environment stays. One QPM serves
        all applications, and DEFw does not name the caller: it needs the role admin."""
        if not the_plugin().hub.is_admin:
            raise contract.ExecutionError(
                "shutdown needs the role admin, since it ends the QPM of all applications; "
                "this QPM has the role client",
                hint="delete_circuit ends work of your own; for a site: SIMENV_QPM_ROLE=admin",
                reason=NotAllowedError.code,
            )
        result = self._qpm().shutdown(token, mode, timeout_s, reason)
        the_plugin().registration.leave()
        return result

    def _status(self, token: str | None) -> Plain:
        mine = the_plugin()
        if mine.hub.qpm is None:
            return envelopes.plain(_unreached())
        result = self._qpm().get_service_status(token)
        return result | {"ready": result["ready"] and mine.is_registered()}


def _unreached() -> answers.ServiceStatus:
    return answers.ServiceStatus(
        envelopes.ServiceState.RUNNING, False, False, False, False, 0, 0, None
    )
