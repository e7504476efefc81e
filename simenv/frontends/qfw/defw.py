"""Access to the DEFw that this process runs in: its modules, its errors, and its send lock.

Modules are imported by their bare names. Invariant: no module of DEFw is imported before a function
here needs it, and a query is no error in a process without DEFw. `carried` makes a method raise
DEFw's errors.

`install` puts a lock around the two functions by which DEFw sends: one message at a time to each
peer. A message of DEFw's is two writes, and any thread may send. Two concurrent messages to one
peer mix their bytes, and both sides wait for ever. The locks are needed in every process that
sends: a service and its clients. Each peer has its own lock, so that a peer that does not read
delays no other.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from simenv.errors import NoServiceError, SimenvError
from simenv.qpm.contract import ExecutionError, NotReadyError, QPMError, ServiceRecord

ENUMS = {1: "api_qpm", 2: "api_qpm_common"}


def module(name: str) -> ModuleType | None:
    """Import a module of DEFw; None if it does not exist or is still being imported."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def loaded(name: str) -> ModuleType | None:
    """Return a module of DEFw if it is loaded or DEFw is up; an earlier import could not be
    finished."""
    result = sys.modules.get(name)
    if result is None and is_up():
        result = module(name)
    return result


def is_up() -> bool:
    """Return whether the import of DEFw is complete. It is not while DEFw loads services."""
    defw = defw_module()
    return defw is not None and not getattr(defw.__spec__, "_initializing", False)


def revision() -> int:
    """Revision of the contract that this DEFw uses: 2 if a service record takes properties, and in
    a process without DEFw."""
    kind = getattr(module("defw_agent_info"), "DEFwServiceInfo", None)
    if kind is None:
        return 2
    return 2 if "properties" in inspect.signature(kind).parameters else 1


def defw_module() -> Any:
    """Module `defw` if this process has it; it is not imported and may be incomplete."""
    return sys.modules.get("defw")


def directory() -> Any:
    """Directory service; None while there is none."""
    return getattr(defw_module(), "dirsvc", None)


def endpoint() -> Any:
    """Address of this process."""
    return defw_module().me.my_endpoint()


def contract_error(name: str, message: str) -> BaseException | None:
    """Make an exception of DEFw's, which is sent as it is; None in a process without DEFw."""
    exceptions = module("defw_exception")
    kind = getattr(exceptions, name, None) or getattr(exceptions, "DEFwError", None)
    if kind is None:
        return None
    built: BaseException = kind(message)
    if hasattr(built, "stacktrace"):
        built.stacktrace = ""  # DEFw records the stack of the code that makes it: simenv's
    return built


def service_info(record: ServiceRecord) -> Any:
    """Convert a record to DEFw's type; the record itself in a process without DEFw."""
    kind = getattr(module("defw_agent_info"), "DEFwServiceInfo", None)
    if kind is None:
        return record
    names = capability_names(record.qpm_type, record.qpm_capabilities)
    kind_of_bits = _import_attribute("defw_agent_info", "Capability")
    more = {} if record.properties is None else {"properties": record.properties}
    return kind(
        record.service_name, record.service_description, record.class_name, record.module_name,
        kind_of_bits(record.qpm_type, record.qpm_capabilities, names), record.max_capacity, **more,
    )  # fmt: skip


def is_service_info(value: Any) -> bool:
    """Return whether a value is a service's own record, which DEFw passes to `reserve` of a
    service."""
    kind = getattr(module("defw_agent_info"), "DEFwServiceInfo", None)
    return kind is not None and isinstance(value, kind)


def peer(endpoint: Any) -> str:
    """Name of the process behind an endpoint; "" if it has none."""
    return str(getattr(endpoint, "remote_uuid", "") or "")


def peers() -> set[str]:
    """Names of the processes that DEFw is connected to; empty if unknown. Needed in revision 1
    alone: later revisions end calls to a lost peer themselves."""
    defw = defw_module()
    results: set[str] = set()
    for name in ("client_agents", "active_client_agents", "service_agents"):
        agents = getattr(defw, name, None)
        if agents is None:
            return set()
        results.update(str(key) for key in agents.keys())  # noqa: SIM118 - it looks anew
    return results


