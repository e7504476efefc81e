"""Inputs of the simulation of starts: nodes, workers, planned reservations, and run times."""

from __future__ import annotations

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from simenv.model import ProgressInfo, TaskOptions, TaskSpec
from simenv.model.accounts import ROOT
from simenv.scheduler import core
from simenv.scheduler.dispatch import planned_reservations
from simenv.scheduler.queueing.fair_share import FairShare
from simenv.scheduler.queueing.lane_heads import OWN_USER, AssociationOrder
from simenv.scheduler.queueing.lanes import ALONE_US, CHUNK_TASKS, LONG_US, SMALL_US, most_us
from simenv.scheduler.queueing.queue import PoolQueue
from simenv.scheduler.state import pools, scheduler_state
from simenv.scheduler.state.owner_quotas import SlotLimits

T = TypeVar("T")
MAX_TASKS = 100_000  # of one pool that are simulated, from the front of its queue
LATER_US = 12 * 3_600e6  # for which more is expected to be submitted
EXPECTED = 2**61  # number of tasks that are expected to be submitted
_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # spreads first submissions evenly
RESERVED = 0  # place and number of what holds a worker for a planned reservation
OUTRUN = 10.0  # times its forecast after which a run is forecast anew
FORECAST_WEIGHT = 0.01  # part of the work from which on the rate of a run outweighs its forecast
_FAR = 5.0  # standard deviations of the logarithm beyond which a time is none of the distribution
_LEAST_SIGMA = 0.01


class SimNode(msgspec.Struct, eq=False):
    """Node with the slots and the memory that are free at the time of the simulation."""

    slots: int
    free: int
    memory: int
    claimed: int = 0  # see `NodeState`
    backfill: int = 0
    long_slots: int = 0
    lines: list[SimPool] = []  # pools with workers of one rank here
    wide: list[SimRun] = []  # that may give slots back

    @property
    def load(self) -> int:
        return self.claimed + self.backfill - self.free


Shares = tuple[tuple[SimNode, int], ...]  # hosts with slots
Entry = tuple[int, float, core.TaskRecord]  # (place in the queue, expected time, task)
Fifo = deque[Entry]


# Of waiting tasks: reservation with dedicated workers, limits of slots, and whether they are long.
FifoKey = tuple[int, SlotLimits, bool]
Heads = list[tuple[int, FifoKey]]  # heap: first place of each of some queues


class LimitedSlots:
    """Slots that users and accounts use, of those that have limits."""

    def __init__(self) -> None:
        self._used = Counter[str]()
        self._held: dict[str, list[Callable[[], None]]] = {}  # called when it uses fewer

    def use(self, limits: SlotLimits, slots: int) -> None:
        """Count slots that are granted, or (negative) returned."""
        for node, _ in limits:
            self._used[node] += slots
            for put_back in self._held.pop(node, ()) if slots < 0 else ():
                put_back()

    def left(self, limits: SlotLimits) -> int:
        return scheduler_state.left_of(limits, self._used)

    def hold(self, limits: SlotLimits, ranks: int, put_back: Callable[[], None]) -> bool:
        """Return whether a task of so many ranks passes a limit; `put_back` is called when it may
        start again."""
        if not limits or self.left(limits) >= ranks:
            return False
        node = min(limits, key=lambda each: each[1] - self._used[each[0]])[0]
        self._held.setdefault(node, []).append(put_back)
        return True

    def first(self, line: SimPool, heads: Heads) -> Fifo | None:
        """Return the queue with the first task that passes no limit."""
        fifos = line.fifos
        while heads:
            place, key = heads[0]
            fifo = fifos[key]
            if not fifo:
                heapq.heappop(heads)
            elif len(heads) > 1 and fifo[0][0] != place:
                heapq.heapreplace(heads, (fifo[0][0], key))
            elif self.hold(key[1], line.pool.spec.ranks, partial(heapq.heappush, heads, heads[0])):
                heapq.heappop(heads)
            else:
                return fifo
        return None


_NO_FIRST: tuple[Fifo, None] = deque(), None


