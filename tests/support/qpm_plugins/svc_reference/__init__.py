"""Plugin that the conformance kit is tried on; it shares no code with simenv's own QPM.

One worker, state vectors of Qiskit. Revision 1 is whole; of revision 2 it has execution,
reservations without a capacity, and the status, though its record names all bindings.
"""

import json
import os
import threading
import time

from .base import MACHINES
from .svc_qpm import QPM


def _instance_mode():
    """An object for each client's proxy in revision 1, one for all in revision 2."""
    try:
        return "singleton" if QPM.revision2() else "per_connection"
    except ImportError:  # no host is there
        return "singleton"


svc_info = {
    "name": "QPM", "module": __name__, "description": "a reference QPM", "version": 1.0,
    "instance_mode": _instance_mode(),
}  # fmt: skip
service_classes = [QPM]
_ended = threading.Event()
LOOK_S = 0.02


def initialize() -> None:
    """Registers from a thread: the host is still being imported."""
    if os.environ.get("DEFW_AGENT_TYPE") == "service":  # others load it too, and do not serve it
        threading.Thread(target=_register, daemon=True).start()


def uninitialize() -> None:
    _ended.set()
    for machine in MACHINES:
        machine.close()


def _register() -> None:
    import defw

    registered = None
    while QPM.revision2() and not _ended.wait(LOOK_S):
        directory = getattr(defw, "dirsvc", None)
        if directory is None or directory is registered:
            continue
        properties = QPM(start=False).properties()
        names = ("service_id", "service_type", "api_bindings", "selector", "qpm_type",
                 "qpm_capabilities")  # fmt: skip
        context = {name: properties[name] for name in names}
        context |= {"service_name": "QPM", "properties": properties}
        context |= {"capability": properties["qpm_capabilities"]}
        directory.register_service(defw.me.my_endpoint(), context=context)
        registered = directory
        if path := os.environ.get("QFW_SERVICE_READY_FILE"):
            line = {"ready": True, "message": "registered", "timestamp_ns": time.time_ns()}
            with open(path, "w", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
