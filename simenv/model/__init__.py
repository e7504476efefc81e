"""The frozen values that travel between client, service and worker, and what users read.

Invariant: nothing here does I/O, holds a lock or imports more than msgspec, so a command such as
`simenv status` starts without numpy and qiskit. Arrays travel as little-endian bytes; the dtype and
shape of each stand beside the field.
"""

from __future__ import annotations

from simenv.model.program import (
    MARKERS,
    MAX_CLBITS,
    MAX_MATRIX_BYTES,
    MAX_QUBITS,
    MAX_UNITARY_QUBITS,
    MAX_VARIABLES,
    OWNERS,
    PROGRAM_FORMAT,
    READ_FORMATS,
    Program,
    Token,
    decode_program,
    digest,
)
from simenv.model.result import (
    RESULT_FORMAT,
    Origin,
    ResultData,
    ResultFile,
    StoredArray,
    Timing,
)
from simenv.model.task import (
    FINAL_STATES,
    MAX_BINDINGS,
    MAX_SHOTS,
    MAX_TASK_NUMBER,
    EngineOptions,
    Observable,
    TaskSpec,
    TaskState,
    Terms,
    task_name,
    task_number,
)
from simenv.model.views import (
    EngineInfo,
    Event,
    GateInfo,
    PoolInfo,
    PoolSpec,
    ServiceInfo,
    TaskInfo,
    WorkerInfo,
    WorkerState,
)

__all__ = [
    "FINAL_STATES",
    "MARKERS",
    "MAX_BINDINGS",
    "MAX_CLBITS",
    "MAX_MATRIX_BYTES",
    "MAX_QUBITS",
    "MAX_SHOTS",
    "MAX_TASK_NUMBER",
    "MAX_UNITARY_QUBITS",
    "MAX_VARIABLES",
    "OWNERS",
    "PROGRAM_FORMAT",
    "READ_FORMATS",
    "RESULT_FORMAT",
    "EngineInfo",
    "EngineOptions",
    "Event",
    "GateInfo",
    "Observable",
    "Origin",
    "PoolInfo",
    "PoolSpec",
    "Program",
    "ResultData",
    "ResultFile",
    "ServiceInfo",
    "StoredArray",
    "TaskInfo",
    "TaskSpec",
    "TaskState",
    "Terms",
    "Timing",
    "Token",
    "WorkerInfo",
    "WorkerState",
    "decode_program",
    "digest",
    "task_name",
    "task_number",
]
