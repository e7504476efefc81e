"""Read-only views for users, and descriptions of pools as devices.

Description of a pool as a device: qubits, gates, coupling, and measured properties. An ideal
simulator has no measured properties; those of hardware are from its own description. Unknown
numbers are NaN.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from simenv.errors import OptionError
from simenv.model.program import is_gate
from simenv.model.task import TaskState

ON_DEMAND = ".x"  # in the name of a pool made on demand, after that of its base


def base_of(name: str) -> str:
    """Return the pool for which a pool was made on demand; "" for a configured pool."""
    return name.rpartition(ON_DEMAND)[0]


class WorkerState(enum.StrEnum):
    """STARTING -> IDLE <-> BUSY -> DRAINING -> GONE; LOST from any."""

    STARTING = "STARTING"
    IDLE = "IDLE"
    BUSY = "BUSY"
    DRAINING = "DRAINING"
    GONE = "GONE"
    LOST = "LOST"


class Event(msgspec.Struct, frozen=True):
    """One event of the environment. `seq` grows by one; a reader resumes with `since=seq`."""

    seq: int
    time_s: float  # wall clock, seconds since 1970, for display only
    kind: str  # "worker.lost", "task.requeued" ...
    subject: str
    message: str

    def is_of(self, kinds: Sequence[str]) -> bool:
        """Return whether the event matches one of `kinds`: patterns such as `worker.*`, or first
        words such as `audit`."""
        return any(
            fnmatchcase(self.kind, kind) or self.kind.startswith(f"{kind}.") for kind in kinds
        )


class WorkerInfo(msgspec.Struct, frozen=True):
    """State of one worker."""

    name: str
    pool: str
    state: WorkerState
    node: str
    pid: int
    ranks: int
    slots: int  # granted to its running task
    task: str  # id of the running task, or ""
    tasks: int  # finished by it
    restarts: int
    memory_bytes: int
    nodes: tuple[str, ...] = ()  # of its ranks, present or planned; `node` is reported by rank 0


class JobSpec(msgspec.Struct, frozen=True):
    """Jobs of the site's batch system by which nodes of a pool come: one node each."""

    system: str  # "slurm" or "pbs"
    time_s: float  # after which the site ends a job
    partition: str = ""  # in PBS: the queue; "": the site's default
    account: str = ""
    slots: int = 1  # cores of a job, and workers that it holds
    memory_bytes: int = 0  # 0: the site's default
    gpus: int = 0
    extra: tuple[str, ...] = ()  # further options of sbatch or qsub


class PoolSpec(msgspec.Struct, frozen=True):
    """Specification of a pool: workers of one kind and size."""

    name: str = "main"  # of the pool, as in `--pool NAME:...`
    engine: str = "any"  # an engine's name, or any
    min: int = 1  # smallest number of workers
    max: int = 1  # largest number of workers
    idle_s: float = 60.0  # a worker above `min` ends after this time without work
    ranks: int = 1  # MPI ranks of each worker
    memory_bytes: int = 0  # memory of each rank; 0: by the memory of a slot or node
    nodes: str = ""  # nodes of its workers, names or patterns: "gpu*,node7"; "": all
    provider: str = ""  # "module:factory", or "qrmi:NAME", of the device that its worker holds
    device: str = ""  # the emulated device that its tasks run on
    pace: bool = False  # the device takes as long as the machine
    drift: str = ""  # how its calibration changes, see `simenv.config.pools`; "": it does not
    command: str = ""  # of an external simulator, see `simenv.config.pools`
    auto_workers: bool = False  # as many workers as its nodes have GPUs
    environ: str = ""  # variables of `simenv up` that its provider reads: "fez_QRMI_*,QRMI_*"
    jobs: JobSpec | None = None  # its nodes come by jobs; None: they are those of the allocation


