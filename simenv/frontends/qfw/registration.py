"""Service record of the QPM, and its registration in DEFw's directory.

`Deployment` holds the settings of the launcher, and `completed` the record with them.
`DirectoryRegistration` registers in the directory of revision 2, in a thread, again after a restart
of the directory. Invariant: a directory that refuses or raises costs only a log entry and another
attempt.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from simenv.files import replacing
from simenv.frontends.qfw import defw
from simenv.frontends.qfw.environment import QPMConfig
from simenv.qpm import contract

_YES, _NO = ("1", "true", "yes", "on", "y"), ("0", "false", "no", "off", "n")


class Deployment(msgspec.Struct, frozen=True):
    """Settings of a deployment; "" means not given. `registers`: True if the QPM registers with
    DEFw's directory. `serves`: True if the process is a service; QFw's launcher and applications
    load every service on the path and are none."""

    service_id: str = ""
    device_id: str = ""
    target_id: str = ""
    registers: bool = True
    serves: bool = True
    ready_file: Path | None = None
    site_config: Path | None = None


def read(environ: Mapping[str, str]) -> Deployment:
    """Read the variables. Never raises: an invalid value is ignored where it would be used."""
    ready, site = environ.get("QFW_SERVICE_READY_FILE"), environ.get("QFW_SITE_CONFIG")
    return Deployment(
        service_id=environ.get("QFW_QPM_SERVICE_ID", ""),
        device_id=environ.get("QFW_QPU_DEVICE_ID", ""),
        target_id=environ.get("QFW_QPM_TARGET_ID", ""),
        registers=_registers(environ),
        serves=environ.get("DEFW_AGENT_TYPE", "") in ("", "service"),
        ready_file=Path(ready) if ready else None,
        site_config=Path(site) if site else None,
    )


def _registers(environ: Mapping[str, str]) -> bool:
    """Return the explicit setting; else False if clients come without a directory, and False for a
    long-running QPM without a site's directory."""
    said = environ.get("QFW_QPM_REGISTER_WITH_DIRSVC", "").strip().lower()
    if said in (*_YES, *_NO):
        return said in _YES
    if environ.get("QFW_QPM_DIRECT_ENDPOINT_FALLBACK", "").strip().lower() in _YES:
        return False
    is_long = environ.get("QFW_QPM_OPERATION_MODE", "").strip().lower() == "long-running"
    return bool(environ.get("QFW_SITE_DIRSVC_ENDPOINTS", "").strip(" ,;")) if is_long else True


_NAMING = ("device_id", "target_device_id", "lib")
_ASKING = ("request", "filters", "configuration")
UNREACHED = "an environment that is not reached yet"


def completed(
    answer: contract.ServiceRecord | None,
    kind: type,
    config: QPMConfig,
    deployed: Deployment,
    revision: int,
) -> contract.ServiceRecord:
    """Complete the record for the class that DEFw loaded. `answer`: the environment's record; None
    before the connection: the record then has no width and no shots."""
    bits = int(contract.QPMType.SIMULATOR), int(contract.QPMCapability.STATEVECTOR)
    record = answer or contract.ServiceRecord(
        contract.SERVICE_NAME, UNREACHED, "", "", *bits, contract.UNLIMITED
    )
    record = msgspec.structs.replace(
        record,
        class_name=kind.__name__,
        module_name=kind.__module__,
        qpm_type=_types(record, config, revision),
        properties=None,
    )
    if revision == 1:
        return msgspec.structs.replace(record, service_description=_described(record, answer))
    reported = (answer.properties if answer is not None else None) or {}
    device = deployed.device_id or str(reported.get("device_id", config.pool or contract.PROVIDER))
    target = deployed.target_id or device
    width = int(reported.get("num_qubits", 0))
    properties: dict[str, Any] = {
        "max_shots": 0,
        **reported,
        **contract.service_properties(record, device, target, width, deployed.service_id),
        "controller": reported.get("controller", {}),
    }
    return msgspec.structs.replace(record, properties=properties)


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


def _types(record: contract.ServiceRecord, config: QPMConfig, revision: int) -> int:
    """Configured type bits; else the environment's, and in revision 1 each named simulator that it
    can replace."""
    if revision != 1:
        return config.types & contract.COMMON_TYPES or record.qpm_type
    if config.types or not record.qpm_type & contract.QPMType.SIMULATOR:
        return config.types or record.qpm_type
    return record.qpm_type | sum(
        int(name) for name, needed in contract.STAND_INS.items() if record.qpm_capabilities & needed
    )


def _described(record: contract.ServiceRecord, answer: contract.ServiceRecord | None) -> str:
    """Description with the pools that replace each named simulator."""
    properties = (answer.properties if answer is not None else None) or {}
    pools = properties.get("controller", {}).get("pools", {})
    parts = [record.service_description]
    for name, needed in contract.STAND_INS.items():
        answering = pools.get(str(needed.name).lower())
        if record.qpm_type & name and answering:
            parts.append(f"{name.name} by pool {', '.join(answering)}")
    return "; ".join(parts)


def own_words(arguments: dict[str, Any], deployed: Deployment) -> dict[str, Any]:
    """Arguments of a call, in which the deployment's names of this QPM are replaced by None."""
    names = {deployed.device_id, deployed.target_id} - {""}
    if not names:
        return arguments
    entries = {**arguments}
    for name, value in arguments.items():
        if name in _NAMING and isinstance(value, str) and value in names:
            entries[name] = None
        elif name in _ASKING and isinstance(value, dict):
            entries[name] = {
                key: item
                for key, item in value.items()
                if not (key in _NAMING and isinstance(item, str) and item in names)
            }
    return entries


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
