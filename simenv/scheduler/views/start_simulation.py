"""Simulation of the dispatcher from the present state on: the start of each waiting task.

Discrete events: the end of a run, a worker that is ready, a paced device that is nearly free, an
expected submission. After each of them the tasks whose turn it is start on idle workers, by the
rules of `dispatcher` and `gang_scheduling`: order of the queue, slots and memory of nodes, long
tasks and last slots, slots of wide tasks, dedicated workers until their reservation expires, limits
of devices, owners and accounts, slots kept for planned reservations, which then get their workers.
Runs last as long as the estimator expects. Under fair share the order follows usage, which grows as
tasks start, and associations are expected to submit more, see `Arrivals`. Left out are other tasks
that are not submitted yet, preemption, and chunks, whose tasks start within some milliseconds.

Invariant: the state is only read. Queues are copied at the beginning, so that the simulation can go
on in slices while they change; a task that has started since then is skipped.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from simenv.scheduler import core
from simenv.scheduler.dispatch import gang_scheduling, planned_reservations
from simenv.scheduler.dispatch.dispatcher import PARALLEL_FROM_US
from simenv.scheduler.queueing.lanes import LONG_US, STEP_NS
from simenv.scheduler.views import simulation_inputs as inputs
from simenv.scheduler.views.simulated_state import NEW, STEP, SimulatedState
from simenv.scheduler.views.simulation_inputs import Fifo, Shares, SimNode, SimPool, SimRun
from simulators import catalog

SLOW = 8  # events that take as long as one after which all hosts are looked at


class StartSimulation(SimulatedState):
    """One simulation."""

    def steps(self) -> Iterator[None]:
        """Run the simulation; yields often, so that the caller can do other work."""
        self._lines = [SimPool(pool, {}) for pool in self._state.pools.values()]
        for line in self._lines:  # at once, so that all is of one time
            self._read_workers(line)
            self._count_used(line.pool)
            self._copy_queue(line)
        self._planned = inputs.planned_slots(self._state, self._lines, self.now_ns)
        for planned in self._planned:
            self._push(planned.begin_us, planned)
        for reservation, end_us in inputs.dedicated_until(self._state, self.now_ns):
            self._push(end_us, reservation)
        yield
        for line in self._lines:
            if line.queue is not None:
                yield from self._read_queue(line)
                self._add_workers(line)
                for time_us, later in inputs.later_submissions(line, self.now_ns):
                    self._push(time_us, later)
                if line.pool.spec.ranks > 1:
                    self._gang_lines.append(line)
            if self._short_until_us > 0:  # then long tasks may take last slots
                self._push(self._short_until_us, line)
            if line.pool.spec.pace:
                self._push(max(0.0, self._opens_us(line)), line)
            for host, reservation in list(line.idle):
                while reservation and self._start_next(line, host, reservation):
                    pass
        hosts = list(self._hosts.values())
        for first in range(0, len(hosts), STEP // 4):
            self._dispatch(hosts[first : first + STEP // 4])
            yield
        events, steps = self._events, 0
        while events and self._left:
            self._now_us, _, event = heapq.heappop(events)
            if isinstance(event, SimPool):
                self._dispatch([host for host in self._hosts.values() if event in host.lines])
            elif isinstance(event, inputs.PlannedSlots):
                self._begin_planned(event)
            elif isinstance(event, inputs.Later):
                self._submit(event)
            elif isinstance(event, int):
                runs = (run for *_, run in events if isinstance(run, SimRun))
                self._left -= inputs.release_dedicated(self._lines, runs, event)
                self._dispatch(self._hosts.values())
            elif event.end_us == self._now_us and not self._goes_on(event):
                self._end(event)  # at another time: it got fewer slots, a later event ends it
                steps += SLOW - 1 if self._gang_lines else 0
            steps += 1
            if steps >= STEP:
                steps = 0
                yield

    # --- events -----------------------------------------------------------------------------------

    def _begin(
        self,
        line: SimPool,
        record: core.TaskRecord,
        run_us: float,
        shares: Shares,
        reservation: int = 0,
        memory: int = 0,
    ) -> SimRun:
        """Start a task: grant slots and memory until its end, and the time of a paced device."""
        end_us = self._now_us + run_us
        run = SimRun(line, end_us, shares, reservation, memory, record.cost_us > LONG_US)
        run.limits = self._limits(record.batch) if self._caps else ()
        self._count(run, 1)
        for planned in self._planned if record.number and not reservation else ():
            planned.count(run)
        self._push(end_us, run)
        self._note_start(line, record)
        if line.pool.spec.pace:
            self._begin_on_device(line, record)
        return run

    def _begin_planned(self, planned: inputs.PlannedSlots) -> None:
        """Give a planned reservation its workers before all tasks, and try the tasks again that
        were set aside."""
        self._planned.remove(planned)
        for each in self._lines:
            for key, entry in reversed(each.held):
                each.put(key, entry, first=True)
            each.held.clear()
        line = planned.line
        line.put((0, (), False), *planned.entries(self.now_ns, self._now_us), first=True)
        fifo = line.fifos[0, (), False]
        line.waiting += planned.workers
        self._left += planned.workers
        for host in self._hosts.values():
            while fifo and fifo[0][0] == inputs.RESERVED and self._start_next(line, host, 0):
                pass
        self._dispatch(self._hosts.values())

    def _submit(self, later: inputs.Later) -> None:
        """Add the tasks of an expected submission to the queue, and expect the next one."""
        line, entries = later.line, later.entries(inputs.EXPECTED)
        limits = self._limits(later.record.batch)
        line.put((0, limits, later.record.cost_us > LONG_US), *entries)
        line.waiting += len(entries)
        if self._now_us + later.every_us < inputs.LATER_US:
            self._push(self._now_us + later.every_us, later)
        if hosts := [host for host in self._hosts.values() if host.load < 0]:
            self._dispatch(hosts)

    def _note_start(self, line: SimPool, record: core.TaskRecord) -> None:
        if record.number == inputs.RESERVED:
            return
        if record.number != inputs.EXPECTED:
            self.starts_us[record.number] = self._now_us
        if line.fair is not None:
            queue = line.pool.queue
            units = queue.units(record) * queue.used_part * self._usage.growth_in(self._now_us)
            line.fair.started(record, units, line.waiting)

    def _count(self, run: SimRun, sign: int) -> None:
        """Count what a run takes (`sign` 1), or returns (-1)."""
        for host, slots in run.shares:
            host.free -= sign * slots
            host.long_slots += sign * slots * run.is_long
            run.line.granted += sign * slots
        if run.limits:
            retained = bool(run.reservation) and not run.line.pool.is_exclusive
            self._limited.use(run.limits, sign * sum((retained, *(n for _, n in run.shares))))
        run.host.memory -= sign * run.memory
        for device in self._inflight and {run.line.pool.device, ""} & self._inflight.keys():
            self._inflight[device] -= sign * run.tasks

    def _goes_on(self, run: SimRun) -> bool:
        """Give the only free slot of a host to the next task, on the worker whose run has ended:
        what the rules below give, in the usual case that they leave no choice."""
        line, (host, slots) = run.line, run.shares[0]
        if slots != 1 or host.load < 0 or len(host.lines) > 1 or not (run.tasks and run.stays):
            return False
        if self._inflight or run.limits or run.reservation or line.pool.spec.pace:
            return False
        if self._planned or len(line.heads) > 2:
            return False
        if host.claimed or host.backfill:
            return self._frees_claimed(run)
        host.free, host.memory = 1, host.memory + run.memory
        while (fifo := self._next_fifo(line, 0)) is not None:
            if fifo[0][2].cost_us > LONG_US and not self._may_be_long(line, host):
                fifo = self._next_fifo(line, 0, allow_long=False)
                if fifo is None:
                    break
            _, cost_us, record = fifo[0]
            memory = max(0, record.route.memory_bytes - line.pool.spec.memory_bytes)
            if memory > host.memory or not self._passes_gangs(line, record, host):
                break
            if self._takes_slots(line, fifo):
                host.free, host.memory, run.memory = 0, host.memory - memory, memory
                run.end_us = self._now_us + inputs.work_us(self._state, line.pool, record, cost_us)
                is_long = record.cost_us > LONG_US
                host.long_slots += is_long - run.is_long
                run.is_long = is_long
                if self._caps:
                    run.limits = self._limits(record.batch)
                    self._limited.use(run.limits, 1)
                self._note_start(line, record)
                self._push(run.end_us, run)
                return True
        host.free, host.memory = 0, host.memory - run.memory
        return False

    def _end(self, run: SimRun) -> None:
        """Return what a run had, and start what can start then."""
        if run.tasks:
            self._count(run, -1)
            if run in run.host.wide:
                run.host.wide.remove(run)
        self._add_idle(run)
        while run.reservation and self._start_next(run.line, run.host, run.reservation):
            pass
        is_bounded = self._inflight or run.limits or self._gang_lines
        self._dispatch(self._hosts.values() if is_bounded else [host for host, _ in run.shares])

    def _dispatch(self, hosts: Iterable[SimNode]) -> None:
        """Start all tasks that can start on these hosts; next is the pool with the fewest slots."""
        self._start_gangs()
        turns: dict[SimPool, list[tuple[int, int, SimNode]]] = {}  # heaps: the freest host first
        for number, host in enumerate(hosts):
            for line in (line for line in host.lines if line.idle[host, 0]):
                heapq.heappush(turns.setdefault(line, []), (host.load, number, host))
        while turns:
            if self._deferred and not gang_scheduling.is_behind(
                self._usage, self._deferred, self._singles()
            ):
                self._start_gangs()
            line = min(turns, key=lambda each: (each.granted, turns[each][0][:2]))
            load, number, host = turns[line][0]
            if self._is_closed(line):
                del turns[line]
            elif load != host.load:
                heapq.heapreplace(turns[line], (host.load, number, host))
            elif not self._start_next(line, host, 0):
                heapq.heappop(turns[line])
                turns = {line: heap for line, heap in turns.items() if heap}
        if self._deferred and any(host.load < 0 for host in self._hosts.values()):
            self._start_gangs(are_behind=True)

    def _start_next(self, line: SimPool, host: SimNode, reservation: int) -> bool:
        """Start the next task of a pool on an idle worker of a host; False if none can start.
        `reservation`: on a dedicated worker, which retains a slot."""
        pool = line.pool
        if not line.idle[host, reservation] or self._is_closed(line):
            return False
        retained = int(bool(reservation) or pool.is_exclusive)
        free, may_be_long, donor = host.free - host.claimed + retained, True, None
        if not retained:
            if free <= 0:  # a short task may take a slot of a wide one
                wide = () if host.claimed else host.wide
                donor = next((run for run in wide if run.shares[0][1] > 1), None)
                if donor is None:
                    return False
            may_be_long = donor is None and self._may_be_long(line, host)
        fifo = self._next_fifo(line, reservation, allow_long=may_be_long)
        if fifo is None:
            return False
        _, cost_us, record = fifo[0]
        memory = max(0, record.route.memory_bytes - pool.spec.memory_bytes)
        if memory > host.memory:
            return False
        if not self._takes_slots(line, fifo):
            return True
        run_us, slots = inputs.work_us(self._state, pool, record, cost_us), 1
        if donor is not None:
            self._take_back_slot(donor)
        elif not pool.is_exclusive:
            slots = self._slots(line, host, record, run_us, free)
        line.idle[host, reservation] -= 1
        shares = ((host, slots - retained),)
        run = self._begin(line, record, run_us / slots, shares, reservation, memory)
        card = catalog.card(record.route.engine) if slots > 1 else None
        if card is not None and card.parallel.resizable:
            host.wide.append(run)
        return True

    def _takes_slots(self, line: SimPool, fifo: Fifo) -> bool:
        """Take the next task from its queue. Return False if it takes no slots: it has left the
        queue, would not end before the allocation, or is a new one, whose start is noted."""
        record = fifo.popleft()[2]
        self._left -= record.number != inputs.EXPECTED
        if record.number >= NEW:
            del line.new[record.number]
            device_us = self._device_us.get(line.pool.device, 0.0)
            self.new_us[self._new[record.number]] = max(self._now_us, device_us)
            return False
        line.waiting -= 1
        if record.phase != core.WAITING or record.batch.owner in self._state.quotas.removed:
            return False
        then_ns = self.now_ns + round(self._now_us * 1e3)
        end_ns = self._state.limits.end_ns - core.END_MARGIN_NS  # maintenance: `ExpectedStarts`
        ends_after = planned_reservations.ends_after
        return end_ns < 0 or not ends_after(self._state, record, then_ns, end_ns)

    def _begin_on_device(self, line: SimPool, record: core.TaskRecord) -> None:
        """Give a task the next time of its paced device, unless it has one there."""
        name = line.pool.device
        run = self._state.paced.all[name].runs.get(record.number)
        begin_us = self._device_us[name] if run is None else (run.begin_ns - self.now_ns) / 1e3
        begin_us = self.starts_us[record.number] = max(self._now_us, begin_us)
        if run is None:
            length_us = record.cost_us  # of an expected submission, which has no route
            if record.number != inputs.EXPECTED:
                length_us = core.expected_ns(record.route, record.spec) / 1e3
            self._device_us[name] = begin_us + length_us
            self._push(max(self._now_us, self._opens_us(line)), line)

    # --- the next task, and its slots -------------------------------------------------------------

    def _opens_us(self, line: SimPool) -> float:
        """Return when a paced device is so nearly free that the next task is sent."""
        device = self._state.paced.all[line.pool.device]
        return self._device_us[line.pool.device] - device.lookahead_ns / 1e3

    def _is_closed(self, line: SimPool) -> bool:
        """Return whether nothing waits in a pool, or its limits or its clock let nothing start."""
        if not (line.waiting or line.new):
            return True
        if self._inflight and min(self._inflight.get(d, 1) for d in (line.pool.device, "")) <= 0:
            return True
        if not line.pool.spec.pace or self._opens_us(line) <= self._now_us:
            return False
        again = self._state.paced.all[line.pool.device].waiting  # they have a run there already
        fifo = self._next_fifo(line, 0) if again else None
        return fifo is None or fifo[0][2].number not in again

    def _next_fifo(
        self, line: SimPool, reservation: int, *, allow_long: bool = True
    ) -> Fifo | None:
        """Return the queue whose first task is next for a worker; None: none is. Sets tasks aside
        that would run into a planned reservation."""
        while (fifo := self._first_fifo(line, reservation, allow_long)) and not reservation:
            record = fifo[0][2]
            if not any(planned.lacks(line, record, self._now_us) for planned in self._planned):
                break
            if len(line.held) >= planned_reservations.BACKFILL_DEPTH:
                return self._next_fifo(line, 0, allow_long=False) if allow_long else None
            key = reservation, self._limits(record.batch), record.cost_us > LONG_US
            line.held.append((key, fifo.popleft()))
        return fifo

    def _first_fifo(self, line: SimPool, reservation: int, allow_long: bool) -> Fifo | None:
        """Return the queue whose first task is next by the order of the pool. A worker without a
        reservation also takes tasks that dedicated workers leave waiting, see `PoolQueue`."""
        best = other = None
        for (dedicated, is_long), heads in line.heads.items():
            if (is_long and not allow_long) or (reservation and dedicated != reservation):
                continue
            fifo = self._limited.first(line, heads)
            if fifo is None:
                continue
            if dedicated == reservation:
                if best is None or fifo[0] < best[0]:
                    best = fifo
            elif other is None or fifo[0] < other[0]:
                other = fifo
        if best is None and line.fair is not None and not reservation:
            best = line.fair.first(allow_long)
        if best is None or other is None:
            return best or other
        age_key = line.pool.queue.order.age_key
        return other if age_key(other[0][2])[0] + STEP_NS < age_key(best[0][2])[0] else best

    def _may_be_long(self, line: SimPool, host: SimNode) -> bool:
        """Return whether a long task may start, see `dispatcher`."""
        free = host.free - host.claimed - host.backfill
        if line.pool.spec.pace or free != 1 or host.slots == 1:
            return line.pool.spec.pace or free > 0
        fifo = self._next_fifo(line, 0)
        if fifo is None or fifo[0][2].cost_us <= LONG_US:
            return True
        waited_ns = self.now_ns + self._now_us * 1e3 - fifo[0][2].batch.accepted_ns
        if waited_ns > gang_scheduling.PATIENCE_NS:
            return True
        has_short = any(fifo and not is_long for (*_, is_long), fifo in line.fifos.items())
        has_short |= line.fair is not None and line.fair.has_short()
        return not has_short and self._now_us >= self._short_until_us

    def _slots(
        self, line: SimPool, host: SimNode, record: core.TaskRecord, run_us: float, free: int
    ) -> int:
        """Return the slots of a task that starts, of `free` ones on its host; see `dispatcher`."""
        bound = min(record.route.max_slots, free)
        if record.cost_us > LONG_US:
            compiles = not self._state.estimator.kernels_compiled
            keeps_one = host.slots > 1 and (self._now_us < self._short_until_us or compiles)
            bound = min(bound, free - host.backfill - keeps_one)
        if limits := self._limits(record.batch):
            bound = min(bound, self._limited.left(limits))
        for planned in self._planned:
            if planned.begin_us < self._now_us + record.cost_us:
                bound = min(bound, planned.spare_slots)
        if bound <= 1 or run_us < PARALLEL_FROM_US:
            return 1
        usable = {each: max(0, each.free - each.claimed) for each in self._hosts.values()}
        idle = sum(line.idle[each, 0] for each, slots in usable.items() if slots)
        sharers = min(line.waiting + 1, max(idle, line.more_workers + idle, 1))
        return max(1, min(bound, sum(usable.values()) // sharers))

    def _take_back_slot(self, run: SimRun) -> None:
        """Take a slot from a wide task, for a short one; see `gang_scheduling`."""
        host, slots = run.shares[0]
        host.free += 1
        host.long_slots -= run.is_long
        run.line.granted -= 1
        self._limited.use(run.limits, -1)
        run.shares = ((host, slots - 1),)
        run.end_us = self._now_us + (run.end_us - self._now_us) * slots / (slots - 1)
        self._push(run.end_us, run)

    # --- tasks of several ranks -------------------------------------------------------------------

    def _start_gangs(self, *, are_behind: bool = False) -> None:
        """Start tasks of several ranks, and renew claims of those that wait, see `assign_gangs`.
        `are_behind`: those that waited for accounts which can start nothing; they claim nothing."""
        lines = [line for line in self._gang_lines if line.gangs]
        if are_behind:
            lines = [line for line in lines if line not in self._claims]
        else:
            for host in self._hosts.values() if self._gang_lines else ():
                host.claimed = host.backfill = 0
            self._claims.clear()
        self._deferred = None
        singles = [] if are_behind or not lines else self._singles()
        while heads := self._heads(lines):
            first = gang_scheduling.first_gang(self._usage, heads)
            line = next(line for line in lines if line.pool.queue is first[0])
            if gang_scheduling.is_behind(self._usage, first, singles):
                self._deferred = self._deferred or first
            elif self._start_gang(line, may_claim=not are_behind):
                continue
            lines.remove(line)

    def _singles(self) -> list[gang_scheduling.Head]:
        """Return the first tasks of one rank that idle workers could take."""
        lines = [line for line in self._lines if line.pool.spec.ranks == 1 and line.fair]
        return self._heads([line for line in lines if any(line.idle.values())])

    def _heads(self, lines: list[SimPool]) -> list[gang_scheduling.Head]:
        fifos = [(x, self._next_fifo(x, 0)) for x in lines if not self._is_closed(x)]
        return [(line.pool.queue, fifo[0][2]) for line, fifo in fifos if fifo]

    def _passes_gangs(self, line: SimPool, record: core.TaskRecord, host: SimNode) -> bool:
        """Return whether a task of one rank goes before those of several ranks that wait, or these
        claim slots elsewhere and go on to do so."""
        head = line.pool.queue, record
        for gang in self._gang_lines:
            if gang.gangs and gang.fair and (fifo := self._next_fifo(gang, 0)):
                rival, claim = (gang.pool.queue, fifo[0][2]), self._claims.get(gang)
                is_before = bool(gang_scheduling.precedes(self._usage, head, rival))
                if is_before is (claim is not None):
                    return False
                if claim is not None and host.load < 0:  # it may claim the slot instead
                    others = [each for each in gang.gangs if host in dict(each)]
                    if any(_lacks(each) < claim[1] for each in others):
                        return False
        return True

    def _frees_claimed(self, run: SimRun) -> bool:
        """Leave a slot that is free now to the tasks of several ranks that claim it, if they still
        lack others: nothing else can start."""
        line, host = run.line, run.host
        fifo = None if line.fair is None or line.fair.has_short() else self._next_fifo(line, 0)
        claims = {
            gang: (shares, lacks - 1)
            for gang, (shares, lacks) in self._claims.items()
            if host in dict(shares)
        }
        if fifo is None or host.load < 1 or not all(lacks for _, lacks in claims.values()):
            return False
        if not self._passes_gangs(line, fifo[0][2], host):
            return False
        self._claims |= claims
        self._count(run, -1)
        self._add_idle(run)
        return True

    def _start_gang(self, line: SimPool, *, may_claim: bool) -> bool:
        """Start the next task of a pool of workers of several ranks, or claim slots for it; False
        if it must wait."""
        fifo = self._next_fifo(line, 0)
        if fifo is None or not line.gangs:
            return False
        _, cost_us, record = fifo[0]
        lacks = {shares: _lacks(shares) for shares in line.gangs}
        shares = min(lacks, key=lacks.__getitem__)
        if lacks[shares] and not may_claim:
            return False
        if lacks[shares] and record.number < NEW:
            is_long = any(host.slots - host.long_slots < ranks for host, ranks in shares)
            for host, ranks in shares:
                host.claimed += 0 if is_long else ranks
                host.backfill += ranks if is_long else 0
            self._claims[line] = shares, lacks[shares]
            return False
        if self._takes_slots(line, fifo):
            line.gangs.remove(shares)
            self._begin(
                line, record, inputs.work_us(self._state, line.pool, record, cost_us), shares
            )
        elif record.number >= NEW and lacks[shares]:  # it claims nothing: when all is over there
            hosts = {host for host, _ in shares}
            runs = (event for *_, event in self._events if isinstance(event, SimRun))
            ends = (run.end_us for run in runs if any(host in hosts for host, _ in run.shares))
            key = self._new[record.number]
            self.new_us[key] = max([self.new_us[key], *ends])
        return True


def _lacks(shares: inputs.Shares) -> int:
    """Return how many slots a gang lacks on its hosts, besides the claims of others."""
    return sum([max(0, ranks + host.load) for host, ranks in shares])
