"""Settings of a deployment by QFw's launcher, and the service record of the QPM with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

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
