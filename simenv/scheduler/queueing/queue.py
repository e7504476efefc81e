"""Queue of one pool's waiting tasks, in the order of its device's policy.

`PoolQueue` counts its tasks, their work and their arrivals; `LaneTable` keeps them in their order.

Tasks of a reservation with dedicated workers have lanes of their own, and its workers take only
from these. Other workers take from them when nothing else waits, or when the first task there has
waited one step of priority (60 s) longer than the first of all others. A requeued task goes to the
front of its lane. Removal is lazy: the entry of a cancelled task is skipped when it comes up.
Invariant: where associations take turns, lanes whose first task may have changed are marked in
`LaneHeads`.
"""

from __future__ import annotations

import copy
import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice, zip_longest

from simenv.scheduler.core import WAITING, TaskRecord
from simenv.scheduler.queueing.arrivals import Arrivals
from simenv.scheduler.queueing.fair_share import FairShare, Turns, UsageOrder
from simenv.scheduler.queueing.lane_heads import LaneHeads, merged
from simenv.scheduler.queueing.lanes import (
    LONG_US,
    PRIORITY,
    SMALL_US,
    STEP_NS,
    Lane,
    LaneKey,
    Lanes,
    QueuePolicy,
    SortedLane,
    aged_priority,
)
from simenv.scheduler.queueing.waits import WaitClock

MAX_STALE = 1_000
MAX_STALE_BYTES = 64 * 2**20  # of programs of tasks that have ended
SWEPT_BYTES = 64  # of them for each waiting task, all of which a sweep goes through
_MAX_RUN = 128  # tasks compared at a time if several lanes have tasks
_PAUSE_TASKS = 128  # of a copy, between two calls of `pause`


