"""Read-only views of an environment for users: tasks, workers, pools, nodes, events."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated

import msgspec

from simenv.errors import OptionError
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
