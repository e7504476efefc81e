"""Completions that wait to be read: a queue for each reservation, and one for what runs under none.

Invariant: a queue is there while something is in it; it is in the order in which circuits ended.
Used with the link's lock held.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from simenv.client.qpm.run import Run
from simenv.qpm.states import Reason


class Retention(msgspec.Struct, frozen=True):
    """How long unread completions are kept, for each reservation: the contract's defaults."""

    age_s: float = 3600.0
    closed_s: float = 3600.0  # after its reservation was seen to be over
    count: int = 1_024
    size_bytes: int = 64 * 2**20
    purge_s: float = 60.0


class Shelf:
    """The queue of one reservation."""

    def __init__(self) -> None:
        self.runs: OrderedDict[str, Run] = OrderedDict()
        self.size_bytes = 0


class Shelves:
    """All queues."""

    def __init__(self) -> None:
        self._shelves: dict[int, Shelf] = {}

    def __contains__(self, run: Run) -> bool:
        shelf = self._shelves.get(run.reservation)
        return shelf is not None and shelf.runs.get(run.cid) is run

    def add(self, run: Run) -> None:
        shelf = self._shelves.setdefault(run.reservation, Shelf())
        if run.cid not in shelf.runs:
            shelf.runs[run.cid] = run
            shelf.size_bytes += run.size_bytes

    def drop(self, run: Run) -> None:
        """Nothing happens if it is not there."""
        shelf = self._shelves.get(run.reservation)
        if shelf is not None and shelf.runs.pop(run.cid, None) is not None:
            shelf.size_bytes -= run.size_bytes
            if not shelf.runs:
                del self._shelves[run.reservation]

    def oldest(self, reservation: int) -> Run | None:
        shelf = self._shelves.get(reservation)
        return None if shelf is None else next(iter(shelf.runs.values()), None)

    def too_much(self, reservation: int, kept: Retention) -> tuple[Run, Reason] | None:
        """What has to go first, and why; the newest stays, whatever its size."""
        shelf = self._shelves.get(reservation)
        if shelf is None:
            return None
        oldest = next(iter(shelf.runs.values()))
        if len(shelf.runs) > kept.count:
            return oldest, Reason.TOO_MANY
        if shelf.size_bytes > kept.size_bytes and len(shelf.runs) > 1:
            return oldest, Reason.TOO_LARGE
        return None

    def of(self, reservation: int) -> list[Run]:
        """All of its queue."""
        shelf = self._shelves.get(reservation)
        return [] if shelf is None else list(shelf.runs.values())

    def older_than(self, wall_s: float) -> list[Run]:
        """Those that ended before."""
        found: list[Run] = []
        for shelf in self._shelves.values():
            for run in shelf.runs.values():
                if run.ended_s >= wall_s:
                    break
                found.append(run)
        return found