class LaneTable:
    """Lanes of waiting tasks, in the order of a queue policy."""

    def __init__(self, order: QueuePolicy, shares: UsageOrder) -> None:
        """`shares`: decides between associations where they take turns."""
        self.order, self.shares = order, shares
        self._plain = order.takes_turns  # cached: read often, nearly always True
        # With the policy round_robin in the order of turns.
        self.shared: dict[LaneKey, Lanes] = {}
        # By reservation and association: an owner may submit for several accounts.
        self.dedicated: dict[int, dict[str, Lanes]] = {}
        self._heads = LaneHeads(shares)  # of several lanes, where associations take turns
        self.held_back: Collection[str] = ()  # associations at their limit of slots

    def copy(self, shares: UsageOrder, max_tasks: int) -> LaneTable:
        """Return a copy with at least the first `max_tasks` tasks of each lane, which are the
        same; `renew_heads` completes it."""
        result = LaneTable(self.order, shares)
        result.shared = {key: lanes.copy(max_tasks) for key, lanes in self.shared.items()}
        result.dedicated = {
            number: {leaf: lanes.copy(max_tasks) for leaf, lanes in each.items()}
            for number, each in self.dedicated.items()
        }
        result.held_back = self.held_back
        return result

    # --- lanes ------------------------------------------------------------------------------------

    def of(self, record: TaskRecord) -> Lanes:
        """Return the lanes of a task; they are made if there are none."""
        batch = record.batch
        if self.dedicated:
            own = self.dedicated.get(batch.terms.reservation)
            if own is not None:
                if batch.association not in own:
                    own[batch.association] = Lanes(self.order)
                return own[batch.association]
        key = (batch.association, batch.priority) if self._plain else self.order.lane_key(record)
        lanes = self.shared.get(key)
        if lanes is None:
            lanes = self.shared[key] = Lanes(self.order)
            if len(self.shared) == 2:  # changes of the only lane were not marked
                self.renew_heads()
        return lanes

    def all(self) -> list[Lanes]:
        return [*self.shared.values(), *self.all_dedicated()]

    def all_dedicated(self) -> Iterator[Lanes]:
        return chain.from_iterable(each.values() for each in self.dedicated.values())

    def dedicated_to(self, record: TaskRecord) -> int:
        """Return the reservation whose dedicated workers a task waits for; 0: none."""
        number = record.batch.terms.reservation
        return number if number in self.dedicated else 0

    def changed(self, record: TaskRecord) -> None:
        """Note that the first task of this task's lane may have changed."""
        if self._plain and len(self.shared) > 1:
            batch = record.batch
            self._heads.changed[batch.association, batch.priority] = None

    def add_association(self, leaf: str) -> None:
        """Give an association whose first tasks come now a turn as early as that of the others."""
        waiting = {key[0] for key, lanes in self.shared.items() if lanes.any()}
        if leaf not in waiting:
            self.shares.arrive(leaf, waiting)

    def end_turn(self, record: TaskRecord) -> None:
        """Put the lane of a task behind the others, with the policy round_robin."""
        if self.order.policy == "round_robin" and len(self.shared) > 1:
            key = self.order.lane_key(record)
            lanes = self.shared.pop(key, None)
            if lanes is not None:
                self.shared[key] = lanes

    def hold_back(self, leaves: frozenset[str]) -> None:
        """Assign no tasks of these associations, and of all others, from now on."""
        if leaves != self.held_back:
            self.held_back = leaves
            self._heads.hold(leaves)

    def renew_heads(self) -> None:
        """Note that the first tasks of all lanes may have changed."""
        self._heads = LaneHeads(self.shares, self.shared)
        self._heads.hold(self.held_back)

    def arrange(self, order: QueuePolicy, shares: UsageOrder) -> None:
        """Change the policy, also for the order of waiting tasks."""
        self.order, self._plain, self.shares = order, order.takes_turns, shares
        self.build(tuple(self.dedicated))

    def build(self, reservations: tuple[int, ...]) -> None:
        """Rebuild all lanes, with lanes of their own for these reservations."""
        entries = [r for lanes in self.all() for lane in lanes.all() for r in lane]
        waiting = sorted((r for r in entries if r.phase == WAITING), key=_age)
        self.shared, self.dedicated = {}, {number: {} for number in reservations}
        for record in waiting:
            lanes = self.of(record)
            lanes.lane_of(record).append(record)
            lanes.count_in(record.cost_us)
        self.renew_heads()

    def sweep(self) -> None:
        """Remove stale entries."""
        for lanes in self.all():
            lanes.sweep()
        self.shared = {key: lanes for key, lanes in self.shared.items() if lanes.any()}
        self.renew_heads()

    # --- the next task ----------------------------------------------------------------------------

    def head(self, allow_long: bool = True, reservation: int = 0) -> TaskRecord | None:
        """Return the next task; see `PoolQueue.head`."""
        if reservation:
            return self._dedicated_head(self.dedicated.get(reservation, {}), allow_long)
        if len(self.shared) == 1:
            ((key, lanes),) = self.shared.items()
            head = None if key[0] in self.held_back else lanes.head(allow_long)
        else:
            head = self._first(allow_long)
        return self._or_dedicated(head, allow_long) if self.dedicated else head

    def _dedicated_head(self, lanes: dict[str, Lanes], allow_long: bool) -> TaskRecord | None:
        """Return the next task of a reservation's lanes, of an association that is not held
        back."""
        free = (each for leaf, each in lanes.items() if leaf not in self.held_back)
        heads = (head for each in free if (head := each.head(allow_long)) is not None)
        return min(heads, key=self.order.sort_key, default=None)

    def _or_dedicated(self, shared: TaskRecord | None, allow_long: bool) -> TaskRecord | None:
        """Return the next task of the shared lanes, or one of a reservation whose own workers leave
        it waiting."""
        heads = [self._dedicated_head(lanes, allow_long) for lanes in self.dedicated.values()]
        age_key = self.order.age_key
        dedicated = min((head for head in heads if head is not None), key=age_key, default=None)
        if dedicated is None or shared is None:
            return shared or dedicated
        return dedicated if age_key(dedicated)[0] + STEP_NS < age_key(shared)[0] else shared

    def _first(self, allow_long: bool) -> TaskRecord | None:
        """Return the next task of the shared lanes, if there are several lanes."""
        if self._plain:
            self._heads.refresh(self.shared)
            return self._heads.first(allow_long)
        heads, empty = list[TaskRecord](), []
        for key, lanes in self.shared.items():
            head = lanes.head(allow_long)
            if head is None:
                if not lanes.any():
                    empty.append(key)
            elif key[0] not in self.held_back:
                heads.append(head)
                if self.order.policy == "round_robin":
                    break
        for key in empty:  # an owner of many priorities must not slow down all others
            del self.shared[key]
        return min(heads, key=self.order.sort_key, default=None)

    def upcoming(
        self,
        reservation: int = 0,
        last: TaskRecord | None = None,
        *,
        others: bool = True,
    ) -> tuple[Lane, int]:
        """Return the lane whose first task is the next one that is not long, and how many of its
        entries precede those of other lanes. The count is 0 if there is no such task. `last`: last
        task of the chunk that is being built, whose association continues its turn while it has
        such tasks. `others`: then another association has its turn. The caller reports to
        `remove_taken` the tasks that it takes."""
        if reservation or last is None or len(self.shared) <= 1 or not self._plain:
            record = self.head(False, reservation)
        else:
            batch = last.batch
            key = batch.association, batch.priority
            lanes = self.shared.get(key)
            if (
                lanes is not None
                and lanes.short
                and not (lanes.suspects or self.dedicated)
                and self._heads.is_only_lane(key)
            ):
                return lanes.short, len(lanes.short)
            self._heads.refresh(self.shared)
            record = self._heads.short_of(batch.association)
            if record is None and others:
                record = self._heads.first(False)
        if record is None:
            return deque(), 0
        lanes = self.of(record)
        if lanes.suspects:
            return (lanes.suspects if lanes.suspects[0] is record else lanes.short), 1
        number = self.dedicated_to(record) if self.dedicated else 0
        if number and sum(each.any() for each in self.dedicated[number].values()) > 1:
            return lanes.short, 1
        if reservation or len(self.shared) <= 1:
            return lanes.short, len(lanes.short)
        return lanes.short, self._run(lanes, record)

    def _run(self, lanes: Lanes, head: TaskRecord) -> int:
        """Return how many entries of a lane, from its first task `head`, precede those of other
        lanes."""
        if self.order.policy == "round_robin" or isinstance(lanes.short, SortedLane):
            return 1
        key = aged_priority if self._plain else self.order.sort_key
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

    def _competing_heads(self, lanes: Lanes, head: TaskRecord) -> list[TaskRecord]:
        """Return the tasks of other lanes that could precede later tasks of the lane with first
        task `head`."""
        if self._plain:  # owners take turns by chunk; an owner's tasks are ordered one by one
            competitor = self._heads.competing_head(head.batch.association)
            return [] if competitor is None else [competitor]
        others = (
            other.head(False)
            for key, other in self.shared.items()
            if other is not lanes and key[0] not in self.held_back
        )
        return [record for record in others if record is not None]

    def has_short(self) -> bool:
        """Return whether any waiting task is not long."""
        shared: Iterable[Lanes] = self.shared.values()
        if self._plain and len(self.shared) > 1:
            self._heads.refresh(self.shared)
            if self._heads.any_short() or not self.dedicated:
                return self._heads.any_short()
            shared = ()
        lanes = chain(shared, self.all_dedicated())
        return any(each.head(False) is not None for each in lanes)

    # --- all tasks --------------------------------------------------------------------------------

    def in_order(self, rate: float, waiting: int) -> Iterator[TaskRecord]:
        """Yield waiting tasks in the order in which they are tried: shared lanes, dedicated lanes,
        late tasks. `rate` and `waiting`: see `merged`."""
        yield from self.shared_in_order(rate, waiting)
        for each in self.dedicated.values():
            tried = [lanes.tried() for lanes in each.values()]
            yield from heapq.merge(*tried, key=self.order.sort_key) if tried[1:] else chain(*tried)
        for lanes in self.all():
            yield from (record for record in lanes.late if record.phase == WAITING)

    def shared_in_order(self, rate: float, waiting: int) -> Iterator[TaskRecord]:
        """Yield waiting tasks of the shared lanes in the order in which they are tried."""
        if self._plain and len(self.shared) > 1:
            yield from merged(self._by_association(), self.shares, rate, waiting)
            return
        tried = [lanes.tried() for lanes in self.shared.values()]
        if len(tried) == 1:
            yield from tried[0]
        elif self.order.policy == "round_robin":
            rounds = chain.from_iterable(zip_longest(*tried))
            yield from (record for record in rounds if record is not None)
        else:
            yield from heapq.merge(*tried, key=self.order.sort_key)

    def _by_association(self) -> dict[str, Iterator[TaskRecord]]:
        """Return the waiting tasks of the shared lanes of each association, in their order, where
        associations take turns."""
        lanes: dict[str, list[Iterator[TaskRecord]]] = {}
        for (leaf, _), each in self.shared.items():
            lanes.setdefault(leaf, []).append(each.tried())
        return {
            leaf: heapq.merge(*each, key=aged_priority) if each[1:] else each[0]
            for leaf, each in lanes.items()
        }


