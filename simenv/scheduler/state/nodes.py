"""Nodes and the workers on them: granted, reserved and claimed resources of each.

Slots are granted to running tasks; memory to running tasks, or to workers that reserve it as long
as they live. Resident ranks need no slots and may outnumber them. Workers made on demand never have
more ranks than could run at once. A node's slots have one claim at a time: freed slots are withheld
from others until the claim is met. If a long task delays that, short tasks may use the claimed
slots meanwhile (backfill).
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from launcher.base import Node, Share
from launcher.placement import NodeResources
from simenv.model import JobSpec, PoolSpec, ProgressInfo, WorkerState
from simenv.scheduler.core import ClusterLimits, SubmitBatch, TaskRecord, nodes_of
from simenv.scheduler.queueing.lanes import LONG_US

_FIRST = 10_000  # more than the ranks a node may have
WORKERS_PER_SLOT = 32  # resident ranks at a time: an idle worker uses memory and no slot
WORKER_BYTES = 128 * 2**20  # unshared memory of an idle worker of one rank; measured: 76 to 126 MiB
AVOID_NS = 60_000_000_000  # time for which a node with a failed start is the last choice


class NodeJobPhase(enum.Enum):
    """Phase of the job by which a node comes."""

    OFF = "off"  # there is no job
    SUBMITTED = "pending"
    UP = "up"  # its agent has joined
    ENDING = "ending"  # no worker is started there any more


_ABSENT = (NodeJobPhase.OFF, NodeJobPhase.SUBMITTED)


class NodeJob(msgspec.Struct, eq=False):
    """Job of the site by which a node comes."""

    phase: NodeJobPhase = NodeJobPhase.OFF
    detail: str = ""  # the site's identifier of the job, and why it waits
    source: str = ""  # "Slurm job 17 on gpu07"
    submitted_ns: int = 0
    joined_ns: int = 0
    end_ns: int = 0  # when the site ends it; 0: never
    had_worker: bool = False
    told_to_end: bool = False  # the agent


class NodeState(msgspec.Struct, eq=False):
    """Present state of one node."""

    node: Node
    free_slots: int
    free_memory: int
    reserved: int = 0  # memory that workers reserve as long as they live
    ranks: int = 0  # of all workers here
    ganged: int = 0  # ranks of workers of several ranks
    on_demand: int = 0  # ranks of workers made on demand, never more than slots
    claimed_slots: int = 0
    claimed_memory: int = 0
    backfill_slots: int = 0  # claimed by a gang; short tasks may use them
    backfill_memory: int = 0  # claimed memory, in the same way
    drained: str = ""  # reason; "": not drained
    drained_until_ns: int = 0  # end of its maintenance, by the monotonic clock; 0: not known
    lost: str = ""  # reason; "": not lost
    avoid_until_ns: int = 0
    free_gpus: list[str] = msgspec.field(default_factory=list)  # as in `Node.gpu_names`
    # By the last heartbeat of a worker here; 0: not known.
    busy_ms: int = 0  # busy time of all processors since the start of the node
    used_bytes: int = 0  # memory in use
    job: NodeJob | None = None  # by which it comes; None: it is of the allocation
    workers: dict[str, Worker] = msgspec.field(default_factory=dict)  # with ranks here, by name

    def copy(self) -> NodeState:
        """Return a copy without workers."""
        result = copy.copy(self)
        result.free_gpus, result.workers, result.job = [*self.free_gpus], {}, copy.copy(self.job)
        return result

    @property
    def is_up(self) -> bool:
        return not (self.drained or self.lost or self.is_absent)

    @property
    def end_ns(self) -> int:
        """When the site ends the job by which it came; 0: never, or not known."""
        return self.job.end_ns if self.job is not None else 0

    @property
    def is_absent(self) -> bool:
        """True if the node comes by a job that has not joined."""
        return self.job is not None and self.job.phase in _ABSENT

    @property
    def state(self) -> str:
        """The state as NodeInfo names it."""
        if self.job is not None and self.is_absent:
            return self.job.phase.value
        return "lost" if self.lost else "drained" if self.drained else "up"

    @property
    def granted(self) -> int:
        """Memory in bytes that running tasks have beyond the reservations of their workers."""
        return self.node.memory_bytes - self.reserved - self.free_memory

    def placed_ranks(self, own: int) -> int:
        """Return the ranks here as placement counts them. It spreads a pool by its own workers
        (`own`) and by gangs, which will need slots; other workers only break ties."""
        return (own + self.ganged) * _FIRST + self.ranks

    def available_resources(self, memory_bytes: int, slots: int, own: int = 0) -> NodeResources:
        """Return the node as placement sees it, with this memory and these slots available. `own`:
        as for `placed_ranks`."""
        return NodeResources(
            self.node.name,
            slots,
            memory_bytes,
            self.node.memory_bytes,
            len(self.free_gpus),
            self.node.gpus,
            ranks=self.placed_ranks(own),
            block=self.node.block,
            features=self.node.features,
            usable=self.is_up,
            reason=f"{self.state}: {self.lost or self.drained}" if not self.is_up else "",
            pool=self.node.pool,
        )

    def take_gpus(self, count: int) -> tuple[str, ...]:
        """Grant the first free GPUs to ranks of a worker, as long as it lives."""
        granted_gpus, self.free_gpus = self.free_gpus[:count], self.free_gpus[count:]
        return tuple(granted_gpus)

    def return_gpus(self, gpus: Iterable[str]) -> None:
        """Free the GPUs of a worker that is gone, in the node's order."""
        free = {*self.free_gpus, *gpus}
        self.free_gpus = [name for name in self.node.gpu_names if name in free]


