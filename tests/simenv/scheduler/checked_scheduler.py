"""A scheduler for tests: settable clock, short methods for events, checks of invariants."""

from __future__ import annotations

import msgspec
from scheduler_invariants import check

from launcher.base import Node
from simenv.model import PoolSpec, TaskOptions, TaskSpec, TaskState
from simenv.scheduler import core
from simenv.scheduler.forecast.expected_starts import ExpectedStarts
from simenv.scheduler.forecast.simulated_cluster import MAX_TASKS, SimulatedCluster, Starts
from simenv.scheduler.scheduler import Scheduler
from simenv.wire.messages.client import STATES, AttemptResult

SECOND = 1_000_000_000
LIMITS = core.ClusterLimits(
    slots=2, memory_bytes=2**34, max_queued_tasks=10**6, max_queued_bytes=2**30,
    silent_ns=10 * SECOND, start_timeout_ns=60 * SECOND,
)  # fmt: skip


def route(cost_us: float = 10.0, **changes: object) -> core.Route:
    fields: dict[str, object] = {
        "engine": "statevector", "reason": "test", "pool": "main", "num_qubits": 4,
        "memory_bytes": 2**20, "evolve_us": cost_us, "shot_us": 0.0, "max_slots": 64,
    }  # fmt: skip
    fields.update(changes)
    return core.Route(**fields)  # type: ignore[arg-type]


def cluster(*slots: int, per_slot: int = 2**29, **changes: object) -> core.ClusterLimits:
    """Nodes n1, n2 ... with so many slots each, and so much memory for each slot."""
    nodes = tuple(Node(f"n{k}", count, count * per_slot) for k, count in enumerate(slots, 1))
    fields: dict[str, object] = {
        "slots": sum(slots), "memory_bytes": sum(slots) * per_slot, "nodes": nodes, "max_ranks": 64,
        "launcher": "prte: test",
    }  # fmt: skip
    fields.update(changes)
    return msgspec.structs.replace(LIMITS, **fields)


def wide(
    ranks: int = 4, cost_us: float = 5e6, memory: int = 2**28, pool: str = "main"
) -> core.Route:
    """A program over several ranks, on demand."""
    return route(
        cost_us, pool=f"{pool}.x{ranks}", ranks=ranks, memory_bytes=memory, num_qubits=26,
        max_slots=1,
    )  # fmt: skip


def expected_starts(machine: CheckedScheduler, owner: str = "") -> ExpectedStarts:
    """The present ones, and of a new task of this owner."""
    starts = ExpectedStarts(machine.state)
    assert starts.refresh(machine.now_ns, owner) is None
    return starts


def foretell(machine: CheckedScheduler) -> Starts:
    """Simulate from the present state on; the invariants hold in its copy too."""
    state = machine.state
    own = state.copy(MAX_TASKS)
    own.own_tasks(dict.fromkeys(state.cluster.pools, MAX_TASKS), lambda: None)
    check(own)
    starts = SimulatedCluster(state, machine.now_ns, ("", "ana")).run()
    check(state)
    assert all(start_us >= 0 for start_us in starts.tasks_us.values())
    return starts


