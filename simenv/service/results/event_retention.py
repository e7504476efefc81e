"""Remove events that are too old, or too many of one owner.

The environment's own events, those about tasks and reservations of each key owner, and the audit
log are counted separately, so that an owner who causes many events removes only its own.
Invariant: a step is one transaction of at most EVENTS_A_STEP rows, and event numbers are never
used twice: the newest event of each owner stays, unless it is too old and not the newest of all.
"""

from __future__ import annotations

import msgspec

from simenv.model import Event
from simenv.service.journal.reader import AUDIT
from simenv.service.journal.writer import Journal

MAX_EVENTS = 200_000  # of the environment
MAX_OWNER_EVENTS = 10_000  # of one key's owner
MAX_OWNERS_EVENTS = 200_000  # of all keys' owners together, in equal parts
MAX_AUDIT_EVENTS = 10_000  # entries of the audit log, however old
EVENTS_A_STEP = 500

_OWNERS = """
with recursive each(owner) as (
  select min(owner) from event
  union all select (select min(owner) from event where owner > each.owner) from each
  where each.owner is not null)
select owner from each where owner is not null"""


class EventRemoval:
    """Removal of old events. Used from the loop's thread, through the journal's own connection."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._remaining_owners: list[str] = []  # owners to examine in this walk
        self._before_s = 0.0
        self._share = MAX_OWNER_EVENTS

    def begin(self, before_s: float) -> None:
        """Begin a walk over all owners, unless one is in progress. `before_s`: remove events before
        this time of day, seconds since 1970."""
        if self._remaining_owners:
            return
        self._before_s = before_s
        self._remaining_owners = [row[0] for row in self._journal.records.rows(_OWNERS)]
        owners = sum(owner not in ("", AUDIT) for owner in self._remaining_owners)
        self._share = min(MAX_OWNER_EVENTS, MAX_OWNERS_EVENTS // max(1, owners))

    def step(self) -> bool:
        """Remove some events. Returns True if there are more to examine. Raises JournalError."""
        if not self._remaining_owners:
            return False
        owner = self._remaining_owners[-1]
        removable = self._removable(owner)
        if removable:
            with self._journal.transaction("NORMAL") as db:
                query = "delete from event where owner = ? and seq <= ?"
                db.execute(query, (owner, removable[-1]))
        if len(removable) < EVENTS_A_STEP:
            self._remaining_owners.pop()
        return bool(self._remaining_owners)

    def _removable(self, owner: str) -> list[int]:
        """Return some of the oldest events of an owner that are too many or too old."""
        rows = self._journal.records.rows
        max_events = {"": MAX_EVENTS, AUDIT: MAX_AUDIT_EVENTS}.get(owner, self._share)
        newest = self._journal.records.last_event()
        query = "select seq from event where owner = ? order by seq desc limit 1 offset ?"
        too_many = max((row[0] for row in rows(query, owner, max_events)), default=0)
        query = "select seq, body from event where owner = ? order by seq limit ?"
        removable: list[int] = []
        for seq, body in rows(query, owner, EVENTS_A_STEP):
            if (seq > too_many and (owner == AUDIT or not self._is_old(body))) or seq == newest:
                break
            removable.append(seq)
        return removable

    def _is_old(self, body: bytes) -> bool:
        return msgspec.msgpack.decode(body, type=Event).time_s < self._before_s