DRAIN_NS = 60_000_000_000  # before the end of a job; see `drain_ns`
DRAIN_SHARE = 0.1  # of the length of a job, at most


def drain_ns(jobs: JobSpec) -> int:
    """Return how long before the end of a job its node is drained."""
    return min(DRAIN_NS, round(DRAIN_SHARE * jobs.time_s * 1e9))


def is_late(host: NodeState, spec: PoolSpec, record: TaskRecord, now_ns: int) -> bool:
    """Return whether a task would not end before the node of a job is drained. One that was cut off
    by the end of a job is expected to take longer than it ran; a new job is never too short."""
    if spec.jobs is None or not host.end_ns:
        return False
    needed_ns, reserve_ns = record.cost_us * 1e3, drain_ns(spec.jobs)
    if record.earlier is not None:
        longest_ns = spec.jobs.time_s * 1e9 - 2 * reserve_ns
        needed_ns = max(needed_ns, min(record.earlier.cut.ran_us * 1e3, longest_ns))
    return now_ns + needed_ns > host.end_ns - reserve_ns


def never_fits(spec: PoolSpec, record: TaskRecord) -> bool:
    """Return whether a task is expected to take longer than any job of the pool."""
    jobs = spec.jobs
    return jobs is not None and record.cost_us * 1e3 > jobs.time_s * 1e9 - drain_ns(jobs)


HostRanks = tuple[tuple[NodeState, int], ...]  # hosts with the number of a worker's ranks


def take_gpus(host_ranks: HostRanks, each: int) -> tuple[str, ...]:
    """Grant `each` free GPUs of its host to each rank of a new worker, in their order."""
    return tuple(gpu for host, ranks in host_ranks for gpu in host.take_gpus(ranks * each))


def gpus_by_host(
    host_ranks: HostRanks, gpus: tuple[str, ...]
) -> Iterator[tuple[NodeState, list[str]]]:
    """Yield the hosts of a worker with its GPUs there, which `take_gpus` has granted."""
    each = len(gpus) // sum(ranks for _, ranks in host_ranks)
    rest = iter(gpus)
    for host, ranks in host_ranks:
        yield host, list(islice(rest, ranks * each))


