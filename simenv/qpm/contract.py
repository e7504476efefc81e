"""Contract between a QPM and its host: bindings, service record, and errors."""

from __future__ import annotations

import enum
from typing import Any, ClassVar, Protocol

import msgspec

from simenv.errors import SimenvError

Device = str | int


class EventEndpoint(Protocol):
    """Receiver of events. A `put` that raises has lost its reader."""

    def put(self, event: Any) -> object:
        """Take one `simenv.qpm.envelopes.EventEnvelope`."""


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
    """Answer of `query`. `properties`: revision 2; None in revision 1. A request matches if its
    bits are a subset of these; `max_capacity` -1: no limit."""

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
    """Properties of a record in revision 2: identity, width, kinds and bindings. `device`,
    `target`: ids; `width`: qubits; `service_id` "": the id of the device's QPM."""
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


class QPMError(SimenvError):
    """Refusal or report of a QPM that has no class of its own."""

    code = "qpm"
    remedy = "read the message; the class stands for refusals that have no class of their own"
    defw_name: ClassVar[str] = "DEFwError"


class NotReadyError(QPMError):
    """The service behind the QPM does not answer, or none of its pools can run a circuit yet."""

    code = "qpm_not_ready"
    remedy = "call again when `is_ready` is true; `simenv pools` shows why no worker is ready"
    retryable = True
    defw_name = "DEFwNotReady"


class InProgressError(QPMError):
    """Revision 1: the requested completion is not ready; hosts poll on it."""

    code = "qpm_in_progress"
    remedy = "ask again later: hosts poll on it"
    retryable = True
    defw_name = "DEFwInProgress"


class OutOfResourcesError(QPMError):
    """No capacity now; the same call may succeed later."""

    code = "qpm_out_of_resources"
    remedy = "call again later, or release a reservation"
    retryable = True
    defw_name = "DEFwOutOfResources"


class ExecutionError(QPMError):
    """The circuit failed or cannot be run, or the request is invalid; `reason` is for programs."""

    code = "qpm_execution"
    remedy = "`reason` and the message name the fault of the circuit or of the request"
    defw_name = "DEFwExecutionError"

    def __init__(
        self, message: str, *, hint: str = "", index: int = -1, reason: str = "invalid-request"
    ) -> None:
        super().__init__(message, hint=hint, index=index)
        self.reason = reason


class UnknownObjectError(QPMError):
    """The named library, pool or calibration set does not exist here."""

    code = "qpm_not_found"
    remedy = "list what exists with the queries of the QPM"
    exit_code = 4
    defw_name = "DEFwNotFound"
