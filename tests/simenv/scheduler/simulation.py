"""A scheduler in virtual time: workers that take a while to start, and run what they are sent for
as long as it was expected to take; nothing is random."""

import heapq
import itertools

from checked_scheduler import SECOND, CheckedScheduler, cluster, route

from simenv.model import PoolSpec, TaskState
from simenv.model.reservations import CalendarEntry, ReservationRequest
from simenv.scheduler import core
from simenv.scheduler.events import reservations
from simenv.wire.messages.client import STATES, AttemptResult

START_NS = 600_000_000
EXIT_NS = 50_000_000
TICK_NS = 50_000_000
DONE = STATES.index(TaskState.DONE)
WALL_NS = 1_800_000_000 * SECOND
BEGIN_S = 60.0
MAIN = PoolSpec("main", "any", min=4, max=4)


class Simulation(CheckedScheduler):
    """`run` lets time pass until all is done; `used` is the part of the slots granted since."""

    def __init__(self, limits: core.ClusterLimits, *specs: PoolSpec) -> None:
        self._events: list[tuple[int, int, str, object]] = []
        self._order = itertools.count()
        self._busy: set[str] = set()
        self.began: dict[int, int] = {}  # when a task ran first, by its number
        self.ended: dict[int, int] = {}
        self.ran_on: dict[int, str] = {}
        self.slot_ns = self.span_ns = 0
        super().__init__(limits=limits, specs=specs)
        self._at(TICK_NS, "tick", None)

    def join(self, worker: str) -> bool:
        """Workers join when their time has come."""
        return worker in self.state.cluster.workers

    def keep(self, actions: list[core.Action]) -> list[core.Action]:
        for action in actions:
            if isinstance(action, core.StartWorker):
                self._at(START_NS, "join", (action.worker, action.start))
            elif isinstance(action, core.RetireWorker | core.KillWorker):
                self._at(EXIT_NS, "exit", (action.worker, action.start))
        return super().keep(actions)

    def run(self, seconds: float, *, until_idle: bool = True) -> None:
        """So long, or until no task is left."""
        end_ns = self.now_ns + round(seconds * SECOND)
        while self._events and self.now_ns < end_ns:
            if until_idle and not self.state.tasks:
                return
            when_ns, _, kind, what = heapq.heappop(self._events)
            self._pass(min(when_ns, end_ns))
            self._happen(kind, what)
            for send in self.assign():
                self._proceed(send.worker)
        assert not until_idle or not self.state.tasks, f"{len(self.state.tasks)} tasks never end"

    @property
    def used(self) -> float:
        """The part of all slots that was granted while tasks waited."""
        return self.slot_ns / max(1, self.span_ns)

    def _pass(self, now_ns: int) -> None:
        slots = self.state.limits.slots
        if any(len(pool.queue) for pool in self.state.cluster.pools.values()):
            self.span_ns += (now_ns - self.now_ns) * slots
            self.slot_ns += (now_ns - self.now_ns) * (slots - self.free_slots)
        self.now_ns = now_ns

    def _happen(self, kind: str, what: object) -> None:
        if kind == "tick":
            for worker in self.state.cluster.workers.values():
                worker.heard_ns = self.now_ns
            self.keep(self.scheduler.tick(self.now_ns))
            self._at(TICK_NS, "tick", None)
        elif kind == "join":
            name, start = what  # type: ignore[misc]
            worker = self.state.cluster.workers.get(name)
            if worker is not None:
                self.scheduler.worker_joined(name, start, worker.shares[0].node, 1, self.now_ns)
        elif kind == "exit":
            name, start = what  # type: ignore[misc]
            self._busy.discard(name)
            self.keep(self.scheduler.worker_lost(name, start, "exit 0", self.now_ns))
        else:
            assert isinstance(what, core.TaskRecord)
            self._finish(what)

    def _finish(self, record: core.TaskRecord) -> None:
        name = record.worker
        done = AttemptResult(
            record.number, record.fence, DONE, b"", 0, start_us=1, run_us=round(record.cost_us)
        )
        self.ended[record.number] = self.now_ns
        assert len(self.scheduler.tasks_finished(name, [done], self.now_ns)) == 1
        self._busy.discard(name)
        self._proceed(name)

    def _proceed(self, name: str) -> None:
        """A worker goes on to the next task it holds."""
        worker = self.state.cluster.workers[name]
        if name in self._busy or not worker.held:
            return
        record = next(iter(worker.held.values()))
        self._busy.add(name)
        self.began.setdefault(record.number, self.now_ns)
        self.ran_on[record.number] = worker.host.node.name
        self.scheduler.task_started(name, record.number, record.fence, self.now_ns)
        slots = worker.slots if worker.ranks == 1 else 1
        self._at(round(record.cost_us * 1e3 / slots), "end", record)

    def _at(self, delay_ns: int, kind: str, what: object) -> None:
        now_ns = getattr(self, "now_ns", 0)
        heapq.heappush(self._events, (now_ns + delay_ns, next(self._order), kind, what))


class Planned(Simulation):
    """Four slots, two of which a reservation wants a minute from now."""

    def __init__(self, *specs: PoolSpec, workers: int = 2, every_s: float = 0.0) -> None:
        super().__init__(cluster(4), *(specs or (MAIN,)))
        self.run(1.0, until_idle=False)  # until all workers have joined
        ask = ReservationRequest(device="main", workers=workers)
        self.begin_ns = self.now_ns + round(BEGIN_S * SECOND)
        begin_s = (WALL_NS + self.begin_ns) / 1e9
        self.state.calendar.add(CalendarEntry(begin_s, 30.0, every_s, ask=ask, id=1))
        self.advance()

    def advance(self) -> None:
        self.keep(self.scheduler.wall_clock_tick(WALL_NS + self.now_ns, self.now_ns))

    def _happen(self, kind: str, what: object) -> None:
        super()._happen(kind, what)
        if kind == "tick" and hasattr(self, "begin_ns"):
            self.advance()

    def tasks(self, count: int, seconds: float, **changes: object) -> list[int]:
        return self.submit(count, along=route(seconds * 1e6, max_slots=1, **changes))

    def reserve(self, workers: int = 2, ttl_s: float = 30.0, owner: str = "") -> str:
        ask = ReservationRequest(device="main", workers=workers, ttl_ns=round(ttl_s * SECOND))
        decision, _ = reservations.reserve(self.state, ask, owner, WALL_NS + self.now_ns, dry=False)
        return decision.status
