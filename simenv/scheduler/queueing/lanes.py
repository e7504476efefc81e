"""Lanes of waiting tasks: policies and order.

Queue policies: the order of waiting tasks, and the options of each policy.

- priority: by priority within an owner. 60 s of waiting outweigh one step, and all steps together
  are worth two hours at most, so no task starves (ageing). Owners take turns, see `fair_share`.
- fair_share: the same within a user of an account; between these by usage, see `fair_share`.
- fifo: by acceptance, across owners.
- ordered: by `keys`; the first key that differs decides.
- round_robin: owners and their reservations take turns.

Under each policy, requeued tasks go first among their equals.

A set of lanes has four: suspects (tasks that must travel alone), short tasks, long tasks, and late
tasks, which would not end before the allocation does. Removal is lazy: a stale entry stays in its
lane until it reaches the front. Estimates use the ends and the sums of lanes, so they cost the same
for a million tasks as for one; exact positions need a pass through the queue.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import msgspec

from simenv.errors import OptionError
from simenv.scheduler.core import WAITING, TaskRecord

STEP_NS = 60_000_000_000  # waiting time that outweighs one step of priority
FULL_STEPS = 60  # steps that are worth STEP_NS each; further steps are worth less and less,
MORE_NS = 3_600_000_000_000  # together at most this much;
MORE_STEPS = 1_000  # so many further steps are worth half of it
POLICIES = ("priority", "fair_share", "fifo", "ordered", "round_robin")
DEFAULT_KEYS = ("priority", "fifo")

SortKey = tuple[float, ...]
LaneKey = tuple[str, int]  # association, and the number that distinguishes its lanes
_KEYS: dict[str, Callable[[TaskRecord], float]] = {
    "priority": lambda record: -record.batch.priority,
    "shortest": lambda record: record.cost_us,
    "longest": lambda record: -record.cost_us,
    "fifo": lambda record: record.number,
}


class QueuePolicy(msgspec.Struct, frozen=True):
    """A policy and its options; `keys` belongs to the policy ordered."""

    policy: str = "priority"
    keys: tuple[str, ...] = ()

    def lane_key(self, record: TaskRecord) -> LaneKey:
        """Return the lane of a task: tasks of one lane have one association and stay in order of
        arrival."""
        batch = record.batch
        if self.takes_turns:
            return batch.association, batch.priority
        if self.policy == "round_robin":
            return batch.association, batch.terms.reservation
        return batch.association, 0

    @property
    def takes_turns(self) -> bool:
        """True if associations take turns, and priority orders the tasks of each."""
        return self.policy in ("priority", "fair_share")

    def sort_key(self, record: TaskRecord) -> SortKey:
        """Return the sort key within a lane."""
        if self.keys:
            return (record.attempts == 0, *(_KEYS[key](record) for key in self.keys), record.number)
        return (record.attempts == 0, record.number)

    def age_key(self, record: TaskRecord) -> tuple[int, int]:
        """Return the sort key between lanes and pools: acceptance time minus the worth of the
        priority."""
        if self.takes_turns or "priority" in self.keys:
            return aged_priority(record)
        return record.batch.accepted_ns, record.number


PRIORITY, FAIR_SHARE = QueuePolicy(), QueuePolicy("fair_share")


def aged_priority(record: TaskRecord) -> tuple[int, int]:
    """Return the sort key between priorities. It is constant while a task waits, so nothing is
    sorted again."""
    batch = record.batch
    priority = batch.priority
    if -FULL_STEPS <= priority <= FULL_STEPS:
        return batch.accepted_ns - priority * STEP_NS, record.number
    return batch.accepted_ns - priority_credit_ns(priority), record.number


def priority_credit_ns(priority: int) -> int:
    """Return the waiting time in ns that a priority is worth; it grows with each step and is
    bounded."""
    steps = abs(priority)
    extra = max(0, steps - FULL_STEPS)
    credit_ns = (steps - extra) * STEP_NS + MORE_NS * extra // (extra + MORE_STEPS)
    return credit_ns if priority >= 0 else -credit_ns


def parse_queue_policy(policy: str, options: tuple[tuple[str, str], ...]) -> QueuePolicy:
    """Return the policy of that name. Raises OptionError for an unknown policy or option."""
    if policy not in POLICIES:
        hint = f"one of: {', '.join(POLICIES)}"
        raise OptionError(f"there is no queue policy {policy[:64]!r}", hint=hint)
    values = dict(options)
    allowed = {"keys"} if policy == "ordered" else set()
    unknown = sorted(values.keys() - allowed)
    if unknown:
        hint = "keys=" + ",".join(_KEYS) if allowed else "it takes none"
        raise OptionError(f"order {policy!r} has no option {unknown[0][:64]!r}", hint=hint)
    if policy != "ordered":
        return QueuePolicy(policy)
    keys = tuple(word.strip() for word in values["keys"].split(",")) if values else DEFAULT_KEYS
    invalid = [key for key in keys if key not in _KEYS]
    if invalid or len(set(keys)) < len(keys):
        hint = f"some of: {', '.join(_KEYS)}, each once"
        raise OptionError(f"keys = {values['keys'][:64]!r}", hint=hint)
    return QueuePolicy(policy, keys)


SMALL_US = 1_500.0  # a task up to this cost travels with others
# Chunks: tasks that travel together to a worker, and the part of a turn that is one step of it.
CHUNK_US = 1_500.0  # most work of a chunk where few tasks wait
LONG_CHUNK_US = 5_000.0  # most work, if many do or the tasks are not short
MEDIUM_US = 500.0  # from here on a task is so long that few share a chunk
ALONE_US = 2_500.0  # from here on it travels alone
CHUNK_TASKS = 512  # so that LONG_CHUNK_US bounds also those of tasks of 10 us
# Of the service, which makes one chunk after the other: many chunks for many workers take it longer
# than the work of fewer takes a worker.
CHUNK_COST_US = 100.0
LONG_US = 1e6  # a task longer than this must not take a node's last slot from the short ones


def balanced_us(cost_us: float, waiting: int) -> float:
    """Return the work of a chunk after which the last result comes soonest: when the service has
    made all chunks and a worker has run one. It is the geometric mean of the service's time for a
    chunk and of all the work: `waiting` tasks of `cost_us` each."""
    return math.sqrt(CHUNK_COST_US * cost_us * waiting)


def most_us(cost_us: float, waiting: int) -> float:
    """Return the most work of a chunk of tasks of that cost, where so many wait."""
    if cost_us >= MEDIUM_US:
        return LONG_CHUNK_US if cost_us < ALONE_US else 0.0
    return min(LONG_CHUNK_US, max(CHUNK_US, balanced_us(cost_us, waiting)))


class SortedLane:
    """A lane sorted by the policy's key, with the interface of a deque."""

    def __init__(self, order: QueuePolicy) -> None:
        self._sort_key = order.sort_key
        self._heap: list[tuple[SortKey, TaskRecord]] = []

    def append(self, record: TaskRecord) -> None:
        heapq.heappush(self._heap, (self._sort_key(record), record))

    appendleft = append  # the sort key puts requeued tasks first

    def extend(self, records: Iterable[TaskRecord]) -> None:
        self._heap += [(self._sort_key(record), record) for record in records]
        heapq.heapify(self._heap)

    def popleft(self) -> TaskRecord:
        return heapq.heappop(self._heap)[1]

    def copy(self) -> SortedLane:
        result = SortedLane.__new__(SortedLane)
        result._sort_key, result._heap = self._sort_key, self._heap.copy()
        return result

    def clear(self) -> None:
        self._heap.clear()

    def __getitem__(self, place: int) -> TaskRecord:
        """Return the first entry; only place 0 is supported."""
        return self._heap[place][1]

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[TaskRecord]:
        """Yield the tasks in order; the heap is walked from its root, so the first ones need no
        sort of all. The lane must not change meanwhile."""
        heap = self._heap
        reached = [(heap[0][0], 0)] if heap else []
        while reached:
            _, place = heapq.heappop(reached)
            yield heap[place][1]
            for child in range(2 * place + 1, min(2 * place + 3, len(heap))):
                heapq.heappush(reached, (heap[child][0], child))


