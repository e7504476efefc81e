"""The calendar: planned maintenance of nodes, and planned reservations.

Forecasts and the dispatch honour the maintenance of all nodes, by one entry or by several: no task
starts that would not end before it, and expected starts behind it are later by its length. On some
of the nodes running tasks end as in any drain. The dispatch keeps slots for planned reservations,
see `planned_reservations`. Invariant: entries change by `add`, `decide`, `release_node` and
`remove` alone, which note the change for the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from simenv.errors import LimitExceededError, NotFoundError
from simenv.model.reservations import MAX_ENTRIES, MAX_OWNED, CalendarEntry

HORIZON = 8  # occurrences of one entry that forecasts know
MAX_PLANNED = 64  # reservations for which slots are kept: those that begin first
DUE_NS = 10 * 10**9  # for which slots are kept for one that is due and not granted yet


Window = tuple[int, int]  # begin and end, ns


class PlannedReservation(NamedTuple):
    """Occurrence of a reservation that is to come, or due. Times are of the monotonic clock."""

    begin_ns: int
    end_ns: int
    pool: str
    workers: int
    needed: int = 0  # workers of all reservations that are planned for its begin
    owner: str = ""


class PlannedRoom(NamedTuple):
    """Room for a planned reservation at its begin, beyond the reservations in force by then."""

    pool: str
    capacity: int  # workers of the pool that can be dedicated
    pool_workers: int  # of all planned reservations of the pool
    workers: int  # of the owner's planned ones there
    reservations: int  # of the owner


class Calendar:
    """Entries by id, and the occurrences that are under way."""

    def __init__(self) -> None:
        self.entries: dict[int, CalendarEntry] = {}
        self.next_id = 1
        # Of entries under way: end in seconds since 1970, and the nodes that they drained.
        self.under_way: dict[int, tuple[float, tuple[str, ...]]] = {}
        self.windows: tuple[Window, ...] = ()  # of all nodes, ns, by the monotonic clock
        self.planned: tuple[PlannedReservation, ...] = ()  # with workers of their own, by begin
        self.offset_ns = 0  # from a monotonic time to the wall clock
        self._changes: dict[int, CalendarEntry | None] = {}

    def copy_reservations(self) -> Calendar:
        """Return a calendar with the planned reservations, without maintenance."""
        result = Calendar()
        result.entries = {n: each for n, each in self.entries.items() if each.ask is not None}
        result.planned, result.offset_ns = self.planned, self.offset_ns
        return result

    def restore(self, entries: Iterable[CalendarEntry], next_id: int) -> None:
        """Continue with the stored entries of an earlier service."""
        self.entries = {entry.id: entry for entry in entries}
        self.next_id = max(next_id, 1 + max(self.entries, default=0))

    def add(self, entry: CalendarEntry) -> None:
        """Add an entry, whose id is `next_id`. Raises LimitExceededError."""
        if len(self.entries) >= MAX_ENTRIES:
            text = f"the calendar has {len(self.entries)} entries, {MAX_ENTRIES} are allowed"
            raise LimitExceededError(text, hint="simenv calendar remove NUMBER")
        owned = sum(each.owner == entry.owner for each in self.entries.values() if each.ask)
        if entry.ask is not None and entry.owner and owned >= MAX_OWNED:
            text = f"{entry.owner!r} has planned {owned} reservations, {MAX_OWNED} are allowed"
            raise LimitExceededError(text, hint="simenv calendar remove NUMBER")
        self.next_id = entry.id + 1
        self.entries[entry.id] = self._changes[entry.id] = entry

    def decide(self, number: int, end_s: float) -> CalendarEntry:
        """Note that the occurrence of an entry that ends then was granted, rejected or missed."""
        entry = msgspec.structs.replace(self.entries[number], decided_s=end_s)
        self.entries[number] = self._changes[number] = entry
        return entry

    def release_node(self, name: str) -> None:
        """Note that a node is used again before its maintenance under way ends, whether or not
        that drained it."""
        for number, (end_s, _) in self.under_way.items():
            entry = self.entries.get(number)
            if entry is not None and entry.node in ("", name):
                released = entry.released if entry.decided_s == end_s else ()
                if name not in released:
                    entry = self.decide(number, end_s)
                    entry = msgspec.structs.replace(entry, released=(*released, name))
                    self.entries[number] = self._changes[number] = entry

    def find(self, number: int, scope: str) -> CalendarEntry:
        """Return an entry that an owner may see; `scope` "": all. Raises NotFoundError."""
        entry = self.entries.get(number)
        if entry is None or (scope and entry.ask is not None and entry.owner != scope):
            raise NotFoundError(f"no entry {number} in the calendar", hint="simenv calendar")
        return entry

    def remove_owned(self, owner: str) -> None:
        """Remove the planned reservations of an owner who may not use the environment any more."""
        for number, entry in list(self.entries.items()):
            if entry.ask is not None and entry.owner == owner:
                self.remove(number)

    def remove(self, number: int) -> None:
        del self.entries[number]
        self._changes[number] = None

    def take_changes(self) -> dict[int, CalendarEntry | None]:
        """Return the entries that changed since the last call; None: it was removed."""
        changes, self._changes = self._changes, {}
        return changes

    def set_windows(self, nodes: Iterable[str], wall_ns: int, now_ns: int) -> None:
        """Compute the maintenance windows of all of `nodes`, those that are not out of use for
        another reason, which are under way or to come."""
        entries = [entry for entry in self.entries.values() if entry.ask is None]
        named = {name for entry in entries for name in (entry.node, *entry.released) if name}
        special = named.intersection(nodes) if named else set()
        windows: list[Window] | None = None
        for name in sorted(special) + [""] * (len(special) < len({*nodes}) or not special):
            found = _merged(
                (now_ns + round(begin_s * 1e9) - wall_ns, now_ns + round(end_s * 1e9) - wall_ns)
                for entry in entries
                if entry.node in ("", name)
                for begin_s, end_s in _occurrences(entry, name, wall_ns / 1e9)
            )
            windows = found if windows is None else _common(windows, found)
        self.windows = tuple(windows or ())

    def set_planned(
        self,
        room_of: Callable[[CalendarEntry, int], PlannedRoom | None],
        wall_ns: int,
        now_ns: int,
    ) -> None:
        """Compute the reservations to come whose workers are kept for them: not those that a limit
        of their owner will refuse. `room_of`: the room of an entry at its begin, in ns since 1970;
        None: its workers have no pool."""
        self.offset_ns, candidates = wall_ns - now_ns, list[tuple[int, int, int]]()
        for entry in self.entries.values():
            has_workers = entry.ask is not None and entry.ask.workers
            found = entry.occurrence(wall_ns / 1e9) if has_workers else None
            if found is None or entry.decided_s >= found[1]:
                continue
            begin_ns, end_ns = (round(each * 1e9) - self.offset_ns for each in found)
            if now_ns < begin_ns + DUE_NS:
                candidates.append((begin_ns, end_ns, entry.id))
        first = list[PlannedReservation]()
        for begin_ns, end_ns, number in sorted(candidates):
            if len(first) == MAX_PLANNED:
                break
            entry = self.entries[number]
            room = room_of(entry, begin_ns + self.offset_ns)
            if room is None or entry.ask is None:
                continue
            workers = min(entry.ask.workers, room.capacity)
            planned = PlannedReservation(begin_ns, end_ns, room.pool, workers, owner=entry.owner)
            if _fits(planned, room, [each for each in first if begin_ns < each.end_ns]):
                first.append(planned)
        self.planned = tuple(
            each._replace(
                needed=sum(
                    other.workers
                    for other in first
                    if other.pool == each.pool and other.begin_ns <= each.begin_ns < other.end_ns
                )
            )
            for each in first
        )

    def delayed_us(self, now_ns: int, wait_us: float, run_us: float) -> float:
        """Return the time until a task starts that would start in `wait_us` without maintenance,
        and run for `run_us`."""
        for begin_ns, end_ns in self.windows:
            begin_us, end_us = (begin_ns - now_ns) / 1e3, (end_ns - now_ns) / 1e3
            if end_us > 0 and wait_us + run_us > begin_us:
                wait_us = end_us + max(0.0, wait_us - max(0.0, begin_us))
        return wait_us


def _fits(
    planned: PlannedReservation, room: PlannedRoom, together: list[PlannedReservation]
) -> bool:
    """Return whether a reservation is within its room. `together`: those planned for its begin."""
    own = [each for each in together if each.owner == planned.owner]
    used, own_used = (
        sum(each.workers for each in group if each.pool == planned.pool)
        for group in (together, own)
    )
    return (
        len(own) < room.reservations
        and own_used + planned.workers <= room.workers
        and used + planned.workers <= room.pool_workers
    )


def _occurrences(entry: CalendarEntry, node: str, at_s: float) -> Iterator[tuple[float, float]]:
    """Yield begin and end of the occurrences of a maintenance that are under way or to come, but
    one in which the node is used again."""
    for _ in range(HORIZON if entry.every_s else 1):
        found = entry.occurrence(at_s)
        if found is None:
            return
        if not (node in entry.released and entry.decided_s == found[1]):
            yield found
        at_s = found[1]


def _merged(windows: Iterable[Window]) -> list[Window]:
    """Return the union of windows, in order."""
    merged = list[Window]()
    for begin, end in sorted(windows):
        if merged and begin <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((begin, end))
    return merged


def _common(first: Iterable[Window], second: Iterable[Window]) -> list[Window]:
    """Return the times that are in both unions of windows."""
    pairs = ((max(a, c), min(b, d)) for a, b in first for c, d in second)
    return sorted((begin, end) for begin, end in pairs if begin < end)