class NodeTable:
    """Table of all nodes, by name."""

    def __init__(self, limits: ClusterLimits) -> None:
        self.hosts = {
            node.name: NodeState(
                node,
                node.slots,
                node.memory_bytes,
                free_gpus=list(node.gpu_names),
                job=NodeJob() if node.pool else None,
            )
            for node in nodes_of(limits)
        }
        self._of_jobs: dict[str, list[NodeState]] = {}  # by pool; a node never changes it
        for host in self.hosts.values():
            self._of_jobs.setdefault(host.node.pool, []).append(host)

    def copy(self) -> NodeTable:
        """Return a copy whose nodes have no workers."""
        result = copy.copy(self)
        result.hosts = {name: host.copy() for name, host in self.hosts.items()}
        result._of_jobs = {
            pool: [result.hosts[host.node.name] for host in hosts]
            for pool, hosts in self._of_jobs.items()
        }
        return result

    def up(self) -> list[NodeState]:
        return [host for host in self.hosts.values() if host.is_up]

    def of_jobs(self, pool: str) -> list[NodeState]:
        """Return the nodes that come by jobs of a pool, whether they are there or not."""
        return self._of_jobs.get(pool, [])

    def expected(self) -> list[NodeState]:
        """Return the nodes that are up or, if none is, those that come back from maintenance."""
        return self.up() or [host for host in self.hosts.values() if host.drained_until_ns]

    def host_ranks(self, shares: Iterable[Share]) -> HostRanks:
        return tuple((self.hosts[share.node], share.ranks) for share in shares)

    def forget_claims(self) -> None:
        """Clear claims on memory; waiting tasks renew theirs."""
        for host in self.hosts.values():
            host.claimed_memory = host.backfill_memory = 0

    def forget_slot_claims(self) -> None:
        """Clear claims on slots; waiting tasks renew theirs."""
        for host in self.hosts.values():
            host.claimed_slots = host.backfill_slots = 0


def most_resident(node: Node, rank_bytes: int = 0) -> int:
    """Return the most ranks of resident workers on a node. The bound is WORKERS_PER_SLOT for each
    slot, as far as the memory holds idle workers, and at least one for each slot. `rank_bytes`:
    reservation of each rank; it counts only if it is less than the memory of an idle rank, as
    placement bounds reserved memory."""
    by_memory = node.memory_bytes // min(rank_bytes or WORKER_BYTES, WORKER_BYTES)
    return max(node.slots, min(WORKERS_PER_SLOT * node.slots, by_memory))


def occupy(host_ranks: HostRanks, rank_bytes: int, on_demand: bool) -> None:
    """Place a worker; `rank_bytes` are reserved for each of its ranks."""
    _count(host_ranks, 1, on_demand)
    reserve(host_ranks, rank_bytes)


def vacate(host_ranks: HostRanks, rank_bytes: int, on_demand: bool) -> None:
    """Remove a worker that `occupy` placed."""
    _count(host_ranks, -1, on_demand)
    reserve(host_ranks, -rank_bytes)


def _count(host_ranks: HostRanks, sign: int, on_demand: bool) -> None:
    several = sum(ranks for _, ranks in host_ranks) > 1
    for host, ranks in host_ranks:
        host.ranks += sign * ranks
        host.ganged += sign * ranks * several
        host.on_demand += sign * ranks * on_demand


def reserve(host_ranks: HostRanks, rank_bytes: int) -> None:
    """Reserve more memory for each rank of a worker."""
    for host, ranks in host_ranks:
        host.free_memory -= ranks * rank_bytes
        host.reserved += ranks * rank_bytes


_WORKING = (WorkerState.STARTING, WorkerState.IDLE, WorkerState.BUSY)


