"""Pools and nodes: workers, waiting tasks, granted and reserved resources.

Nodes: granted, reserved and claimed resources of each, and whether the node is in use. Slots are
granted to running tasks; memory to running tasks, or to workers that reserve it as long as they
live. Resident ranks need no slots and may outnumber them. Workers made on demand never have more
ranks than could run at once. A node's slots have one claim at a time: freed slots are withheld from
others until the claim is met. If a long task delays that, short tasks may use the claimed slots
meanwhile (backfill).

Pool: its workers, its waiting tasks, and the number of workers that it should have. A worker that
never became ready, or crashed without a task, is a failure of the pool: the next start waits 1, 2,
4 ... 60 s, and after QUARANTINE_AFTER failures in a row no worker is started. A worker that crashed
with a task is charged to the task. A worker lost with its node is charged to nobody. Both are
replaced at once. A start that the launcher fails, because it is down, is no failure of the pool: it
is repeated after 1, 2, 4 ... 15 s, however often. A failure shortly before the launcher was found
lost is taken back, since the launcher's loss is its likely cause, and so is a quarantine by it.
"""

from __future__ import annotations

import copy
import enum
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from launcher.base import Node, Share
from launcher.placement import NodeResources
from simenv.model import JobSpec, PoolSpec, ProgressInfo, WorkerState
from simenv.model.accounts import Billing, Used
from simenv.scheduler.core import (
    ClusterLimits,
    RecordEvent,
    SubmitBatch,
    TaskRecord,
    WorkerEfficiency,
    gang_name,
    nodes_of,
    rank_gpus,
)
from simenv.scheduler.queueing.fair_share import FairShare
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.queueing.queue import PoolQueue

_FIRST = 10_000  # more than the ranks a node may have
WORKERS_PER_SLOT = 32  # resident ranks at a time: an idle worker uses memory and no slot
WORKER_BYTES = 128 * 2**20  # unshared memory of an idle worker of one rank; measured: 76 to 126 MiB
FIRST_JOB_NS = 10_000_000_000  # guess of `Pool.job_start_ns`
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
    if record.cut is not None:
        longest_ns = spec.jobs.time_s * 1e9 - 2 * reserve_ns
        needed_ns = max(needed_ns, min(record.cut.ran_us * 1e3, longest_ns))
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


