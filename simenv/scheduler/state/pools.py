"""A pool: its workers, its waiting tasks, and how many workers it should have.

A worker that never became ready, or crashed without a task, is a failure of the pool: the next
start waits 1, 2, 4 ... 60 s, and after QUARANTINE_AFTER failures in a row none follows. A worker
that crashed with a task is charged to the task, one lost with its node to nobody: both are replaced
at once.
"""

from __future__ import annotations

import msgspec

from launcher.base import Share
from simenv.model import PoolSpec, WorkerState
from simenv.scheduler.core.actions import RecordEvent
from simenv.scheduler.core.types import ClusterLimits, TaskRecord, gang_name, nodes_of
from simenv.scheduler.queueing.queue import LONG_US, PoolQueue
from simenv.scheduler.state.nodes import NodeState, Places


def gang_spec(base: PoolSpec, ranks: int, limits: ClusterLimits) -> PoolSpec:
    """The pool for tasks of so many ranks that is made on demand for the pool `base`."""
    slots = sum(node.slots for node in nodes_of(limits))
    return msgspec.structs.replace(
        base,
        name=gang_name(base.name, ranks),
        min=0,
        max=max(1, slots // ranks),
        ranks=ranks,
        memory_bytes=0,
    )


REQUESTED = -1  # in place of a reservation: held for a repeated request


class DedicatedWorker(msgspec.Struct, frozen=True):
    """Workers of a pool for one reservation; `until_ns`: wall clock, of a request alone."""

    pool: str
    workers: int
    until_ns: int = 0


class DedicatedWorkers:
    """The workers that reservations should have, and requests for some."""

    def __init__(self) -> None:
        self.all: dict[int, DedicatedWorker] = {}  # by reservation
        self.requests: dict[str, DedicatedWorker] = {}  # by pool

    def __bool__(self) -> bool:
        return bool(self.all or self.requests)

    def of(self, pool: str) -> list[tuple[int, int]]:
        """(reservation, or REQUESTED; number of workers) of a pool."""
        requests = [
            (number, dedicated.workers)
            for number, dedicated in self.all.items()
            if dedicated.pool == pool
        ]
        request = self.requests.get(pool)
        return [*requests, (REQUESTED, request.workers)] if request is not None else requests


BACKOFF_FIRST_NS = 1_000_000_000
BACKOFF_MAX_NS = 60_000_000_000
PAUSE_MAX_NS = 15_000_000_000
QUARANTINE_AFTER = 7
_WORKING = (WorkerState.STARTING, WorkerState.IDLE, WorkerState.BUSY)
PACE_WINDOW_US = 1e6  # of busy time, after which what was learned counts half
GROW_BACKLOG_US = 500_000.0  # expected waiting work a worker, from which one more is worth a start


class Worker(msgspec.Struct, eq=False):
    """A resident worker and the tasks it holds, in the order it runs them."""

    name: str
    pool: str
    state: WorkerState
    since_ns: int  # in this state
    heard_ns: int
    start: int
    shares: tuple[Share, ...]
    places: Places
    host: NodeState  # of rank 0
    ranks: int = 1
    reserved: int = 0  # memory of each rank, as long as it lives
    gpus: tuple[str, ...] = ()  # of its host, as long as it lives
    restarts: int = 0
    node: str = ""  # as the worker reported it
    pid: int = 0
    slots: int = 0  # granted, over all ranks; given back when it runs dry
    granted_slots: int = (
        0  # granted to its task at first, if some may be taken back: see `resizing`
    )
    resized: bool = False  # its task ran on different numbers of slots
    memory_bytes: int = 0  # granted beyond what it reserves
    kept_bytes: int = 0  # granted to states that it keeps between tasks
    kept_s: float = 0.0  # how long after the task that keeps one has ended
    kept_until_ns: int = 0  # when that grant ends; 0: there is none, or that task has not ended
    rss_bytes: int = 0
    passes: tuple[int, int, int] = (0, 0, 0)  # at its last beat: of this task, done, of so many
    compiling: int = 0  # at its last beat: the task whose kernels it compiled; 0: none
    tasks: int = 0
    held: dict[int, TaskRecord] = msgspec.field(default_factory=dict)
    held_us: float = 0.0
    working_since_ns: int = 0  # since when it works on what it holds; 0: it does not
    idle_beats: int = 0  # in a row, while it holds tasks
    # Tasks that ended before it began them, and that it was asked to skip, until it answers: their
    # fence, and once it runs one all the same, when it is killed if it still does.
    skipped: dict[int, tuple[int, int]] = msgspec.field(default_factory=dict)
    killed: str = ""  # why the service killed it
    leaving: str = ""  # why it gets nothing more, if so
    reservation_id: int = 0  # it runs only tasks of this one; REQUESTED; 0: of any
    reserved_since_ns: int = 0  # since when

    @property
    def is_live(self) -> bool:
        """Will it run further tasks of its pool?"""
        return self.state in _WORKING and not self.leaving


def memory_for(worker: Worker, record: TaskRecord) -> int:
    """Bytes that a worker could have for a task now: what it reserves, and what is free on its node
    and not claimed."""
    host = worker.host
    free = host.free_memory - host.claimed_memory + worker.reserved
    return free - host.backfill_memory if record.cost_us > LONG_US else free


def speedup_slots(worker: Worker) -> int:
    """Slots by which to divide a task's one-slot cost. 1 for workers of several ranks: their cost
    estimate already counts the ranks."""
    return max(1, worker.slots) if worker.ranks == 1 else 1


class WorkerEfficiency(msgspec.Struct):
    """The share of a busy worker's time that its tasks run; the rest is overhead and transport.
    Learned from the tasks that ended last."""

    work_us: float = 20_000.0  # a guess that little outweighs: as fast as expected
    busy_us: float = 20_000.0

    @property
    def speed(self) -> float:
        return self.work_us / self.busy_us

    def learn(self, work_us: float, busy_us: float) -> None:
        """Count so much run time of tasks in so much busy time."""
        self.work_us += work_us
        self.busy_us += busy_us
        if self.busy_us > PACE_WINDOW_US:
            self.work_us *= 0.5
            self.busy_us *= 0.5


class Pool:
    """The workers of one kind and the tasks that wait for them."""

    def __init__(self, spec: PoolSpec, base: str = "") -> None:
        self.spec = spec
        self.base = base  # the pool it was made for, on demand; "": none
        self.queue = PoolQueue()
        self.small = WorkerEfficiency()  # of tasks that travel with others
        self.large = WorkerEfficiency()
        self.workers: dict[str, Worker] = {}
        self.starts: dict[str, int] = {}  # by worker name
        self.failures = 0
        self.pauses = 0  # in a row
        self.next_start_ns = 0
        self.reason = ""
        self.hardware_qubits = 0  # of its worker's hardware, once described
        self.shortage = ""  # what is lacking to start the worker it should have
        self.overcommit = False  # may it have more workers than its nodes hold?

    @property
    def device(self) -> str:
        """The name of the device: of the pool itself, or of the pool it was made for."""
        return self.base or self.spec.name

    @property
    def is_exclusive(self) -> bool:
        """One task at a time and no prefetch: its worker holds hardware, and waits for it without a
        slot."""
        return bool(self.spec.provider)

    @property
    def is_quarantined(self) -> bool:
        return self.failures >= QUARANTINE_AFTER

    def live(self) -> int:
        return sum(worker.is_live for worker in self.workers.values())

    def idle(self) -> list[Worker]:
        """Idle workers that are not dedicated to a reservation."""
        workers = (w for w in self.workers.values() if w.state == WorkerState.IDLE)
        return [w for w in workers if not (w.leaving or w.reservation_id)]

    def kept(self) -> int:
        """The number of dedicated workers."""
        return sum(worker.reservation_id > 0 for worker in self.workers.values())

    def target(self, lacking: int = 0) -> int:
        """How many workers there should be, for what waits and for what reservations lack."""
        spec, waiting = self.spec, len(self.queue)
        live = self.live()
        if lacking:
            workers = self.workers.values()
            starting = sum(w.state == WorkerState.STARTING and w.is_live for w in workers)
            return max(spec.min, live, min(spec.max, live + lacking - starting))
        if waiting and not (live and live - self.kept()):
            return min(spec.max, max(live + 1, spec.min))
        if waiting and live < spec.max and not (spec.pace or self._has_room()):
            useful = int(self.queue.backlog_us // GROW_BACKLOG_US)
            return max(spec.min, live, min(useful, 2 * live, spec.max))
        return max(spec.min, live)

    def _has_room(self) -> bool:
        """Is a worker starting, or could an idle one start a task now?"""
        return any(
            w.state == WorkerState.STARTING
            or (w.state == WorkerState.IDLE and w.host.free_slots > w.host.claimed_slots)
            for w in self.workers.values()
            if not (w.leaving or w.reservation_id)
        )

    def joined(self, worker: Worker, now_ns: int) -> None:
        worker.state = WorkerState.IDLE
        worker.since_ns = worker.heard_ns = now_ns
        self.pauses = 0

    def record_success(self) -> None:
        """A worker did its work: forget earlier failures."""
        self.failures, self.reason, self.next_start_ns = 0, "", 0

    def record_failure(self, why: str, now_ns: int) -> RecordEvent:
        """A worker was lost and no task is to blame."""
        self.failures += 1
        wait_ns = min(BACKOFF_MAX_NS, BACKOFF_FIRST_NS << (self.failures - 1))
        self.next_start_ns = now_ns + wait_ns
        self.reason = why
        if self.is_quarantined:
            return RecordEvent(
                "pool.quarantined", self.spec.name, f"{self.failures} failures in a row; {why}"
            )
        return RecordEvent(
            "pool.backoff", self.spec.name, f"next try in {wait_ns / 1e9:.0f} s; {why}"
        )

    def back_off(self, now_ns: int) -> None:
        """Delay the next start: a worker was lost for a reason outside its pool. Those lost
        together count once."""
        if now_ns >= self.next_start_ns:
            self.pauses += 1
        wait_ns = min(PAUSE_MAX_NS, BACKOFF_FIRST_NS << max(0, self.pauses - 1))
        self.next_start_ns = max(self.next_start_ns, now_ns + wait_ns)