class FairOrder:
    """Waiting tasks of one pool in the order of accounts, as their usage is when a task is next.

    A turn is that of a chunk, as in `lane_heads.merged`. Invariant: an association whose tasks may
    start is in the order of all, and if some of them are short in that of these."""

    def __init__(self, usage: FairShare, limited: LimitedSlots, ranks: int) -> None:
        """`usage`: of all pools together; tasks that start are counted there."""
        self._usage, self._limited, self._ranks = usage, limited, ranks
        self._fifos: dict[bool, dict[str, Fifo]] = {False: {}, True: {}}  # long ones: True
        self._orders = {False: AssociationOrder(usage), True: AssociationOrder(usage)}  # True: all
        self._limits: dict[str, SlotLimits] = {}
        self._turn, self._turn_us, self._turn_left = "", 0.0, 0  # whose it is, and what is left
        # What `first` returned, with its first task, while no usage changes.
        self._firsts: dict[bool, tuple[Fifo, Entry]] = {}
        self._changes = -1

    def put(self, entry: Entry, limits: SlotLimits, *, first: bool = False) -> None:
        """Add a task behind, or `first` before, the others of its association."""
        record = entry[2]
        leaf, is_long = record.batch.association, record.cost_us > LONG_US
        self._limits[leaf] = limits
        self._changes = -1
        fifo = self._fifos[is_long].setdefault(leaf, deque())
        (fifo.appendleft if first else fifo.append)(entry)
        if len(fifo) == 1:
            self._add(leaf)

    def _add(self, leaf: str) -> None:
        self._changes = -1
        for allow_long, order in self._orders.items():
            if fifo := self._of(leaf, allow_long):
                order.add(leaf, fifo[0][2].number)

    def _of(self, leaf: str, allow_long: bool) -> Fifo | None:
        """Return the queue with the first task of an association."""
        short = self._fifos[False].get(leaf)
        long = self._fifos[True].get(leaf) if allow_long else None
        return (short if short[0][0] < long[0][0] else long) if short and long else short or long

    def has_short(self) -> bool:
        return self.first(allow_long=False) is not None

    def first(self, allow_long: bool) -> Fifo | None:
        """Return the queue with the first task that passes no limit."""
        if self._changes != self._usage.changes:
            self._firsts.clear()
            self._changes = self._usage.changes
        fifo, entry = self._firsts.get(allow_long, _NO_FIRST)
        if not fifo or fifo[0] is not entry:
            fifo = self._first(allow_long) or _NO_FIRST[0]
            if fifo:
                self._firsts[allow_long] = fifo, fifo[0]
        return fifo or None

    def _first(self, allow_long: bool) -> Fifo | None:
        if self._turn:
            fifo = self._fifos[False].get(self._turn)
            if fifo and self._turn_left and fifo[0][2].cost_us <= min(self._turn_us, ALONE_US):
                return fifo
            self._turn = ""
        order = self._orders[allow_long]
        while (leaf := self._first_leaf(order, allow_long)) is not None:
            fifo = self._of(leaf, allow_long)
            if not fifo:
                order.remove(leaf)
            elif self._limited.hold(self._limits[leaf], self._ranks, partial(self._add, leaf)):
                for each in self._orders.values():
                    each.remove(leaf)
            else:
                return fifo
        return None

    def _first_leaf(self, order: AssociationOrder, allow_long: bool) -> str | None:
        for own in self._limits.keys() & OWN_USER:
            fifo = self._of(own, allow_long)
            if fifo and fifo[0][2].batch.priority:
                leaves = {*self._fifos[False], *self._fifos[True]}
                heads = [each[0][2] for leaf in leaves if (each := self._of(leaf, allow_long))]
                return order.first_by_priority(own, fifo[0][2], heads)
        return order.first()

    def started(self, record: core.TaskRecord, units: float, waiting: int) -> None:
        """Count a task that starts, with the units that it is expected to use."""
        leaf, cost_us = record.batch.association, record.cost_us
        self._usage.assigned(leaf, 1, units)
        if cost_us < ALONE_US:
            if self._turn != leaf:
                self._turn, self._turn_left = leaf, CHUNK_TASKS
                self._turn_us = most_us(cost_us, waiting)
            self._turn_us -= cost_us
            self._turn_left -= 1
        for allow_long, order in self._orders.items():
            if fifo := self._of(leaf, allow_long):
                order.set(leaf, fifo[0][2].number)


