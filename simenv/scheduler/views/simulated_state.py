"""The present state, as a simulation of starts begins with it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice

from simenv.model import WorkerState
from simenv.scheduler import core
from simenv.scheduler.dispatch import gang_scheduling
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.state import pools, scheduler_state
from simenv.scheduler.state.owner_quotas import SlotLimits
from simenv.scheduler.views import simulation_inputs as inputs
from simenv.scheduler.views.simulation_inputs import Shares, SimNode, SimPool, SimRun

STEP = 128  # tasks or events between two yields: about 0.5 ms
MIN_START_US = 50_000.0
NEW = 2**62  # numbers of new tasks, whose starts are asked for; they take no slots


class SimulatedState:
    """Nodes, workers and queues. Times are in microseconds after `now_ns`. `starts_us`: of waiting
    tasks by number; `new_us`: of a new task of priority 0 by pool and owner; `read`: tasks of each
    pool."""

    def __init__(
        self, state: scheduler_state.SchedulerState, now_ns: int, owners: Iterable[str] = ("",)
    ) -> None:
        """`owners`: those for whom the start of a new task is determined."""
        self.now_ns = now_ns
        self.owners = tuple(owners)
        self.next_task = state.next_task  # earlier ones are known
        self.starts_us: dict[int, float] = {}
        self.new_us: dict[tuple[str, str], float] = {}
        self.read: dict[str, int] = {}
        self._state = state
        self._now_us = 0.0
        self._left = 0  # tasks that have not started
        self._order = count()
        self._usage = state.fair_share.copy()
        self._gang_lines: list[SimPool] = []
        # The first task of several ranks that waits for accounts that go first.
        self._deferred: gang_scheduling.Head | None = None
        # Where the first one of a pool claims slots, and how many it lacks there.
        self._claims: dict[SimPool, tuple[inputs.Shares, int]] = {}
        self._events: list[tuple[float, int, inputs.Event]] = []
        self._lines: list[SimPool] = []
        self._planned: list[inputs.PlannedSlots] = []  # to come
        up = state.nodes.expected()
        self._hosts = {
            name: SimNode(host.node.slots, host.free_slots if host in up else 0, host.free_memory)
            for name, host in state.nodes.hosts.items()
        }
        self._costs_us: dict[tuple[int, int, int], float] = {}
        self._new: dict[int, tuple[str, str]] = {}
        self._device_us = {  # from when on each paced device is free
            name: (device.free_ns - now_ns) / 1e3 for name, device in state.paced.all.items()
        }
        self._short_until_us = (state.last_short_ns + gang_scheduling.RECENT_NS - now_ns) / 1e3
        self._inflight = {  # tasks that the workers of a device may still hold
            device: limit - sum(scheduler_state.inflight(state, device))
            for device in ("", *(pool.device for pool in state.pools.values()))
            if (limit := scheduler_state.inflight_limit(state, device))
        }
        self._caps = state.quotas.caps_slots
        self._limited = inputs.LimitedSlots()

    def _read_workers(self, line: SimPool) -> None:
        """Add the workers of a pool."""
        for worker in line.pool.workers.values():
            is_busy = bool(worker.held)
            if not is_busy and worker.state not in (WorkerState.STARTING, WorkerState.IDLE):
                continue
            host = self._hosts[worker.host.node.name]
            shares: Shares = ((host, 0),)
            if worker.ranks > 1:
                shares = tuple((self._hosts[h.node.name], n) for h, n in worker.host_ranks)
            elif is_busy and worker.slots:
                shares = ((host, worker.slots - bool(worker.reservation_id)),)
            run = SimRun(line, 0.0, shares, worker.reservation_id, worker.memory_bytes)
            run.stays, run.tasks = not worker.leaving, len(worker.held)
            if worker.ranks == 1 and line not in host.lines:
                host.lines.append(line)
            if worker.state == WorkerState.IDLE:
                self._add_idle(run)
            elif is_busy:
                costs_us = list(map(self._cost_us, worker.held.values()))
                run.end_us = inputs.left_us(self._state, line.pool, worker, costs_us, self.now_ns)
                run.is_long = worker.held_us > LONG_US
                served = (self._limits(batch) for batch in pools.served(worker))
                run.limits = tuple({each for limits in served for each in limits})
                self._limited.use(run.limits, worker.slots)
                for place, slots in shares:
                    line.granted += slots
                    place.long_slots += slots * run.is_long
                if worker.name in self._state.multi_slot_workers:
                    host.wide.append(run)
                self._push(run.end_us, run)
            else:
                age_us = (self.now_ns - worker.since_ns) / 1e3
                run.end_us = max(MIN_START_US, core.START_NS / 1e3 - age_us)
                self._push(run.end_us, run)

    def _count_used(self, pool: pools.Pool) -> None:
        """Count for assigned tasks what tasks of the pool use, not what was expected."""
        excess = 1.0 - pool.queue.used_part
        if not excess or not pool.queue.is_shared:
            return
        tasks, held = self._state.tasks, self._state.paced.held  # with results, on their devices
        simulated = (tasks[number] for number in held if number in tasks)
        assigned = chain(
            chain.from_iterable(worker.held.values() for worker in pool.workers.values()),
            (record for record in simulated if record.route.pool == pool.spec.name),
        )
        for record in assigned:
            units = pool.queue.units(record)
            self._usage.expect(record.batch.association, -excess * units)

    def _add_workers(self, line: SimPool) -> None:
        """Add the workers that the pool will start for its waiting tasks, see `Pool.target`; each
        starts on the node with the most slots for each worker of the pool."""
        pool, ranks, live = line.pool, line.pool.spec.ranks, line.pool.live()
        line.more_workers = max(0, pool.spec.max - live)
        names = [host.node.name for host in self._state.nodes.expected()]
        useful = max(1, int(pool.queue.backlog_us // pools.GROW_BACKLOG_US))
        most = 1 if pool.spec.pace or not line.waiting else min(pool.spec.max, useful)
        most = min(most, sum(self._hosts[name].slots for name in names) // ranks)
        own = Counter(worker.host.node.name for worker in pool.workers.values())
        ready_us = core.START_NS / 1e3
        if not live:
            ready_us += max(0.0, (pool.next_start_ns - self.now_ns) / 1e3)
        while live < most:
            for _ in range(min(most - live, max(1, live))):
                name = max(names, key=lambda each: self._hosts[each].slots - own[each])
                shares: Shares = ((self._hosts[name], 0),)
                if ranks > 1:
                    slots_of = {self._hosts[each]: self._hosts[each].slots for each in names}
                    shares = inputs.spread(slots_of, ranks)
                own[name] += 1
                if ranks == 1 and line not in shares[0][0].lines:
                    shares[0][0].lines.append(line)
                self._push(ready_us, SimRun(line, ready_us, shares, tasks=0))
                live += 1
            ready_us += core.START_NS / 1e3

    def _copy_queue(self, line: SimPool) -> None:
        """Copy the queue of a pool that starts tasks, with a new task of each of `owners`."""
        if inputs.starts_tasks(self._state, line.pool):
            line.queue = line.pool.queue.copy(inputs.MAX_TASKS)
            for owner in self.owners:
                number = NEW + len(self._new)
                self._new[number] = line.pool.spec.name, owner
                record = inputs.new_task(line.pool, owner, number, self.now_ns)
                line.new[record.number] = record
                line.queue.append([record])

    def _read_queue(self, line: SimPool) -> Iterator[None]:
        """Read the order of the copied queue; that of accounts follows from usage, see
        `FairOrder`."""
        queue, fifos, has_own = line.queue, line.fifos, bool(self._state.dedicated)
        assert queue is not None
        place, new, tasks = 0, dict(line.new), iter(queue)
        if queue.is_shared:
            line.fair = inputs.FairOrder(self._usage, self._limited, line.pool.spec.ranks)
            if len(queue) <= inputs.MAX_TASKS:
                tasks = queue.each_in_order()
        for place, record in enumerate(islice(tasks, inputs.MAX_TASKS), 1):
            reservation = queue.dedicated_to(record) if has_own else 0
            limits = self._limits(record.batch) if self._caps else ()
            key = reservation, limits, record.cost_us > LONG_US
            entry = place, self._cost_us(record), record
            if fifo := fifos.get(key):
                fifo.append(entry)
            else:
                line.put(key, entry)
            if record.number >= NEW:
                del new[record.number]
            if not place % STEP:
                yield
        self.read[line.pool.spec.name] = line.waiting = place - len(line.new) + len(new)
        line.queue = None
        for record in new.values():  # behind the tasks that are simulated
            place += 1
            key = 0, self._limits(record.batch), record.cost_us > LONG_US
            line.put(key, (place, 0.0, record))
        self._left += place

    def _cost_us(self, record: core.TaskRecord) -> float:
        """Return the expected time of a task on one slot, by what was learned until now."""
        key = (id(record.route), record.spec.shots, record.spec.count)
        cost_us = self._costs_us.get(key)
        if cost_us is None:
            cost_us = self._costs_us[key] = self._state.estimator.cost_us(record.route, record.spec)
        return cost_us

    def _push(self, time_us: float, event: inputs.Event) -> None:
        heapq.heappush(self._events, (time_us, next(self._order), event))

    def _add_idle(self, run: SimRun) -> None:
        if run.stays and run.line.pool.spec.ranks > 1:
            run.line.gangs.append(run.shares)
        elif run.stays:
            run.line.idle[run.host, run.reservation] += 1

    def _limits(self, batch: core.SubmitBatch) -> SlotLimits:
        return scheduler_state.slot_limits(self._state, batch.association) if self._caps else ()
