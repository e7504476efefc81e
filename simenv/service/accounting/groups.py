"""Members of groups of the operating system.

The name service (NSS) may ask a directory over the network and take seconds. Invariant: only a
thread of its own and the credential broker ask it; the event loop's thread takes the answers over
when they are complete. Many directories do not list all users, or not the members of a group (sssd:
`enumerate`, `ignore_group_members`); the groups of one user, which the broker looks up, are
complete there too. A user is a member if either says so.
"""

from __future__ import annotations

import grp
import logging
import pwd
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

LOOKUP_NS = 30_000_000_000  # between two lookups of the same groups
# For which members stay of a group that is not found any more, or of a user whose groups the broker
# does not confirm: a directory may be out of order.
GONE_NS = 600_000_000_000

# After a start in which the broker names the groups of users who have tasks or reservations. Until
# then nobody is removed who is in no account, but waiting tasks may be held.
CONFIRM_NS = 40_000_000_000

log = logging.getLogger("simenv.service")

Members = Mapping[str, frozenset[str] | None]  # by group; None: there is no such group


def members_of(groups: Iterable[str]) -> Members:
    """Return the members of groups, with users whose primary group it is. May block for seconds."""
    primary: dict[int, set[str]] = {}
    for user in pwd.getpwall():
        primary.setdefault(user.pw_gid, set()).add(user.pw_name)
    results: dict[str, frozenset[str] | None] = {}
    for name in groups:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            results[name] = None
        else:
            results[name] = frozenset(group.gr_mem).union(primary.get(group.gr_gid, ()))
    return results


class GroupMembers:
    """Members of groups as of the last lookup. Used from the loop's thread."""

    def __init__(self, lookup: Callable[[Iterable[str]], Members] = members_of) -> None:
        """`lookup`: returns the members of groups; called in a thread."""
        self.known: dict[str, frozenset[str]] = {}
        self._listed: dict[str, frozenset[str]] = {}  # by the lookups
        self._confirmed: dict[str, tuple[int, frozenset[str]]] = {}  # time and groups of users
        self._lookup = lookup
        self._found_ns: dict[str, int] = {}  # time at which a group was found last
        self._next_ns = 0
        self._asked = frozenset[str]()  # groups of the last lookup
        self._thread: threading.Thread | None = None
        self._answer: Members | None = None

    def lacks(self, groups: frozenset[str]) -> bool:
        """Return whether some of these groups have not been looked up yet."""
        return not groups <= self._listed.keys()

    def is_confirmed(self, user: str) -> bool:
        """Return whether the groups of a user are known, also those of which it is no member."""
        return user in self._confirmed

    def confirm(self, user: str, groups: Iterable[str], now_ns: int) -> bool:
        """Record the present groups of a user, as the name service lists them for this user.
        Returns whether members have changed."""
        names, (_, before) = frozenset(groups), self._confirmed.get(user, (0, frozenset()))
        self._confirmed[user] = now_ns, names
        return names != before and self._merge()

    def retain(self, users: Collection[str], now_ns: int) -> bool:
        """Forget the confirmed groups of all users but these, and those that were confirmed too
        long ago. Returns whether members have changed."""
        count = len(self._confirmed)
        self._confirmed = {
            user: (at_ns, names)
            for user, (at_ns, names) in self._confirmed.items()
            if user in users and now_ns - at_ns < GONE_NS
        }
        return len(self._confirmed) < count and self._merge()

    def poll(self, groups: frozenset[str], now_ns: int) -> bool:
        """Take over the answer of a lookup, and begin the next one when it is due. Returns whether
        members have changed."""
        changed = False
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            changed = self._take_over(now_ns)
        is_due = now_ns >= self._next_ns or not groups <= self._asked
        if groups and self._thread is None and is_due:
            self._next_ns, self._asked = now_ns + LOOKUP_NS, groups
            self._thread = threading.Thread(
                target=self._run, args=(groups,), name="groups", daemon=True
            )
            self._thread.start()
        return changed

    def wait(self, groups: frozenset[str], timeout_s: float) -> None:
        """Look groups up and wait for the answer, at a start."""
        self.poll(groups, time.monotonic_ns())
        if self._thread is not None:
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                log.warning("groups.slow the members of groups are not known after %g s", timeout_s)
            else:
                self._thread = None
                self._take_over(time.monotonic_ns())

    def _run(self, groups: frozenset[str]) -> None:
        try:
            self._answer = self._lookup(sorted(groups))
        except Exception as error:  # noqa: BLE001 - of any module of NSS; asked again later
            log.warning("groups.failed %s: %s", type(error).__name__, error)

    def _take_over(self, now_ns: int) -> bool:
        answer, self._answer = self._answer, None
        before = self._listed
        self._listed = dict(before)
        for name, members in (answer or {}).items():
            if members is not None:
                self._found_ns[name] = now_ns
                self._listed[name] = members
            elif now_ns - self._found_ns.get(name, -GONE_NS) >= GONE_NS:
                if before.get(name) or name not in before:
                    log.warning("groups.unknown there is no group %r", name)
                self._listed[name] = frozenset()
        return self._merge()

    def _merge(self) -> bool:
        before = self.known
        members = {name: set(users) for name, users in self._listed.items()}
        for user, (_, names) in self._confirmed.items():
            for name in names & self._asked:
                members.setdefault(name, set()).add(user)
        self.known = {name: frozenset(users) for name, users in members.items()}
        return self.known != before


class AccountGroups:
    """Groups that accounts name, and how much is known about them. Used from the loop's thread."""

    def __init__(self, members: GroupMembers, *, has_broker: bool) -> None:
        """`has_broker`: a credential broker confirms the groups of users."""
        self.members = members
        self.names: frozenset[str] = frozenset()
        self._certain_ns = time.monotonic_ns() + CONFIRM_NS if has_broker else 0

    @property
    def lacks_some(self) -> bool:
        """True if some of the groups have not been looked up yet."""
        return self.members.lacks(self.names)

    def is_certain(self, user: str, now_ns: int) -> bool:
        """Return whether all groups of a user that accounts name are known."""
        if self.lacks_some:
            return False
        is_named = now_ns >= self._certain_ns or self.members.is_confirmed(user)
        return is_named or not self.names
