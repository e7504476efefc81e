"""One pool: its workers, its waiting tasks, and when a worker is started, retired or given up.

A worker that never got ready, or died without a task, counts as a failure of the pool: the next
start waits 1, 2, 4 ... 60 s, and after QUARANTINE_AFTER failures in a row none follows. A worker
that died with a task is the task's affair and is replaced at once.
"""

from __future__ import annotations

import msgspec

from simenv.model import PoolInfo, PoolSpec, WorkerState
from simenv.scheduler.queue import Queue
from simenv.scheduler.values import Action, Note, Record, RetireWorker, StartWorker

BACKOFF_FIRST_NS = 1_000_000_000
BACKOFF_MAX_NS = 60_000_000_000
QUARANTINE_AFTER = 7
GROW_BACKLOG_US = 500_000.0  # expected waiting work a worker, from which one more is worth a start


class Worker(msgspec.Struct, eq=False):
    """One resident simulator and what it holds. `held` is in the order it will be run."""

    name: str
    pool: str
    state: WorkerState
    since_ns: int  # in this state
    heard_ns: int
    restarts: int = 0
    node: str = ""
    pid: int = 0
    slots: int = 0  # granted; given back when it runs dry
    memory_bytes: int = 0  # granted, likewise
    rss_bytes: int = 0
    tasks: int = 0
    held: dict[int, Record] = msgspec.field(default_factory=dict)
    held_us: float = 0.0
    idle_beats: int = 0  # in a row, while it holds tasks
    killed: str = ""  # why we ended it, if we did

    @property
    def is_live(self) -> bool:
        return self.state in (WorkerState.STARTING, WorkerState.IDLE, WorkerState.BUSY)


class Pool:
    """The workers of one kind and the tasks that wait for them."""

    def __init__(self, spec: PoolSpec) -> None:
        self.spec = spec
        self.queue = Queue()
        self.workers: dict[str, Worker] = {}
        self.starts: dict[str, int] = {}  # by worker name
        self.failures = 0
        self.next_start_ns = 0
        self.reason = ""

    @property
    def is_quarantined(self) -> bool:
        return self.failures >= QUARANTINE_AFTER

    def live(self) -> int:
        return sum(worker.is_live for worker in self.workers.values())

    def idle(self) -> list[Worker]:
        return [w for w in self.workers.values() if w.state == WorkerState.IDLE]

    def target(self) -> int:
        """How many workers there should be, by what waits."""
        spec, waiting = self.spec, len(self.queue)
        live = self.live()
        if waiting and not live:
            return max(1, spec.min)
        crowded = self.queue.backlog_us > GROW_BACKLOG_US * max(1, live)
        if waiting and live < spec.max and crowded and not self._has_room():
            return live + 1
        return max(spec.min, live)

    def _has_room(self) -> bool:
        return any(
            w.state in (WorkerState.IDLE, WorkerState.STARTING) for w in self.workers.values()
        )

    def grow(self, now_ns: int) -> list[Action]:
        """Start what is missing, unless the pool is backing off or given up."""
        if self.is_quarantined or now_ns < self.next_start_ns:
            return []
        actions: list[Action] = []
        for _ in range(self.target() - self.live()):
            name = self._free_name()
            started = self.starts.get(name, 0)
            self.starts[name] = started + 1
            self.workers[name] = Worker(
                name, self.spec.name, WorkerState.STARTING, now_ns, now_ns, restarts=started
            )
            actions.append(StartWorker(self.spec.name, name))
        return actions

    def shrink(self, now_ns: int) -> list[Action]:
        """Retire workers above the minimum that have been idle for long."""
        idle_ns = round(self.spec.idle_s * 1e9)
        actions: list[Action] = []
        for worker in self.idle():
            if self.live() <= self.spec.min or len(self.queue):
                break
            if now_ns - worker.since_ns > idle_ns:
                worker.state, worker.since_ns = WorkerState.DRAINING, now_ns
                actions.append(RetireWorker(worker.name, f"idle for {self.spec.idle_s:g} s"))
        return actions

    def joined(self, worker: Worker, now_ns: int) -> None:
        worker.state = WorkerState.IDLE
        worker.since_ns = worker.heard_ns = now_ns

    def proved(self) -> None:
        """A worker of this pool did its work: earlier failures are forgiven."""
        self.failures, self.reason, self.next_start_ns = 0, "", 0

    def failed(self, why: str, now_ns: int) -> Note:
        """A worker died without a task to blame."""
        self.failures += 1
        wait_ns = min(BACKOFF_MAX_NS, BACKOFF_FIRST_NS << (self.failures - 1))
        self.next_start_ns = now_ns + wait_ns
        self.reason = why
        if self.is_quarantined:
            return Note(
                "pool.quarantined", self.spec.name, f"{self.failures} failures in a row; {why}"
            )
        return Note("pool.backoff", self.spec.name, f"next try in {wait_ns / 1e9:.0f} s; {why}")

    def info(self) -> PoolInfo:
        ready = sum(w.state in (WorkerState.IDLE, WorkerState.BUSY) for w in self.workers.values())
        busy = sum(w.state == WorkerState.BUSY for w in self.workers.values())
        if self.is_quarantined:
            state = "quarantined"
        elif self.failures:
            state = "degraded"
        else:
            state = "up" if ready >= self.spec.min else "starting"
        target = max(self.spec.min, self.live())
        waiting = len(self.queue)
        return PoolInfo(
            self.spec.name, self.spec.engine, ready, target, busy, waiting, state, self.reason,
            self.queue.backlog_us, sum(worker.held_us for worker in self.workers.values()),
        )  # fmt: skip

    def _free_name(self) -> str:
        number = 0
        while f"{self.spec.name}-{number}" in self.workers:
            number += 1
        return f"{self.spec.name}-{number}"
