"""In which order the tasks of a stream are delivered. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

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


@dataclass(slots=True, eq=False)
class GroupState:
    """A group: numbers of its tasks that are not delivered, in the order of their submission."""

    order: Order
    waiting: dict[int, None] = field(default_factory=dict)
    ended: dict[int, None] = field(default_factory=dict)  # not delivered yet; in order of the ends
    closed: bool = False  # no task is added any more

    @property
    def finished(self) -> bool:
        return self.closed and not self.waiting

    def take(self) -> list[int]:
        """Remove and return what is to be delivered now."""
        found: list[int] = []
        if self.order is Order.ORDERED:
            for number in self.waiting:
                if number not in self.ended:
                    break
                found.append(number)
        else:
            found = list(self.ended)
        for number in found:
            del self.ended[number], self.waiting[number]
        return found


class DeliverySequence:
    """The groups of a stream. In an ordered stream a group is delivered when all earlier ones have
    been; in a parallel one on its own."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._groups: deque[GroupState] = deque()  # not finished
        self._group_of: dict[int, GroupState] = {}  # of tasks that are not delivered

    @property
    def undelivered(self) -> int:
        return len(self._group_of)

    def open_group(self, order: Order) -> GroupState:
        """Begin a group after those there are."""
        group = GroupState(order)
        self._groups.append(group)
        return group

    def add(self, group: GroupState, number: int) -> None:
        """Add a task at the end of an open group."""
        group.waiting[number] = None
        self._group_of[number] = group

    def ended(self, number: int) -> list[int]:
        """Note the end of a task; the tasks that are to be delivered now, in order."""
        group = self._group_of.get(number)
        if group is None or number in group.ended:
            return []
        group.ended[number] = None
        return self._deliver()

    def close(self, group: GroupState) -> list[int]:
        """No task is added to it any more; what is to be delivered now."""
        group.closed = True
        return self._deliver()

    def _deliver(self) -> list[int]:
        found: list[int] = []
        for group in list(self._groups):
            found += group.take()
            if group.finished:
                self._groups.remove(group)
            elif self._order is Order.ORDERED:
                break
        for number in found:
            del self._group_of[number]
        return found