class HeldTasks(dict[int, TaskRecord]):
    """Tasks that a worker holds, by number, in the order in which it runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.cost_us = 0.0  # expected, on one slot
        self.grant = 0  # `DispatchState.grants` with the newest chunk
        self.newest_tasks = 0  # of the chunk that was sent last; the tasks end in order
        # The newest task of each association, while slots are limited.
        self.newest_of: dict[str, TaskRecord] = {}
        self.since_ns = 0  # begin of the work on the held tasks; 0: the worker does not work
        self.charged_ns = 0  # until then the worker's time is charged to its tasks
        # Of tasks whose results have come and whose files are moved: microseconds, and slots.
        self.charges: dict[int, tuple[int, float]] = {}
        self.slots = 0  # of each rank, as sent with the newest chunk
        self.slot_ns = 0  # of a task that was resized: slots times ns, until `sized_ns`
        self.sized_ns = 0  # of the last change; 0: there was none
        self.overrun_us = 0.0  # that the first takes longer than expected, on all its slots
        # First grant of a task whose slots may be taken back, see `gang_scheduling`.
        self.granted_slots = 0
        self.resized = False  # the task ran on different numbers of slots
        # Tasks that ended before the worker began them and that it was asked to skip, until it
        # answers: (fence, 0), or (fence, time of its kill) once it runs one all the same.
        self.skipped: dict[int, tuple[int, int]] = {}

    def copy(self) -> HeldTasks:
        result = HeldTasks()
        result.update(self)
        vars(result).update(vars(self))
        result.newest_of, result.skipped = self.newest_of.copy(), {}
        result.charges = self.charges.copy()
        return result

    @property
    def running(self) -> TaskRecord | None:
        """The first task whose result has not come."""
        return next((each for each in self.values() if each.number not in self.charges), None)

    def uncharged_ns(self, now_ns: int) -> int:
        """Return the time of the worker that is not charged yet: since its last message, or since
        it got the task that it runs, if that was sent while files of others were moved."""
        running = self.running
        begin_ns = self.charged_ns if running is None else max(self.charged_ns, running.sent_ns)
        return max(0, now_ns - begin_ns)

    def begin_charge(self, now_ns: int) -> None:
        """Charge the worker's time from now on; what was before is charged to nobody."""
        self.charged_ns = now_ns
        if self.sized_ns:
            self.slot_ns, self.sized_ns = 0, now_ns

    def resize(self, worker: Worker, now_ns: int) -> None:
        """Count the time on the present slots of a worker, which change now."""
        self.slot_ns += worker.slots * (now_ns - (self.sized_ns or self.charged_ns))
        self.sized_ns, self.resized = now_ns, True

    def mean_slots(self, worker: Worker, now_ns: int) -> float:
        """Return the slots of each rank since `charged_ns`, on average over the time."""
        now_ns = max(now_ns, self.sized_ns)
        spent_ns = now_ns - self.charged_ns
        if not self.sized_ns or spent_ns <= 0:
            return self.slots
        return (self.slot_ns + worker.slots * (now_ns - self.sized_ns)) / spent_ns


class KeptMemory(msgspec.Struct):
    """Grant of memory for states that a worker keeps between tasks."""

    bytes: int = 0
    owner: str = ""  # of the newest of these states
    lifetime_s: float = 0.0  # of a kept state after the end of its task
    until_ns: int = 0  # end of the grant; 0: there is none, or the task has not ended


class HeartbeatReport(msgspec.Struct):
    """What the last heartbeats of a worker said, but for what the service has measured."""

    rss_bytes: int = 0
    is_measured: bool = False  # `rss_bytes`: by the service itself
    base_bytes: int = 0  # of its rank 0 without a task, as it reported it; 0: not yet
    cpu_ms: int = 0  # processor time of its rank 0
    over_beats: int = 0  # consecutive figures above its grant, see `over_memory_reason`
    idle_beats: int = 0  # consecutive idle heartbeats while it holds tasks
    # Progress of a task, the task, and the time of the heartbeat that reported it.
    progress: ProgressInfo | None = None
    progress_task: int = 0
    progress_ns: int = 0
    compiling: int = 0  # the task whose kernels it compiled; 0: none
    compiling_ns: int = 0  # the last heartbeat at which it compiled kernels; 0: none
    outran: int = 0  # fence of the attempt that an event said to have outrun its forecast; 0: none

    def progress_of(self, task: int) -> ProgressInfo | None:
        """Return the progress of a task; None if the last heartbeat was of another one."""
        return self.progress if self.progress_task == task else None