def give_up(gone: str) -> None:
    """End the calls that wait for answers of a lost process now, not at the RPC timeout."""
    thread = getattr(loaded("defw_workers"), "worker_thread", None)
    requests, lock = getattr(thread, "req_db", None), getattr(thread, "req_db_lock", None)
    if requests is None or lock is None:
        return
    with lock:
        for request in requests.values():
            if str(getattr(request, "remote_uuid", "")) == gone:
                request.deadline = 0.0


def event_queue(endpoint: Any, class_id: str) -> Any:
    """Proxy of a client's event queue."""
    return _import_attribute("api_events", "BaseEventAPI")(class_id=class_id, target=endpoint)


def event(evtype: Any, payload: Any) -> Any:
    """Make an event for a client's queue."""
    return _import_attribute("api_events", "Event")(evtype, payload)


def capability_names(types: int, capabilities: int) -> str:
    """Names of the bits by DEFw's own functions, if it has them."""
    names = module(ENUMS[revision()])
    info = module("defw_agent_info")
    try:
        listed = _of("get_bit_list", names, info)
        settings = _of("get_bit_desc", names, info)
        return str(
            settings(listed(types, names.QPMType), listed(capabilities, names.QPMCapability))  # type: ignore[union-attr]
        )
    except AttributeError:
        return f"types {types}, capabilities {capabilities}"


def _of(name: str, *modules: ModuleType | None) -> Any:
    for each in modules:
        if hasattr(each, name):
            return getattr(each, name)
    raise AttributeError(name)


def _import_attribute(name: str, what: str) -> Any:
    return getattr(importlib.import_module(name), what)


P = ParamSpec("P")
R = TypeVar("R")
log = logging.getLogger("simenv.qfw")


def carried(call: Callable[P, R]) -> Callable[P, R]:
    """Wrap a method so that it raises DEFw's errors, if there is a DEFw."""

    @functools.wraps(call)
    def answered(*args: P.args, **named: P.kwargs) -> R:
        try:
            return call(*args, **named)
        except Exception as error:  # noqa: BLE001 - any error is sent to the caller
            settings = error_of(error)
        try:
            raise settings
        finally:
            del settings  # else the error, its traceback and these frames keep each other

    return answered


def error_of(error: Exception) -> BaseException:
    """Convert an error to the one that is raised to a host."""
    if isinstance(error, QPMError):
        name = error.defw_name
    elif isinstance(error, NoServiceError):
        name = NotReadyError.defw_name
    else:
        name = QPMError.defw_name
    if not isinstance(error, SimenvError):
        log.error("an error that is none of ours", exc_info=error)
    return contract_error(name, text(error)) or error


def text(error: Exception) -> str:
    """Message, hint and reason of an error in one line."""
    if not isinstance(error, SimenvError):
        return f"{type(error).__name__}: {error}"
    message = error.message if not error.hint else f"{error.message} ({error.hint})"
    return f"{message} [{error.reason}]" if isinstance(error, ExecutionError) else message


SENDERS = ("defw_send_req", "defw_send_rsp")
MARK = "simenv_send_lock"  # attribute of a module with the locks

_installing = threading.Lock()


class Locks:
    """Locks by peer, kept while they are in use."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._known: WeakValueDictionary[str, _PeerLock] = WeakValueDictionary()

    def of(self, args: tuple[Any, ...]) -> _PeerLock:
        """Lock of a peer. `args`: a sender's arguments, of which the first names the peer; calls
        without arguments share one lock."""
        peer = str(args[0]) if args else ""
        with self._looking:
            result = self._known.get(peer)
            if result is None:
                result = self._known[peer] = _PeerLock()
            return result


class _PeerLock:
    """Lock that supports weak references."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


def install() -> bool:
    """Install the locks, once a process; False if DEFw is not up, or lacks these functions."""
    workers = loaded("defw_workers")
    if workers is None or not all(callable(getattr(workers, name, None)) for name in SENDERS):
        return False
    with _installing:
        if getattr(workers, MARK, None) is None:
            locks = Locks()
            for name in SENDERS:
                setattr(workers, name, _locked(getattr(workers, name), locks))
            setattr(workers, MARK, locks)
    return True


def _locked(send: Callable[..., Any], locks: Locks) -> Callable[..., Any]:
    @functools.wraps(send)
    def sent(*args: Any, **named: Any) -> Any:
        peer = locks.of(args)  # kept until it is sent
        with peer.lock:
            return send(*args, **named)

    return sent
