"""Users who may not enter the environment any more: they are in no account, or the site's identity
refuses them. Their reservations end; their waiting tasks are kept, held or cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import islice

from simenv.config import Config
from simenv.model import ReservationState
from simenv.scheduler import core
from simenv.scheduler.scheduler import Scheduler
from simenv.service.accounting.budgets import ENDED_PER_TICK
from simenv.service.accounting.groups import AccountGroups

LOOK_NS = 1_000_000_000  # between two looks at held tasks


class RemovedUsers:
    """Removed users with unfinished tasks or reservations. Used from the loop's thread."""

    def __init__(self, config: Config, scheduler: Scheduler, groups: AccountGroups) -> None:
        self._scheduler = scheduler
        self._state = scheduler.state
        self._groups = groups
        self._policy = config.removed_users
        self._hold_ns = round(config.removed_hold_s * 1e9)
        self._refused: dict[str, str] = {}  # users whom the site's identity refuses, and why
        self._since_ns: dict[str, int] = {}  # by user whose waiting tasks are held
        self._next_ns = 0
        self._unchecked = False  # users may have been removed, or have come back

    def check_again(self) -> None:
        """Look at all users in the next tick: accounts or members of groups have changed."""
        self._unchecked = True

    def refusal(self, owner: str) -> str:
        """Return why the site's identity refuses a user; "": it does not."""
        return self._refused.get(owner, "")

    def note_identity(self, owner: str, refusal: str) -> None:
        """Note why the site's identity refuses a user who had entered; "": it accepts them."""
        if refusal != self._refused.get(owner, ""):
            self._refused[owner] = refusal
            self._unchecked = True

    def tick(self, now_ns: int) -> list[core.Action]:
        """End reservations and waiting tasks of removed users, as the policy says."""
        is_due = now_ns >= self._next_ns
        if is_due:
            self._next_ns = now_ns + LOOK_NS
        return self._end(now_ns) if self._unchecked or (is_due and self._since_ns) else []

    def _removed(self) -> dict[str, str]:
        """Return the users with unfinished tasks or reservations who may not enter any more, each
        with a reason."""
        removed: dict[str, str] = {}
        live = self._state.reservations.live.values()
        reserving = self._state.reserving_owners()
        if self._state.shares.accounts:
            owners = {each.owner for each in self._state.tasks.by_association}
            for owner in owners | {each.grant.owner for each in live if each.grant.ask.account}:
                if owner and not self._state.shares.accounts.accounts_of(owner):
                    removed[owner] = f"{owner!r} is in no account of this environment any more"
        self._refused = {
            owner: text
            for owner, text in self._refused.items()
            if text and (owner in reserving or self._state.tasks.by_owner.of(owner))
        }
        return removed | self._refused

    def _end(self, now_ns: int) -> list[core.Action]:
        """End the reservations of users who may not enter any more, and hold or cancel their
        waiting tasks, some in each tick."""
        self._unchecked = self._groups.lacks_some
        if self._unchecked:
            return []
        removed, since_ns = self._removed(), self._since_ns
        certain = {
            owner: text
            for owner, text in removed.items()
            if owner in self._refused or self._groups.is_certain(owner, now_ns)
        }
        self._unchecked = len(certain) < len(removed)
        actions = self._end_reservations(certain, now_ns)
        if self._policy == "keep":
            return actions
        self._since_ns = {owner: since_ns.get(owner, now_ns) for owner in removed}
        self._scheduler.hold_removed(frozenset(removed))
        hold_ns = self._hold_ns if self._policy == "hold" else 0
        for owner, text in sorted(certain.items()):
            if now_ns - self._since_ns[owner] < hold_ns:
                continue
            records = self._state.tasks.by_owner.of(owner)
            waiting = (record.number for record in records if record.phase in core.UNSENT)
            if numbers := list(islice(waiting, ENDED_PER_TICK)):
                self._unchecked = True
                return actions + self._scheduler.end_early(numbers, "cancelled", text, now_ns)
        return actions

    def _end_reservations(self, removed: Mapping[str, str], now_ns: int) -> list[core.Action]:
        """End reservations of removed users. One that was made before there were accounts, whose
        owner is in none, lasts to its end: nobody has removed that user."""
        actions: list[core.Action] = []
        for entry in list(self._state.reservations.live.values()):
            owner = entry.grant.owner
            if owner in self._refused or (owner in removed and entry.grant.ask.account):
                final_state, wall_ns = ReservationState.RELEASED, time.time_ns()
                actions += self._scheduler.close_reservation(
                    entry, final_state, removed[owner], wall_ns, now_ns
                )
        return actions
