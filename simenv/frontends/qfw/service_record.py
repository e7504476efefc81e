"""Service record under which hosts find this QPM: names and bits."""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.config.qpm import QPMConfig
from simenv.frontends.qfw.deployment import Deployment
from simenv.qpm.service import (
    COMMON_TYPES,
    PROVIDER,
    SERVICE_NAME,
    STAND_INS,
    UNLIMITED,
    QPMCapability,
    QPMType,
    ServiceRecord,
    service_properties,
)

_NAMING = ("device_id", "target_device_id", "lib")
_ASKING = ("request", "filters", "configuration")
UNREACHED = "an environment that is not reached yet"


def completed(
    answer: ServiceRecord | None, kind: type, config: QPMConfig, deployed: Deployment, revision: int
) -> ServiceRecord:
    """Complete the record for the class that DEFw loaded. `answer`: the environment's record; None
    before the connection: the record then has no width and no shots."""
    record = answer or _unreached()
    record = msgspec.structs.replace(
        record,
        class_name=kind.__name__,
        module_name=kind.__module__,
        qpm_type=_types(record, config, revision),
        properties=None,
    )
    if revision == 1:
        return msgspec.structs.replace(record, service_description=_described(record, answer))
    properties = answer.properties if answer is not None else None
    return msgspec.structs.replace(
        record, properties=_properties(properties or {}, record, config, deployed)
    )


def context(record: ServiceRecord, bit_names: str) -> dict[str, Any]:
    """Entry of the QPM in a directory. `bit_names`: the bits, by their names."""
    properties = record.properties or {}
    copied = ("service_id", "service_type", "api_bindings", "selector")
    return {
        **{name: properties[name] for name in copied},
        "service_name": record.service_name,
        "properties": properties,
        "capability": {
            "type": record.qpm_type,
            "caps": record.qpm_capabilities,
            "description": bit_names,
        },
        "qpm_type": record.qpm_type,
        "qpm_capabilities": record.qpm_capabilities,
    }


def _types(record: ServiceRecord, config: QPMConfig, revision: int) -> int:
    """Configured type bits; else the environment's, and in revision 1 each named simulator that it
    can replace."""
    if revision != 1:
        return config.types & COMMON_TYPES or record.qpm_type
    if config.types or not record.qpm_type & QPMType.SIMULATOR:
        return config.types or record.qpm_type
    return record.qpm_type | sum(
        int(name) for name, needed in STAND_INS.items() if record.qpm_capabilities & needed
    )


def _described(record: ServiceRecord, answer: ServiceRecord | None) -> str:
    """Description with the pools that replace each named simulator."""
    properties = (answer.properties if answer is not None else None) or {}
    pools = properties.get("controller", {}).get("pools", {})
    parts = [record.service_description]
    for name, needed in STAND_INS.items():
        answering = pools.get(str(needed.name).lower())
        if record.qpm_type & name and answering:
            parts.append(f"{name.name} by pool {', '.join(answering)}")
    return "; ".join(parts)


def _unreached() -> ServiceRecord:
    bits = int(QPMType.SIMULATOR), int(QPMCapability.STATEVECTOR)
    return ServiceRecord(SERVICE_NAME, UNREACHED, "", "", *bits, UNLIMITED)


def _properties(
    reported: dict[str, Any], record: ServiceRecord, config: QPMConfig, deployed: Deployment
) -> dict[str, Any]:
    device = deployed.device_id or str(reported.get("device_id", config.pool or PROVIDER))
    target = deployed.target_id or device
    width = int(reported.get("num_qubits", 0))
    return {
        "max_shots": 0,
        **reported,
        **service_properties(record, device, target, width, deployed.service_id),
        "controller": reported.get("controller", {}),
    }


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
