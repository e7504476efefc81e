"""Modules that a plugin imports by DEFw's names: directory, errors, and facts of loading.

`Directory` is the directory service of revision 2: registered services and their generations.
Exceptions have DEFw's names, for the module `defw_exception`. `install` makes the modules of either
revision. Invariant: while a plugin loads, `defw` is as incomplete as in DEFw: `defw_workers` cannot
be imported, and `defw` has neither resource manager nor directory. `complete` adds them.
`PluginFacts` are collected while a plugin is loaded, and sent as plain data.
"""

from __future__ import annotations

import enum
import os
import sys
import threading
import traceback
import uuid
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import msgspec

from simenv.qpm_check.target import impurities

KEYS = (
    "service_id", "service_name", "service_type", "api_bindings", "selector", "properties",
    "capability", "qpm_type", "qpm_capabilities",
)  # fmt: skip


class Directory:
    """Directory of services, `defw.dirsvc` of a plugin's process. Thread-safe."""

    def __init__(self, generations: dict[str, int] | None = None) -> None:
        self._lock = threading.Lock()
        self._records: dict[str, dict[str, Any]] = {}
        self.generations = {} if generations is None else generations
        self.impure: list[str] = []

    def register_service(self, endpoint: Any, context: Any = None, **more: Any) -> dict[str, Any]:
        """Register a service; a repeated registration starts its next generation."""
        settings = {**(context or {}), **more}
        with self._lock:
            self.impure += impurities({k: v for k, v in settings.items() if k != "capability"})
            name = str(settings.get("service_id"))
            self.generations[name] = self.generations.get(name, 0) + 1
            record = {
                **settings,
                "endpoint": getattr(endpoint, "name", None),
                "generation": self.generations[name],
                "state": "UP",
            }
            self._records[name] = record
            return {"status": "accepted", "generation": record["generation"]}

    def deregister_service(self, service_id: Any = None, **_: Any) -> dict[str, Any]:
        """Mark a service as deregistered."""
        with self._lock:
            if str(service_id) in self._records:
                self._records[str(service_id)]["state"] = "DEREGISTERED"
            return {"status": "accepted"}

    def records(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._records.values())

    def resolve_services(
        self,
        service_type: Any = None,
        service_name: Any = None,
        service_id: Any = None,
        binding_name: Any = None,
        qpm_type: int = -1,
        qpm_capabilities: int = -1,
        selector_resource: Any = None,
        selector_alias: Any = None,
        selector_name: Any = None,
        properties: dict[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Entries of the matching records, one for each of their bindings."""
        results = []
        for record in self.records():
            selector = record.get("selector") or {}
            settings = record.get("properties") or {}
            fits = (
                record["state"] == "UP"
                and service_type in (None, record.get("service_type"))
                and service_name in (None, record.get("service_name"))
                and service_id in (None, record.get("service_id"))
                and is_subset(qpm_type, record.get("qpm_type", 0))
                and is_subset(qpm_capabilities, record.get("qpm_capabilities", 0))
                and selector_name in (None, selector.get("name"))
                and selector_resource in (None, *selector.get("resources", ()))
                and selector_alias in (None, *selector.get("aliases", ()))
                and all(settings.get(key) == value for key, value in (properties or {}).items())
            )
            if fits:
                results += [
                    {**record, "binding": binding}
                    for binding in record.get("api_bindings") or ()
                    if binding_name in (None, binding.get("binding_name"))
                ]
        return results


def is_subset(wanted: int, offered: int) -> bool:
    """Return whether `offered` has every bit of `wanted`; -1 matches everything."""
    return wanted == -1 or wanted & int(offered) == wanted


class DEFwError(Exception):
    """Base class; it and its subclasses are sent as objects of their own class. `stacktrace`: the
    traceback of the exception that was being handled when this one was constructed, "" if there was
    none. DEFw records it there and sends it to the client."""

    def __init__(self, msg: object = "", arg: object = None, halt: bool = False, nname: object = "",
                 ) -> None:  # fmt: skip
        super().__init__(msg)
        self.msg, self.arg, self.halt, self.node_name = msg, arg, halt, nname
        handled = sys.exc_info()[1]
        self.stacktrace = "" if handled is None else "".join(traceback.format_exception(handled))


class DEFwNotReady(DEFwError):
    """Not initialised yet."""


class DEFwInProgress(DEFwError):
    """Not finished."""


class DEFwOutOfResources(DEFwError):
    """No capacity now."""


class DEFwExecutionError(DEFwError):
    """A circuit failed, or a call was refused."""


class DEFwNotFound(DEFwError):
    """An unknown object."""


class DEFwReserveError(DEFwError):
    """A service refused the reservation."""


class DEFwAgentNotFound(DEFwError):
    """The peer is not connected."""


class DEFwCommError(DEFwError):
    """The other side does not answer."""


class DEFwRemoteError(DEFwError):
    """Any other exception of the other side: the text of its traceback."""


NAMES: dict[str, type[DEFwError]] = {
    kind.__name__: kind
    for kind in (
        DEFwError, DEFwNotReady, DEFwInProgress, DEFwOutOfResources, DEFwExecutionError,
        DEFwNotFound, DEFwReserveError, DEFwAgentNotFound, DEFwCommError, DEFwRemoteError,
    )
}  # fmt: skip


def own_class(error: BaseException) -> str:
    """Name under which the error is sent: its nearest known class; "" if there is none."""
    for kind in type(error).__mro__:
        if NAMES.get(kind.__name__) is kind:
            return kind.__name__
    return ""


def received(report: dict[str, str]) -> DEFwError:
    """The error that a peer sent: its class, its message and the stack trace it carries."""
    error = NAMES[report["class"]](report["message"])
    error.stacktrace = report.get("stacktrace", "")
    return error


class Endpoint:
    """Address of a process. `peer`: its connection in the DEFw double; None for this process. Each
    call that carries an endpoint carries a new object; endpoints of one process are equal."""

    def __init__(self, name: str, peer: Any = None) -> None:
        self.name = name
        self.peer = peer
        self.remote_uuid = str(uuid.uuid4()) if peer is None else peer.uuid
        self.blk_uuid = str(uuid.UUID(int=0))
        self.addr, self.port, self.listen_port, self.pid = "127.0.0.1", 0, 0, os.getpid()
        self.node_name = self.hostname = os.uname().nodename

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Endpoint) and self.remote_uuid == other.remote_uuid

    __hash__ = None  # type: ignore[assignment] # as in DEFw

    def get_id(self) -> str:
        return self.remote_uuid


class Capability:
    """Type bits, capability bits and their description."""

    def __init__(self, cap_type: Any = -1, caps: Any = -1, desc: Any = "") -> None:
        self.cap_type, self.caps, self.desc = cap_type, caps, desc


class ServiceInfo1:
    """DEFwServiceInfo of revision 1."""

    def __init__(
        self,
        service_name: Any,
        service_description: Any,
        class_name: Any,
        module_name: Any,
        capability: Any,
        max_capacity: Any,
    ) -> None:
        self.service_name, self.service_description = service_name, service_description
        self.class_name, self.module_name = class_name, module_name
        self.capability, self.max_capacity = capability, max_capacity


class ServiceInfo2(ServiceInfo1):
    """DEFwServiceInfo of revision 2."""

    def __init__(self, *args: Any, properties: Any = None, **named: Any) -> None:
        super().__init__(*args, **named)
        self.properties = properties

    def get_properties(self) -> Any:
        return self.properties


class Event:
    """Argument of `put` of a client's queue."""

    def __init__(self, ev_type: Any, payload: Any = None) -> None:
        self.ev_type, self.payload = ev_type, payload

    def get_evtype(self) -> Any:
        return self.ev_type

    def get_event(self) -> Any:
        return self.payload


class BaseEventAPI:
    """Proxy of a client's event queue; raises DEFwAgentNotFound if the client is not connected."""

    def __init__(self, class_id: Any = None, target: Any = None, **_: Any) -> None:
        peer = target.peer if isinstance(target, Endpoint) else None
        if peer is None or not peer.alive:
            raise DEFwAgentNotFound(f"agent not found: {target!r}")
        self.class_id, self.target = class_id, target

    def put(self, event: Event) -> Any:
        """Call the client; returns when it has answered and raises if it cannot."""
        return self.target.peer.put(self.class_id, event.ev_type, event.payload)


class Types1(enum.IntFlag):
    """QPMType of revision 1."""

    QPM_TYPE_HARDWARE = 1
    QPM_TYPE_SIMULATOR = 2
    QPM_TYPE_QB = 4
    QPM_TYPE_TNQVM = 8
    QPM_TYPE_NWQSIM = 16


class Types2(enum.IntFlag):
    """QPMType of revision 2."""

    QPM_TYPE_HARDWARE = 1
    QPM_TYPE_SIMULATOR = 2


class Capabilities1(enum.IntFlag):
    """QPMCapability of revision 1."""

    QPM_CAP_TENSORNETWORK = 1
    QPM_CAP_STATEVECTOR = 2


class Capabilities2(enum.IntFlag):
    """QPMCapability of revision 2."""

    QPM_CAP_TENSORNETWORK = 1
    QPM_CAP_STATEVECTOR = 2
    QPM_CAP_SUPERCONDUCTING = 4


def get_bit_list(bits: int, kind: type[enum.IntFlag]) -> list[Any]:
    """The members of `kind` that are set in `bits`."""
    return [member for member in kind if int(member) & int(bits)]


def get_bit_desc(types: list[Any], capabilities: list[Any]) -> str:
    """Names of type bits and capability bits in one line."""
    return " ".join(member.name for member in (*types, *capabilities))


class CurrentProcess:
    """This process, as `defw.me`."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self._endpoint = Endpoint("plugin")
        self.exit = leave

    def my_endpoint(self) -> Endpoint:
        return self._endpoint


def install(revision: int, leave: Callable[[], None]) -> ModuleType:
    """Install the modules that exist while a plugin loads; returns `defw`."""
    enum.IntEnum.__str__ = _repr_of  # type: ignore[method-assign]
    first = revision == 1
    types, capabilities = (Types1, Capabilities1) if first else (Types2, Capabilities2)
    enums = {
        "QPMType": types, "QPMCapability": capabilities, "get_bit_list": get_bit_list,
        "get_bit_desc": get_bit_desc,
    }  # fmt: skip
    _module("defw_exception", dict(NAMES))
    _module(
        "defw_agent_info",
        {
            "DEFwServiceInfo": ServiceInfo1 if first else ServiceInfo2,
            "Capability": Capability, "Endpoint": Endpoint,
            "get_bit_list": get_bit_list, "get_bit_desc": get_bit_desc,
        },
    )  # fmt: skip
    _module("api_events", {"BaseEventAPI": BaseEventAPI, "Event": Event})
    _module("api_qpm" if first else "api_qpm_common", enums)
    defw = _module("defw", {"me": CurrentProcess(leave)})
    defw.__spec__ = ModuleSpec("defw", None)
    defw.__spec__._initializing = True  # type: ignore[attr-defined] # as during its import
    return defw


def _repr_of(member: Any) -> str:
    """Return the repr. DEFw initialises Python twice, after which `str` of an IntEnum is its
    repr."""
    return repr(member)


def complete(revision: int, directory: Directory) -> None:
    """Add the modules that exist after all plugins have loaded: a resource manager or a directory
    only if the environment does not disable it."""
    defw = sys.modules["defw"]
    defw.__spec__._initializing = False  # type: ignore[union-attr]
    disabled = os.environ.get("DEFW_DISABLE_RESMGR" if revision == 1 else "DEFW_DISABLE_DIRSVC")
    if disabled == "yes":
        pass
    elif revision == 1:
        defw.resmgr = object()  # type: ignore[attr-defined]
    else:
        defw.dirsvc = directory  # type: ignore[attr-defined]
    _module("defw_workers", {"defw_send_req": _send, "defw_send_rsp": _send})


PEERS: dict[str, Any] = {}  # connections by uuid of the peer


def send(kind: str, peer: Any, document: dict[str, Any]) -> None:
    """Send through the module's own names, so that a plugin's wrappers around them are used."""
    workers = sys.modules.get("defw_workers")
    getattr(workers, f"defw_send_{kind}", _send)(peer.uuid, peer.uuid, document)


def _send(remote_uuid: str, blk_uuid: str, document: dict[str, Any]) -> None:  # noqa: ARG001
    PEERS[remote_uuid].send(document)


def _module(name: str, names: dict[str, Any]) -> ModuleType:
    module = ModuleType(name, "A stand-in.")
    module.__dict__.update(names)
    sys.modules[name] = module
    return module


class PluginFacts(msgspec.Struct, frozen=True):
    """Facts about a loaded plugin. `*_error`: a traceback, "" if none was raised. Seconds are wall
    clock."""

    folder: str
    module: str = ""
    before: dict[str, Any] = {}  # `ProcessFacts` before the plugin was loaded
    import_error: str = ""
    svc_info: dict[str, Any] = {}
    svc_info_found: str = ""  # its type, "" if it is missing
    classes: list[str] = []
    classes_found: str = ""
    initialize_error: str = ""
    initialize_s: float = 0.0
    has_initialize: bool = False
    has_uninitialize: bool = False
    start_false_s: float = 0.0
    start_false_error: str = ""
    start_false_left: list[str] = []  # threads, processes, files
    query_error: str = ""
    signatures: dict[str, list[list[Any]]] = {}  # [name, kind, has a default, default]


class ProcessFacts(msgspec.Struct, frozen=True):
    """Threads, children and open files of a process, for comparison."""

    threads: list[str]
    children: list[int]
    files: int


def left(before: ProcessFacts, after: ProcessFacts) -> list[str]:
    """Threads, processes and files in `after` that `before` lacks."""
    results = [f"thread {name}" for name in after.threads if name not in before.threads]
    results += [f"process {pid}" for pid in after.children if pid not in before.children]
    if after.files > before.files:
        results.append(f"{after.files - before.files} open files")
    return results
