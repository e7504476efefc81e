"""The types whose encoding other versions read, by the name that their golden entry has.

The names are keys of the files in tests/golden/serialized and stay as they are when a class or its
module gets another name. Tagged messages need no name here: `MESSAGES` are the unions they belong
to, and a message's tag is its name.
"""

from __future__ import annotations

from typing import Any

from launcher import probe_cache
from simenv.cli.bundle.manifest import Manifest
from simenv.cli.checks import finding as doctor
from simenv.cli.cutover import values as cutover
from simenv.cli.fitting import Fitting
from simenv.cli.measure.figures import Figure
from simenv.cli.perf.report import Report as PerformanceReport
from simenv.cli.planned import Line as PlanLine
from simenv.cli.show.loop import Run as DemoRun
from simenv.cli.show.performance import Act
from simenv.cli.trace import Trace
from simenv.client.environments import EnvironmentInfo
from simenv.client.policies import PoolPolicies
from simenv.client.qpm import audit
from simenv.client.result import Provenance, Stages
from simenv.client.start import Readiness
from simenv.config.places import ConnectionFile
from simenv.config.values import Config, Policies
from simenv.model import Program, ResultData
from simenv.model import views as info
from simenv.model.devices import DeviceInfo, OperationInfo, QubitInfo
from simenv.model.owners import OwnerLimits, OwnerReport, OwnerUse
from simenv.model.reservations import (
    AdmissionPolicy,
    Decision,
    DeviceProfile,
    Held,
    ReservationAsk,
    ReservationInfo,
    TargetInfo,
    Workload,
)
from simenv.model.result import Origin, ResultFile, StoredArray, Timing
from simenv.model.task import Chain, Observable, TaskSpec, Terms
from simenv.qpm import envelopes, reserving, service, steering, views
from simenv.scheduler.holds import Grant, Progress
from simenv.scheduler.policy import DeviceTerms
from simenv.scheduler.steering import Steer
from simenv.scheduler.values import Route
from simenv.wire import messages
from simenv.wire.engines import Choice, Explanation, Sizes
from simenv.wire.history import LogRow, Spent
from simenv.wire.joining import ServiceFile, WorkerKey
from simenv.wire.keeping import Kept
from simenv.wire.keyfiles import KeyPair, KeysFile, PersonFile, ServerFile
from simenv.wire.people import KeyInfo
from simenv.wire.work import Assigned, Finished
from simulators.statevector.checkpoint import Mark

# Unions of tagged messages: msgpack, one byte string a message.
MESSAGES: dict[str, Any] = {
    "client to service": messages.FromClient,
    "service to client": messages.ToClient,
    "worker to service": messages.FromWorker,
    "service to worker": messages.ToWorker,
}

# Rows of the journal: msgpack. These and the messages must be read as they are for ever.
JOURNAL: dict[str, Any] = {
    "routes of a submit": tuple[list[Route], list[int]],
    "route": Route,
    "event": info.Event,
    "reservation": tuple[Grant, Progress],
    "reservation grant": Grant,
    "reservation progress": Progress,
    "device terms": DeviceTerms,
    "device steering": Steer,
    "pool policies of the configuration": Policies,
    "limits of an owner": dict[str, int],
}

# What travels inside messages: msgpack.
NESTED: dict[str, Any] = {
    "program": Program,
    "task options": Terms,
    "task": TaskSpec,
    "observable": Observable,
    "gradient chain": Chain,
    "result": ResultData,
    "result origin": Origin,
    "result timing": Timing,
    "result file": ResultFile,
    "result array in a file": StoredArray,
    "assigned task": Assigned,
    "result of an attempt": Finished,
    "failure": messages.Failure,
    "refusal": messages.Refusal,
    "completion": messages.Completion,
    "engine choice": Choice,
    "explanation": Explanation,
    "task sizes": Sizes,
    "history row": LogRow,
    "time spent": Spent,
    "worker info": info.WorkerInfo,
    "pool info": info.PoolInfo,
    "pool specification": info.PoolSpec,
    "node info": info.NodeInfo,
    "engine info": info.EngineInfo,
    "gate info": info.GateInfo,
    "task info": info.TaskInfo,
    "service info": info.ServiceInfo,
    "event": info.Event,
    "device info": DeviceInfo,
    "qubit info": QubitInfo,
    "operation info": OperationInfo,
    "key info": KeyInfo,
    "retained data": Kept,
    "owner limits": OwnerLimits,
    "owner use": OwnerUse,
    "owner report": OwnerReport,
    "admission policy": AdmissionPolicy,
    "device profile": DeviceProfile,
    "reservation decision": Decision,
    "reservation request": ReservationAsk,
    "reservation info": ReservationInfo,
    "reserved units": Held,
    "target info": TargetInfo,
    "workload": Workload,
}

# Files, and what a starting service writes into its starter's pipe: JSON.
FILES: dict[str, Any] = {
    "config.json": Config,
    "connection.json": ConnectionFile,
    "worker.json": ServiceFile,
    "key of a start of a worker": WorkerKey,
    "keys.json": KeysFile,
    "key of a person": PersonFile,
    "server-key.json": ServerFile,
    "key pair": KeyPair,
    "launchers.json": probe_cache._File,
    "bundle.json": Manifest,
    "checkpoint of a state": Mark,
    "readiness": Readiness,
}

# Objects that commands print with --json (tests/golden/listings has those of an environment).
PRINTED: dict[str, Any] = {
    "doctor": doctor.Finding,
    "explain of an environment": Fitting,
    "explain --plan": PlanLine,
    "bench": Figure,
    "perf": PerformanceReport,
    "trace": Trace,
    "demo": Act,
    "demo, at its end": DemoRun,
    "environments": EnvironmentInfo,
    "policy": PoolPolicies,
    "qpm diff": cutover.Row,
    "result provenance": Provenance,
    "result stages": Stages,
}

# Dictionaries that a QPM's host is given: names of the contract.
QPM: dict[str, Any] = {
    "access": envelopes.Access,
    "completion": envelopes.Completion,
    "event": envelopes.Event,
    "record": envelopes.Record,
    "registered": envelopes.Registered,
    "status": envelopes.Status,
    "task timing": envelopes.TaskTiming,
    "timeout": envelopes.Timeout,
    "times": envelopes.Times,
    "wait": envelopes.Wait,
    "reservation changed": reserving.Changed,
    "reservation decision": reserving.Decision,
    "admission policy": reserving.Policy,
    "device profile": reserving.Profile,
    "reservation record": reserving.ReservationRecord,
    "service binding": service.Binding,
    "service record": service.ServiceRecord,
    "control": steering.Control,
    "dispatch limits": steering.DispatchLimits,
    "queue state": steering.QueueState,
    "scheduler policy": steering.SchedulerPolicy,
    "scheduler status": steering.SchedulerStatus,
    "steered": steering.Steered,
    "block": views.Block,
    "capacity": views.CapacitySnapshot,
    "device head": views.DeviceHead,
    "estimate": views.Estimate,
    "lifecycle event": views.LifecycleEvent,
    "lifecycle telemetry": views.LifecycleTelemetry,
    "calibration": views.QhwCalibration,
    "coupling": views.QhwCoupling,
    "hardware device": views.QhwDevice,
    "hardware record": views.QhwRecord,
    "queue metrics": views.QueueMetrics,
    "reconciliation": views.Reconciliation,
    "room": views.Room,
    "seen": views.Seen,
    "self test": views.SelfTest,
    "service status": views.ServiceStatus,
    "shutdown request": views.ShutdownRequest,
    "audit entry": audit.AuditEntry,
    "audit fault": audit.Fault,
}