class PoolQueue:
    """All waiting tasks of a pool. `len` does not count stale entries."""

    def __init__(self, order: QueuePolicy = PRIORITY) -> None:
        self.fair_share = FairShare()  # replaced by the one of all queues together
        self.rate = 1e-6  # billing units of a microsecond of expected work
        self.is_shared = order.policy == "fair_share"
        self.lanes = LaneTable(order, self.fair_share if self.is_shared else Turns())
        self.clock = WaitClock()
        self.arrivals: dict[str, Arrivals] = {}  # by association, with the policy `fair_share`
        self._waiting: dict[str, int] = {}  # tasks of each association
        self.count = 0  # live entries
        self.instant = 0  # of these, tasks of no length, whose start a forecast asks for
        self._stale = self._stale_bytes = 0  # entries of tasks that have ended, and their programs

    @property
    def backlog_us(self) -> float:
        """Expected work of the waiting tasks, on one slot; never negative, as their sums may be by
        rounding."""
        total_us = sum(lanes.small_us + lanes.large_us for lanes in self.lanes.all())
        return max(0.0, total_us) if self.count else 0.0

    def __len__(self) -> int:
        count, instant = self.count, self.instant
        return max(count - instant, 1) if instant and count else count

    def append(self, records: list[TaskRecord]) -> None:
        """Add newly accepted tasks of one message, in order."""
        table, large_us, total_us = self.lanes, 0.0, 0.0
        lanes = table.of(records[0])
        if len(table.shared) > 1 and not (self.is_shared or lanes.any()):
            table.add_association(records[0].batch.association)
        suspects, short, long = lanes.suspects, lanes.short, lanes.long
        for record in records:
            cost_us = record.cost_us
            total_us += cost_us
            if cost_us > SMALL_US:
                large_us += cost_us
            (suspects if record.incident else long if cost_us > LONG_US else short).append(record)
        lanes.large_us += large_us
        lanes.small_us += total_us - large_us
        self.count += len(records)
        batch = records[0].batch
        self._arrived(batch.association, len(records))
        if self.is_shared:
            arrivals = self.arrivals.get(batch.association)
            if arrivals is None:
                now_ns = batch.accepted_ns
                arrivals = self.arrivals[batch.association] = Arrivals(batch, now_ns, now_ns)
            arrivals.note(batch, len(records), total_us)
        table.changed(records[0])

    def _arrived(self, leaf: str, count: int) -> None:
        waiting = self._waiting.get(leaf, 0)
        self._waiting[leaf] = waiting + count
        if not waiting and self.clock.runs:
            self.clock.arrived(leaf)

    def _left(self, leaf: str, count: int) -> None:
        left = self._waiting.get(leaf, 0) - count
        if left > 0:
            self._waiting[leaf] = left
        else:
            self._waiting.pop(leaf, None)

    def requeue_front(self, records: list[TaskRecord]) -> None:
        """Put the tasks of a lost worker at the front, in their old order."""
        for record in reversed(records):
            lanes = self.lanes.of(record)
            lanes.lane_of(record).appendleft(record)
            lanes.count_in(record.cost_us)
            self.lanes.changed(record)
            self._arrived(record.batch.association, 1)
            self.fair_share.ended(record.batch.association, 1, self.units(record))
        self.count += len(records)

    def units(self, record: TaskRecord) -> float:
        """Return the billing units that a task is expected to use."""
        return record.cost_us * self.rate * record.batch.usage_factor

    def head(self, allow_long: bool = True, reservation: int = 0) -> TaskRecord | None:
        """Return the next task, which stays in the queue until `pop`. `reservation`: from the lanes
        of its dedicated workers."""
        return self.lanes.head(allow_long, reservation) if self.count else None

    def pop(self, record: TaskRecord) -> None:
        """Remove the task that `head` returned. Its lane is searched, as it may no longer be a
        suspect."""
        lanes = self.lanes.of(record)
        _lane_with_head(lanes, record).popleft()
        self.count -= 1
        lanes.count_in(-record.cost_us)
        self.lanes.changed(record)
        self._charge_turn(record, 1, record.cost_us)

    def remove_taken(self, last: TaskRecord, count: int, cost_us: float) -> None:
        """Count waiting tasks that were taken from a lane; `last` is one of them, `cost_us` their
        work."""
        if not count:
            return
        self.count -= count
        self.lanes.of(last).small_us -= cost_us
        self.lanes.changed(last)
        self._charge_turn(last, count, cost_us)

    def _charge_turn(self, record: TaskRecord, count: int, cost_us: float) -> None:
        """Record that the lane of this task had its turn, with so many tasks."""
        batch = record.batch
        self._left(batch.association, count)
        units = cost_us * self.rate * batch.usage_factor
        self.fair_share.assigned(batch.association, count, units)
        if not self.is_shared and len(self.lanes.shared) > 1:
            self.lanes.shares.assigned(batch.association, count, units)
        self.lanes.end_turn(record)

    def postpone(self, record: TaskRecord) -> None:
        """Set aside the task that `head` returned, because it would not end before the allocation
        or a maintenance."""
        lanes = self.lanes.of(record)
        lanes.late.append(_lane_with_head(lanes, record).popleft())
        self.lanes.changed(record)

    @property
    def late(self) -> int:
        """Number of tasks that are set aside."""
        return len(self.late_tasks())

    def late_tasks(self) -> list[TaskRecord]:
        """Return the tasks that are set aside, see `postpone`."""
        return [r for lanes in self.lanes.all() for r in lanes.late if r.phase == WAITING]

    def readmit_late(self) -> None:
        """Put the tasks that are set aside back at the front, in their old order."""
        for lanes in self.lanes.all():
            while lanes.late:
                record = lanes.late.pop()
                lanes.lane_of(record).appendleft(record)
                self.lanes.changed(record)

    def drop(self, record: TaskRecord) -> None:
        """Remove a waiting task that became final; its entry is skipped when it comes up."""
        self.count -= 1
        self._stale += 1
        self._stale_bytes += record.size_bytes
        self.lanes.of(record).count_in(-record.cost_us)
        self._left(record.batch.association, 1)
        self.lanes.changed(record)
        most_bytes = max(MAX_STALE_BYTES, self.count * SWEPT_BYTES)
        if self._stale > self.count + MAX_STALE or self._stale_bytes > most_bytes:
            # They outnumber live ones, or take much memory, which no limit of their owner counts.
            self.lanes.sweep()
            self._stale = self._stale_bytes = 0

    def associations(self) -> set[str]:
        """Return the associations that have waiting tasks."""
        return set(self._waiting)

    def arrange(self, order: QueuePolicy) -> None:
        """Change the policy, also for the order of waiting tasks."""
        if order != self.lanes.order:
            self.is_shared = order.policy == "fair_share"
            self.lanes.arrange(order, self.fair_share if self.is_shared else Turns())
            self._stale = self._stale_bytes = 0

    def add_dedicated_lanes(self, reservation: int) -> None:
        """Give the tasks of a reservation lanes of their own."""
        if reservation not in self.lanes.dedicated:
            self._build((*self.lanes.dedicated, reservation))

    def merge_dedicated_lanes(self, reservation: int) -> None:
        """Move the tasks of a reservation back into the shared lanes."""
        if reservation in self.lanes.dedicated:
            self._build(tuple(each for each in self.lanes.dedicated if each != reservation))

    def _build(self, reservations: tuple[int, ...]) -> None:
        self.lanes.build(reservations)
        self._stale = self._stale_bytes = 0

    def __iter__(self) -> Iterator[TaskRecord]:
        """Yield waiting tasks in the order in which they are tried: shared lanes, dedicated lanes,
        late tasks."""
        return self.lanes.in_order(self.rate, self.count)

    def shared(self) -> Iterator[TaskRecord]:
        """Yield waiting tasks of the shared lanes in the order in which they are tried."""
        return self.lanes.shared_in_order(self.rate, self.count)

    def copy(self, fair_share: FairShare, max_tasks: int) -> PoolQueue:
        """Return a copy that orders by `fair_share`, with at least the first `max_tasks` tasks. The
        tasks are the same: see `own_tasks`."""
        result = PoolQueue(self.lanes.order)
        result.fair_share, result.rate = fair_share, self.rate
        shares = fair_share if self.is_shared else self.lanes.shares.copy()
        result.lanes = self.lanes.copy(shares, max_tasks)
        result.arrivals = {leaf: copy.copy(each) for leaf, each in self.arrivals.items()}
        result.count = self.count
        return result

    def own_tasks(
        self,
        copy_of: Callable[[TaskRecord], TaskRecord],
        max_tasks: int,
        pause: Callable[[], object],
    ) -> None:
        """Replace the tasks of a copied queue by copies of them, of the first `max_tasks` alone.
        Those that have left the queue since are left out. `pause` is called often."""
        chosen: Collection[int] | None = None
        if self.count > max_tasks:
            chosen = {record.number for record in islice(self, max_tasks)}
        self.count, self._waiting = 0, {}
        seen = set[int]()
        for lanes in self.lanes.all():
            lanes.small_us = lanes.large_us = 0.0
            for lane in lanes.all():
                own = list[TaskRecord]()
                for record in lane:
                    number = record.number
                    if record.phase != WAITING or number in seen:
                        continue
                    if chosen is not None and number not in chosen:
                        continue
                    seen.add(number)
                    if not len(seen) % _PAUSE_TASKS:
                        pause()
                    own.append(copy_of(record))
                    lanes.count_in(record.cost_us)
                    leaf = record.batch.association
                    self._waiting[leaf] = self._waiting.get(leaf, 0) + 1
                lane.clear()
                lane.extend(own)
        self.count = len(seen)
        self.lanes.renew_heads()


def _lane_with_head(lanes: Lanes, record: TaskRecord) -> Lane:
    for lane in (lanes.suspects, lanes.short, lanes.long):
        if lane and lane[0] is record:
            return lane
    raise LookupError(f"task {record.number} is not at the head of a lane")


def _age(record: TaskRecord) -> tuple[bool, int]:
    """Sort key: requeued tasks first, then by number."""
    return (record.attempts == 0, record.number)
