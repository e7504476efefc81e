"""Queue of one pool's waiting tasks, in the order of its device's policy.

Tasks of a reservation with dedicated workers have lanes of their own, and its workers take only
from these. Other workers take from them when nothing else waits, or when the first task there has
waited one step of priority (60 s) longer than the first of all others. A requeued task goes to the
front of its lane. Removal is lazy: the entry of a cancelled task is skipped when it comes up.
"""

from __future__ import annotations

import copy
import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain, islice, zip_longest

import msgspec

from simenv.scheduler.core import WAITING, SubmitBatch, TaskRecord
from simenv.scheduler.queueing import lanes as queueing_lanes
from simenv.scheduler.queueing.fair_share import FairShare, Turns, UsageOrder
from simenv.scheduler.queueing.lane_heads import LaneHeads, merged
from simenv.scheduler.queueing.lanes import LONG_US
from simenv.scheduler.queueing.waits import WaitClock

MAX_STALE = 1_000
MAX_STALE_BYTES = 64 * 2**20  # of programs of tasks that have ended
SWEPT_BYTES = 64  # of them for each waiting task, all of which a sweep goes through
_MAX_RUN = 128  # tasks compared at a time if several lanes have tasks
ARRIVALS_NS = 3 * 3_600_000_000_000  # for which arrivals count, with decreasing weight
PRIOR_NS = 600_000_000_000  # time without arrivals that is assumed before the first
KNOWN_NS = 600_000_000_000  # nothing is expected of an association that came later than this


class Arrivals(msgspec.Struct):
    """Arrivals of one association. Those of its first time are not counted: what comes when a
    service starts, or a campaign begins, says nothing about how often more comes."""

    batch: SubmitBatch  # the last one
    first_ns: int
    last_ns: int
    tasks: float = 0.0  # weighted
    work_us: float = 0.0  # weighted, of all of them
    messages: float = 0.0  # weighted

    def note(self, batch: SubmitBatch, tasks: int, work_us: float) -> None:
        """Count tasks that are accepted."""
        now_ns = batch.accepted_ns
        self.batch = batch
        if now_ns <= self.first_ns:
            return
        weight = math.exp((self.last_ns - now_ns) / ARRIVALS_NS) if now_ns > self.last_ns else 1.0
        self.last_ns = max(self.last_ns, now_ns)
        self.tasks = self.tasks * weight + tasks
        self.work_us = self.work_us * weight + work_us
        self.messages = self.messages * weight + 1.0

    def every_us(self, now_ns: int) -> float:
        """Return the mean time between two submissions; infinite if none is expected."""
        if now_ns - self.first_ns < KNOWN_NS:
            return math.inf
        weight = math.exp((self.last_ns - now_ns) / ARRIVALS_NS)
        known_ns = ARRIVALS_NS * -math.expm1((self.first_ns - now_ns) / ARRIVALS_NS) + PRIOR_NS
        often = self.messages * weight / known_ns
        return 1e-3 / often if often > 1e-17 else math.inf


