"""Pools: workers of one kind, the tasks that wait for them, and the number of workers that there
should be.

A worker that never became ready, or crashed without a task, is a failure of the pool: the next
start waits 1, 2, 4 ... 60 s, and after QUARANTINE_AFTER failures in a row no worker is started. A
worker that crashed with a task is charged to the task. A worker lost with its node is charged to
nobody. Both are replaced at once. A start that the launcher fails, because it is down, is no
failure of the pool: it is repeated after 1, 2, 4 ... 15 s, however often. A failure shortly before
the launcher was found lost is taken back, since the launcher's loss is its likely cause, and so is
a quarantine by it.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping

import msgspec

from simenv.model import PoolSpec, WorkerState
from simenv.model.accounts import Billing, Used
from simenv.model.calls import FUNCTIONS
from simenv.scheduler.core import (
    ClusterLimits,
    RecordEvent,
    WorkerEfficiency,
    gang_name,
    nodes_of,
    rank_gpus,
)
from simenv.scheduler.queueing.fair_share import FairShare
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.state.nodes import NodeState, Worker

BACKOFF_FIRST_NS = 1_000_000_000
BACKOFF_MAX_NS = 60_000_000_000
PAUSE_MAX_NS = 15_000_000_000
QUARANTINE_AFTER = 7
MAX_METERED = 1_024  # attempts of one kind with different times
GROW_BACKLOG_US = 500_000.0  # waiting work per worker that is worth the start of one more
FIRST_JOB_NS = 10_000_000_000  # guess of `Pool.job_start_ns`


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


class Meter(dict[tuple[int, int], tuple[Used, float]]):
    """What attempts of one kind used in a pool, and their billing units, by `run_us` and
    `device_ns`. Kept, because small circuits mostly take one of few times."""

    def __init__(
        self,
        pool: Pool,
        billing: Billing,
        ranks: int,
        memory_bytes: int,
        slots: float,
        usage_factor: float,
    ) -> None:
        """`slots`: of each rank, a mean if they changed while the task ran."""
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
        used = Used(round(self._slots * ranks_us), pool.rank_gpus * ranks_us, gib_us, device_us)
        result = self[key] = used, self._billing.units(used, pool.device, self._usage_factor)
        return result


class WorkerTable(dict[str, Worker]):
    """Workers of a pool, by name; changed by its methods alone. With indexes, so that no assignment
    and no tick looks at all."""

    def __init__(self) -> None:
        super().__init__()
        self.starting: dict[str, Worker] = {}
        self.idle: dict[str, Worker] = {}
        self.busy: dict[str, Worker] = {}
        self.draining: dict[str, Worker] = {}
        self._by_state = {
            WorkerState.STARTING: self.starting,
            WorkerState.IDLE: self.idle,
            WorkerState.BUSY: self.busy,
            WorkerState.DRAINING: self.draining,
        }
        self.leaving: dict[str, Worker] = {}  # that get no more tasks
        self.dedicated: dict[int, dict[str, Worker]] = {}  # by `Dedication.reservation`, but 0
        # Busy ones that may take tasks ahead, as far as they were not found to have enough since
        # they last changed.
        self.open: dict[str, Worker] = {}

    def copy_to(self, hosts: Mapping[str, NodeState]) -> WorkerTable:
        """Return a table of copies on copied nodes."""
        result = WorkerTable()
        for worker in self.values():
            result.add(worker.copy(hosts))
        result.leaving.update((name, result[name]) for name in self.leaving)
        result.open.update((name, result[name]) for name in self.open)
        for number, each in self.dedicated.items():
            result.dedicated[number] = {name: result[name] for name in each}
        return result

    def add(self, worker: Worker) -> None:
        self[worker.name] = self._by_state[worker.state][worker.name] = worker

    def move(self, worker: Worker, state: WorkerState) -> None:
        """Change the state of a worker."""
        del self._by_state[worker.state][worker.name]
        worker.state = state
        self._by_state[state][worker.name] = worker

    def leave(self, worker: Worker, reason: str) -> None:
        """Note that a worker gets no more tasks; `reason`: not empty."""
        worker.leaving = reason
        self.leaving[worker.name] = worker

    def dedicate(self, worker: Worker, number: int) -> None:
        """Dedicate a worker to a reservation, to REQUESTED or (0) to none."""
        before = worker.dedication.reservation
        if before:
            own = self.dedicated[before]
            del own[worker.name]
            if not own:
                del self.dedicated[before]
        worker.dedication.reservation = number
        if number:
            self.dedicated.setdefault(number, {})[worker.name] = worker

    def remove(self, worker: Worker) -> None:
        """Remove a worker that is gone."""
        name = worker.name
        self.dedicate(worker, 0)
        del self[name], self._by_state[worker.state][name]
        self.leaving.pop(name, None)
        self.open.pop(name, None)

    @property
    def is_active(self) -> bool:
        """True if a worker runs tasks, starts or ends."""
        return bool(self.busy or self.starting or self.draining)

    def live(self) -> int:
        """Return how many workers will run further tasks: all but those that leave."""
        return len(self) - len(self.leaving)

    def free(self) -> list[Worker]:
        """Return the idle workers that are not dedicated to a reservation."""
        idle = [w for w in self.idle.values() if not (w.leaving or w.dedication.reservation)]
        return sorted(idle, key=lambda worker: worker.start)

    def kept(self) -> int:
        """Return the number of dedicated workers."""
        return sum(len(own) for number, own in self.dedicated.items() if number > 0)

    def dedicated_to(self, number: int = 0) -> list[Worker]:
        """Return the workers dedicated to a reservation or to REQUESTED; 0: to any of them."""
        groups = [self.dedicated.get(number, {})] if number else self.dedicated.values()
        return [worker for own in groups for worker in own.values()]


class WorkerStarts:
    """Starts of a pool's workers: their names, and when the next one is allowed."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self.by_name: dict[str, int] = {}  # number of starts
        self.names_below = 0  # all numbers of workers below this one are taken
        self.failures = 0
        self._failed_ns: deque[int] = deque(maxlen=QUARANTINE_AFTER)  # times of the last failures
        self.pauses = 0  # consecutive
        self.next_ns = 0
        self.reason = ""

    def copy(self) -> WorkerStarts:
        result = copy.copy(self)
        result.by_name, result._failed_ns = self.by_name.copy(), self._failed_ns.copy()
        return result

    @property
    def is_quarantined(self) -> bool:
        return self.failures >= QUARANTINE_AFTER

    def record_success(self) -> None:
        """Forget earlier failures, because a worker did its work."""
        self.failures, self.reason, self.next_ns = 0, "", 0
        self._failed_ns.clear()

    def worker_joined(self) -> None:
        """Note that a started worker is ready."""
        self.pauses = 0
        if not self.failures:
            self.reason = ""

    def resume(self) -> None:
        """Forget that starts were delayed for a reason outside this pool, which has ended."""
        self.next_ns = 0
        self.worker_joined()

    def take_back(self, since_ns: int, reason: str) -> list[RecordEvent]:
        """Do not count the failures since then, whose cause is outside this pool."""
        count, was_quarantined = 0, self.is_quarantined
        while self._failed_ns and self._failed_ns[-1] >= since_ns:
            self._failed_ns.pop()
            count += 1
        self.failures = max(0, self.failures - count)
        if not count or not was_quarantined or self.is_quarantined:
            return []
        text = f"its last {count} failures do not count: {reason}"
        return [RecordEvent("pool.resumed", self._pool, text)]

    def record_failure(self, reason: str, now_ns: int) -> RecordEvent:
        """Record the loss of a worker for which no task is to blame; delay or stop further
        starts."""
        self.failures += 1
        self._failed_ns.append(now_ns)
        wait_ns = min(BACKOFF_MAX_NS, BACKOFF_FIRST_NS << (self.failures - 1))
        self.next_ns = now_ns + wait_ns
        self.reason = reason
        if self.is_quarantined:
            return RecordEvent(
                "pool.quarantined", self._pool, f"{self.failures} failures in a row; {reason}"
            )
        return RecordEvent(
            "pool.backoff", self._pool, f"next try in {wait_ns / 1e9:.0f} s; {reason}"
        )

    def back_off(self, now_ns: int, reason: str = "") -> list[RecordEvent]:
        """Delay the next start, because a worker was lost for a reason outside its pool. Workers
        lost together count once. `reason`: of a start that failed."""
        is_first = now_ns >= self.next_ns
        self.pauses += is_first
        wait_ns = min(PAUSE_MAX_NS, BACKOFF_FIRST_NS << max(0, self.pauses - 1))
        self.next_ns = max(self.next_ns, now_ns + wait_ns)
        if not reason or self.failures:
            return []
        self.reason = reason
        text = f"next try in {wait_ns / 1e9:.0f} s; not counted as a failure of the pool: {reason}"
        return [RecordEvent("pool.backoff", self._pool, text)] if is_first else []


