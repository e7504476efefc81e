"""In which order the tasks of a stream are delivered. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from simenv.errors import OptionError


class Order(StrEnum):
    """Of the deliveries of a group, or of the groups of a stream."""

    ORDERED = "ordered"  # as they were submitted
    PARALLEL = "parallel"  # as they end

    @classmethod
    def of(cls, name: str) -> Order:
        """Raises OptionError."""
        try:
            return cls(name)
        except ValueError:
            hint = f"one of {', '.join(cls)}"
            raise OptionError(f"order={name!r}", hint=hint) from None


Item = TypeVar("Item", bound=Hashable)


@dataclass(slots=True, eq=False)
class GroupState(Generic[Item]):
    """A group: its tasks that are not delivered."""

    order: Order
    waiting: deque[Item] = field(default_factory=deque)  # of an ordered group, as submitted
    ended: dict[Item, None] = field(default_factory=dict)  # not delivered yet; in order of the ends
    undelivered: int = 0
    closed: bool = False  # no task is added any more

    @property
    def finished(self) -> bool:
        return self.closed and not self.undelivered

    def take(self) -> list[Item]:
        """Remove and return what is to be delivered now."""
        results: list[Item] = []
        if self.order is Order.ORDERED:
            while self.waiting and self.waiting[0] in self.ended:
                results.append(self.waiting.popleft())
                del self.ended[results[-1]]
        else:
            results += self.ended
            self.ended.clear()
        self.undelivered -= len(results)
        return results


class DeliverySequence(Generic[Item]):
    """The groups of a stream. In an ordered stream a group is delivered when all earlier ones have
    been; in a parallel one on its own. What is kept is bounded by what is not delivered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._groups: deque[GroupState[Item]] = deque()  # of an ordered stream, not finished
        self._group_of: dict[Item, GroupState[Item]] = {}  # of tasks that are not delivered

    @property
    def undelivered(self) -> int:
        return len(self._group_of)

    def open_group(self, order: Order) -> GroupState[Item]:
        """Begin a group after those there are."""
        group = GroupState[Item](order)
        if self._order is Order.ORDERED:
            self._groups.append(group)
        return group

    def add(self, group: GroupState[Item], task: Item) -> None:
        """Add a task at the end of an open group."""
        if group.order is Order.ORDERED:
            group.waiting.append(task)
        group.undelivered += 1
        self._group_of[task] = group

    def ended(self, task: Item) -> list[Item]:
        """Note the end of a task; the tasks that are to be delivered now, in order."""
        group = self._group_of.get(task)
        if group is None or task in group.ended:
            return []
        group.ended[task] = None
        return self._deliver(group)

    def close(self, group: GroupState[Item]) -> list[Item]:
        """No task is added to it any more; what is to be delivered now."""
        group.closed = True
        return self._deliver(group)

    def _deliver(self, changed: GroupState[Item]) -> list[Item]:
        if self._order is Order.PARALLEL:
            results = changed.take()
        else:
            results = []
            while self._groups:
                results += self._groups[0].take()
                if not self._groups[0].finished:
                    break
                self._groups.popleft()
        for task in results:
            del self._group_of[task]
        return results