class SimPool(msgspec.Struct, eq=False):
    """Waiting tasks of a pool in their order, and its idle workers."""

    pool: pools.Pool
    fifos: dict[FifoKey, Fifo]
    fair: FairOrder | None = None  # the order of the shared lanes, by accounts
    heads: dict[tuple[int, bool], Heads] = {}  # by reservation, and whether the tasks are long
    waiting: int = 0  # tasks
    new: dict[int, core.TaskRecord] = {}  # new tasks, see NEW
    queue: PoolQueue | None = None  # copied from the pool
    idle: Counter[tuple[SimNode, int]] = msgspec.field(default_factory=Counter)  # and reservation
    gangs: list[Shares] = []  # idle workers of several ranks
    granted: int = 0  # slots
    more_workers: int = 0  # that could still be started
    held: list[tuple[FifoKey, Entry]] = []  # tasks that are set aside

    def put(self, key: FifoKey, *entries: Entry, first: bool = False) -> None:
        """Add tasks at the end of a queue; `first`: at its front."""
        if self.fair is not None and not key[0] and entries[0][0] != RESERVED:
            for entry in entries:
                self.fair.put(entry, key[1], first=first)
            return
        fifo = self.fifos.get(key)
        if fifo is None:
            fifo = self.fifos[key] = deque()
        if first or not fifo:
            heapq.heappush(self.heads.setdefault((key[0], key[2]), []), (entries[0][0], key))
        (fifo.extendleft if first else fifo.extend)(entries)


class SimRun(msgspec.Struct, eq=False):
    """A worker that runs tasks, or starts, until `end_us`. `shares`: granted until then."""

    line: SimPool
    end_us: float
    shares: Shares
    reservation: int = 0
    memory: int = 0
    is_long: bool = False
    limits: SlotLimits = ()  # within which it uses slots
    tasks: int = 1
    stays: bool = True  # it takes further tasks

    @property
    def host(self) -> SimNode:
        return self.shares[0][0]


class PlannedSlots(msgspec.Struct, eq=False):
    """Reservation to come, whose slots are kept, see `planned_reservations`. `spare_slots`: those
    that runs may have at its begin; `spare_workers`: those of its pool that they may."""

    line: SimPool
    begin_us: float
    end_us: float
    workers: int
    spare_slots: int
    spare_workers: int

    def entries(self, now_ns: int, now_us: float) -> list[Entry]:
        """Return what holds its workers until its end, for the queue of its pool."""
        pool = self.line.pool
        record = new_task(pool, "", RESERVED, now_ns)
        record.cost_us = 0.0  # no task is held back for it
        work_us = max(0.0, self.end_us - now_us) * pool.large.speed
        return [(RESERVED, work_us, record)] * self.workers

    def lacks(self, line: SimPool, record: core.TaskRecord, now_us: float) -> bool:
        """Return whether a task of a pool must not start now."""
        is_soon = record.cost_us <= planned_reservations.SOON_US
        if is_soon or self.begin_us >= now_us + record.cost_us:
            return False
        ranks = 0 if _needs_no_slots(line.pool) else line.pool.spec.ranks
        return self.spare_slots < ranks or (self.line is line and self.spare_workers < 1)

    def count(self, run: SimRun) -> None:
        """Count a run that starts."""
        if run.end_us > self.begin_us:
            self.spare_workers -= self.line is run.line
            if not _needs_no_slots(run.line.pool):
                self.spare_slots -= sum(slots for _, slots in run.shares)


def _needs_no_slots(pool: pools.Pool) -> bool:
    return pool.is_exclusive or pool.spec.jobs is not None


def planned_slots(
    state: scheduler_state.SchedulerState, lines: Iterable[SimPool], now_ns: int
) -> list[PlannedSlots]:
    """Return the reservations to come, but those of paced devices."""
    by_pool = {line.pool.spec.name: line for line in lines if not line.pool.spec.pace}
    return [
        PlannedSlots(
            by_pool[each.pool], max(0.0, (each.begin_ns - now_ns) / 1e3),
            (each.end_ns - now_ns) / 1e3, each.workers,
            *planned_reservations.spare(state, each, now_ns),
        )
        for each in state.calendar.planned
        if each.pool in by_pool
    ]  # fmt: skip