class PoolInfo(msgspec.Struct, frozen=True):
    """Present state of a pool."""

    name: str
    engine: str
    workers: int  # ready
    target: int  # workers that should run
    busy: int
    waiting: int  # tasks
    state: str  # "up", "starting", "paused", "draining", "degraded", "quarantined"
    reason: str
    backlog_us: float = 0.0  # expected work that waits
    held_us: float = 0.0  # expected work that workers hold
    ranks: int = 1  # of each worker
    most: int = 1  # largest number of workers
    max_qubits: int = 0  # of the widest program its workers hold in double precision
    nodes: tuple[str, ...] = ()  # where its workers are
    on_demand: bool = False  # made by the environment for programs too big for one worker
    least: int = 0  # smallest number of workers
    kept: int = 0  # workers dedicated to reservations
    wait_us: float = -1.0  # until a task accepted now would begin; -1: not known
    wait_off_by: float = 0.0  # typical factor between such waits and real ones; 0: not known
    wait_age_us: float = 0.0  # since the forecast was made
    # "paused" or "draining": what an administrator or QPM set, also beside the states "degraded"
    # and "quarantined"; "": it may start tasks
    closed: str = ""
    closed_reason: str = ""

    @property
    def reasons(self) -> str:
        """Why it is not up, with why it is closed."""
        if self.closed in ("", self.state):
            return self.reason
        closed = f"{self.closed}: {self.closed_reason}".removesuffix(": ")
        return f"{self.reason}; {closed}" if self.reason else closed


class NodeInfo(msgspec.Struct, frozen=True):
    """State of one node of the allocation."""

    name: str
    state: str  # "up", "drained", "lost"; "pending": its job waits
    reason: str  # why it is not up
    slots: int
    slots_granted: int
    memory_bytes: int
    memory_granted: int
    workers: int
    ranks: int
    gpus: int = 0
    features: tuple[str, ...] = ()
    source: str = ""  # of a node that came by a job: "Slurm job 17 on gpu07"; "": the allocation
    end_s: float = 0.0  # Unix time at which the site ends that job; 0: none, or never


class GateInfo(msgspec.Struct, frozen=True, array_like=True):
    """A gate by its name; `qubits` -1: any number."""

    name: str
    qubits: int
    params: int


class EngineInfo(msgspec.Struct, frozen=True):
    """Capabilities of an engine in this environment."""

    name: str
    summary: str
    outputs: tuple[str, ...]
    precisions: tuple[str, ...]
    dynamic: bool  # mid-circuit measurement, reset, if
    clifford: bool  # Clifford circuits alone
    max_qubits: int  # in this environment's memory, double precision
    missing: str  # command that installs it; "": it is installed
    gates: tuple[GateInfo, ...]


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class ProgressInfo(msgspec.Struct, frozen=True):
    """What a running task has done of what it has to do, at its worker's last heartbeat. `unit`:
    what is counted, in the plural: "passes", "trajectories", "shots", "bindings" ...; see
    docs/concepts/progress.md."""

    unit: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    done: _Count
    total: _Count
    fraction: _Share  # of the work; it never falls, and is finer than done / total
    before: _Share = 0.0  # the part of it that earlier attempts have done


class TaskInfo(msgspec.Struct, frozen=True):
    """A task as `queue` and `status` show it; `reason` says why it waits, or why it failed."""

    id: str
    name: str
    pool: str
    state: TaskState
    attempt: int
    time_s: float  # since accepted; of a final task, until its end
    num_qubits: int
    shots: int
    worker: str
    reason: str
    owner: str = ""  # the name of the key it came with; "": the environment's own user
    wait_us: float = -1.0  # until it begins, if it waits; -1: not known
    parked: int = 0  # its place among the tasks that wait for credits; 0: it does not wait for them
    reservation: int = 0
    progress: ProgressInfo | None = None  # of a run of more than a second, if its engine reports it
    wait_off_by: float = 0.0  # typical factor between such waits and real ones; 0: not known
    wait_age_us: float = 0.0  # since the forecast was made
    left_us: float = -1.0  # of its run, as forecast now; -1: it does not run, or not known
    outrun: float = (
        0.0  # run time relative to the forecast that it outran so far that it has another
    )
    engine: str = ""
    device: str = ""  # emulated, that it runs on; "": none


class StandbyInfo(msgspec.Struct, frozen=True):
    """A service that waits to take over."""

    node: str
    lacks: str  # what it needs to take over, and does not have; "": it is ready


