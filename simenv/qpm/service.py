"""Service record of a QPM for hosts that look for one: type bits, capability bits, bindings."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

SERVICE_NAME = "QPM"
SERVICE_TYPE = "qfw.qpm"
PROVIDER = "simenv"
UNLIMITED = -1


class QPMType(enum.IntFlag):
    """Type bits of a QPM. The last three belong to revision 1: simulators by name, which its
    applications request."""

    HARDWARE = 1
    SIMULATOR = 2
    QB = 4
    TNQVM = 8
    NWQSIM = 16


COMMON_TYPES = QPMType.HARDWARE | QPMType.SIMULATOR  # types of both revisions


class QPMCapability(enum.IntFlag):
    """Simulation methods of a QPM."""

    TENSORNETWORK = 1
    STATEVECTOR = 2
    SUPERCONDUCTING = 4


STAND_INS: dict[QPMType, QPMCapability] = {  # named simulator: method that replaces it
    QPMType.QB: QPMCapability.STATEVECTOR,
    QPMType.TNQVM: QPMCapability.TENSORNETWORK,
    QPMType.NWQSIM: QPMCapability.STATEVECTOR,
}


class Binding(msgspec.Struct, frozen=True):
    """One category of methods, with the names under which a host looks it up."""

    binding_name: str
    client_module: str
    client_class: str
    version: int = 1


BINDINGS: tuple[Binding, ...] = (
    Binding("execution", "api_qpm_execution", "QPMExecution"),
    Binding("admission", "api_qpm_admission_control", "QPMAdmissionControl"),
    Binding("admission-policy", "api_qpm_admission_policy_config", "QPMAdmissionPolicyConfig"),
    Binding("scheduler", "api_qpm_scheduler_control", "QPMSchedulerControl"),
    Binding("telemetry", "api_qpm_telemetry", "QPMTelemetry"),
    Binding("control", "api_qpm_control", "QPMControl"),
)


class ServiceRecord(msgspec.Struct, frozen=True):
    """Answer of `query`. `properties`: revision 2; None in revision 1.

    A request matches if its bits are a subset of these; `max_capacity` -1: no limit.
    """

    service_name: str
    service_description: str
    class_name: str
    module_name: str
    qpm_type: int
    qpm_capabilities: int
    max_capacity: int
    properties: dict[str, Any] | None = None


def service_properties(
    record: ServiceRecord, device: str, target: str, width: int, service_id: str = ""
) -> dict[str, Any]:
    """Properties of a record in revision 2: identity, width, kinds and bindings.

    `device`, `target`: ids; `width`: qubits; `service_id` "": the id of the device's QPM.
    """
    home = {"service_module": record.module_name, "service_class": record.class_name}
    bindings = [{**msgspec.to_builtins(binding), **home} for binding in BINDINGS]
    default = {key: value for key, value in bindings[0].items() if key != "version"}
    return {
        "service_type": SERVICE_TYPE,
        "service_id": service_id or f"qpm:{PROVIDER}:{device}",
        "provider": PROVIDER,
        "device_id": device,
        "target_id": target,
        "num_qubits": width,
        "qpm_type": record.qpm_type,
        "qpm_capabilities": record.qpm_capabilities,
        "simulator": bool(record.qpm_type & QPMType.SIMULATOR),
        "hardware": bool(record.qpm_type & QPMType.HARDWARE),
        "selector": {
            "name": device,
            "resources": list(dict.fromkeys([device, target, f"{PROVIDER.upper()}-{width}q"])),
            "aliases": [PROVIDER, SERVICE_NAME],
        },
        "api_bindings": bindings,
        **default,
    }
