"""Values of the scheduler: tasks, routes, submissions, limits. Times are monotonic nanoseconds."""

from __future__ import annotations

import enum

import msgspec

from launcher.base import Node
from simenv.model import TaskOptions, TaskSpec, TaskState, Timing
from simenv.model.views import ON_DEMAND
from simenv.wire.messages.client import AttemptResult

END_MARGIN_NS = 60_000_000_000  # the service ends this long before the allocation


def gang_name(base: str, ranks: int) -> str:
    """Return the name of the pool of workers with `ranks` ranks that is made on demand for
    `base`."""
    return f"{base}{ON_DEMAND}{ranks}"


HELD_RESULT = -2  # value of `TaskEnded.index`: the result of this task was held
UNLIMITED = 2**31  # as a count: no limit
START_NS = 1_000_000_000  # approximate time from the start of a worker until it is ready


def nodes_of(limits: ClusterLimits) -> tuple[Node, ...]:
    """Return the nodes; without configured nodes, a single one with all slots and memory."""
    return limits.nodes or (Node("", limits.slots, limits.memory_bytes),)


def slot_memory(node: Node, limits: ClusterLimits) -> int:
    """Return the memory in bytes that belongs to one slot of a node."""
    share = node.memory_bytes // max(1, node.slots)
    return min(share, limits.memory_per_slot or share)


ATTEMPT_BITS = 16  # a fence is epoch * 2**16 + attempt, so an old epoch's answer never matches


class WorkerHeartbeat(msgspec.Struct, frozen=True, gc=False):
    """State of a worker, as the worker reports it at least once a second."""

    name: str
    start: int  # start number of the worker
    task: int = 0  # the running one; 0: none
    fence: int = 0  # of the task's attempt
    rss_bytes: int = 0
    passes: tuple[int, int] = (0, 0)  # sweeps of the task over the state: done, total
    waiting: bool = True  # the worker waits for a chunk; False while it loads kernels
    compiling: bool = False  # the worker compiles kernels that the task needs


class Phase(enum.IntEnum):
    """Phase of an unfinished task. The task's owner sees SENT, PARKED and DEPENDENT as QUEUED."""

    WAITING = 0
    SENT = 1
    RUNNING = 2
    FINAL = 3  # no longer in the state; its lane entry is stale
    PARKED = 4  # in no queue, because its reservation has no free units for it
    HELD = 5  # result held until its time on a paced device is over; the owner sees RUNNING
    DEPENDENT = 6  # in no queue, because its parents have not ended


# The same as plain numbers: access to an enum member costs as much as making a TaskRecord.
WAITING, SENT = int(Phase.WAITING), int(Phase.SENT)
RUNNING, FINAL = int(Phase.RUNNING), int(Phase.FINAL)
HELD, DEPENDENT = int(Phase.HELD), int(Phase.DEPENDENT)
RUNS = (RUNNING, HELD)  # phases that the task's owner sees as RUNNING
UNQUEUED = (int(Phase.PARKED), DEPENDENT)
UNSENT = (WAITING, *UNQUEUED)


def early_end(reason: str) -> TaskState:
    """Return the final state of a task that was stopped before it had a result."""
    return TaskState.CANCELLED if reason == "cancelled" else TaskState.EXPIRED


class Route(msgspec.Struct, frozen=True, gc=False):
    """Engine, pool and cost of a program, decided once at admission for all its tasks."""

    engine: str
    reason: str  # why this engine was chosen, as text for users
    pool: str
    num_qubits: int
    memory_bytes: int  # of each rank
    evolve_us: float  # on one slot
    shot_us: float
    max_slots: int  # further slots would not shorten it
    ranks: int = 1  # of the required worker
    device_shot_ns: float = 0.0  # of one shot on the emulated device
    device_overhead_ns: float = 0.0  # of each set of parameter values on the emulated device
    paced: bool = False  # the emulated device is as slow as its machine


class SubmitBatch(msgspec.Struct, frozen=True):
    """Values that the tasks of one Submit share."""

    client: bytes
    terms: TaskOptions
    key: str
    offset: int
    first: int
    accepted_ns: int
    share_bytes: int = 0  # message bytes per task; 0: the program's size counts
    owner: str = ""  # name of the submitter's key; "": the environment's own user


class TaskRecord(msgspec.Struct, gc=False, eq=False):
    """One unfinished task. No field refers back to a record, so the collector may skip it."""

    number: int
    spec: TaskSpec
    batch: SubmitBatch
    route: Route
    cost_us: float
    phase: int = WAITING
    attempts: int = 0  # number of times that it was sent to a worker
    fence: int = 0
    deaths: int = 0  # number of worker crashes charged to it
    incident: int = 0  # > 0: number of the crash of which it is a suspect; it travels alone
    worker: str = ""
    sent_ns: int = 0
    started_ns: int = 0
    announced: bool = False  # its worker sends Started before it runs the task
    stopping: str = ""  # reason of a stop request: "cancelled", "queue_timeout", "run_timeout"
    interrupted: bool = False  # an outage of its device: this attempt's result is discarded

    @property
    def size_bytes(self) -> int:
        """The bytes that the task adds to the queue."""
        return self.batch.share_bytes or len(self.spec.program)


def timing_of(record: TaskRecord, result: AttemptResult, now_ns: int) -> Timing:
    """Return the duration of each stage of a task whose result arrived now."""
    start_us, run_us, sent_ns = result.start_us, result.run_us, record.sent_ns
    transfer_us = (now_ns - sent_ns) // 1000 - start_us - run_us - result.compile_us
    return Timing(
        (sent_ns - record.batch.accepted_ns) // 1000,
        start_us,
        run_us,
        result.decode_us,
        result.plan_us,
        result.engine_us,
        result.encode_us,
        transfer_us if transfer_us > 0 else 0,
        result.compile_us,
        result.device_ns,
    )


class ClusterLimits(msgspec.Struct, frozen=True):
    """Fixed limits of this environment."""

    slots: int
    memory_bytes: int
    max_queued_tasks: int
    max_queued_bytes: int
    silent_ns: int
    start_timeout_ns: int
    nodes: tuple[Node, ...] = ()  # (): a single node with all of the above
    max_ranks: int = 1  # of one worker; 1 without MPI
    memory_per_slot: int = 0  # most bytes of one rank; 0: limited by its node
    end_ns: int = 0  # end of the allocation; 0: never
    launcher: str = ""  # for refusals: the launcher, and the install hint for more ranks
    overcommit: bool = False  # no bound on resident workers, see `most_resident`
    service_bytes: int = 0  # resident memory of the service above which it takes no tasks; 0: any