class Pool:
    """Workers of one kind and the tasks that wait for them."""

    def __init__(self, spec: PoolSpec, base: str = "") -> None:
        self.spec = spec
        self.base = base  # the pool for which it was made on demand; "": none
        self.rank_gpus = rank_gpus(spec)
        self.queue = PoolQueue()
        self.workers = WorkerTable()
        self.assigned = 0  # tasks that its workers hold
        self.starts = WorkerStarts(spec.name)
        # By ranks, memory and slots of an attempt, and its usage factor.
        self.meters: dict[tuple[int, int, float, float], Meter] = {}
        self.small = WorkerEfficiency()  # for tasks that travel with others
        self.large = WorkerEfficiency()
        self.preempted_ns = -(10**18)  # when the last of its tasks was preempted
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
        result = copy.copy(self)
        result.queue = self.queue.copy(fair_share, max_tasks)
        result.workers, result.starts = self.workers.copy_to(hosts), self.starts.copy()
        result.small, result.large = copy.copy(self.small), copy.copy(self.large)
        result.meters = {}
        return result

    @property
    def device(self) -> str:
        """Name of the device: of the pool itself, or of the pool for which it was made."""
        return self.base or self.spec.name

    @property
    def runs_users_code(self) -> bool:
        """True if tasks are code of users: functions, or circuits for a command."""
        return self.spec.engine == FUNCTIONS or bool(self.spec.command)

    @property
    def is_exclusive(self) -> bool:
        """True if its worker holds hardware: one task at a time, no prefetch and no slot."""
        return bool(self.spec.provider)

    def target(self, lacking: int = 0) -> int:
        """Return how many workers there should be, for waiting tasks and for workers that
        reservations lack."""
        spec, waiting = self.spec, len(self.queue)
        live = self.workers.live()
        if lacking:
            starting = sum(w.is_live for w in self.workers.starting.values())
            return max(spec.min, live, min(spec.max, live + lacking - starting))
        if spec.jobs is not None:  # no node is idle while tasks wait; see `scaling.jobs`
            waiting -= self.queue.late
            return max(spec.min, live, min(spec.max, len(self.workers.busy) + waiting))
        if waiting and not (live and live - self.workers.kept()):
            return min(spec.max, max(live + 1, spec.min))
        if waiting and live < spec.max and not (spec.pace or self._has_free_slots()):
            useful = int(self.queue.backlog_us // GROW_BACKLOG_US)
            return max(spec.min, live, min(useful, 2 * live, spec.max))
        return max(spec.min, live)

    def _has_free_slots(self) -> bool:
        """Return whether a worker is starting, or an idle one could start a task now."""
        return any(
            not (w.leaving or w.dedication.reservation) for w in self.workers.starting.values()
        ) or any(
            w.host.free_slots > w.host.claimed_slots and not (w.leaving or w.dedication.reservation)
            for w in self.workers.idle.values()
        )

    def joined(self, worker: Worker, now_ns: int) -> None:
        self.workers.move(worker, WorkerState.IDLE)
        worker.since_ns = worker.heard_ns = now_ns
        self.starts.worker_joined()
        self.switches_account = False
