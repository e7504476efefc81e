"""The calendar's commands, and reservations that become due.

Invariants: an entry that was answered is stored; a planned reservation is requested at its time in
the name of its owner; what became of an occurrence is in the commit of the reservation, so that a
restart repeats nothing. One that cannot be granted is tried again until its time is over, and then
it is an event; so is one for which there was no service.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec

from simenv.errors import (
    InsufficientError,
    NotAllowedError,
    NotFoundError,
    OptionError,
    SimenvError,
)
from simenv.model import Decision
from simenv.model.program import check_printable
from simenv.model.reservations import (
    MAX_EVERY_S,
    MAX_LENGTH_S,
    MIN_EVERY_S,
    CalendarEntry,
    ReservationRequest,
    time_zone,
)
from simenv.scheduler.admission import reservation_limits
from simenv.scheduler.core import Action, RecordEvent
from simenv.scheduler.reservations.policies import check_request
from simenv.scheduler.scheduler import Scheduler
from simenv.service.accounting.accounts import AccountRegistry
from simenv.service.control.reservations import check_scope
from simenv.service.journal import tables, writer
from simenv.service.workers.action_executor import AuditLog
from simenv.wire.messages import admin
from simenv.wire.rights import Identity

RETRY_S = 5.0  # between two requests of a planned reservation
ENTRY = "calendar"  # metadata of a reservation: number of the entry


class CalendarCommands:
    """Changes and queries of the calendar. Used from the loop's thread."""

    def __init__(
        self,
        scheduler: Scheduler,
        accounts: AccountRegistry,
        journal: writer.Journal,
        audit: AuditLog,
    ) -> None:
        self._scheduler = scheduler
        self._accounts = accounts
        self._calendar = scheduler.state.calendar
        self._journal = journal
        self._audit = audit
        self._next_s = 0.0
        records = journal.records
        self._calendar.restore(
            tables.CALENDAR.read(records).values(), records.meta(tables.NEXT_ENTRY)
        )

    def add(self, identity: Identity, message: admin.AddCalendarEntry) -> admin.CalendarEntries:
        """Add an entry. Raises OptionError, NotFoundError, NotAllowedError, LimitExceededError."""
        entry = self._checked(identity, message.entry)
        self._calendar.add(entry)
        self._next_s = 0.0
        detail = f"{entry.kind} {entry.id}, {entry.length_s:.0f} s from {entry.begin_s:.0f}"
        self._audit.write(identity, "calendar.add", entry.node or "all", detail)
        self._store()
        return admin.CalendarEntries(message.request, [entry])

    def remove(
        self, identity: Identity, message: admin.RemoveCalendarEntry
    ) -> admin.CalendarEntries:
        """Remove an entry. Raises NotFoundError, NotAllowedError."""
        entry = self._calendar.find(message.entry, identity.scope)
        if entry.ask is None and identity.scope:
            raise NotAllowedError("maintenance is planned by administrators")
        self._calendar.remove(entry.id)
        self._audit.write(identity, "calendar.remove", entry.node or "all", f"{entry.id}")
        self._store()
        return admin.CalendarEntries(message.request, [entry])

    def listed(self, identity: Identity, message: admin.GetCalendar) -> admin.CalendarEntries:
        """Return the entries that the sender may see, the next first."""
        now_s, scope = time.time(), identity.scope
        entries = [
            entry
            for entry in self._calendar.entries.values()
            if entry.ask is None or not scope or entry.owner == scope
        ]
        return admin.CalendarEntries(
            message.request, sorted(entries, key=lambda each: each.occurrence(now_s) or (0.0, 0.0))
        )

    def tick(self, now_s: float) -> list[Action]:
        """Request the reservations whose time has come. `now_s`: seconds since 1970."""
        actions = list[Action]()
        if self._scheduler.state.draining:
            return actions
        if not now_s - 2 * RETRY_S < self._next_s <= now_s + RETRY_S:
            self._next_s = now_s  # at the start, or the clock was set
        if self._calendar.entries and now_s >= self._next_s:
            self._next_s = now_s + RETRY_S
            for entry in list(self._calendar.entries.values()):
                if entry.ask is not None:
                    actions += self._advance(entry, entry.ask, now_s)
                    found = entry.occurrence(now_s)
                    if found is not None and found[0] > now_s:
                        self._next_s = min(self._next_s, found[0])
        self._store()
        return actions

    def _advance(
        self, entry: CalendarEntry, ask: ReservationRequest, now_s: float
    ) -> Iterator[Action]:
        last_end_s = entry.last_end_s(now_s)
        if last_end_s > entry.decided_s:
            text = f"entry {entry.id} of the calendar: nothing could be reserved in its time"
            yield RecordEvent("reservation.missed", ask.device or "all", text, entry.owner)
            entry = self._calendar.decide(entry.id, last_end_s)
        if entry.occurrence(now_s) is None:
            self._calendar.remove(entry.id)
            return
        due = entry.due(now_s)
        if due is None:
            return
        request, end_s = due
        metadata = (*ask.metadata, (ENTRY, str(entry.id)))
        request = msgspec.structs.replace(request, metadata=metadata)
        try:
            request, veto = self._accounts.reservation_terms(entry.owner, request)
            decision, actions = self._scheduler.reserve(
                request, entry.owner, round(now_s * 1e9), veto=veto
            )
        except InsufficientError:  # members of groups are not known yet: asked again after RETRY_S
            return
        except SimenvError as error:  # of a limit of its owner, for example
            decision, actions = Decision("rejected", 0, error.message), []
        yield from actions
        if decision.status == "delayed":
            return
        if entry.every_s:
            self._calendar.decide(entry.id, end_s)
        else:
            self._calendar.remove(entry.id)
        if decision.status == "rejected":
            text = f"entry {entry.id} of the calendar: {decision.message}"
            yield RecordEvent("reservation.missed", ask.device or "all", text, entry.owner)

    def _checked(self, identity: Identity, entry: CalendarEntry) -> CalendarEntry:
        """Return an entry with its id and owner. Raises OptionError, NotFoundError,
        NotAllowedError, LimitExceededError."""
        check_printable("reason", entry.reason)
        now_s = time.time()
        if not 0.0 < entry.length_s <= MAX_LENGTH_S:
            hint = f"above 0 s, at most {MAX_LENGTH_S:.0f}"
            raise OptionError(f"for_s={entry.length_s} is no length of an entry", hint=hint)
        if entry.every_s and not MIN_EVERY_S <= entry.every_s <= MAX_EVERY_S:
            hint = f"{MIN_EVERY_S:.0f} .. {MAX_EVERY_S:.0f}, or 0 for one occurrence"
            raise OptionError(f"every_s={entry.every_s} is out of range", hint=hint)
        if entry.every_s and entry.every_s <= entry.length_s:
            text = f"every_s={entry.every_s} is not longer than one occurrence, {entry.length_s} s"
            raise OptionError(text, hint="shorter occurrences")
        if not now_s - MAX_EVERY_S < entry.begin_s < now_s + MAX_EVERY_S:
            text = f"start_s={entry.begin_s} is not within a year of now ({now_s:.0f})"
            raise OptionError(text, hint="seconds since 1970")
        if entry.zone and time_zone(entry.zone) is None:
            hint = (
                "a name such as Europe/Rome, of which the service's machine has the tzdata; or UTC"
            )
            raise OptionError(f"zone={entry.zone[:80]!r} is no time zone there", hint=hint)
        if entry.occurrence(now_s) is None:
            raise OptionError(f"start_s={entry.begin_s}: the entry is over already")
        if entry.ask is None:
            if identity.scope:
                raise NotAllowedError("maintenance is planned by administrators")
            if entry.node and entry.node not in self._scheduler.state.cluster.nodes.hosts:
                nodes = ", ".join(self._scheduler.state.cluster.nodes.hosts)
                raise NotFoundError(f"no node {entry.node[:80]!r}", hint=f"there are: {nodes}")
        else:
            if entry.node:
                raise OptionError(f"node={entry.node[:80]!r}: a reservation is of a device")
            check_request(entry.ask)
            check_scope(identity, entry.ask)
            self._scheduler.state.cluster.check_device(entry.ask.device)
            self._accounts.reservation_terms(identity.owner, entry.ask)
        owner = "" if entry.ask is None else identity.owner
        number = self._calendar.next_id
        entry = msgspec.structs.replace(entry, id=number, owner=owner, decided_s=now_s)
        reservation_limits.check_planned(self._scheduler.state, entry, now_s)
        return entry

    def _store(self) -> None:
        """Put changed entries into the next commit."""
        changes = self._calendar.take_changes()
        if changes:
            statements = tables.calendar_statements(changes, self._calendar.next_id)
            self._journal.put(statements, forced=True)
