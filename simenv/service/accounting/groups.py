"""Members of groups of the operating system.

The name service (NSS) may ask a directory over the network and take seconds. Invariant: only a
thread of its own asks it; the event loop's thread takes the answers over when they are complete.
"""

from __future__ import annotations

import grp
import logging
import pwd
import threading
import time
from collections.abc import Callable, Iterable, Mapping

LOOKUP_NS = 30_000_000_000  # between two lookups of the same groups
# For which members of a group stay that is not found any more: a directory may be out of order.
GONE_NS = 600_000_000_000

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
        self._lookup = lookup
        self._found_ns: dict[str, int] = {}  # time at which a group was found last
        self._next_ns = 0
        self._asked = frozenset[str]()  # groups of the last lookup
        self._thread: threading.Thread | None = None
        self._answer: Members | None = None

    def lacks(self, groups: frozenset[str]) -> bool:
        """Return whether some of these groups have not been looked up yet."""
        return not groups <= self.known.keys()

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
        before = dict(self.known)
        for name, members in (answer or {}).items():
            if members is not None:
                self._found_ns[name] = now_ns
                self.known[name] = members
            elif now_ns - self._found_ns.get(name, -GONE_NS) >= GONE_NS:
                if before.get(name) or name not in before:
                    log.warning("groups.unknown there is no group %r", name)
                self.known[name] = frozenset()
        return self.known != before
