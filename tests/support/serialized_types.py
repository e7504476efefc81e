"""The types whose encoding other versions read, by the name that their golden entry has.

The names are keys of the files in tests/golden/serialized and stay as they are when a class or its
module gets another name. Tagged messages need no name here: `MESSAGES` are the unions they belong
to, and a message's tag is its name.
"""

from typing import Any

from launcher import probe
from simenv.cli.admin import doctor_installation
from simenv.cli.demo_runs import DemoRow
from simenv.cli.demo_variational import VariationalRun as DemoRun
from simenv.cli.profiling import ProfileReport as PerformanceReport
from simenv.cli.tasks.explain import Line as PlanLine
from simenv.cli.tasks.resource_fit import ResourceFit
from simenv.cli.tasks.trace import Trace
from simenv.client.administration.policies import PoolPolicies
from simenv.client.bundle_manifest import Manifest
from simenv.client.environments import EnvironmentInfo
from simenv.client.qpm import identity
from simenv.client.result_data import Provenance, Stages
from simenv.config.model import Config, Policies
from simenv.config.paths import ConnectionFile, GatewayFile, StartupMessage
from simenv.gateway.ibm.jobs import Job, SessionRecord
from simenv.model import Program, ResultData, accounts, devices, views as info
from simenv.model.calls import (
    DetectionAnswer,
    DetectionCall,
    FunctionAnswer,
    FunctionCall,
    TranspileAnswer,
    TranspileCall,
)
from simenv.model.devices import (
    AnalogInfo,
    AngleLimits,
    DeviceInfo,
    LayerInfo,
    LinkInfo,
    LogicalInfo,
    ModuleInfo,
    OperationInfo,
    QubitInfo,
    TermInfo,
)
from simenv.model.jobs import JobRecord, JobSelector
from simenv.model.limits import Limits, OwnerReport, ResourceUse
from simenv.model.logical_use import LogicalUse
from simenv.model.options import TaskOptions
from simenv.model.pulses import PulseAnswer, PulseCall
from simenv.model.reservations import (
    AdmissionPolicy,
    CalendarEntry,
    Decision,
    DeviceProfile,
    HeldCapacity,
    ReservationInfo,
    ReservationRequest,
    TargetInfo,
    Workload,
)
from simenv.model.task import (
    AmplitudeResultData,
    Chain,
    DeviceRecord,
    LinkUse,
    Observable,
    Origin,
    ResultFile,
    StoredArray,
    TaskParts,
    TaskSpec,
    Timing,
)
from simenv.qpm import answers, contract, envelopes, telemetry_answers
from simenv.qpm_check import comparison
from simenv.scheduler.core import Route
from simenv.scheduler.reservations.policies import DeviceTerms
from simenv.scheduler.reservations.reservation import Grant, Progress
from simenv.scheduler.state.device_controls import DeviceControl
from simenv.service.journal import tables
from simenv.service.journal.backups import BackupManifest
from simenv.service.tokens import TokensFile
from simenv.service.workers.account_users import UsersFile
from simenv.service.workers.job_nodes import RecordedJob
from simenv.wire.keyfiles import (
    KeyPair,
    KeysFile,
    ServerFile,
    UserKeyFile,
    WorkerBootstrap,
    WorkerKey,
)
from simenv.wire.messages import client, metrics, nodes
from simenv.wire.messages.client import AssignedTask, AttemptResult
from simenv.wire.messages.credentials import KeyInfo, TokenInfo
from simenv.wire.messages.explain import Choice, Explanation, NoiseFigure, NoiseUse, Sizes
from simenv.wire.messages.history import LogRow, Spent
from simenv.wire.messages.identity import CertificateRequest, Denial, UserCertificate
from simenv.wire.messages.queries import RetainedData
from simulators.statevector.checkpoint import CheckpointHeader

# Unions of tagged messages: msgpack, one byte string a message.
MESSAGES: dict[str, Any] = {
    "client to service": client.FromClient, "service to client": client.ToClient,
    "worker to service": client.FromWorker, "service to worker": client.ToWorker,
    "service to node": client.ToNode,
}  # fmt: skip

# Rows of the journal: msgpack. These and the messages must be read as they are for ever.
JOURNAL: dict[str, Any] = {
    "routes of a submit": tuple[list[Route], list[int]], "route": Route, "event": info.Event,
    "job of a vendor's client": Job, "session of a vendor's client": SessionRecord,
    "reservation": tuple[Grant, Progress], "reservation grant": Grant,
    "reservation progress": Progress, "device terms": DeviceTerms, "device steering": DeviceControl,
    "pool policies of the configuration": Policies, "limits of an owner": dict[str, int],
    "account": tables.StoredAccount, "class of service": tables.StoredQos,
}  # fmt: skip