class ServiceInfo(msgspec.Struct, frozen=True):
    """State of the service, as `simenv status` shows it."""

    name: str
    version: str
    pid: int
    node: str
    epoch: int
    up_s: float
    durability: str
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int
    expired: int
    lost_attempts: int
    unread: int  # completions not yet acknowledged by the slowest cursor
    oldest_s: float
    slots: int
    slots_granted: int
    memory_bytes: int
    max_qubits: int
    rss_bytes: int
    loop_lag_p99_ms: float
    pools: tuple[PoolInfo, ...]
    warnings: tuple[str, ...]
    resumed: str = ""  # journal from which it started, if that needs a notice
    launcher: str = ""  # way in which workers are started, with the reason
    allocation: str = ""  # source of the nodes, as text
    nodes: tuple[NodeInfo, ...] = ()
    max_ranks: int = 1  # of one worker
    end_s: float = 0.0  # wall clock, when the site ends the allocation; 0: never
    longest_pass_ms: float = 0.0  # of the event loop, since the environment was ready
    isolation: str = "none"  # account: a worker serves one account at a time
    standbys: tuple[StandbyInfo, ...] = ()
    slot_s: float = 0.0  # time that tasks have used, on all their slots, since the service started
    gateway: str = ""  # URL at which users reach the gateway; "": there is none


UNKNOWN = math.nan
LONGEST_NS = 10**18  # time of a task on its device, 31.7 years; messages carry 64-bit integers


@functools.lru_cache(maxsize=64)
def wall_clock_s(moment: str) -> float:
    """Seconds since 1970 of an ISO 8601 time, which is in UTC if it names no zone; 0.0 if the text
    is no such time."""
    try:
        result = datetime.fromisoformat(moment)
    except ValueError:
        return 0.0
    return (result if result.tzinfo else result.replace(tzinfo=UTC)).timestamp()


_DATE_NAME = "%Y%m%dT%H%M%S.%fZ"


def date_name(time_s: float) -> str:
    """Name, without its ending, of the file of a calibration that came at a time (seconds since
    1970)."""
    return datetime.fromtimestamp(time_s, UTC).strftime(_DATE_NAME)


def dated_s(name: str) -> float:
    """Time of a name that `date_name` made; 0.0 for another name."""
    try:
        return datetime.strptime(name, _DATE_NAME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0


def device_time_ns(shots: int, circuits: int, overhead_ns: float, shot_ns: float) -> int:
    """Time of a device for circuits with `shots` shots each: circuits overhead_ns + shots shot_ns.
    `shot_ns` is the sum of the times of one shot of each circuit. 0 for exact results (no shots),
    which no device gives. Longer times than `LONGEST_NS` are limited to it; tasks whose time is
    known at their acceptance are refused then."""
    return round(min(circuits * overhead_ns + shots * shot_ns, LONGEST_NS)) if shots else 0


class DeviceKind(enum.StrEnum):
    """Kind of device that a pool represents."""

    IDEAL = "ideal"  # a simulator without errors: every qubit coupled with every other
    EMULATED = "emulated"  # a simulator with a machine's errors, couplings and gates
    HARDWARE = "hardware"  # a machine


class CalibrationSource(enum.StrEnum):
    """Source of the calibration of an emulated device."""

    IMPORTED = "imported"  # a file of SIMENV_HOME/devices
    BUNDLED = "bundled"
    INSTALLED = "qiskit-ibm-runtime"


class QubitInfo(msgspec.Struct, frozen=True, array_like=True):
    """Measured properties of one qubit."""

    t1_us: float = UNKNOWN
    t2_us: float = UNKNOWN
    frequency_ghz: float = UNKNOWN
    readout_error: float = UNKNOWN  # a probability
    readout_ns: float = UNKNOWN
    t2_star_us: float = UNKNOWN  # of a Ramsey experiment; `t2_us` is that of an echo
    memory_error: float = UNKNOWN  # average infidelity by a layer of gates on two qubits
    measure_decay: float = UNKNOWN  # probability that a measurement leaves 1 in 0
    measure_excitation: float = UNKNOWN  # probability that a measurement leaves 0 in 1
    leaked_readout: float = UNKNOWN  # probability that it is read as 1 in its third level


class OperationInfo(msgspec.Struct, frozen=True, array_like=True):
    """One gate on an ordered tuple of qubits; (): on all that the device couples."""

    name: str
    qubits: tuple[int, ...]
    error: float = UNKNOWN  # average gate infidelity
    duration_ns: float = UNKNOWN
    leakage: float = UNKNOWN  # mean probability to leave the computational states
    seepage: float = UNKNOWN  # probability that a leaked qubit comes back


class TermInfo(msgspec.Struct, frozen=True, array_like=True):
    """A further calibrated quantity, wherever it was measured. A place is a qubit, the qubits of a
    gate or pair, or a measured qubit and one that this disturbs; (): all without a place of their
    own."""

    name: str  # field of the snapshot, or gate and quantity, as "cz leakage"
    title: str
    unit: str
    places: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]  # one for each place


