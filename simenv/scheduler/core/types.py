"""Values of the scheduler: tasks, routes, submissions, limits. Times are monotonic nanoseconds."""

from __future__ import annotations

import enum

import msgspec

from launcher.base import Node
from simenv.model import TaskOptions, TaskSpec, TaskState, Timing
from simenv.wire.messages.client import AttemptResult

END_MARGIN_NS = 60_000_000_000  # so long before the site ends the allocation, all is put away


_MARK = ".x"


def gang_name(base: str, ranks: int) -> str:
    """The name of the pool, made on demand for `base`, of workers with so many ranks."""
    return f"{base}{_MARK}{ranks}"


def base_of(name: str) -> str:
    """The pool that a pool was made for; "" for a configured pool."""
    return name.rpartition(_MARK)[0]


HELD_RESULT = -2  # in place of an index: the result of this task was held
UNLIMITED = 2**31  # of a count: no limit
START_NS = 1_000_000_000  # what a worker takes to be ready, about


def nodes_of(limits: ClusterLimits) -> tuple[Node, ...]:
    """The nodes; if none are configured, a single one with all slots and memory."""
    return limits.nodes or (Node("", limits.slots, limits.memory_bytes),)


def slot_memory(node: Node, limits: ClusterLimits) -> int:
    """The memory that belongs to one slot of a node."""
    share = node.memory_bytes // max(1, node.slots)
    return min(share, limits.memory_per_slot or share)


ATTEMPT_BITS = 16  # a fence is epoch * 2**16 + attempt, so an old epoch's answer never matches


class WorkerHeartbeat(msgspec.Struct, frozen=True, gc=False):
    """What a worker says of itself once a second, or sooner."""

    name: str
    start: int  # number of this start of it
    task: int = 0  # that it runs; 0: none
    fence: int = 0  # of its attempt
    rss_bytes: int = 0
    passes: tuple[int, int] = (0, 0)  # of the task over the state: done, in all
    waiting: bool = True  # for a chunk; False while it loads kernels
    compiling: bool = False  # kernels that the task needs


class Phase(enum.IntEnum):
    """Where an unfinished task is. SENT, PARKED and DEPENDENT are QUEUED to its owner."""

    WAITING = 0
    SENT = 1
    RUNNING = 2
    FINAL = 3  # no longer in the state; its lane entry is stale
    PARKED = 4  # in no queue: its reservation has no units for it now
    HELD = 5  # its result is held until its time on a paced device is over; RUNNING to its owner
    DEPENDENT = 6  # in no queue: tasks that it comes after have not ended


# The same as plain numbers: looking a member up costs as much as making a Record.
WAITING, SENT = int(Phase.WAITING), int(Phase.SENT)
RUNNING, FINAL = int(Phase.RUNNING), int(Phase.FINAL)
HELD, DEPENDENT = int(Phase.HELD), int(Phase.DEPENDENT)
RUNS = (RUNNING, HELD)  # to its owner
UNQUEUED = (int(Phase.PARKED), DEPENDENT)
UNSENT = (WAITING, *UNQUEUED)


def early_end(reason: str) -> TaskState:
    """The state of a task that was stopped before it had a result."""
    return TaskState.CANCELLED if reason == "cancelled" else TaskState.EXPIRED


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a program runs and what it costs, as admission decided once for all its tasks."""

    engine: str
    reason: str  # why this engine, in words
    pool: str
    num_qubits: int
    memory_bytes: int  # of each rank
    evolve_us: float  # on one slot
    shot_us: float
    max_slots: int  # more would not help
    ranks: int = 1  # of the worker it needs
    device_shot_ns: float = 0.0  # of one shot on the emulated device
    device_overhead_ns: float = 0.0  # of each set of parameter values there
    paced: bool = False  # the device takes that time


class SubmitBatch(msgspec.Struct, frozen=True):
    """What the tasks of one Submit share."""

    client: bytes
    terms: TaskOptions
    key: str
    offset: int
    first: int
    accepted_ns: int
    share_bytes: int = 0  # of its message, for each of its tasks; 0: the program's size counts
    owner: str = ""  # the name of the key it came with; "": the environment's own user


class TaskRecord(msgspec.Struct, gc=False, eq=False):
    """One unfinished task. No field refers back to a record, so the collector may skip it."""

    number: int
    spec: TaskSpec
    batch: SubmitBatch
    route: Route
    cost_us: float
    phase: int = WAITING
    attempts: int = 0  # how often it was sent out
    fence: int = 0
    deaths: int = 0  # workers that died with it, and only with it
    incident: int = 0  # > 0: a suspect of that worker's death; travels alone
    worker: str = ""
    sent_ns: int = 0
    started_ns: int = 0
    announced: bool = False  # its worker says Started before it runs it
    stopping: str = ""  # why it was asked to stop: "cancelled", "queue_timeout" or "run_timeout"
    interrupted: bool = False  # by an outage of its device: this attempt's result is discarded

    @property
    def size_bytes(self) -> int:
        """The bytes it adds to the queue."""
        return self.batch.share_bytes or len(self.spec.program)


def timing_of(record: TaskRecord, result: AttemptResult, now_ns: int) -> Timing:
    """The duration of each stage of a task whose result arrived now."""
    start_us, run_us, sent_ns = result.start_us, result.run_us, record.sent_ns
    ways_us = (now_ns - sent_ns) // 1000 - start_us - run_us - result.compile_us
    return Timing(
        (sent_ns - record.batch.accepted_ns) // 1000,
        start_us,
        run_us,
        result.decode_us,
        result.plan_us,
        result.engine_us,
        result.encode_us,
        ways_us if ways_us > 0 else 0,
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
    nodes: tuple[Node, ...] = ()  # (): one, with all of the above
    max_ranks: int = 1  # of one worker: 1 where there is no MPI
    memory_per_slot: int = 0  # what one rank may hold at most; 0: what its node has
    end_ns: int = 0  # when the site ends the allocation; 0: never
    launcher: str = ""  # for refusals: which launcher, and what to install for more ranks
    overcommit: bool = False  # no bound on resident workers, see `nodes.most_resident`
