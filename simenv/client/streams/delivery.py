"""Order of the deliveries of a stream. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

from simenv.errors import OptionError


class Order(StrEnum):
    """Order of the deliveries of a group, or of the groups of a stream."""

    ORDERED = "ordered"  # in the order of submission
    PARALLEL = "parallel"  # in the order of the ends

    @classmethod
    def of(cls, name: str) -> Order:
        """Return the order of that name. Raises OptionError."""
        try:
            return cls(name)
        except ValueError:
            hint = f"one of {', '.join(cls)}"
            raise OptionError(f"order={name!r}", hint=hint) from None


Item = TypeVar("Item", bound=Hashable)


@dataclass(slots=True, eq=False)
class GroupState(Generic[Item]):
    """A group of a stream with its tasks that are not delivered."""

    order: Order
    waiting: deque[Item] = field(default_factory=deque)  # if ordered: by submission
    ended: dict[Item, None] = field(default_factory=dict)  # not delivered; in order of the ends
    undelivered: int = 0
    closed: bool = False  # no task is added any more

    @property
    def finished(self) -> bool:
        return self.closed and not self.undelivered

    def take(self) -> list[Item]:
        """Remove and return the tasks that can be delivered now."""
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
    """The groups of a stream. An ordered stream delivers a group after all earlier ones, a parallel
    one independently. Memory is bounded by the tasks that are not delivered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._groups: deque[GroupState[Item]] = deque()  # if ordered: groups that are not finished
        self._group_of: dict[Item, GroupState[Item]] = {}  # tasks that are not delivered

    @property
    def undelivered(self) -> int:
        return len(self._group_of)

    def open_group(self, order: Order) -> GroupState[Item]:
        """Open a group after the existing ones."""
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
        """Record the end of a task; return the tasks that can be delivered now, in order."""
        group = self._group_of.get(task)
        if group is None or task in group.ended:
            return []
        group.ended[task] = None
        return self._deliver(group)

    def close(self, group: GroupState[Item]) -> list[Item]:
        """Close a group; return the tasks that can be delivered now, in order."""
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
