"""Unfinished tasks by owner, so that showing one her own never means looking through all.

Tasks of the environment's own user (owner "") are not listed here: that user sees everything.
"""

from __future__ import annotations

from collections.abc import Collection

from simenv.scheduler.values import Batch, Record


class Owned:
    """Other people's unfinished tasks, each owner's in the order of acceptance."""

    def __init__(self) -> None:
        self._records: dict[str, dict[int, Record]] = {}
        self._bytes: dict[str, int] = {}

    def add(self, batch: Batch, tasks: dict[int, Record], count: int) -> None:
        """`tasks` now holds a batch of so many."""
        if batch.owner:
            mine = self._records.setdefault(batch.owner, {})
            new = {n: tasks[n] for n in range(batch.first, batch.first + count)}
            mine.update(new)
            size = sum(record.size_bytes for record in new.values())
            self._bytes[batch.owner] = self._bytes.get(batch.owner, 0) + size

    def drop(self, record: Record) -> None:
        """A task has ended, or was withdrawn."""
        owner = record.batch.owner
        if owner:
            mine = self._records[owner]
            del mine[record.number]
            self._bytes[owner] -= record.size_bytes
            if not mine:
                del self._records[owner], self._bytes[owner]

    def of(self, owner: str) -> Collection[Record]:
        """All of hers."""
        return self._records.get(owner, {}).values()

    @property
    def count(self) -> int:
        """Tasks of all these owners."""
        return sum(map(len, self._records.values()))

    @property
    def all_bytes(self) -> int:
        """Of all of them."""
        return sum(self._bytes.values())

    def bytes_of(self, owner: str) -> int:
        """Of the programs and parameter values of her tasks."""
        return self._bytes.get(owner, 0)

    def everything(self) -> dict[str, dict[int, Record]]:
        """For `check`."""
        return self._records
