"""Registration of the QPM in DEFw's directory of revision 2.

`DirectoryRegistration` registers in a thread, again after a restart of the directory. Invariant: a
directory that refuses or raises costs only a log entry and another attempt.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simenv.files import replacing
from simenv.frontends.qfw import defw
from simenv.qpm import contract


def context(record: contract.ServiceRecord, bit_names: str) -> dict[str, Any]:
    """Entry of the QPM in a directory. `bit_names`: the bits, by their names."""
    properties = record.properties or {}
    types, capabilities = record.qpm_type, record.qpm_capabilities
    copied = ("service_id", "service_type", "api_bindings", "selector")
    return {
        **{name: properties[name] for name in copied},
        "service_name": record.service_name,
        "properties": properties,
        "capability": {"type": types, "caps": capabilities, "description": bit_names},
        "qpm_type": types,
        "qpm_capabilities": capabilities,
    }


LOOK_S = 0.2  # DEFw does not announce its directory
RETRY_S = 2.0
log = logging.getLogger("simenv.qfw")


class DirectoryRegistration:
    """Registration of this QPM. `record`: waits until there is a record; None: not yet."""

    def __init__(
        self, record: Callable[[], contract.ServiceRecord | None], ready_file: Path | None
    ) -> None:
        self._record = record
        self._ready_file = ready_file
        self._ended = threading.Event()
        self._lock = threading.Lock()  # held while the next two change
        self._known_to: Any = None  # directory with this registration
        self._records: list[dict[str, Any]] = []  # the directory's records
        self.done = False  # True after the first registration

    def serve(self) -> None:
        """Register, and register again in a new directory, until `leave`."""
        wait_s = LOOK_S
        while not self._ended.wait(wait_s):
            directory = defw.directory()
            if directory is None:
                self._known_to = None
            elif directory is not self._known_to:
                wait_s = LOOK_S if self._register(directory) else RETRY_S

    def leave(self) -> None:
        """Remove the registration, if the directory can do that; idempotent."""
        self._ended.set()
        with self._lock:
            directory, self._known_to = self._known_to, None
            records, self._records = self._records, []
        for record in records if directory is not None else ():
            named = {name: record.get(name) for name in ("service_id", "runtime_id", "generation")}
            try:
                directory.deregister_service(**named)
            except Exception as error:  # noqa: BLE001 - the directory may have ended
                log.info("the directory does not take us out: %s", error)

    def _register(self, directory: Any) -> bool:
        record = self._record()
        if record is None or record.properties is None:
            return True  # looked for again soon
        bit_names = defw.capability_names(record.qpm_type, record.qpm_capabilities)
        settings = context(record, bit_names)
        defw.install()  # other threads may send from now on
        try:
            answer = directory.register_service(defw.endpoint(), context=settings)
        except Exception as error:  # noqa: BLE001 - a foreign directory may raise anything
            log.warning("the directory does not take %s: %s", settings["service_id"], error)
            return False
        records = [
            {"service_id": settings["service_id"], **result}
            for result in (answer if isinstance(answer, list) else [answer])
            if isinstance(result, dict)
        ]
        with self._lock:
            self._known_to, self._records = directory, records
        if self._ended.is_set():  # `leave` ran meanwhile, before there was a registration to remove
            self.leave()
            return True
        self.done = True
        log.info("registered as %s", settings["service_id"])
        say_ready(self._ready_file)
        return True


def say_ready(path: Path | None) -> None:
    """Write the ready file of QFw's launcher, if there is one."""
    if path is None:
        return
    line = {"ready": True, "message": "simenv QPM is ready", "timestamp_ns": time.time_ns()}
    try:
        with replacing(path, mode=0o666) as out:
            out.write(json.dumps(line).encode() + b"\n")
    except OSError as error:
        log.warning("QFW_SERVICE_READY_FILE=%s cannot be written: %s", path, error)