class PoolQueue:
    """All waiting tasks of a pool. `len` does not count stale entries."""

    def __init__(self, order: queueing_lanes.QueuePolicy = queueing_lanes.PRIORITY) -> None:
        self.order = order
        self.fair_share = FairShare()  # replaced by the one of all queues together
        self.rate = 1e-6  # billing units of a microsecond of expected work
        # Cached: read often, nearly always True.
        self._plain = order.takes_turns
        self._is_shared = order.policy == "fair_share"
        # With the policy round_robin in the order of turns.
        self._lanes: dict[queueing_lanes.LaneKey, queueing_lanes.Lanes] = {}
        self._shares: UsageOrder = self.fair_share if self._is_shared else Turns()
        self._heads = LaneHeads(self._shares)  # of several lanes, where associations take turns
        self.held_back: Collection[str] = ()  # associations at their limit of slots
        self.clock = WaitClock()
        self.arrivals: dict[str, Arrivals] = {}  # by association, with the policy `fair_share`
        self._waiting: dict[str, int] = {}  # tasks of each association
        # By reservation and association: an owner may submit for several accounts.
        self._dedicated: dict[int, dict[str, queueing_lanes.Lanes]] = {}
        self.count = 0  # live entries
        self.instant = 0  # of these, tasks of no length, whose start a forecast asks for
        self._stale = self._stale_bytes = 0  # entries of tasks that have ended, and their programs

    @property
    def backlog_us(self) -> float:
        """Expected work of the waiting tasks, on one slot; never negative, as their sums may be by
        rounding."""
        total_us = sum(lanes.small_us + lanes.large_us for lanes in self._all())
        return max(0.0, total_us) if self.count else 0.0

    def __len__(self) -> int:
        count, instant = self.count, self.instant
        return max(count - instant, 1) if instant and count else count

    def append(self, records: list[TaskRecord]) -> None:
        """Add newly accepted tasks of one message, in order."""
        lanes, large_us, total_us = self._lanes_of(records[0]), 0.0, 0.0
        if len(self._lanes) > 1 and not lanes.any():
            self._add_association(records[0].batch.association)
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
        batch = records[0].batch
        self._arrived(batch.association, len(records))
        if self._is_shared:
            arrivals = self.arrivals.get(batch.association)
            if arrivals is None:
                now_ns = batch.accepted_ns
                arrivals = self.arrivals[batch.association] = Arrivals(batch, now_ns, now_ns)
            arrivals.note(batch, len(records), total_us)
        if len(self._lanes) > 1:
            self._changed(records[0])

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

    def _changed(self, record: TaskRecord) -> None:
        """Note that the first task of this task's lane may have changed."""
        if self._plain and len(self._lanes) > 1:
            batch = record.batch
            self._heads.changed[batch.association, batch.priority] = None

    def _add_association(self, leaf: str) -> None:
        if not self._is_shared:
            waiting = {key[0] for key, lanes in self._lanes.items() if lanes.any()}
            if leaf not in waiting:
                self._shares.arrive(leaf, waiting)

    def requeue_front(self, records: list[TaskRecord]) -> None:
        """Put the tasks of a lost worker at the front, in their old order."""
        for record in reversed(records):
            lanes = self._lanes_of(record)
            lanes.lane_of(record).appendleft(record)
            lanes.count_in(record.cost_us)
            self._changed(record)
            self._arrived(record.batch.association, 1)
            self.fair_share.ended(record.batch.association, 1, self.units(record))
        self.count += len(records)

    @property
    def is_shared(self) -> bool:
        """True with the policy `fair_share`."""
        return self._is_shared

    def units(self, record: TaskRecord) -> float:
        """Return the billing units that a task is expected to use."""
        return record.cost_us * self.rate * record.batch.usage_factor

    def head(self, allow_long: bool = True, reservation: int = 0) -> TaskRecord | None:
        """Return the next task, which stays in the queue until `pop`. `reservation`: from the lanes
        of its dedicated workers."""
        if not self.count:
            return None
        if reservation:
            return self._dedicated_head(self._dedicated.get(reservation, {}), allow_long)
        if len(self._lanes) == 1:
            ((key, lanes),) = self._lanes.items()
            head = None if key[0] in self.held_back else lanes.head(allow_long)
        else:
            head = self._first(allow_long)
        return self._or_dedicated(head, allow_long) if self._dedicated else head

    def _dedicated_head(
        self, lanes: dict[str, queueing_lanes.Lanes], allow_long: bool
    ) -> TaskRecord | None:
        """Return the next task of a reservation's lanes, of an association that is not held
        back."""
        free = (each for leaf, each in lanes.items() if leaf not in self.held_back)
        heads = (head for each in free if (head := each.head(allow_long)) is not None)
        return min(heads, key=self.order.sort_key, default=None)

    def _or_dedicated(self, shared: TaskRecord | None, allow_long: bool) -> TaskRecord | None:
        """Return the next task of the shared lanes, or one of a reservation whose own workers leave
        it waiting."""
        heads = [self._dedicated_head(lanes, allow_long) for lanes in self._dedicated.values()]
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
            return self._heads.first(allow_long)
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
        self._changed(record)
        self._charge_turn(record, 1, record.cost_us)

    def upcoming(
        self,
        reservation: int = 0,
        last: TaskRecord | None = None,
        *,
        others: bool = True,
    ) -> tuple[queueing_lanes.Lane, int]:
        """Return the lane whose first task is the next one that is not long, and how many of its
        entries precede those of other lanes. The count is 0 if there is no such task. `last`: last
        task of the chunk that is being built, whose association continues its turn while it has
        such tasks. `others`: then another association has its turn. The caller reports to
        `remove_taken` the tasks that it takes."""
        if reservation or last is None or len(self._lanes) <= 1 or not self._plain:
            record = self.head(False, reservation)
        else:
            batch = last.batch
            key = batch.association, batch.priority
            lanes = self._lanes.get(key)
            if (
                lanes is not None
                and lanes.short
                and not (lanes.suspects or self._dedicated)
                and self._heads.is_only_lane(key)
            ):
                return lanes.short, len(lanes.short)
            self._heads.refresh(self._lanes)
            record = self._heads.short_of(batch.association)
            if record is None and others:
                record = self._heads.first(False)
        if record is None:
            return deque(), 0
        lanes = self._lanes_of(record)
        if lanes.suspects:
            return (lanes.suspects if lanes.suspects[0] is record else lanes.short), 1
        number = self.dedicated_to(record) if self._dedicated else 0
        if number and sum(each.any() for each in self._dedicated[number].values()) > 1:
            return lanes.short, 1
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
            competitor = self._heads.competing_head(head.batch.association)
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
        self._charge_turn(last, count, cost_us)

    def _charge_turn(self, record: TaskRecord, count: int, cost_us: float) -> None:
        """Record that the lane of this task had its turn, with so many tasks."""
        batch = record.batch
        self._left(batch.association, count)
        units = cost_us * self.rate * batch.usage_factor
        self.fair_share.assigned(batch.association, count, units)
        if not self._is_shared and len(self._lanes) > 1:
            self._shares.assigned(batch.association, count, units)
        if self.order.policy == "round_robin" and len(self._lanes) > 1:
            key = self.order.lane_key(record)
            lanes = self._lanes.pop(key, None)
            if lanes is not None:
                self._lanes[key] = lanes

    def postpone(self, record: TaskRecord) -> None:
        """Set aside the task that `head` returned, because it would not end before the allocation
        or a maintenance."""
        lanes = self._lanes_of(record)
        lanes.late.append(_lane_with_head(lanes, record).popleft())
        self._changed(record)

    @property
    def late(self) -> int:
        """Number of tasks that are set aside."""
        return len(self.late_tasks())

    def late_tasks(self) -> list[TaskRecord]:
        """Return the tasks that are set aside, see `postpone`."""
        return [r for lanes in self._all() for r in lanes.late if r.phase == WAITING]

    def readmit_late(self) -> None:
        """Put the tasks that are set aside back at the front, in their old order."""
        for lanes in self._all():
            while lanes.late:
                record = lanes.late.pop()
                lanes.lane_of(record).appendleft(record)
                self._changed(record)

    def drop(self, record: TaskRecord) -> None:
        """Remove a waiting task that became final; its entry is skipped when it comes up."""
        self.count -= 1
        self._stale += 1
        self._stale_bytes += record.size_bytes
        self._lanes_of(record).count_in(-record.cost_us)
        self._left(record.batch.association, 1)
        self._changed(record)
        most_bytes = max(MAX_STALE_BYTES, self.count * SWEPT_BYTES)
        if self._stale > self.count + MAX_STALE or self._stale_bytes > most_bytes:
            self._sweep()

    def _sweep(self) -> None:
        """Remove stale entries; called when they outnumber the live ones, or take much memory: no
        limit of their owner counts them."""
        for lanes in self._all():
            lanes.sweep()
        self._lanes = {key: lanes for key, lanes in self._lanes.items() if lanes.any()}
        self._renew_heads()
        self._stale = self._stale_bytes = 0

    def _renew_heads(self) -> None:
        self._heads = LaneHeads(self._shares, self._lanes)
        self._heads.hold(self.held_back)

    def hold_back(self, leaves: frozenset[str]) -> None:
        """Assign no tasks of these associations, and of all others, from now on."""
        if leaves != self.held_back:
            self.held_back = leaves
            self._heads.hold(leaves)

    def associations(self) -> set[str]:
        """Return the associations that have waiting tasks."""
        return set(self._waiting)

    def has_short(self) -> bool:
        """Return whether any waiting task is not long."""
        shared: Iterable[queueing_lanes.Lanes] = self._lanes.values()
        if self._plain and len(self._lanes) > 1:
            self._heads.refresh(self._lanes)
            if self._heads.any_short() or not self._dedicated:
                return self._heads.any_short()
            shared = ()
        lanes = chain(shared, self._all_dedicated())
        return any(each.head(False) is not None for each in lanes)

    def arrange(self, order: queueing_lanes.QueuePolicy) -> None:
        """Change the policy, also for the order of waiting tasks."""
        if order != self.order:
            self.order, self._plain = order, order.takes_turns
            self._is_shared = order.policy == "fair_share"
            self._shares = self.fair_share if self._is_shared else Turns()
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
        self._lanes, self._stale, self._stale_bytes = {}, 0, 0
        self._dedicated = {number: {} for number in reservations}
        for record in waiting:
            lanes = self._lanes_of(record)
            lanes.lane_of(record).append(record)
            lanes.count_in(record.cost_us)
        self._renew_heads()

    def __iter__(self) -> Iterator[TaskRecord]:
        """Yield waiting tasks in the order in which they are tried: shared lanes, dedicated lanes,
        late tasks."""
        yield from self.shared()
        yield from self._others()

    def _others(self) -> Iterator[TaskRecord]:
        for each in self._dedicated.values():
            tried = [lanes.tried() for lanes in each.values()]
            yield from heapq.merge(*tried, key=self.order.sort_key) if tried[1:] else chain(*tried)
        for lanes in self._all():
            yield from (record for record in lanes.late if record.phase == WAITING)

    def shared(self) -> Iterator[TaskRecord]:
        """Yield waiting tasks of the shared lanes in the order in which they are tried."""
        if self._plain and len(self._lanes) > 1:
            yield from merged(self._by_association(), self._shares, self.rate, self.count)
            return
        tried = [lanes.tried() for lanes in self._lanes.values()]
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
        for (leaf, _), each in self._lanes.items():
            lanes.setdefault(leaf, []).append(each.tried())
        return {
            leaf: heapq.merge(*each, key=queueing_lanes.aged_priority) if each[1:] else each[0]
            for leaf, each in lanes.items()
        }

    def copy(self, fair_share: FairShare, max_tasks: int) -> PoolQueue:
        """Return a copy that orders by `fair_share`, with at least the first `max_tasks` tasks. The
        tasks are the same: see `own_tasks`."""
        result = PoolQueue(self.order)
        result.fair_share, result.rate = fair_share, self.rate
        result._shares = fair_share if self._is_shared else self._shares.copy()
        result.arrivals = {leaf: copy.copy(each) for leaf, each in self.arrivals.items()}
        result._lanes = {key: lanes.copy(max_tasks) for key, lanes in self._lanes.items()}
        result._dedicated = {
            number: {leaf: lanes.copy(max_tasks) for leaf, lanes in each.items()}
            for number, each in self._dedicated.items()
        }
        result.held_back, result.count = self.held_back, self.count
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
        for lanes in self._all():
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
                    if not len(seen) % _MAX_RUN:
                        pause()
                    own.append(copy_of(record))
                    lanes.count_in(record.cost_us)
                    leaf = record.batch.association
                    self._waiting[leaf] = self._waiting.get(leaf, 0) + 1
                lane.clear()
                lane.extend(own)
        self.count = len(seen)
        self._renew_heads()

    def dedicated_to(self, record: TaskRecord) -> int:
        """Return the reservation whose dedicated workers a task waits for; 0: none."""
        number = record.batch.terms.reservation
        return number if number in self._dedicated else 0

    def _all(self) -> list[queueing_lanes.Lanes]:
        return [*self._lanes.values(), *self._all_dedicated()]

    def _all_dedicated(self) -> Iterator[queueing_lanes.Lanes]:
        return chain.from_iterable(each.values() for each in self._dedicated.values())

    def _lanes_of(self, record: TaskRecord) -> queueing_lanes.Lanes:
        batch = record.batch
        if self._dedicated:
            own = self._dedicated.get(batch.terms.reservation)
            if own is not None:
                if batch.association not in own:
                    own[batch.association] = queueing_lanes.Lanes(self.order)
                return own[batch.association]
        key = (batch.association, batch.priority) if self._plain else self.order.lane_key(record)
        lanes = self._lanes.get(key)
        if lanes is None:
            lanes = self._lanes[key] = queueing_lanes.Lanes(self.order)
            if len(self._lanes) == 2:  # changes of the only lane were not marked
                self._renew_heads()
        return lanes


def _lane_with_head(lanes: queueing_lanes.Lanes, record: TaskRecord) -> queueing_lanes.Lane:
    for lane in (lanes.suspects, lanes.short, lanes.long):
        if lane and lane[0] is record:
            return lane
    raise LookupError(f"task {record.number} is not at the head of a lane")


def _age(record: TaskRecord) -> tuple[bool, int]:
    """Sort key: requeued tasks first, then by number."""
    return (record.attempts == 0, record.number)