class CheckedScheduler:
    """A scheduler whose invariants are checked after every event."""

    def __init__(
        self, workers: int = 2, limits: core.ClusterLimits = LIMITS, *,
        specs: tuple[PoolSpec, ...] = (), **pool: object,
    ) -> None:  # fmt: skip
        spec = PoolSpec("main", "any", min=workers, max=workers)
        if pool:
            spec = PoolSpec(**{"name": "main", **pool})  # type: ignore[arg-type]
        self.now_ns = 1_000 * SECOND
        self.scheduler = Scheduler(specs or (spec,), limits, epoch=1)
        self.state = self.scheduler.state
        self.endings: list[core.TaskEnded] = []
        self.actions: list[core.Action] = []
        self.tick(0)
        value = 0
        while value < len(self.state.cluster.workers):  # more start when these are ready
            value = len(self.state.cluster.workers)
            for worker in list(self.state.cluster.workers):
                self.join(worker)
            self.tick(0)

    def keep(self, actions: list[core.Action]) -> list[core.Action]:
        self.actions += actions
        self.endings += [action for action in actions if isinstance(action, core.TaskEnded)]
        check(self.state)
        return actions

    def tick(self, seconds: float = 0.0) -> list[core.Action]:
        self.now_ns += round(seconds * SECOND)
        return self.keep(self.scheduler.tick(self.now_ns))

    def start_of(self, worker: str) -> int:
        result = self.state.cluster.workers.get(worker)
        return result.start if result is not None else 0

    def join(self, worker: str) -> bool:
        item = self.scheduler.worker_joined(worker, self.start_of(worker), "node", 1, self.now_ns)
        check(self.state)
        return item

    def submit(
        self, count: int = 1, cost: float = 10.0, program: bytes = b"program", share_bytes: int = 0,
        along: core.Route | None = None, owner: str = "", account: str = "", qos: str = "",
        usage_factor: float = 1.0, class_priority: int = 0, **terms: object,
    ) -> list[int]:  # fmt: skip
        batch = core.SubmitBatch(
            *(b"client", TaskOptions(**terms), "key", 0, self.state.tasks.next_number),  # type: ignore[arg-type]
            *(self.now_ns, share_bytes, owner, account),
            qos=qos, usage_factor=usage_factor, class_priority=class_priority,
        )  # fmt: skip
        routes = [along or route(cost)] * count
        specs = [TaskSpec(program, 100, seed) for seed in range(count)]
        self.scheduler.submit(batch, specs, routes)
        check(self.state)
        return list(range(batch.first, batch.first + count))

    def assign(self) -> list[core.AssignTasks]:
        actions = self.scheduler.dispatch(self.now_ns)
        self.keep([action for action in actions if not isinstance(action, core.AssignTasks)])
        return [action for action in actions if isinstance(action, core.AssignTasks)]

    def finish(
        self, records: list[core.TaskRecord], state: TaskState = TaskState.DONE, device_ns: int = 0,
        compile_us: int = 0, run_us: int = 0, slots: int = 1,
    ) -> list[core.TaskEnded]:  # fmt: skip
        """`run_us` 0: as expected. `slots`: of each; 0: as sent. The clock advances so far."""
        worker = records[0].worker
        results = [
            AttemptResult(
                r.number, r.fence, STATES.index(state), b"", 0, start_us=1,
                run_us=run_us or (1 if r.route.paced else max(1, round(r.cost_us))),
                device_ns=device_ns,
                compile_us=compile_us,
            )
            for r in records
        ]  # fmt: skip
        held = self.state.cluster.workers[worker].held
        ran_ns = 1_000 * sum(result.run_us for result in results)
        if not records[0].route.paced:  # their results are held for much longer
            self.now_ns = max(self.now_ns, held.charged_ns + ran_ns)  # by which they are charged
        held.slots, held.sized_ns = slots or held.slots, 0
        endings = self.scheduler.tasks_finished(worker, results, self.now_ns)
        self.endings += endings
        check(self.state)
        return endings

    def hear(self) -> None:
        """All workers have just said something."""
        for worker in self.state.cluster.workers.values():
            worker.heard_ns = self.now_ns

    @property
    def free_slots(self) -> int:
        return sum(host.free_slots for host in self.state.cluster.nodes.hosts.values())

    def starts(self) -> int:
        """How many workers were started."""
        return sum(isinstance(action, core.StartWorker) for action in self.actions)

    def begin(self, record: core.TaskRecord) -> None:
        self.scheduler.task_started(record.worker, record.number, record.fence, self.now_ns)
        check(self.state)

    def lose(
        self, worker: str, why: str = "signal 9 (SIGKILL)", *, blame: bool = True
    ) -> list[core.Action]:
        start = self.start_of(worker)
        return self.keep(self.scheduler.worker_lost(worker, start, why, self.now_ns, blame=blame))

    def revive(self) -> None:
        """Start and join whatever is missing."""
        for action in self.tick():
            if isinstance(action, core.StartWorker):
                self.join(action.worker)
        for name, worker in list(self.state.cluster.workers.items()):
            if worker.state == "STARTING":
                self.join(name)
