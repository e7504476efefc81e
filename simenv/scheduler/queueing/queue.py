"""Queue of one pool's waiting tasks, in the order of its device's policy.

Tasks of a reservation with dedicated workers have lanes of their own, and its workers take only
from these. Other workers take from them when nothing else waits, or when the first task there has
waited one step of priority (60 s) longer than the first of all others. A requeued task goes to the
front of its lane. Removal is lazy: the entry of a cancelled task is skipped when it comes up.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice, zip_longest

from simenv.scheduler.core import WAITING, TaskRecord
from simenv.scheduler.queueing import lanes as queueing_lanes
from simenv.scheduler.queueing.lanes import LONG_US

MAX_STALE = 1_000
_MAX_RUN = 128  # tasks compared at a time if several lanes have tasks


class PoolQueue:
    """All waiting tasks of a pool. `len` does not count stale entries."""

    def __init__(self, order: queueing_lanes.QueuePolicy = queueing_lanes.PRIORITY) -> None:
        self.order = order
        # Cached comparison: read often, nearly always True.
        self._plain = order == queueing_lanes.PRIORITY
        # With the policy round_robin in the order of turns.
        self._lanes: dict[queueing_lanes.LaneKey, queueing_lanes.Lanes] = {}
        self._heads = queueing_lanes.LaneHeads()  # of several lanes, for the policy priority
        self._fair_shares = queueing_lanes.FairShares()
        self.held_back: Collection[str] = ()  # owners who have reached their limit of slots
        self._dedicated: dict[int, queueing_lanes.Lanes] = {}  # by reservation
        self.count = 0  # live entries
        self._stale = 0  # entries of tasks that have ended

    @property
    def backlog_us(self) -> float:
        """Expected work of the waiting tasks, on one slot."""
        return sum(lanes.small_us + lanes.large_us for lanes in self._all())

    def __len__(self) -> int:
        return self.count

    def append(self, records: list[TaskRecord]) -> None:
        """Add newly accepted tasks of one message, in order."""
        lanes, large_us, total_us = self._lanes_of(records[0]), 0.0, 0.0
        if len(self._lanes) > 1 and not lanes.any():
            self._add_owner(records[0].batch.owner)
        suspects, short, long = lanes.suspects, lanes.short, lanes.long
        for record in records:
            cost_us = record.cost_us
            total_us += cost_us
            if cost_us > queueing_lanes.SMALL_US:
                large_us += cost_us
            (suspects if record.incident else long if cost_us > LONG_US else short).append(record)
        lanes.large_us += large_us
        lanes.small_us += total_us - large_us
        self.count += len(records)
        if len(self._lanes) > 1:
            self._changed(records[0])

    def _changed(self, record: TaskRecord) -> None:
        """Note that the first task of this task's lane may have changed."""
        if self._plain and len(self._lanes) > 1:
            batch = record.batch
            self._heads.changed.add((batch.owner, batch.terms.priority))

    def _add_owner(self, owner: str) -> None:
        waiting = {key[0] for key, lanes in self._lanes.items() if lanes.any()}
        if owner not in waiting:
            self._fair_shares.add_owner(owner, waiting)

    def requeue_front(self, records: list[TaskRecord]) -> None:
        """Put the tasks of a lost worker at the front, in their old order."""
        for record in reversed(records):
            lanes = self._lanes_of(record)
            lanes.lane_of(record).appendleft(record)
            lanes.count_in(record.cost_us)
            self._changed(record)
        self.count += len(records)

    def head(self, allow_long: bool = True, reservation: int = 0) -> TaskRecord | None:
        """Return the next task, which stays in the queue until `pop`. `reservation`: from the lanes
        of its dedicated workers."""
        if not self.count:
            return None
        if reservation:
            lanes = self._dedicated.get(reservation)
            return None if lanes is None else lanes.head(allow_long)
        if len(self._lanes) == 1:
            ((key, lanes),) = self._lanes.items()
            head = None if key[0] in self.held_back else lanes.head(allow_long)
        else:
            head = self._first(allow_long)
        return self._or_dedicated(head, allow_long) if self._dedicated else head

    def _or_dedicated(self, shared: TaskRecord | None, allow_long: bool) -> TaskRecord | None:
        """Return the next task of the shared lanes, or one of a reservation whose own workers leave
        it waiting."""
        heads = [lanes.head(allow_long) for lanes in self._dedicated.values()]
        age_key = self.order.age_key
        dedicated = min((head for head in heads if head is not None), key=age_key, default=None)
        if dedicated is None or shared is None:
            return shared or dedicated
        return (
            dedicated
            if age_key(dedicated)[0] + queueing_lanes.STEP_NS < age_key(shared)[0]
            else shared
        )

    def _first(self, allow_long: bool) -> TaskRecord | None:
        """Return the next task of the shared lanes, if there are several lanes."""
        if self._plain:
            self._heads.refresh(self._lanes)
            by_owner = self._heads.first_by_owner(allow_long, self.held_back)
            if len(by_owner) > 1:
                return self._fair_shares.choose(by_owner)
            return next(iter(by_owner.values()), None)
        heads, empty = list[TaskRecord](), []
        for key, lanes in self._lanes.items():
            head = lanes.head(allow_long)
            if head is None:
                if not lanes.any():
                    empty.append(key)
            elif key[0] not in self.held_back:
                heads.append(head)
                if self.order.policy == "round_robin":
                    break
        for key in empty:  # an owner of many priorities must not slow down all others
            del self._lanes[key]
        return min(heads, key=self.order.sort_key, default=None)

    def pop(self, record: TaskRecord) -> None:
        """Remove the task that `head` returned. Its lane is searched, as it may no longer be a
        suspect."""
        lanes = self._lanes_of(record)
        _lane_with_head(lanes, record).popleft()
        self.count -= 1
        lanes.count_in(-record.cost_us)
        if len(self._lanes) > 1:
            self._changed(record)
            self._charge_turn(record, record.cost_us)

    def upcoming(self, reservation: int = 0, owner: str = "") -> tuple[queueing_lanes.Lane, int]:
        """Return the lane whose first task is the next one that is not long, and how many of its
        entries precede those of other lanes. The count is 0 if there is no such task. `owner`:
        owner of the chunk that is being built. The caller reports to `remove_taken` the tasks that
        it takes."""
        if reservation or len(self._lanes) <= 1 or not self._plain:
            record = self.head(False, reservation)
        else:  # a chunk is of one owner
            self._heads.refresh(self._lanes)
            record = self._heads.short_of(owner)
        if record is None:
            return deque(), 0
        lanes = self._lanes_of(record)
        if lanes.suspects:
            return (lanes.suspects if lanes.suspects[0] is record else lanes.short), 1
        if reservation or len(self._lanes) <= 1:
            return lanes.short, len(lanes.short)
        return lanes.short, self._run(lanes, record)

    def _run(self, lanes: queueing_lanes.Lanes, head: TaskRecord) -> int:
        """Return how many entries of a lane, from its first task `head`, precede those of other
        lanes."""
        if self.order.policy == "round_robin" or isinstance(lanes.short, queueing_lanes.SortedLane):
            return 1
        key = queueing_lanes.aged_priority if self._plain else self.order.sort_key
        competitors = self._competing_heads(lanes, head)
        if not competitors:
            return len(lanes.short)
        min_key, count = min(map(key, competitors)), 0
        max_count = min(_MAX_RUN, len(lanes.short))
        if key(lanes.short[max_count - 1]) < min_key:  # the entries before it precede them too
            return max_count
        for record in islice(lanes.short, _MAX_RUN):
            if record is not head and key(record) > min_key:
                break
            count += 1
        return count

    def _competing_heads(self, lanes: queueing_lanes.Lanes, head: TaskRecord) -> list[TaskRecord]:
        """Return the tasks of other lanes that could precede later tasks of the lane with first
        task `head`."""
        if self._plain:  # owners take turns by chunk; an owner's tasks are ordered one by one
            competitor = self._heads.competing_head(head.batch.owner)
            return [] if competitor is None else [competitor]
        others = (
            other.head(False)
            for key, other in self._lanes.items()
            if other is not lanes and key[0] not in self.held_back
        )
        return [record for record in others if record is not None]

    def remove_taken(self, last: TaskRecord, count: int, cost_us: float) -> None:
        """Count waiting tasks that were taken from a lane; `last` is one of them, `cost_us` their
        work."""
        if not count:
            return
        self.count -= count
        self._lanes_of(last).small_us -= cost_us
        self._changed(last)
        if len(self._lanes) > 1:
            self._charge_turn(last, cost_us)

    def _charge_turn(self, record: TaskRecord, cost_us: float) -> None:
        """Record that the lane of this task had its turn."""
        self._fair_shares.charge(record.batch.owner, cost_us)
        if self.order.policy == "round_robin":
            key = self.order.lane_key(record)
            lanes = self._lanes.pop(key, None)
            if lanes is not None:
                self._lanes[key] = lanes

    def postpone(self, record: TaskRecord) -> None:
        """Set aside the task that `head` returned, because it would not end before the allocation
        does."""
        lanes = self._lanes_of(record)
        lanes.late.append(_lane_with_head(lanes, record).popleft())
        self._changed(record)

    def drop(self, record: TaskRecord) -> None:
        """Remove a waiting task that became final; its entry is skipped when it comes up."""
        self.count -= 1
        self._stale += 1
        self._lanes_of(record).count_in(-record.cost_us)
        self._changed(record)
        if self._stale > self.count + MAX_STALE:
            self._sweep()

    def _sweep(self) -> None:
        """Remove stale entries; called when they outnumber the live ones."""
        for lanes in self._all():
            lanes.sweep()
        self._lanes = {key: lanes for key, lanes in self._lanes.items() if lanes.any()}
        self._heads = queueing_lanes.LaneHeads(self._lanes)
        self._stale = 0

    def owners(self) -> set[str]:
        """Return the owners who may have waiting tasks in the shared lanes."""
        return {key[0] for key in self._lanes}

    def has_short(self) -> bool:
        """Return whether any waiting task is not long."""
        shared: Iterable[queueing_lanes.Lanes] = self._lanes.values()
        if self._plain and len(self._lanes) > 1:
            self._heads.refresh(self._lanes)
            if self._heads.any_short():
                return True
            shared = ()
        return any(
            lanes.head(False) is not None for lanes in chain(shared, self._dedicated.values())
        )

    def arrange(self, order: queueing_lanes.QueuePolicy) -> None:
        """Change the policy, also for the order of waiting tasks."""
        if order != self.order:
            self.order, self._plain = order, order == queueing_lanes.PRIORITY
            self._build(tuple(self._dedicated))

    def add_dedicated_lanes(self, reservation: int) -> None:
        """Give the tasks of a reservation lanes of their own."""
        if reservation not in self._dedicated:
            self._build((*self._dedicated, reservation))

    def merge_dedicated_lanes(self, reservation: int) -> None:
        """Move the tasks of a reservation back into the shared lanes."""
        if reservation in self._dedicated:
            self._build(tuple(number for number in self._dedicated if number != reservation))

    def _build(self, reservations: tuple[int, ...]) -> None:
        """Rebuild all lanes, with lanes of their own for these reservations."""
        entries = [r for lanes in self._all() for lane in lanes.all() for r in lane]
        waiting = sorted((r for r in entries if r.phase == WAITING), key=_age)
        self._lanes, self._stale = {}, 0
        self._heads = queueing_lanes.LaneHeads()
        self._dedicated = {number: queueing_lanes.Lanes(self.order) for number in reservations}
        for record in waiting:
            lanes = self._lanes_of(record)
            lanes.lane_of(record).append(record)
            lanes.count_in(record.cost_us)

    def __iter__(self) -> Iterator[TaskRecord]:
        """Yield waiting tasks in the order in which they are tried: shared lanes, dedicated lanes,
        late tasks."""
        yield from self.shared()
        for lanes in self._dedicated.values():
            yield from lanes.tried()
        for lanes in self._all():
            yield from (record for record in lanes.late if record.phase == WAITING)

    def shared(self) -> Iterator[TaskRecord]:
        """Yield waiting tasks of the shared lanes in the order in which they are tried."""
        tried = [lanes.tried() for lanes in self._lanes.values()]
        if len(tried) == 1:
            yield from tried[0]
        elif self.order.policy == "round_robin":
            rounds = chain.from_iterable(zip_longest(*tried))
            yield from (record for record in rounds if record is not None)
        elif self.order.policy == "priority":
            iterators: dict[str, list[Iterator[TaskRecord]]] = {}
            for key, lane in zip(self._lanes, tried, strict=True):
                iterators.setdefault(key[0], []).append(lane)
            yield from self._fair_shares.merged(
                {
                    owner: heapq.merge(*each, key=queueing_lanes.aged_priority)
                    for owner, each in iterators.items()
                }
            )
        else:
            yield from heapq.merge(*tried, key=self.order.sort_key)

    @property
    def is_line(self) -> bool:
        """True if a new task of priority 0 certainly goes behind all others."""
        is_single = len(self._lanes) <= 1 and self.order.policy == "priority"
        return self.order.policy == "fifo" or (is_single and not any(key[1] for key in self._lanes))

    def is_late(self, record: TaskRecord) -> bool:
        """Return whether the task is set aside because it would not end before the allocation
        does."""
        late = self._lanes_of(record).late
        return bool(late) and record in late

    def dedicated_to(self, record: TaskRecord) -> int:
        """Return the reservation whose dedicated workers a task waits for; 0: none."""
        number = record.batch.terms.reservation
        return number if number in self._dedicated else 0

    def work_before_new(self, now_ns: int) -> queueing_lanes.Backlog:
        """Return the work ahead of a task of priority 0 that is submitted now."""
        return queueing_lanes.work_before_new(self.order, self._lanes, now_ns)

    def work_before(self, record: TaskRecord) -> queueing_lanes.Backlog:
        """Return an estimate of the work ahead of a waiting task, in constant time."""
        if self.dedicated_to(record):
            return queueing_lanes.work_before_in_lanes(self._lanes_of(record), record)
        return queueing_lanes.work_before_task(self.order, self._lanes, record)

    def _all(self) -> list[queueing_lanes.Lanes]:
        return [*self._lanes.values(), *self._dedicated.values()]

    def _lanes_of(self, record: TaskRecord) -> queueing_lanes.Lanes:
        if self._dedicated:
            lanes = self._dedicated.get(record.batch.terms.reservation)
            if lanes is not None:
                return lanes
        batch = record.batch
        key = (batch.owner, batch.terms.priority) if self._plain else self.order.lane_key(record)
        lanes = self._lanes.get(key)
        if lanes is None:
            lanes = self._lanes[key] = queueing_lanes.Lanes(self.order)
            if len(self._lanes) == 2:  # changes of the only lane were not marked
                self._heads = queueing_lanes.LaneHeads(self._lanes)
        return lanes


def _lane_with_head(lanes: queueing_lanes.Lanes, record: TaskRecord) -> queueing_lanes.Lane:
    for lane in (lanes.suspects, lanes.short, lanes.long):
        if lane and lane[0] is record:
            return lane
    raise LookupError(f"task {record.number} is not at the head of a lane")


def _age(record: TaskRecord) -> tuple[bool, int]:
    """Sort key: requeued tasks first, then by number."""
    return (record.attempts == 0, record.number)