def gang_spec(base: PoolSpec, ranks: int, limits: ClusterLimits) -> PoolSpec:
    """Return the pool for tasks of `ranks` ranks that is made on demand for the pool `base`."""
    slots = sum(node.slots for node in nodes_of(limits))
    return msgspec.structs.replace(
        base,
        name=gang_name(base.name, ranks),
        min=0,
        max=max(1, slots // ranks),
        ranks=ranks,
        memory_bytes=0,
    )


BACKOFF_FIRST_NS = 1_000_000_000
BACKOFF_MAX_NS = 60_000_000_000
PAUSE_MAX_NS = 15_000_000_000
QUARANTINE_AFTER = 7
MAX_METERED = 1_024  # attempts of one kind with different times
_WORKING = (WorkerState.STARTING, WorkerState.IDLE, WorkerState.BUSY)
GROW_BACKLOG_US = 500_000.0  # waiting work per worker that is worth the start of one more


class Worker(msgspec.Struct, eq=False):
    """Resident worker and the tasks that it holds, in the order in which it runs them."""

    name: str
    pool: str
    state: WorkerState
    since_ns: int  # in this state
    heard_ns: int
    start: int
    shares: tuple[Share, ...]
    host_ranks: HostRanks
    host: NodeState  # of rank 0
    ranks: int = 1
    reserved: int = 0  # memory of each rank, as long as it lives
    gpus: tuple[str, ...] = ()  # GPUs of its ranks, in their order, as long as it lives
    restarts: int = 0
    node: str = ""  # as the worker reported it
    pid: int = 0
    slots: int = 0  # granted, over all ranks; released when it holds no task
    granted_slots: int = (
        0  # first grant of a task whose slots may be taken back, see `gang_scheduling`
    )
    resized: bool = False  # its task ran on different numbers of slots
    memory_bytes: int = 0  # granted beyond what it reserves
    kept_bytes: int = 0  # granted to states that it keeps between tasks
    kept_owner: str = ""  # owner of the newest of these states
    kept_s: float = 0.0  # lifetime of a kept state after the end of its task
    kept_until_ns: int = 0  # end of that grant; 0: no grant, or the task has not ended
    rss_bytes: int = 0
    base_bytes: int = 0  # of its rank 0 without a task, as it reported it; 0: not yet
    cpu_ms: int = 0  # processor time of its rank 0, at its last heartbeat
    over_beats: int = 0  # consecutive heartbeats above its grant, see `over_memory_reason`
    # Progress of a task, the task, and the time of the heartbeat that reported it.
    progress: ProgressInfo | None = None
    progress_task: int = 0
    progress_ns: int = 0
    compiling: int = 0  # at its last heartbeat: the task whose kernels it compiled; 0: none
    compiling_ns: int = 0  # the last heartbeat at which it compiled kernels; 0: none
    tasks: int = 0
    # Kinds of tasks that its process has run: (engine, with noise).
    kinds: set[tuple[str, bool]] = msgspec.field(default_factory=set)
    held: dict[int, TaskRecord] = msgspec.field(default_factory=dict)
    held_us: float = 0.0
    newest_tasks: int = 0  # of the chunk that was sent last; the tasks end in order
    # Its newest task of each association, while slots are limited.
    newest_of: dict[str, TaskRecord] = msgspec.field(default_factory=dict)
    overrun_us: float = 0.0  # that its running task takes longer than expected, on all its slots
    working_since_ns: int = 0  # begin of its work on the held tasks; 0: it does not work
    idle_beats: int = 0  # consecutive idle heartbeats while it holds tasks
    granted: int = 0  # `DispatchState.grants` with its newest chunk
    # Tasks that ended before it began them and that it was asked to skip, until it answers: (fence,
    # 0), or (fence, time of its kill) once it runs one all the same.
    skipped: dict[int, tuple[int, int]] = msgspec.field(default_factory=dict)
    killed: str = ""  # why the service killed it
    leaving: str = ""  # reason why it gets no more tasks; "": it may get some
    # It runs only tasks of this one; REQUESTED; 0: any task. Changed by `Pool.dedicate` alone.
    reservation_id: int = 0
    reserved_since_ns: int = 0
    counted_ns: int = 0  # until then its time is counted for the reservation
    account: str | None = None  # that it serves, see `account_isolation`; None: none yet
    serving_since_ns: int = 0

    def copy(self, hosts: Mapping[str, NodeState]) -> Worker:
        """Return a copy on copied nodes, which holds the same tasks."""
        result = copy.copy(self)
        result.host = hosts[self.host.node.name]
        result.host_ranks = tuple((hosts[host.node.name], ranks) for host, ranks in self.host_ranks)
        for host, _ in result.host_ranks:
            host.workers[self.name] = result
        result.kinds, result.held = {*self.kinds}, self.held.copy()
        result.newest_of, result.skipped = self.newest_of.copy(), {}
        return result

    def progress_of(self, task: int) -> ProgressInfo | None:
        """Return the progress of a task; None if the last heartbeat was of another one."""
        return self.progress if self.progress_task == task else None

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
    for leaf, newest in list(worker.newest_of.items()):
        if newest.number not in worker.held:
            del worker.newest_of[leaf]
        elif leaf != first.association:
            yield newest.batch


def speedup_slots(worker: Worker) -> int:
    """Return the slots by which to divide a task's one-slot cost. 1 for workers of several ranks:
    their cost estimate already counts the ranks."""
    return max(1, worker.slots) if worker.ranks == 1 else 1


class Meter(dict[tuple[int, int], tuple[Used, float]]):
    """What attempts of one kind used in a pool, and their billing units, by `run_us` and
    `device_ns`. Kept, because small circuits mostly take one of few times."""

    def __init__(
        self,
        pool: Pool,
        billing: Billing,
        ranks: int,
        memory_bytes: int,
        slots: int,
        usage_factor: float,
    ) -> None:
        super().__init__()
        self._pool, self._billing, self._usage_factor = pool, billing, usage_factor
        self._ranks, self._memory_bytes, self._slots = ranks, memory_bytes, slots

    def __missing__(self, key: tuple[int, int]) -> tuple[Used, float]:
        if len(self) >= MAX_METERED:
            self.clear()
        pool, (run_us, device_ns) = self._pool, key
        ranks_us = run_us * self._ranks
        device_us = run_us if pool.spec.provider else device_ns // 1000
        gib_us = ranks_us * self._memory_bytes >> 30
        used = Used(self._slots * ranks_us, pool.rank_gpus * ranks_us, gib_us, device_us)
        result = self[key] = used, self._billing.units(used, pool.device, self._usage_factor)
        return result


# Attributes of a `Pool` that a copy has made anew.
_OWN = (
    *("meters", "workers", "starting_workers", "idle_workers", "busy_workers", "draining_workers"),
    *("_by_state", "leaving_workers", "dedicated", "open_workers"),
)


class Pool:
    """Workers of one kind and the tasks that wait for them."""

    def __init__(self, spec: PoolSpec, base: str = "") -> None:
        self.spec = spec
        self.rank_gpus = rank_gpus(spec)
        # By ranks, memory and slots of an attempt, and its usage factor.
        self.meters: dict[tuple[int, int, int, float], Meter] = {}
        self.preempted_ns = -(10**18)  # when the last of its tasks was preempted
        self.base = base  # the pool for which it was made on demand; "": none
        self.queue = PoolQueue()
        self.small = WorkerEfficiency()  # for tasks that travel with others
        self.large = WorkerEfficiency()
        self.workers: dict[str, Worker] = {}  # changed by `add`, `move` and `remove` alone
        # Of these, so that no assignment and no tick looks at all: those of each state, those that
        # get no more tasks, and busy ones that may take tasks ahead, as far as they were not found
        # to have enough since they last changed.
        self.starting_workers: dict[str, Worker] = {}
        self.idle_workers: dict[str, Worker] = {}
        self.busy_workers: dict[str, Worker] = {}
        self.draining_workers: dict[str, Worker] = {}
        self._by_state = {
            WorkerState.STARTING: self.starting_workers,
            WorkerState.IDLE: self.idle_workers,
            WorkerState.BUSY: self.busy_workers,
            WorkerState.DRAINING: self.draining_workers,
        }
        self.leaving_workers: dict[str, Worker] = {}
        self.dedicated: dict[int, dict[str, Worker]] = {}  # by `Worker.reservation_id`, but 0
        self.open_workers: dict[str, Worker] = {}
        self.assigned = 0  # tasks that its workers hold
        self.starts: dict[str, int] = {}  # by worker name
        self.names_below = 0  # all numbers of workers below this one are taken
        self.failures = 0
        self._failed_ns: deque[int] = deque(maxlen=QUARANTINE_AFTER)  # times of the last failures
        self.pauses = 0  # consecutive
        self.next_start_ns = 0
        self.reason = ""
        self.hardware_qubits = 0  # of its worker's hardware, once described
        self.shortage = ""  # resource that is lacking to start a worker
        self.overcommit = False  # it may have more workers than its nodes hold
        self.switches_account = False  # a worker is restarted, or will be, for another account
        self.awaited_accounts = 0  # accounts whose first tasks wait for a worker of their own
        # Begin of the planned reservation for which tasks are set aside, 0: none is; their number.
        self.held_until_ns = self.held_tasks = 0
        # Of a pool whose nodes come by jobs.
        self.job_start_ns = FIRST_JOB_NS  # typical time from a submission until the node joins
        self.late_until_ns = 0  # latest end of a job for which a task was set aside; 0: none was

    def copy(self, hosts: Mapping[str, NodeState], fair_share: FairShare, max_tasks: int) -> Pool:
        """Return a copy whose workers are on copied nodes, with a copy of the queue, see
        `PoolQueue.copy`."""
        result = Pool(self.spec, self.base)
        own = vars(result)
        own.update({name: each for name, each in vars(self).items() if name not in _OWN})
        result.small, result.large = copy.copy(self.small), copy.copy(self.large)
        result.queue = self.queue.copy(fair_share, max_tasks)
        result.starts, result._failed_ns = self.starts.copy(), self._failed_ns.copy()
        for worker in self.workers.values():
            result.add(worker.copy(hosts))
        workers = result.workers
        result.leaving_workers.update((name, workers[name]) for name in self.leaving_workers)
        result.open_workers.update((name, workers[name]) for name in self.open_workers)
        for number, each in self.dedicated.items():
            result.dedicated[number] = {name: workers[name] for name in each}
        return result

    @property
    def device(self) -> str:
        """Name of the device: of the pool itself, or of the pool for which it was made."""
        return self.base or self.spec.name

    @property
    def is_exclusive(self) -> bool:
        """True if its worker holds hardware: one task at a time, no prefetch and no slot."""
        return bool(self.spec.provider)

    @property
    def is_quarantined(self) -> bool:
        return self.failures >= QUARANTINE_AFTER

    def add(self, worker: Worker) -> None:
        self.workers[worker.name] = self._by_state[worker.state][worker.name] = worker

    def move(self, worker: Worker, state: WorkerState) -> None:
        """Change the state of a worker."""
        del self._by_state[worker.state][worker.name]
        worker.state = state
        self._by_state[state][worker.name] = worker

    def leave(self, worker: Worker, reason: str) -> None:
        """Note that a worker gets no more tasks; `reason`: not empty."""
        worker.leaving = reason
        self.leaving_workers[worker.name] = worker

    def dedicate(self, worker: Worker, number: int) -> None:
        """Dedicate a worker to a reservation, to REQUESTED or (0) to none."""
        if worker.reservation_id:
            own = self.dedicated[worker.reservation_id]
            del own[worker.name]
            if not own:
                del self.dedicated[worker.reservation_id]
        worker.reservation_id = number
        if number:
            self.dedicated.setdefault(number, {})[worker.name] = worker

    def dedicated_workers(self, number: int = 0) -> list[Worker]:
        """Return the workers dedicated to a reservation or to REQUESTED; 0: to any of them."""
        groups = [self.dedicated.get(number, {})] if number else self.dedicated.values()
        return [worker for own in groups for worker in own.values()]

    def remove(self, worker: Worker) -> None:
        """Remove a worker that is gone."""
        name = worker.name
        self.dedicate(worker, 0)
        del self.workers[name], self._by_state[worker.state][name]
        self.leaving_workers.pop(name, None)
        self.open_workers.pop(name, None)
        self.names_below = 0

    @property
    def is_active(self) -> bool:
        """True if a worker runs tasks, starts or ends."""
        return bool(self.busy_workers or self.starting_workers or self.draining_workers)

    def live(self) -> int:
        """Return how many workers will run further tasks: all but those that leave."""
        return len(self.workers) - len(self.leaving_workers)

    def idle(self) -> list[Worker]:
        """Return the idle workers that are not dedicated to a reservation."""
        idle = [w for w in self.idle_workers.values() if not (w.leaving or w.reservation_id)]
        return sorted(idle, key=lambda worker: worker.start)

    def kept(self) -> int:
        """Return the number of dedicated workers."""
        return sum(len(own) for number, own in self.dedicated.items() if number > 0)

    def target(self, lacking: int = 0) -> int:
        """Return how many workers there should be, for waiting tasks and for workers that
        reservations lack."""
        spec, waiting = self.spec, len(self.queue)
        live = self.live()
        if lacking:
            starting = sum(w.is_live for w in self.starting_workers.values())
            return max(spec.min, live, min(spec.max, live + lacking - starting))
        if spec.jobs is not None:  # no node is idle while tasks wait; see `scaling.jobs`
            waiting -= self.queue.late
            return max(spec.min, live, min(spec.max, len(self.busy_workers) + waiting))
        if waiting and not (live and live - self.kept()):
            return min(spec.max, max(live + 1, spec.min))
        if waiting and live < spec.max and not (spec.pace or self._has_free_slots()):
            useful = int(self.queue.backlog_us // GROW_BACKLOG_US)
            return max(spec.min, live, min(useful, 2 * live, spec.max))
        return max(spec.min, live)

    def _has_free_slots(self) -> bool:
        """Return whether a worker is starting, or an idle one could start a task now."""
        return any(
            not (w.leaving or w.reservation_id) for w in self.starting_workers.values()
        ) or any(
            w.host.free_slots > w.host.claimed_slots and not (w.leaving or w.reservation_id)
            for w in self.idle_workers.values()
        )

    def joined(self, worker: Worker, now_ns: int) -> None:
        self.move(worker, WorkerState.IDLE)
        worker.since_ns = worker.heard_ns = now_ns
        self.pauses, self.switches_account = 0, False
        if not self.failures:
            self.reason = ""

    def record_success(self) -> None:
        """Forget earlier failures, because a worker did its work."""
        self.failures, self.reason, self.next_start_ns = 0, "", 0
        self._failed_ns.clear()

    def resume_starts(self) -> None:
        """Forget that starts were delayed for a reason outside this pool, which has ended."""
        self.pauses = self.next_start_ns = 0
        if not self.failures:
            self.reason = ""

    def take_back_failures(self, since_ns: int, reason: str) -> list[RecordEvent]:
        """Do not count the failures since then, whose cause is outside this pool."""
        count, was_quarantined = 0, self.is_quarantined
        while self._failed_ns and self._failed_ns[-1] >= since_ns:
            self._failed_ns.pop()
            count += 1
        self.failures = max(0, self.failures - count)
        if not count or not was_quarantined or self.is_quarantined:
            return []
        text = f"its last {count} failures do not count: {reason}"
        return [RecordEvent("pool.resumed", self.spec.name, text)]

    def record_failure(self, reason: str, now_ns: int) -> RecordEvent:
        """Record the loss of a worker for which no task is to blame; delay or stop further
        starts."""
        self.failures += 1
        self._failed_ns.append(now_ns)
        wait_ns = min(BACKOFF_MAX_NS, BACKOFF_FIRST_NS << (self.failures - 1))
        self.next_start_ns = now_ns + wait_ns
        self.reason = reason
        if self.is_quarantined:
            return RecordEvent(
                "pool.quarantined", self.spec.name, f"{self.failures} failures in a row; {reason}"
            )
        return RecordEvent(
            "pool.backoff", self.spec.name, f"next try in {wait_ns / 1e9:.0f} s; {reason}"
        )

    def back_off(self, now_ns: int, reason: str = "") -> list[RecordEvent]:
        """Delay the next start, because a worker was lost for a reason outside its pool. Workers
        lost together count once. `reason`: of a start that failed."""
        is_first = now_ns >= self.next_start_ns
        self.pauses += is_first
        wait_ns = min(PAUSE_MAX_NS, BACKOFF_FIRST_NS << max(0, self.pauses - 1))
        self.next_start_ns = max(self.next_start_ns, now_ns + wait_ns)
        if not reason or self.failures:
            return []
        self.reason = reason
        text = f"next try in {wait_ns / 1e9:.0f} s; not counted as a failure of the pool: {reason}"
        return [RecordEvent("pool.backoff", self.spec.name, text)] if is_first else []
