"""Fair queueing between owners: the next task is of the owner with the least work so far.

Start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996). Each owner with waiting tasks has a
figure: the work of the owner that was assigned while others waited. The owner with the least goes
first, so a flood of one owner delays another by one task at most. An owner who comes back starts
from the least figure of those who wait, so nobody saves up turns. Priorities count within an owner.
Priorities of the environment's own user (owner "") count between owners too: above 0 its tasks go
first, below 0 last, until waiting outweighs the priority.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from simenv.scheduler.core.types import TaskRecord
from simenv.scheduler.queueing.policies import aged_priority

OWN_USER = ""


class FairShares:
    """Work of each owner that was assigned while others waited, in microseconds of expected
    work."""

    def __init__(self) -> None:
        self._received_us: dict[str, float] = {}

    def add_owner(self, owner: str, waiting: Iterable[str]) -> None:
        """Note that an owner with no waiting tasks has some now; figures that no longer matter are
        removed."""
        waiting_us = {each: self._received_us.get(each, 0.0) for each in waiting if each != owner}
        min_us = min(waiting_us.values(), default=0.0)
        self._received_us = {
            **{each: us for each, us in self._received_us.items() if us > min_us},
            **waiting_us,
            owner: max(min_us, self._received_us.get(owner, 0.0)),
        }

    def charge(self, owner: str, cost_us: float) -> None:
        """Count work of an owner that was assigned while others waited."""
        self._received_us[owner] = self._received_us.get(owner, 0.0) + cost_us

    def choose(self, heads: Mapping[str, TaskRecord]) -> TaskRecord:
        """Return the next of these tasks, which are the first of each owner."""
        return choose(heads, self._received_us)

    def merged(self, queues: Mapping[str, Iterator[TaskRecord]]) -> Iterator[TaskRecord]:
        """Yield the tasks of all owners in the order in which they would be assigned one by one."""
        received_us = dict(self._received_us)
        heads = {owner: head for owner, each in queues.items() if (head := next(each, None))}
        while heads:
            record = choose(heads, received_us)
            owner = record.batch.owner
            yield record
            received_us[owner] = received_us.get(owner, 0.0) + record.cost_us
            following = next(queues[owner], None)
            if following is None:
                del heads[owner]
            else:
                heads[owner] = following


def choose(heads: Mapping[str, TaskRecord], received_us: Mapping[str, float]) -> TaskRecord:
    """Return the next of these tasks: the own user's if its priority says so, else that of the
    owner with the least work; between equals, the one submitted first."""
    own = heads.get(OWN_USER)
    priority = 0 if own is None else own.batch.terms.priority
    if own is not None and priority and len(heads) > 1:
        others = {owner: head for owner, head in heads.items() if owner}
        oldest_ns = min(head.batch.accepted_ns for head in others.values())
        if priority > 0 and aged_priority(own)[0] <= oldest_ns:
            return own
        if priority < 0 and aged_priority(own)[0] > oldest_ns:
            heads = others
    return min(
        heads.values(), key=lambda head: (received_us.get(head.batch.owner, 0.0), head.number)
    )
