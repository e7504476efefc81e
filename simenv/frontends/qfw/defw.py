"""What is taken from the DEFw this process runs in: its modules, by their bare names.

Invariant: nothing of DEFw is imported before it is asked for here, and no question is an error
where there is no DEFw.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

from simenv.qpm.service import ServiceRecord

ENUMS = {1: "api_qpm", 2: "api_qpm_common"}


def module(name: str) -> ModuleType | None:
    """One of DEFw's; None where it is not there, or is still being imported."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def loaded(name: str) -> ModuleType | None:
    """One of DEFw's, where DEFw is up; nothing is imported before: it could not be finished."""
    result = sys.modules.get(name)
    if result is None and is_up():
        result = module(name)
    return result


def is_up() -> bool:
    """Has DEFw been imported to its end? While it loads services it has not."""
    defw = defw_module()
    return defw is not None and not getattr(defw.__spec__, "_initializing", False)


def revision() -> int:
    """Of the contract, as this DEFw speaks it: 2 where a service record takes properties, and
    where there is no DEFw."""
    kind = getattr(module("defw_agent_info"), "DEFwServiceInfo", None)
    if kind is None:
        return 2
    return 2 if "properties" in inspect.signature(kind).parameters else 1


def defw_module() -> Any:
    """The module `defw`, if this process has one; it is not imported, it may be half-built."""
    return sys.modules.get("defw")


def directory() -> Any:
    """The directory service, once there is one; None before, and while it is away."""
    return getattr(defw_module(), "dirsvc", None)


def endpoint() -> Any:
    """Where this process can be called."""
    return defw_module().me.my_endpoint()


def error(name: str, message: str) -> BaseException | None:
    """An exception of DEFw's, which travels as it is; None where there is no DEFw."""
    exceptions = module("defw_exception")
    kind = getattr(exceptions, name, None) or getattr(exceptions, "DEFwError", None)
    if kind is None:
        return None
    built: BaseException = kind(message)
    if hasattr(built, "stacktrace"):
        built.stacktrace = ""  # DEFw notes the stack of whoever makes it, which is ours
    return built


def capability(types: int, capabilities: int) -> Any:
    """Bits and their names, as DEFw compares them."""
    return _taken("defw_agent_info", "Capability")(
        types, capabilities, capability_names(types, capabilities)
    )


def service_info(record: ServiceRecord) -> Any:
    """A record as `query` hands it to DEFw; the record itself where there is no DEFw."""
    kind = getattr(module("defw_agent_info"), "DEFwServiceInfo", None)
    if kind is None:
        return record
    bits = capability(record.qpm_type, record.qpm_capabilities)
    more = {} if record.properties is None else {"properties": record.properties}
    return kind(
        record.service_name, record.service_description, record.class_name, record.module_name,
        bits, record.max_capacity, **more,
    )  # fmt: skip


def is_service_info(value: Any) -> bool:
    """A service's own record, as DEFw hands it to `reserve` of a service."""
    kind = getattr(module("defw_agent_info"), "DEFwServiceInfo", None)
    return kind is not None and isinstance(value, kind)


def peer(endpoint: Any) -> str:
    """The name of the process behind an endpoint; "" where it has none."""
    return str(getattr(endpoint, "remote_uuid", "") or "")


def peers() -> set[str]:
    """The processes DEFw has a connection to; empty where that cannot be said. Revision 1 alone:
    later ones end what is asked of a peer that has gone by themselves."""
    defw = defw_module()
    results: set[str] = set()
    for name in ("client_agents", "active_client_agents", "service_agents"):
        agents = getattr(defw, name, None)
        if agents is None:
            return set()
        results.update(str(key) for key in agents.keys())  # noqa: SIM118 - it looks anew
    return results


def give_up(gone: str) -> None:
    """Nothing that was asked of this process is answered any more: who waits is told so now, not
    at the RPC timeout."""
    thread = getattr(loaded("defw_workers"), "worker_thread", None)
    requests, lock = getattr(thread, "req_db", None), getattr(thread, "req_db_lock", None)
    if requests is None or lock is None:
        return
    with lock:
        for request in requests.values():
            if str(getattr(request, "remote_uuid", "")) == gone:
                request.deadline = 0.0


def event_queue(endpoint: Any, class_id: str) -> Any:
    """The proxy of a client's queue of events."""
    return _taken("api_events", "BaseEventAPI")(class_id=class_id, target=endpoint)


def event(evtype: Any, payload: Any) -> Any:
    """What is put into it."""
    return _taken("api_events", "Event")(evtype, payload)


def capability_names(types: int, capabilities: int) -> str:
    """By DEFw's own functions, where it has them."""
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


def _taken(name: str, what: str) -> Any:
    return getattr(importlib.import_module(name), what)