Lane = deque[TaskRecord] | SortedLane


def _empty_lane(order: QueuePolicy) -> Lane:
    return SortedLane(order) if order.keys else deque[TaskRecord]()


class Lanes:
    """Waiting tasks that the queue policy keeps in one order."""

    def __init__(self, order: QueuePolicy) -> None:
        self._sort_key = order.sort_key
        self.suspects = _empty_lane(order)
        self.short = _empty_lane(order)
        self.long = _empty_lane(order)
        self.late: deque[TaskRecord] = deque()
        self.small_us = 0.0  # expected work of the waiting tasks on one slot
        self.large_us = 0.0

    def head(self, allow_long: bool) -> TaskRecord | None:
        """Return the next task that still waits; stale entries before it are dropped."""
        best = None
        for lane in (self.suspects, self.short, self.long if allow_long else ()):
            while lane and lane[0].phase != WAITING:
                lane.popleft()
            if lane and (best is None or self._sort_key(lane[0]) < self._sort_key(best)):
                best = lane[0]
        return best

    def count_in(self, cost_us: float) -> None:
        """Count a waiting task of this cost, or (negative cost) one that left."""
        if -SMALL_US <= cost_us <= SMALL_US:
            self.small_us += cost_us
        else:
            self.large_us += cost_us

    def size(self) -> int:
        """Return the number of entries, stale ones included."""
        return len(self.suspects) + len(self.short) + len(self.long)

    def any(self) -> bool:
        return bool(self.suspects or self.short or self.long or self.late)

    def all(self) -> tuple[Lane, ...]:
        return (self.suspects, self.short, self.long, self.late)

    def sweep(self) -> None:
        """Remove stale entries."""
        for lane in self.all():
            live = [record for record in lane if record.phase == WAITING]
            lane.clear()
            lane.extend(live)

    def lane_of(self, record: TaskRecord) -> Lane:
        if record.incident:
            return self.suspects
        return self.long if record.cost_us > LONG_US else self.short

    def tried(self) -> Iterator[TaskRecord]:
        """Return an iterator over waiting tasks in their order, without late ones."""
        lanes: list[Iterable[TaskRecord]] = [
            lane for lane in (self.suspects, self.short, self.long) if lane
        ]
        merged = lanes[0] if len(lanes) == 1 else heapq.merge(*lanes, key=self._sort_key)
        return (record for record in merged if record.phase == WAITING)

    def copy(self, max_tasks: int) -> Lanes:
        """Return a copy, with at least the first `max_tasks` of each lane."""
        result = Lanes.__new__(Lanes)
        vars(result).update(vars(self))
        result.suspects, result.short = self.suspects.copy(), _copied(self.short, max_tasks)
        result.long, result.late = _copied(self.long, max_tasks), self.late.copy()
        return result


def _copied(lane: Lane, max_tasks: int) -> Lane:
    is_longer = isinstance(lane, deque) and len(lane) > max_tasks
    return deque(islice(lane, max_tasks)) if is_longer else lane.copy()
