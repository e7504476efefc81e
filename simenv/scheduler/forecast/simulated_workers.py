"""Workers in simulated time: what they are sent, when it starts, and when it ends.

A worker runs its chunks one after the other, each for as long as the estimator expects; a chunk
ends as a whole. Only the events of the `Timeline` refer to the simulation that uses it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import count

import msgspec

from simenv.model import TaskState
from simenv.scheduler import core
from simenv.scheduler.queueing.lanes import SMALL_US
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state import nodes, pools
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.scheduler.views import run_times
from simenv.wire.messages.client import STATES, AttemptResult

STOP_NS = 100_000_000  # from a request to stop an attempt until its result
NEW = 2**62  # numbers of new tasks, whose starts are asked for
_DONE, _CANCELLED = STATES.index(TaskState.DONE), STATES.index(TaskState.CANCELLED)


class Timeline:
    """Events in the order of their times, in monotonic ns. `now_ns`: the time of the last one."""

    def __init__(self, now_ns: int) -> None:
        self.begin_ns = self.now_ns = now_ns
        self._events: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._order = count()

    def at(self, when_ns: int, event: Callable[..., None], *values: object) -> None:
        """Call `event(*values)` at a time."""
        heapq.heappush(self._events, (when_ns, next(self._order), event, values))

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    def step(self) -> None:
        """Go on to the next event, and call it."""
        self.now_ns, _, event, values = heapq.heappop(self._events)
        event(*values)

    def us(self, when_ns: int) -> float:
        """Return a time in us after the begin."""
        return (when_ns - self.begin_ns) / 1e3

    def clear(self) -> None:
        """Drop all events."""
        self._events.clear()


class TaskCosts:
    """Expected times of tasks by what was learned until the begin of the simulation."""

    def __init__(self, state: SchedulerState, copy: SchedulerState) -> None:
        """`copy`: the state of the simulation."""
        self._state = copy
        self._estimator = state.estimator.copy()
        self.speeds = {
            name: (pool.small.speed, pool.large.speed) for name, pool in state.cluster.pools.items()
        }
        self._costs_us: dict[tuple[int, int, int], float] = {}

    def cost_us(self, record: core.TaskRecord) -> float:
        """Return the expected time of a task on one slot; of a simulation on a paced device."""
        if record.number >= NEW:
            return 0.0
        key = (id(record.route), record.spec.shots, record.spec.count)
        cost_us = self._costs_us.get(key)
        if cost_us is None:
            is_paced = self._state.cluster.pools[record.route.pool].spec.pace
            expected = self._estimator.simulation_us if is_paced else self._estimator.cost_us
            cost_us = self._costs_us[key] = expected(record.route, record.spec)
        return cost_us

    def run_ns(self, worker: nodes.Worker, records: Iterable[core.TaskRecord]) -> int:
        """Return the run time of tasks that a worker holds."""
        pool = self._state.cluster.pools[worker.pool]
        each_us = (
            run_times.work_us(self._state, pool, record, self.cost_us(record)) for record in records
        )
        return round(1e3 * sum(each_us) / nodes.speedup_slots(worker))

    def held_ns(self, worker: nodes.Worker, held: list[core.TaskRecord], now_ns: int) -> int:
        """Return the remaining run time of a chunk that a worker runs."""
        first = held[0]
        running_us = run_times.running_us(self._state, worker, first, self.cost_us(first), now_ns)
        return round(1e3 * running_us) + self.run_ns(worker, held[1:])


class StartTimes:
    """Starts of tasks in us after the begin of the simulation, as they become known."""

    def __init__(self) -> None:
        self.pending: set[int] = set()  # tasks whose start is not known yet
        self.new: dict[int, tuple[str, str]] = {}  # pool and owner of new tasks
        self.tasks_us: dict[int, float] = {}
        self.new_us: dict[tuple[str, str], float] = {}
        self.gangs: dict[str, int] = {}  # pools of several ranks by tasks that have not started

    def note(self, number: int, pool: pools.Pool, start_us: float) -> None:
        """Note the start of a pending task."""
        self.pending.remove(number)
        if number >= NEW:
            self.new_us[self.new[number]] = start_us
            pool.queue.instant -= 1
            return
        self.tasks_us[number] = start_us
        if pool.spec.name in self.gangs:
            self.gangs[pool.spec.name] -= 1


class Chunk(msgspec.Struct, eq=False):
    """Tasks that a worker was sent together. `begin_ns`: as expected when they were sent."""

    records: list[core.TaskRecord]
    slots: int
    begin_ns: int
    run_ns: int  # of all of them
    state: int = _DONE  # of their results


class SimulatedWorkers:
    """Chunks of all workers: those that run, and those behind them."""

    def __init__(
        self, scheduler: Scheduler, time: Timeline, costs: TaskCosts, starts: StartTimes
    ) -> None:
        self._scheduler, self._state = scheduler, scheduler.state
        self._time, self._costs, self._starts = time, costs, starts
        self._chunks: dict[str, deque[Chunk]] = {}  # by worker
        self._ends: dict[str, int] = {}  # of the chunk that each worker runs

    def go_on(self, worker: nodes.Worker) -> None:
        """Let a worker go on with the tasks that it holds: the running one and the rest of its
        chunk, and a chunk behind them."""
        held = list(worker.held.values())
        ahead = max(1, len(held) - worker.held.newest_tasks)
        slots = worker.slots if worker.ranks == 1 else 1
        left_ns = self._costs.held_ns(worker, held[:ahead], self._time.now_ns)
        self.send(worker, held[:ahead], slots, left_ns)
        if len(held) > ahead:
            self.send(worker, held[ahead:], slots)

    def send(
        self, worker: nodes.Worker, records: list[core.TaskRecord], slots: int, run_ns: int = -1
    ) -> None:
        """Let a worker run a chunk once it has run those before. `run_ns`: -1 as expected."""
        chunks = self._chunks.setdefault(worker.name, deque())
        begin_ns = self._time.now_ns
        if chunks:
            begin_ns = self._ends[worker.name] + sum(each.run_ns for each in list(chunks)[1:])
        if run_ns < 0:
            run_ns = self._note_starts(worker, records, begin_ns)
        chunks.append(Chunk(records, slots, begin_ns, run_ns))
        if len(chunks) == 1:
            self._run(worker)

    def _note_starts(
        self, worker: nodes.Worker, records: list[core.TaskRecord], begin_ns: int
    ) -> int:
        """Note the starts of the tasks of a chunk; return its run time."""
        time, costs, starts = self._time, self._costs, self._starts
        pool = self._state.cluster.pools[worker.pool]
        runs = self._state.devices.paced.all[pool.device].runs if pool.spec.pace else {}
        slots, speeds, when_us = nodes.speedup_slots(worker), costs.speeds[pool.spec.name], 0.0
        begin_us = time.us(begin_ns)
        for record in records:
            number = record.number
            if number in starts.pending:
                start_us = begin_us + when_us
                if run := runs.get(number):
                    start_us = max(start_us, time.us(run.begin_ns))
                starts.note(number, pool, start_us)
            cost_us = costs.cost_us(record)
            if not pool.spec.pace:
                cost_us /= speeds[cost_us > SMALL_US]
            when_us += cost_us / slots
        return round(1e3 * when_us)

    def _run(self, worker: nodes.Worker) -> None:
        """Let a worker begin its next chunk."""
        chunk = self._chunks[worker.name][0]
        first = chunk.records[0]
        if first.phase == core.SENT:
            first.phase, first.started_ns = core.RUNNING, self._time.now_ns
            self._state.tasks.running += 1
        self._end_at(worker.name, self._time.now_ns + chunk.run_ns)

    def _end_at(self, name: str, when_ns: int) -> None:
        self._ends[name] = when_ns
        self._time.at(when_ns, self._end, name, self._chunks[name][0])

    def _end(self, name: str, chunk: Chunk) -> None:
        """End a chunk, unless it was given another end since."""
        chunks, now_ns = self._chunks.get(name), self._time.now_ns
        if not chunks or chunks[0] is not chunk or self._ends[name] != now_ns:
            return
        worker = self._state.cluster.workers[name]
        results = [
            AttemptResult(
                *(record.number, record.fence, chunk.state, b"", 0),
                run_us=max(0, round(self._costs.cost_us(record) / max(1, chunk.slots))),
            )
            for record in chunk.records
        ]
        chunks.popleft()
        self._scheduler.tasks_finished(name, results, now_ns)
        if chunks:
            self._run(worker)

    def set_threads(self, name: str, slots: int) -> None:
        """Change the slots of the task that a worker runs."""
        if chunks := self._chunks.get(name):
            left_ns = (self._ends[name] - self._time.now_ns) * chunks[0].slots // slots
            chunks[0].slots = slots
            self._end_at(name, self._time.now_ns + left_ns)

    def stop(self, name: str, task: int) -> None:
        """Let an attempt end without a result."""
        chunks = self._chunks.get(name)
        if chunks and [record.number for record in chunks[0].records] == [task]:
            chunks[0].state = _CANCELLED
            self._end_at(name, min(self._ends[name], self._time.now_ns + STOP_NS))

    def lose(self, name: str) -> None:
        """Drop the chunks of a worker that has ended."""
        self._chunks.pop(name, None)

    def ends_on(self, hosts: Iterable[nodes.NodeState]) -> Iterator[int]:
        """Yield the times at which the chunks end that run on these nodes."""
        for name in {name for host in hosts for name in host.workers}:
            if self._chunks.get(name):
                yield self._ends[name]
