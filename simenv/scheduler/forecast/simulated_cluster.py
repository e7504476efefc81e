"""The scheduler in simulated time, over a copy of its state: when each waiting task starts.

The scheduler is the one of the service. Simulated are the workers: they start, run what they are
sent for as long as the estimator expects, and end. Chunks end as a whole. Ticks come as in the
service at first, and later at EVERY of the time that has passed, so that hours take hundreds. Under
fair share, associations are expected to submit as they did so far, see `Arrivals`. To a
reservation of the calendar its workers are granted at its time. Left out are other tasks that are
not submitted yet, those that wait for others or for units, and maintenance: see `ExpectedStarts`.

For owners who ask, a task that takes no time is added to each queue: a new one would start then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from simenv.model import TaskOptions, TaskSpec, WorkerState
from simenv.model.accounts import ROOT
from simenv.scheduler import core
from simenv.scheduler.dispatch import dispatcher, gang_scheduling
from simenv.scheduler.events import reservations
from simenv.scheduler.forecast.simulated_workers import (
    NEW,
    SimulatedWorkers,
    StartTimes,
    TaskCosts,
    Timeline,
)
from simenv.scheduler.queueing.arrivals import Arrivals
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state import nodes, pools
from simenv.scheduler.state.nodes import NodeJobPhase
from simenv.scheduler.state.scheduler_state import SchedulerState
from simenv.scheduler.views import run_times

MAX_TASKS = 100_000  # of one pool that are simulated, from the front of its queue
TICK_NS = 50_000_000  # between two ticks, as in a busy service
EVERY = 20  # later ticks come after a part of the time that has passed
EXIT_NS = 50_000_000  # from the end of a worker until its launcher reports it
MIN_START_NS = 50_000_000
RETRY_NS = 5_000_000_000  # between two requests of a planned reservation
LATER_US = 12 * 3_600e6  # for which more is expected to be submitted
IDLE_TICKS = 64  # without any other event, after which nothing more will start
EXPECTED = 2**61  # numbers of tasks that are expected to be submitted
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # spreads first submissions evenly

Pause = Callable[[], object]


class Starts(msgspec.Struct, frozen=True):
    """Result of a simulation that began at `now_ns`. Times are in microseconds after that."""

    now_ns: int
    owners: tuple[str, ...]  # for whom the start of a new task is known
    next_task: int  # earlier ones are known
    tasks_us: dict[int, float]  # of waiting tasks
    new_us: dict[tuple[str, str], float]  # of a new task of priority 0, by pool and owner
    read: dict[str, int]  # simulated tasks of each pool
    passes: int  # of the dispatcher, in 50 to 100 us each


class Later(msgspec.Struct, eq=False):
    """Submissions of one association that are expected."""

    batch: core.SubmitBatch
    route: core.Route
    spec: TaskSpec
    tasks: float  # of each, on average
    every_ns: int
    count: float = 0.0  # tasks that have come


def _later(pool: pools.Pool, arrivals: Arrivals, every_us: float) -> Later:
    """Return the submissions that follow from arrivals."""
    cost_us, is_paced = arrivals.work_us / arrivals.tasks, pool.spec.pace
    route = core.Route(
        *("", "", pool.spec.name, 0, 0, 0.0 if is_paced else cost_us, 0.0, 1, pool.spec.ranks),
        device_shot_ns=1e3 * cost_us,
        paced=is_paced,
    )
    tasks = arrivals.tasks / arrivals.messages
    return Later(arrivals.batch, route, TaskSpec(b"", 1, 0), tasks, round(1e3 * every_us))


class SimulatedCluster:
    """One simulation. It is made in the thread of the state, and can run in another one."""

    def __init__(self, state: SchedulerState, now_ns: int, owners: Iterable[str] = ("",)) -> None:
        """Copy the state. `owners`: those for whom the start of a new task is determined."""
        self._owners = tuple(owners)
        self._next_task = state.tasks.next_number
        names = state.cluster.pools
        self._most = {
            name: MAX_TASKS if run_times.starts_tasks(state, pool) else 0
            for name, pool in names.items()
        }
        self.state = state.copy(MAX_TASKS)
        self._scheduler = Scheduler((), state.limits, state.epoch)
        self._scheduler.state = self.state
        self._time, self._starts = Timeline(now_ns), StartTimes()
        costs = TaskCosts(state, self.state)
        self._workers = SimulatedWorkers(self._scheduler, self._time, costs, self._starts)
        self._budgets = dict(state.shares.limits.budgets_left)
        self._offset_ns = state.calendar.offset_ns or state.devices.paced.offset_ns
        self._wakes: set[int] = set()
        self._expected = EXPECTED
        self._passes = self._idle_ticks = 0
        self._next_tick_ns = 0

    def run(self, pause: Pause = lambda: None) -> Starts:
        """Simulate until all waiting tasks have started. `pause` is called about every
        millisecond."""
        state, time, starts = self.state, self._time, self._starts
        state.own_tasks(self._most, pause)
        read = {name: pool.queue.count for name, pool in state.cluster.pools.items()}
        starts.pending |= {
            record.number for record in state.tasks.values() if record.phase == core.WAITING
        }
        self._use_nodes_in_maintenance()
        self._begin(pause)
        self._tick_at(max(time.now_ns, state.last_tick_ns + TICK_NS))
        if state.cluster.lacks_workers or any(
            worker.state == WorkerState.DRAINING for worker in state.cluster.workers.values()
        ):
            self._tick()
        self._dispatch(pause)
        while self._goes_on():
            time.step()
            self._dispatch(pause)
        result = Starts(
            *(time.begin_ns, self._owners, self._next_task, starts.tasks_us, starts.new_us),
            *(read, self._passes),
        )
        self._clear()
        return result

    def _goes_on(self) -> bool:
        is_open = self._starts.pending or self._starts.gangs
        return bool(is_open) and self._time.has_events and self._idle_ticks < IDLE_TICKS

    # --- the present state ------------------------------------------------------------------------

    def _use_nodes_in_maintenance(self) -> None:
        """Use the nodes that come back from maintenance, if there are no others."""
        nodes = self.state.cluster.nodes
        if not nodes.up():
            for host in nodes.expected():
                host.drained, host.drained_until_ns = "", 0
            self.state.cluster.nodes_changed()

    def _begin(self, pause: Pause) -> None:
        """Add what is under way, and what is expected."""
        state, now_ns = self.state, self._time.now_ns
        for worker in state.cluster.workers.values():
            pause()
            if worker.state == WorkerState.STARTING:
                ready_ns = max(now_ns + MIN_START_NS, worker.since_ns + core.START_NS)
                self._time.at(ready_ns, self._join, worker.name, worker.start)
            elif worker.state == WorkerState.DRAINING:
                self._time.at(now_ns + EXIT_NS, self._exit, worker.name, worker.start)
            elif worker.held:
                self._workers.go_on(worker)
        for host in state.cluster.nodes.hosts.values():
            job = host.job
            if job is not None and job.phase is NodeJobPhase.SUBMITTED:
                pool = state.cluster.pools[host.node.pool]
                self._time.at(max(now_ns, job.submitted_ns + pool.job_start_ns), self._node, host)
            elif job is not None and job.end_ns:
                self._time.at(max(now_ns, job.end_ns), self._job_over, host.node.name)
        for number in state.dedicated.all:
            if number in state.reservations.live:
                expires_ns = state.reservations.live[number].expires_ns - self._offset_ns
                self._time.at(max(now_ns, expires_ns), self._tick)
        for planned in state.calendar.planned:
            self._time.at(max(now_ns, planned.begin_ns), self._tick)
        for name, pool in list(state.cluster.pools.items()):
            if not self._most[name]:
                continue
            for number, arrivals in enumerate(list(pool.queue.arrivals.values())):
                every_us = arrivals.every_us(now_ns)
                if every_us < LATER_US:
                    later = _later(pool, arrivals, every_us)
                    first_ns = round(1e3 * every_us * (number * _GOLDEN % 1.0))
                    self._time.at(now_ns + first_ns, self._submit_later, later)
            if pool.spec.ranks > 1:
                self._starts.gangs[name] = pool.queue.count
            else:
                self._add_new_tasks(pool)
        self._note_new_gangs()

    def _add_new_tasks(self, pool: pools.Pool) -> None:
        """Add a new task of each owner to the queue of a pool: like those that wait, of priority 0,
        accepted now."""
        state, name, queue = self.state, pool.spec.name, pool.queue
        cost_us, last_short_ns = (
            queue.backlog_us / max(1, queue.count),
            state.dispatch.last_short_ns,
        )
        route = core.Route("", "", name, 0, 0, cost_us, 0.0, 1)
        tree = state.shares.fair_share.tree
        for owner in self._owners:
            number = NEW + len(self._starts.new)
            self._starts.new[number] = name, owner
            account = next(iter(tree.accounts_of(owner)), ROOT if tree else "")
            batch = core.SubmitBatch(
                *(b"", TaskOptions(), "", 0, number, self._time.now_ns),
                owner=owner,
                account=account,
            )
            self._scheduler.submit(batch, [TaskSpec(b"", 0, 0)], [route])
            self._starts.pending.add(number)
        queue.instant = len(self._owners)
        state.dispatch.last_short_ns = last_short_ns

    # --- time -------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Let the dispatcher look."""

    def _tick_at(self, when_ns: int) -> None:
        if not self._time.now_ns <= self._next_tick_ns <= when_ns:
            self._next_tick_ns = when_ns
            self._time.at(when_ns, self._due_tick, when_ns)

    def _due_tick(self, when_ns: int) -> None:
        if when_ns != self._next_tick_ns:
            return  # an earlier one came instead
        self._idle_ticks = 0 if self._time.has_events else self._idle_ticks + 1
        self._tick()
        passed_ns = self._time.now_ns - self._time.begin_ns
        self._next_tick_ns = 0
        self._tick_at(self._time.now_ns + max(TICK_NS, passed_ns // EVERY))

    def _tick(self) -> None:
        state, now_ns = self.state, self._time.now_ns
        for worker in state.cluster.workers.values():
            worker.heard_ns = now_ns
        self._execute(self._scheduler.tick(now_ns))
        if state.calendar.entries or state.dedicated:
            wall_ns = now_ns + self._offset_ns
            self._execute(self._scheduler.wall_clock_tick(wall_ns, now_ns))
            self._reserve_planned(wall_ns)

    def _dispatch(self, pause: Pause) -> None:
        state, scheduler = self.state, self._scheduler
        while True:
            self._passes += 1
            awaited = dispatcher.FIRST_ASSIGNS + 1  # so that a pass takes a millisecond
            self._execute(scheduler.dispatch(self._time.now_ns, awaited, self._budgets))
            pause()
            if state.dispatch.assigns_left > 0:
                break
        if state.deferred_actions:
            self._tick()
            self._tick_at(self._time.now_ns + TICK_NS)
        for device in state.devices.paced.all.values():
            for when_ns in (device.free_ns - device.lookahead_ns, state.devices.paced.next_ns):
                if self._time.now_ns < when_ns < 2**62 and when_ns not in self._wakes:
                    self._wakes.add(when_ns)
                    self._time.at(when_ns, self._wake)
        if self._starts.gangs:
            self._note_new_gangs()

    def _execute(self, actions: Iterable[core.Action]) -> None:
        """Do what the scheduler asks for."""
        workers, now_ns = self.state.cluster.workers, self._time.now_ns
        for action in actions:
            if isinstance(action, core.AssignTasks):
                self._workers.send(workers[action.worker], action.records, action.slots)
            elif isinstance(action, core.StartWorker):
                self._time.at(now_ns + core.START_NS, self._join, action.worker, action.start)
            elif isinstance(action, core.RetireWorker | core.KillWorker):
                self._time.at(now_ns + EXIT_NS, self._exit, action.worker, action.start)
            elif isinstance(action, core.SetThreads):
                self._workers.set_threads(action.worker, action.slots)
            elif isinstance(action, core.StopAttempt):
                self._workers.stop(action.worker, action.task)
            elif isinstance(action, core.TaskEnded):
                self._starts.pending.discard(action.record.number)
            elif isinstance(action, core.SubmitJob):
                host, start_ns = (
                    self.state.cluster.nodes.hosts[action.node],
                    self.state.cluster.pools[action.pool],
                )
                self._time.at(now_ns + start_ns.job_start_ns, self._node, host)
            elif isinstance(action, core.EndJob):
                self._time.at(now_ns + EXIT_NS, self._job_over, action.node)

    # --- workers ----------------------------------------------------------------------------------

    def _join(self, name: str, start: int) -> None:
        worker = self.state.cluster.workers.get(name)
        if worker is not None:
            node = worker.host.node.name
            self._scheduler.worker_joined(name, start, node, 1, self._time.now_ns)
            self._tick_at(self._time.now_ns + TICK_NS)

    def _exit(self, name: str, start: int) -> None:
        worker = self.state.cluster.workers.get(name)
        if worker is None or worker.start == start:
            self._workers.lose(name)
        self._execute(self._scheduler.worker_lost(name, start, "", self._time.now_ns, blame=False))
        self._tick_at(self._time.now_ns + TICK_NS)

    # --- nodes, reservations, submissions ---------------------------------------------------------

    def _node(self, host: nodes.NodeState) -> None:
        """Let the job of a node begin."""
        jobs = self.state.cluster.pools[host.node.pool].spec.jobs
        end_ns = self._time.now_ns + round(jobs.time_s * 1e9) if jobs is not None else 0
        self._execute(self._scheduler.node_joined(host.node, "", end_ns, self._time.now_ns))
        self._time.at(end_ns, self._job_over, host.node.name)
        self._tick_at(self._time.now_ns + TICK_NS)

    def _job_over(self, node: str) -> None:
        for name in self.state.cluster.nodes.hosts[node].workers:
            self._workers.lose(name)
        self._execute(self._scheduler.job_over(node, "", self._time.now_ns))
        self._tick_at(self._time.now_ns + TICK_NS)

    def _reserve_planned(self, wall_ns: int) -> None:
        """Request the reservations of the calendar whose time has come, as the service does."""
        calendar = self.state.calendar
        for entry in list(calendar.entries.values()):
            due = entry.due(wall_ns / 1e9)
            if due is None:
                continue
            ask, end_s = due
            decision, actions = reservations.reserve(
                *(self.state, ask, entry.owner, wall_ns), now_ns=self._time.now_ns
            )
            self._execute(actions)
            is_granted = decision.status == "accepted"
            if is_granted:
                calendar.decide(entry.id, end_s)
            self._time.at(self._time.now_ns + (ask.ttl_ns if is_granted else RETRY_NS), self._tick)

    def _submit_later(self, later: Later) -> None:
        """Submit tasks as an association is expected to, and expect the next ones."""
        before, later.count = int(later.count), later.count + later.tasks
        tasks = int(later.count) - before
        if tasks:
            batch = msgspec.structs.replace(
                later.batch, first=self._expected, accepted_ns=self._time.now_ns
            )
            self._expected += tasks
            self._scheduler.submit(batch, [later.spec] * tasks, [later.route] * tasks)
        if self._time.now_ns - self._time.begin_ns + later.every_ns < 1e3 * LATER_US:
            self._time.at(self._time.now_ns + later.every_ns, self._submit_later, later)

    # --- tasks of several ranks -------------------------------------------------------------------

    def _note_new_gangs(self) -> None:
        """Note when a new task of several ranks would start, in pools where none waits any more.
        It is not added to the queue, where it would claim slots that others use."""
        for name in [name for name, waiting in self._starts.gangs.items() if waiting <= 0]:
            del self._starts.gangs[name]
            pool = self.state.cluster.pools.get(name)
            start_us = self._time.us(self._gang_ns(pool))
            self._starts.new_us.update({(name, owner): start_us for owner in self._owners})

    def _gang_ns(self, pool: pools.Pool | None) -> int:
        """Return when a gang could start: at once on a worker whose nodes have the slots, else when
        all is over there."""
        live = [] if pool is None else [each for each in pool.workers.values() if each.is_live]
        if not live:
            ends = self._workers.ends_on(self.state.cluster.nodes.hosts.values())
            return max([self._time.now_ns + core.START_NS, *ends])
        worker = min(live, key=gang_scheduling.missing_slots)
        ready_ns = self._time.now_ns
        if worker.state == WorkerState.STARTING:
            ready_ns = max(ready_ns, worker.since_ns + core.START_NS)
        if not gang_scheduling.missing_slots(worker):
            return ready_ns
        return max([ready_ns, *self._workers.ends_on(host for host, _ in worker.host_ranks)])

    def _clear(self) -> None:
        """Remove references in circles, so that no collection of garbage is needed."""
        state = self.state
        for host in state.cluster.nodes.hosts.values():
            host.workers.clear()
        for pool in state.cluster.pools.values():
            pool.meters.clear()
        self._time.clear()
        state.dispatch.candidates.clear()
        state.cluster.workers.clear()