class Later(msgspec.Struct, eq=False):
    """Submissions of one association that are expected, see `Arrivals`."""

    line: SimPool
    record: core.TaskRecord  # each of their tasks
    tasks: float  # of each submission, on average
    every_us: float
    count: float = 0.0  # tasks that have come

    def entries(self, place: int) -> list[Entry]:
        """Return the tasks of the next submission."""
        before, self.count = int(self.count), self.count + self.tasks
        cost_us = self.record.cost_us
        return [(place, cost_us, self.record)] * (int(self.count) - before)


def later_submissions(line: SimPool, now_ns: int) -> Iterator[tuple[float, Later]]:
    """Yield what associations are expected to submit to a pool, with the time of the first."""
    for number, arrivals in enumerate(line.pool.queue.arrivals.values()):
        every_us = arrivals.every_us(now_ns)
        if every_us < LATER_US:
            record = new_task(line.pool, "", EXPECTED, now_ns)
            record.batch, record.cost_us = arrivals.batch, arrivals.work_us / arrivals.tasks
            later = Later(line, record, arrivals.tasks / arrivals.messages, every_us)
            yield every_us * (number * _GOLDEN % 1.0), later


# The end of a run, a chance of a paced device, the begin and (a number) the end of a reservation,
# or a submission.
Event = SimRun | SimPool | PlannedSlots | Later | int


def dedicated_until(
    state: scheduler_state.SchedulerState, now_ns: int
) -> Iterator[tuple[int, float]]:
    """Yield the reservations that have workers, with the times at which they expire."""
    wall_ns, live = now_ns + state.paced.offset_ns, state.reservations.live
    for number in state.dedicated.all:
        if number in live:
            yield number, max(0.0, (live[number].expires_ns - wall_ns) / 1e3)


def release_dedicated(lines: Iterable[SimPool], runs: Iterable[SimRun], reservation: int) -> int:
    """Let the workers of a reservation serve all. Return the number of its waiting tasks, which end
    with it."""
    ended = 0
    for line in lines:
        for (host, number), idle in list(line.idle.items()):
            if number == reservation:
                del line.idle[host, number]
                line.idle[host, 0] += idle
                host.free += 0 if line.pool.is_exclusive else idle
        for key, fifo in line.fifos.items():
            if key[0] == reservation:
                ended += len(fifo)
                line.waiting -= len(fifo)
                fifo.clear()
    for run in runs:
        if run.reservation == reservation:
            run.reservation = 0
            if run.tasks and not run.line.pool.is_exclusive:  # the slot that was retained
                run.shares = ((run.host, run.shares[0][1] + 1),)
                run.line.granted += 1
                run.host.long_slots += run.is_long
    return ended


def starts_tasks(state: scheduler_state.SchedulerState, pool: pools.Pool) -> bool:
    """Return whether the pool starts tasks: not draining, quarantined, scaled to zero, paused or in
    an outage."""
    if state.draining or pool.is_quarantined or not (pool.spec.max or pool.workers):
        return False
    return not (state.controls.starts_nothing(pool.device) or pool.device in state.outages)


def work_us(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    record: core.TaskRecord,
    cost_us: float,
) -> float:
    """Return the time that a worker needs for a task on one slot; `cost_us`: as expected now."""
    if pool.spec.pace:
        return state.estimator.simulation_us(record.route, record.spec)
    return cost_us / (pool.small if cost_us <= SMALL_US else pool.large).speed


def worked_us(worker: pools.Worker, now_ns: int) -> float:
    """Return the time in microseconds for which a worker has worked on the tasks that it holds,
    after the kernels that it compiled once for them."""
    if not worker.working_since_ns:
        return 0.0
    return (now_ns - max(worker.working_since_ns, worker.compiling_ns)) / 1e3


def left_us(
    state: scheduler_state.SchedulerState,
    pool: pools.Pool,
    worker: pools.Worker,
    costs_us: list[float],
    now_ns: int,
) -> float:
    """Return the expected time until a worker has completed the tasks that it holds, which take
    `costs_us` on one slot."""
    first, *others = zip(worker.held.values(), costs_us, strict=True)
    later_us = sum(work_us(state, pool, record, cost_us) for record, cost_us in others)
    return later_us / pools.speedup_slots(worker) + running_us(state, worker, *first, now_ns)


