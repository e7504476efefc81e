"""Frozen values that client, service and worker exchange and users read; no I/O, only msgspec."""

from __future__ import annotations

from simenv.model.devices import (
    DeviceInfo,
    DeviceKind,
    EngineInfo,
    GateInfo,
    OperationInfo,
    QubitInfo,
)
from simenv.model.limits import CLIENT_LIMITS, UNLIMITED, Limits, OwnerReport, ResourceUse
from simenv.model.options import TaskOptions
from simenv.model.program import (
    MARKERS,
    MAX_CLBITS,
    MAX_MATRIX_BYTES,
    MAX_QUBITS,
    MAX_UNITARY_QUBITS,
    MAX_VARIABLES,
    NO_GATES,
    OWNERS,
    PROGRAM_FORMAT,
    Program,
    Token,
    declared_qubits,
    decode_program,
    digest,
    is_gate,
    is_measurement,
    qubits_of,
)
from simenv.model.reservations import (
    AdmissionPolicy,
    AdmissionReason,
    Decision,
    DeviceProfile,
    HeldCapacity,
    ReservationInfo,
    ReservationRequest,
    ReservationState,
    TargetInfo,
    Workload,
)
from simenv.model.task import (
    DEPENDENCY,
    FINAL_STATES,
    MAX_BINDINGS,
    MAX_KEEP_S,
    MAX_PARENTS,
    MAX_SHOTS,
    MAX_TASK_NUMBER,
    RESULT_FORMAT,
    Chain,
    DeviceRecord,
    EngineOptions,
    NoiseFactors,
    Observable,
    Origin,
    ResultData,
    ResultFile,
    StoredArray,
    TaskParts,
    TaskSpec,
    TaskState,
    Timing,
    task_name,
    task_number,
)
from simenv.model.views import (
    Event,
    JobSpec,
    NodeInfo,
    PoolInfo,
    PoolSpec,
    ProgressInfo,
    ServiceInfo,
    StandbyInfo,
    TaskInfo,
    WorkerInfo,
    WorkerState,
)

__all__ = ["CLIENT_LIMITS", "DEPENDENCY", "FINAL_STATES", "MARKERS", "MAX_BINDINGS"]
__all__ += ["MAX_CLBITS", "MAX_KEEP_S", "MAX_MATRIX_BYTES", "MAX_PARENTS", "MAX_QUBITS"]
__all__ += ["MAX_SHOTS", "MAX_TASK_NUMBER", "MAX_UNITARY_QUBITS", "MAX_VARIABLES", "NO_GATES"]
__all__ += [
    "OWNERS",
    "PROGRAM_FORMAT",
    "RESULT_FORMAT",
    "UNLIMITED",
]
__all__ += ["AdmissionPolicy", "AdmissionReason", "Chain", "Decision", "DeviceInfo"]
__all__ += ["DeviceKind", "DeviceProfile", "DeviceRecord", "EngineInfo", "EngineOptions"]
__all__ += ["Event", "GateInfo", "HeldCapacity", "JobSpec", "NodeInfo", "NoiseFactors"]
__all__ += [
    "Limits",
    "Observable",
    "OperationInfo",
    "Origin",
    "OwnerReport",
    "PoolInfo",
    "ResourceUse",
]
__all__ += [
    "PoolSpec",
    "Program",
    "ProgressInfo",
    "QubitInfo",
    "ReservationInfo",
    "ReservationRequest",
]
__all__ += ["ReservationState", "ResultData", "ResultFile", "ServiceInfo", "StandbyInfo"]
__all__ += ["StoredArray", "TargetInfo", "TaskInfo", "TaskOptions", "TaskParts", "TaskSpec"]
__all__ += ["TaskState", "Timing", "Token", "WorkerInfo", "WorkerState", "Workload"]
__all__ += ["declared_qubits", "decode_program", "digest", "is_gate", "is_measurement"]
__all__ += ["qubits_of", "task_name", "task_number"]