class LayerInfo(msgspec.Struct, frozen=True, array_like=True):
    """Two-qubit gates that act at the same time and have an error together."""

    gates: tuple[str, ...]  # with their qubits, as "cz 0-1"
    qubits: tuple[int, ...]  # of the gates and around them
    rates: int  # number of Pauli generators
    error: float  # sum of the probabilities of all Pauli errors
    calibrated_s: float = 0.0  # seconds since 1970; 0: not known


class AngleLimits(msgspec.Struct, frozen=True, array_like=True):
    """Smallest and largest angle of each parameter of a gate, in radians."""

    gate: str
    bounds_rad: tuple[tuple[float, float], ...]


class DeviceInfo(msgspec.Struct, frozen=True):
    """One pool as a device. `all_to_all`: all pairs are coupled, and `coupling` is empty. The
    operations that it has, and where, are those of `availability`."""

    name: str  # the pool's
    kind: DeviceKind
    provider: str  # "simenv", or the provider that the machine names
    model: str  # the machine's own name; of a simulator, the preferred engine
    version: str
    technology: str  # "simulator", "superconducting", "trapped-ion", "neutral-atom"
    num_qubits: int
    max_shots: int
    gates: tuple[GateInfo, ...]  # native: by name, with the number of qubits and parameters
    all_to_all: bool
    directed: bool = False
    coupling: tuple[tuple[int, int], ...] = ()
    operations: tuple[OperationInfo, ...] = ()
    qubits: tuple[QubitInfo, ...] = ()  # empty, or one for each
    dynamic: bool = False  # mid-circuit measurement, reset and conditions
    calibration_id: str = ""  # "": nothing was ever measured
    calibrated_s: float = 0.0  # wall clock of the calibration, seconds since 1970; 0: not known
    dt_ns: float = UNKNOWN  # resolution of its clock
    formats: tuple[str, ...] = ("openqasm2", "openqasm3", "qpy")
    unusable: tuple[int, ...] = ()  # numbers that name no qubit, or one that does not work
    angle_limits: tuple[AngleLimits, ...] = ()  # of gates whose angles are limited
    problem: str = ""  # reason why an emulated device has no calibration, and nothing else is known
    # Of its qubits in a drawing: x to the right, y down; (): not known.
    coordinates: tuple[tuple[float, float], ...] = ()
    layers: tuple[LayerInfo, ...] = ()  # with learned errors
    terms: tuple[TermInfo, ...] = ()  # all quantities but T1, T2, errors, durations, frequencies
    refused_fit: str = ""  # reason for which its fit to counts was refused; it was stored by force

    def width(self, operation: OperationInfo) -> int:
        """Return the number of qubits of a gate; 0: no gate, or one of any number of qubits."""
        if not is_gate(operation.name):
            return 0
        if operation.qubits:
            return len(operation.qubits)
        return next((max(0, gate.qubits) for gate in self.gates if gate.name == operation.name), 0)


MAX_TIME_S = 1e11  # some thousand years
CLOCKS_S = 60.0  # by which the clocks of two nodes may differ


def check_window(since_s: float, until_s: float, now_s: float) -> None:
    """Check a time span of the past in seconds since 1970; 0 and infinity: no bound. Raises
    OptionError for one that ends before it begins, or begins in the future."""
    until_s = 0.0 if until_s == math.inf else until_s
    for name, value in (("since", since_s), ("until", until_s)):
        if not 0.0 <= value <= MAX_TIME_S:
            raise OptionError(
                f"{name} = {value} is no time", hint="seconds since 1970; 0: no bound"
            )
    if until_s and since_s > until_s:
        text = f"since {_time_text(since_s)} is later than until {_time_text(until_s)}"
        hint = "since takes the earlier time; an age counts back from now: 10m is earlier than 5m"
        raise OptionError(text, hint=hint)
    if since_s > now_s + CLOCKS_S:
        text = f"since {_time_text(since_s)} is in the future: now it is {_time_text(now_s)}"
        raise OptionError(text, hint="give a time of the past, or an age such as 1h30m")


def _time_text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).astimezone().isoformat(timespec="seconds")