def forecast_us(
    state: scheduler_state.SchedulerState,
    worker: pools.Worker,
    record: core.TaskRecord,
    cost_us: float,
) -> float:
    """Return the time that a worker needs for a task on the slots that it has."""
    return work_us(state, state.pools[worker.pool], record, cost_us) / pools.speedup_slots(worker)


def running_us(
    state: scheduler_state.SchedulerState,
    worker: pools.Worker,
    record: core.TaskRecord,
    cost_us: float,
    now_ns: int,
) -> float:
    """Return the expected time until a worker has completed its first task, which takes `cost_us`
    on one slot: by the rate of its progress if its engine reports that, else by its forecast."""
    elapsed_us = worked_us(worker, now_ns)
    expected_us = forecast_us(state, worker, record, cost_us)
    progress = worker.progress_of(record.number)
    if progress is not None and progress.fraction > progress.before:
        age_us = min(elapsed_us, (now_ns - worker.progress_ns) / 1e3)
        return max(0.0, rest_us(progress, expected_us, elapsed_us - age_us) - age_us)
    left_us = expected_us * (1.0 - progress.before) if progress is not None else expected_us
    return remaining_us(left_us, elapsed_us, state.estimator.quality(record.route).deviation)


def rest_us(progress: ProgressInfo, expected_us: float, elapsed_us: float) -> float:
    """Return the rest of a run by its rate: the work that it has done, without what earlier
    attempts had done, in the time that it has run. The forecast of the whole run weighs as much as
    FORECAST_WEIGHT of the work: a run begins with what is done once, such as loading kernels."""
    done = progress.fraction - progress.before + FORECAST_WEIGHT
    time_us = elapsed_us + FORECAST_WEIGHT * expected_us
    return (1.0 - progress.fraction) * time_us / done


def remaining_us(expected_us: float, elapsed_us: float, deviation: float) -> float:
    """Return the mean of the rest of a log-normal time whose mean is `expected_us` and that has
    lasted `elapsed_us`. `deviation`: mean of |ln(time / expected time)|. Far beyond the tail, and
    from OUTRUN times the mean on, the forecast says nothing: the rest is then expected to take as
    long as the run has taken, its median under a scale-free prior (Gott, Nature 363, 315, 1993)."""
    if elapsed_us <= 0 or expected_us <= 0:
        return expected_us
    sigma = max(deviation * math.sqrt(math.pi / 2), _LEAST_SIGMA)
    z = math.log(elapsed_us / expected_us) / sigma + sigma / 2
    if z > _FAR or elapsed_us >= OUTRUN * expected_us:
        return elapsed_us
    if sigma == _LEAST_SIGMA:
        return max(0.0, expected_us - elapsed_us)
    tail, weighted = math.erfc(z / math.sqrt(2)), math.erfc((z - sigma) / math.sqrt(2))
    return max(0.0, expected_us * weighted / tail - elapsed_us)


def spread(slots: Mapping[T, int], ranks: int) -> tuple[tuple[T, int], ...]:
    """Return places for the ranks of a new worker, on the largest nodes. `slots`: by node."""
    shares, left = list[tuple[T, int]](), ranks
    for host in sorted(slots, key=lambda each: -slots[each]):
        if left:
            shares.append((host, min(left, slots[host])))
            left -= shares[-1][1]
    return tuple(shares)


def new_task(pool: pools.Pool, owner: str, number: int, now_ns: int) -> core.TaskRecord:
    """Return a new task like those that wait, of priority 0, which would be accepted now."""
    tree = pool.queue.fair_share.tree
    account = next(iter(tree.accounts_of(owner)), ROOT if tree else "")
    batch = core.SubmitBatch(
        b"", TaskOptions(), "", 0, number, now_ns, owner=owner, account=account
    )
    route = core.Route("", "", pool.spec.name, 0, 0, 0.0, 0.0, 1, pool.spec.ranks)
    cost_us = pool.queue.backlog_us / max(1, len(pool.queue))
    return core.TaskRecord(number, TaskSpec(b"", 0, 0), batch, route, cost_us)