class Dedication(msgspec.Struct):
    """Whose tasks alone a worker runs."""

    reservation: int = 0  # or REQUESTED; 0: any task. Changed by `WorkerTable.dedicate` alone
    since_ns: int = 0
    counted_ns: int = 0  # until then its time is counted for the reservation
    account: str | None = None  # that it serves, see `account_isolation`; None: none yet
    serving_since_ns: int = 0


class WorkerProcess(msgspec.Struct):
    """Process of a worker's rank 0."""

    restarts: int = 0  # of this name before it
    node: str = ""  # as the worker reported it
    pid: int = 0
    tasks: int = 0  # that it has run
    # Kinds of tasks that it has run: (engine, with noise).
    kinds: set[tuple[str, bool]] = msgspec.field(default_factory=set)


class Worker(msgspec.Struct, eq=False):
    """Resident worker, what it is granted, and the tasks that it holds."""

    name: str
    pool: str
    state: WorkerState
    since_ns: int  # in this state
    heard_ns: int
    start: int
    host_ranks: HostRanks
    host: NodeState  # of rank 0
    ranks: int = 1
    reserved: int = 0  # memory of each rank, as long as it lives
    gpus: tuple[str, ...] = ()  # GPUs of its ranks, in their order, as long as it lives
    slots: int = 0  # granted, over all ranks; released when it holds no task
    memory_bytes: int = 0  # granted beyond what it reserves
    killed: str = ""  # why the service killed it
    leaving: str = ""  # reason why it gets no more tasks; "": it may get some
    held: HeldTasks = msgspec.field(default_factory=HeldTasks)
    kept: KeptMemory = msgspec.field(default_factory=KeptMemory)
    report: HeartbeatReport = msgspec.field(default_factory=HeartbeatReport)
    dedication: Dedication = msgspec.field(default_factory=Dedication)
    process: WorkerProcess = msgspec.field(default_factory=WorkerProcess)

    def copy(self, hosts: Mapping[str, NodeState]) -> Worker:
        """Return a copy on copied nodes, which holds the same tasks."""
        result = copy.copy(self)
        result.host = hosts[self.host.node.name]
        result.host_ranks = tuple((hosts[host.node.name], ranks) for host, ranks in self.host_ranks)
        for host, _ in result.host_ranks:
            host.workers[self.name] = result
        result.held, result.kept = self.held.copy(), copy.copy(self.kept)
        result.report, result.dedication = copy.copy(self.report), copy.copy(self.dedication)
        result.process = msgspec.structs.replace(self.process, kinds={*self.process.kinds})
        return result

    @property
    def shares(self) -> tuple[Share, ...]:
        """The numbers of its ranks by node."""
        return tuple(Share(host.node.name, ranks) for host, ranks in self.host_ranks)

    @property
    def is_live(self) -> bool:
        """True if the worker will run further tasks of its pool."""
        return self.state in _WORKING and not self.leaving


def memory_for(worker: Worker, record: TaskRecord) -> int:
    """Return the bytes that a worker could have for a task now. They are the memory that it
    reserves and the memory that is free on its node and not claimed."""
    host = worker.host
    free = host.free_memory - host.claimed_memory + worker.reserved
    return free - host.backfill_memory if record.cost_us > LONG_US else free


def served(worker: Worker) -> Iterator[SubmitBatch]:
    """Yield a batch of each association whose tasks count as running on a worker: of the task that
    it runs, and of those that it was sent ahead whose slots are limited."""
    if not worker.held:
        return
    first = next(iter(worker.held.values())).batch
    yield first
    for leaf, newest in list(worker.held.newest_of.items()):
        if newest.number not in worker.held:
            del worker.held.newest_of[leaf]
        elif leaf != first.association:
            yield newest.batch


def speedup_slots(worker: Worker) -> int:
    """Return the slots by which to divide a task's one-slot cost. 1 for workers of several ranks:
    their cost estimate already counts the ranks."""
    return max(1, worker.slots) if worker.ranks == 1 else 1
