"""Queue policies: the order of waiting tasks, and the options of each policy.

- priority: by priority within an owner. 60 s of waiting outweigh one step, and all steps together
  are worth two hours at most, so no task starves (ageing). Between owners see `fairness`.
- fifo: by acceptance, across owners.
- ordered: by `keys`; the first key that differs decides.
- round_robin: owners and their reservations take turns.

Under each policy, requeued tasks go first among their equals.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from simenv.errors import OptionError
from simenv.scheduler.core.types import TaskRecord

STEP_NS = 60_000_000_000  # waiting time that outweighs one step of priority
FULL_STEPS = 60  # steps that are worth STEP_NS each; further steps are worth less and less,
MORE_NS = 3_600_000_000_000  # together at most this much;
MORE_STEPS = 1_000  # so many further steps are worth half of it
POLICIES = ("priority", "fifo", "ordered", "round_robin")
DEFAULT_KEYS = ("priority", "fifo")

SortKey = tuple[float, ...]
LaneKey = tuple[str, int]  # owner, and the number that distinguishes the owner's lanes
_KEYS: dict[str, Callable[[TaskRecord], float]] = {
    "priority": lambda record: -record.batch.terms.priority,
    "shortest": lambda record: record.cost_us,
    "longest": lambda record: -record.cost_us,
    "fifo": lambda record: record.number,
}


class QueuePolicy(msgspec.Struct, frozen=True):
    """A policy and its options; `keys` belongs to the policy ordered."""

    policy: str = "priority"
    keys: tuple[str, ...] = ()

    def lane_key(self, record: TaskRecord) -> LaneKey:
        """Return the lane of a task: tasks of one lane have one owner and stay in order of
        arrival."""
        batch = record.batch
        if self.policy == "priority":
            return batch.owner, batch.terms.priority
        if self.policy == "round_robin":
            return batch.owner, batch.terms.reservation
        return batch.owner, 0

    def sort_key(self, record: TaskRecord) -> SortKey:
        """Return the sort key within a lane."""
        if self.keys:
            return (record.attempts == 0, *(_KEYS[key](record) for key in self.keys), record.number)
        return (record.attempts == 0, record.number)

    def age_key(self, record: TaskRecord) -> tuple[int, int]:
        """Return the sort key between lanes and pools: acceptance time minus the worth of the
        priority."""
        if self.policy == "priority" or "priority" in self.keys:
            return aged_priority(record)
        return record.batch.accepted_ns, record.number


PRIORITY = QueuePolicy()


def aged_priority(record: TaskRecord) -> tuple[int, int]:
    """Return the sort key between priorities. It is constant while a task waits, so nothing is
    sorted again."""
    batch = record.batch
    priority = batch.terms.priority
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
        raise OptionError(
            f"there is no queue policy {policy[:64]!r}", hint=f"one of: {', '.join(POLICIES)}"
        )
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
        raise OptionError(
            f"keys = {values['keys'][:64]!r}", hint=f"some of: {', '.join(_KEYS)}, each once"
        )
    return QueuePolicy(policy, keys)
