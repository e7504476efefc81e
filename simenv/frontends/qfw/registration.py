"""This QPM in the directory of revision 2: put there by a thread, and again when the directory has
gone and come back.

Invariant: a directory that refuses or raises costs nothing but a line in the log and another try.
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
from simenv.frontends.qfw import defw, send_lock, service_record
from simenv.qpm.service import ServiceRecord

LOOK_S = 0.2  # DEFw tells nobody that its directory is there
RETRY_S = 2.0
log = logging.getLogger("simenv.qfw")


class DirectoryRegistration:
    """`record`: waits until there is something to register; None: not yet."""

    def __init__(self, record: Callable[[], ServiceRecord | None], ready_file: Path | None) -> None:
        self._record = record
        self._ready_file = ready_file
        self._ended = threading.Event()
        self._lock = threading.Lock()  # held while the next two change
        self._known_to: Any = None  # the directory that has us
        self._records: list[dict[str, Any]] = []  # what it made of it
        self.done = False  # it was there once

    def serve(self) -> None:
        """Until `leave`."""
        wait_s = LOOK_S
        while not self._ended.wait(wait_s):
            directory = defw.directory()
            if directory is None:
                self._known_to = None
            elif directory is not self._known_to:
                wait_s = LOOK_S if self._register(directory) else RETRY_S

    def leave(self) -> None:
        """Out of the directory, where it has a way to; idempotent."""
        self._ended.set()
        with self._lock:
            directory, self._known_to = self._known_to, None
            records, self._records = self._records, []
        for record in records if directory is not None else ():
            named = {name: record.get(name) for name in ("service_id", "runtime_id", "generation")}
            try:
                directory.deregister_service(**named)
            except Exception as error:  # noqa: BLE001 - it may have gone itself
                log.info("the directory does not take us out: %s", error)

    def _register(self, directory: Any) -> bool:
        record = self._record()
        if record is None or record.properties is None:
            return True  # looked for again soon
        bit_names = defw.capability_names(record.qpm_type, record.qpm_capabilities)
        settings = service_record.context(record, bit_names)
        send_lock.install()  # from now on others send too
        try:
            answer = directory.register_service(defw.endpoint(), context=settings)
        except Exception as error:  # noqa: BLE001 - a stranger's: refused, away, or of another kind
            log.warning("the directory does not take %s: %s", settings["service_id"], error)
            return False
        records = [
            {"service_id": settings["service_id"], **result}
            for result in (answer if isinstance(answer, list) else [answer])
            if isinstance(result, dict)
        ]
        with self._lock:
            self._known_to, self._records = directory, records
        if self._ended.is_set():  # `leave` came meanwhile, and found nothing to take out
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
