"""Unfinished tasks of each owner and of each association: their number, bytes and billing units."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import msgspec

from simenv.model.accounts import association
from simenv.scheduler import core


class TasksByOwner:
    """Unfinished tasks of each owner, in order of acceptance."""

    def __init__(self) -> None:
        self._records: dict[str, dict[int, core.TaskRecord]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, batch: core.SubmitBatch, tasks: dict[int, core.TaskRecord], count: int) -> None:
        """Add a batch of `count` tasks of an owner."""
        tasks_of_owner = self._records.setdefault(batch.owner, {})
        new = {n: tasks[n] for n in range(batch.first, batch.first + count)}
        tasks_of_owner.update(new)
        size = sum(record.size_bytes for record in new.values())
        self._bytes[batch.owner] = self._bytes.get(batch.owner, 0) + size

    def count_in(self, records: list[core.TaskRecord]) -> None:
        """Add tasks of one batch."""
        owner = records[0].batch.owner
        if owner:
            self._records.setdefault(owner, {}).update((each.number, each) for each in records)
            size_bytes = sum(each.size_bytes for each in records)
            self._bytes[owner] = self._bytes.get(owner, 0) + size_bytes

    def drop(self, owner: str, records: list[core.TaskRecord], size_bytes: int) -> None:
        """Remove tasks of an owner that ended or were rolled back."""
        tasks_of_owner = self._records[owner]
        for record in records:
            del tasks_of_owner[record.number]
        self._bytes[owner] -= size_bytes
        if not tasks_of_owner:
            del self._records[owner], self._bytes[owner]

    def of(self, owner: str) -> Collection[core.TaskRecord]:
        return self._records.get(owner, {}).values()

    @property
    def count(self) -> int:
        """Number of tasks of all owners except the environment's own user."""
        return sum(map(len, self._records.values()))

    @property
    def all_bytes(self) -> int:
        """Bytes of the tasks of all owners except the environment's own user."""
        return sum(self._bytes.values())

    def bytes_of(self, owner: str) -> int:
        """Return the bytes of an owner's tasks: programs and parameter values."""
        return self._bytes.get(owner, 0)


class AssociationUse(msgspec.Struct, eq=False):
    """Unfinished tasks of one user in one account and class of service, under one reservation (0:
    none)."""

    account: str
    owner: str
    qos: str
    reservation: int = 0
    tasks: int = 0
    size_bytes: int = 0
    units: float = 0.0  # forecast billing units

    @property
    def association(self) -> str:
        return association(self.account, self.owner) if self.account else self.owner


class UseByAssociation:
    """Unfinished tasks of users in accounts and classes of service. Tasks that have neither are not
    in it. Those under a reservation are counted apart, since budgets count its time, too."""

    def __init__(self) -> None:
        self._all: dict[tuple[str, str, int], AssociationUse] = {}

    def __iter__(self) -> Iterator[AssociationUse]:
        return iter(self._all.values())

    def add(self, batch: core.SubmitBatch, count: int, size_bytes: int) -> None:
        """Count the tasks of a batch, which hold `size_bytes` together."""
        key = batch.association, batch.qos, batch.terms.reservation
        use = self._all.get(key)
        if use is None:
            use = self._all[key] = AssociationUse(batch.account, batch.owner, *key[1:])
        use.tasks += count
        use.size_bytes += size_bytes
        use.units += count * batch.units

    def count_in(self, records: list[core.TaskRecord]) -> None:
        """Add tasks of one batch."""
        batch = records[0].batch
        if batch.account or batch.qos:
            self.add(batch, len(records), sum(each.size_bytes for each in records))

    def drop(self, batch: core.SubmitBatch, count: int, size_bytes: int) -> None:
        """Remove tasks of a batch that ended or were rolled back."""
        key = batch.association, batch.qos, batch.terms.reservation
        use = self._all[key]
        use.tasks -= count
        use.size_bytes -= size_bytes
        use.units -= count * batch.units
        if not use.tasks:  # rounding errors of the units end with it
            del self._all[key]