# What travels inside messages: msgpack.
NESTED: dict[str, Any] = {
    "program": Program, "task options": TaskOptions, "task": TaskSpec, "observable": Observable,
    "gradient chain": Chain, "parts of a circuit": TaskParts, "result": ResultData,
    "result with amplitudes": AmplitudeResultData, "transpilation": TranspileCall,
    "transpiled circuits": TranspileAnswer, "function": FunctionCall,
    "value of a function": FunctionAnswer, "circuit with detectors": DetectionCall,
    "pulse sequence": PulseCall, "outcomes of a pulse sequence": PulseAnswer,
    "samples of detectors": DetectionAnswer, "device of a result": DeviceRecord, "job": JobRecord,
    "jobs of a listing": JobSelector, "result origin": Origin, "result timing": Timing,
    "result file": ResultFile, "result array in a file": StoredArray, "assigned task": AssignedTask,
    "result of an attempt": AttemptResult, "failure": client.Failure, "refusal": client.Refusal,
    "completion": client.Completion, "engine choice": Choice, "explanation": Explanation,
    "task sizes": Sizes, "history row": LogRow, "time spent": Spent, "worker info": info.WorkerInfo,
    "pool info": info.PoolInfo, "pool specification": info.PoolSpec, "node info": info.NodeInfo,
    "jobs of a pool": info.JobSpec, "gpu of a node": nodes.NodeGpu,
    "heartbeat that an agent relays": nodes.RelayedBeat, "engine info": devices.EngineInfo,
    "gate info": devices.GateInfo, "task info": info.TaskInfo, "progress": info.ProgressInfo,
    "service info": info.ServiceInfo, "standby info": info.StandbyInfo, "event": info.Event,
    "angle limits": AngleLimits, "device info": DeviceInfo, "qubit info": QubitInfo,
    "operation info": OperationInfo, "layer info": LayerInfo, "logical info": LogicalInfo,
    "analog info": AnalogInfo,
    "term info": TermInfo,
    "module info": ModuleInfo, "link use": LinkUse, "link info": LinkInfo,
    "logical use": LogicalUse,
    "noise use": NoiseUse,
    "noise figure": NoiseFigure,
    "key info": KeyInfo, "token info": TokenInfo, "durations": metrics.DurationHistogram,
    "metrics of a pool": metrics.PoolMetrics, "metrics of a node": metrics.NodeMetrics,
    "metrics of a device": metrics.DeviceMetrics, "metrics of an account": metrics.AccountMetrics,
    "metrics of the service": metrics.ServiceMetrics, "retained data": RetainedData,
    "owner limits": Limits, "owner use": ResourceUse, "owner report": OwnerReport,
    "account": accounts.Account, "class of service": accounts.Qos, "billing": accounts.Billing,
    "share of an account": accounts.ShareRow, "used by a task": accounts.Used,
    "usage": accounts.UsageRow, "receipt": accounts.Receipt, "admission policy": AdmissionPolicy,
    "device profile": DeviceProfile, "reservation decision": Decision,
    "reservation request": ReservationRequest, "reservation info": ReservationInfo,
    "calendar entry": CalendarEntry, "reserved units": HeldCapacity, "target info": TargetInfo,
    "workload": Workload,
}  # fmt: skip

# Files, and what a starting service writes into its starter's pipe: JSON.
FILES: dict[str, Any] = {
    "account-users.json": UsersFile, "backup": BackupManifest, "config.json": Config,
    "connection.json": ConnectionFile, "worker.json": WorkerBootstrap,
    "jobs of a start": list[RecordedJob], "token of a job": nodes.JoinToken,
    "key of a start of a worker": WorkerKey, "keys.json": KeysFile, "tokens.json": TokensFile,
    "gateway.json": GatewayFile, "key of a person": UserKeyFile, "server-key.json": ServerFile,
    "key pair": KeyPair, "launchers.json": probe._File, "bundle.json": Manifest,
    "checkpoint of a state": CheckpointHeader, "readiness": StartupMessage,
    "request to the broker": CertificateRequest, "certificate of the broker": UserCertificate,
    "refusal of the broker": Denial,
}  # fmt: skip

# Objects that commands print with --json (tests/golden/listings has those of an environment).
PRINTED: dict[str, Any] = {
    "doctor": doctor_installation.DoctorFinding, "explain of an environment": ResourceFit,
    "explain --plan": PlanLine, "perf": PerformanceReport, "trace": Trace, "demo": DemoRow,
    "demo, at its end": DemoRun, "environments": EnvironmentInfo, "policy": PoolPolicies,
    "qpm diff": comparison.Row, "result provenance": Provenance, "result stages": Stages,
}  # fmt: skip

# Dictionaries that a QPM's host is given: names of the contract.
QPM: dict[str, Any] = {
    "access": envelopes.Access, "completion": envelopes.CompletionEnvelope,
    "event": envelopes.EventEnvelope, "record": envelopes.Record,
    "registered": envelopes.Registered, "status": envelopes.StatusEnvelope,
    "task timing": envelopes.TaskTiming, "timeout": envelopes.Timeout, "times": envelopes.Times,
    "wait": envelopes.Wait, "reservation changed": answers.Changed,
    "reservation decision": answers.AdmissionDecision, "admission policy": answers.Policy,
    "device profile": answers.ProfileRecord, "reservation record": answers.ReservationRecord,
    "service binding": contract.Binding, "service record": contract.ServiceRecord,
    "control": answers.SchedulerControl, "dispatch limits": answers.DispatchLimits,
    "queue state": answers.QueueState, "scheduler policy": answers.SchedulerPolicy,
    "scheduler status": answers.SchedulerStatus, "steered": answers.Steered,
    "block": telemetry_answers.WorkBlock, "capacity": telemetry_answers.CapacitySnapshot,
    "estimate": telemetry_answers.WaitEstimate, "lifecycle event": telemetry_answers.LifecycleEvent,
    "lifecycle telemetry": telemetry_answers.LifecycleTelemetry,
    "calibration": telemetry_answers.QhwCalibration, "coupling": telemetry_answers.QhwCoupling,
    "hardware device": telemetry_answers.QhwDevice, "hardware record": telemetry_answers.QhwRecord,
    "queue metrics": telemetry_answers.QueueMetrics, "reconciliation": answers.Reconciliation,
    "room": telemetry_answers.AvailableCapacity, "seen": telemetry_answers.Visibility,
    "self test": answers.SelfTest, "service status": answers.ServiceStatus,
    "shutdown request": answers.ShutdownRequest, "audit entry": identity.AuditEntry,
    "audit fault": identity.Fault,
}  # fmt: skip
