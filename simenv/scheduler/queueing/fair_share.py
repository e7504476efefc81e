"""Shares and usage of accounts and users: who goes first.

Fair share (policy `fair_share`): from the site down the tree of accounts, at each level the child
with the least usage for its share goes first, as in Slurm's Fair Tree; equals by waiting time. A
task's expected billing units count from its assignment on, so that free slots are not all given to
one account; what it really used replaces them when it ends. Usage is halved every half-life.

Turns (policy `priority`): the owner with the least work so far goes first. Start-time fair queueing
(Goyal, Vin, Cheng, SIGCOMM 1996). Work counts that was assigned while others waited. An owner who
comes back starts from the least figure of those who wait, so nobody saves up turns. Nothing of it
is kept when nobody waits.

Under both, a flood of one delays another by one task at most.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Protocol

from simenv.model.accounts import NO_ACCOUNTS, ROOT, AccountTree, Billing, ShareRow, association

SITE = "/"  # the root of the tree: no account can have this name
DAY_NS = 86_400 * 10**9
_REBASE = 2.0**40  # growth at which figures are divided by it
_RANKED_NS = 10**9  # age of ranks
_FELL = 2_048  # nodes remembered whose usage fell; at times twice as many


class UsageOrder(Protocol):
    """The order of associations."""

    fell: list[str]  # associations whose usage fell, the oldest first
    forgotten: int  # number of entries dropped from the front of `fell`
    changes: int  # of any ratio
    ratios: dict[str, float]  # usage of a node for its share, 0.0 if absent; the least goes first

    def path(self, leaf: str) -> tuple[str, ...]:
        """Return the nodes from a child of the site to this association."""

    def arrive(self, leaf: str, waiting: Iterable[str]) -> None:
        """Note that an association with no waiting tasks has some now."""

    def assigned(self, leaf: str, count: int, units: float) -> None:
        """Count assigned tasks with their expected units."""

    def copy(self) -> UsageOrder:
        """Return a copy, in which an order can be tried."""


class Turns:
    """Work of each owner in one queue that was assigned while others waited."""

    def __init__(self, received: Mapping[str, float] | None = None) -> None:
        self.ratios = dict(received or {})
        self.fell: list[str] = []
        self.forgotten = self.changes = 0

    def path(self, leaf: str) -> tuple[str, ...]:
        return (leaf,)

    def arrive(self, leaf: str, waiting: Iterable[str]) -> None:
        """Raise the figure of a new owner to the least of the others; figures that no longer matter
        are removed."""
        others = {each: self.ratios.get(each, 0.0) for each in waiting if each != leaf}
        least = min(others.values(), default=0.0)
        self.changes += 1
        self.ratios = {
            **{each: units for each, units in self.ratios.items() if units > least},
            **others,
            leaf: max(least, self.ratios.get(leaf, 0.0)),
        }

    def assigned(self, leaf: str, count: int, units: float) -> None:  # noqa: ARG002
        self.ratios[leaf] = self.ratios.get(leaf, 0.0) + units
        self.changes += 1

    def copy(self) -> Turns:
        return Turns(self.ratios)


class FairShare:
    """Usage of all associations and accounts, in billing units.

    Figures are kept multiplied by a growth of 2 per half-life, so that decay changes no figure and
    no order; only what is added grows. Expected units of assigned tasks are kept apart: they are
    lost in a restart, as the assignments are.
    """

    def __init__(self, tree: AccountTree = NO_ACCOUNTS, billing: Billing | None = None) -> None:
        self.fell: list[str] = []
        self.forgotten = self.changes = 0
        self._now_ns = self._base_ns = 0
        self._growth = 1.0  # of what is added now
        self._settled: dict[str, float] = {}  # by association: grown units of ended tasks
        self._pending: dict[str, float] = {}  # by association: expected grown units
        self._running: dict[str, int] = {}  # by association: assigned tasks
        self._names: dict[str, tuple[str, str]] = {}  # association -> account, user
        # Ranks of associations, and the time of which they are.
        self._ranked: tuple[int, dict[str, int]] = 0, {}
        self._level_shares: dict[str, float] = {}  # by parent: sum of its children's shares
        self._sums: dict[str, float] = {}  # by node: settled and pending of all below
        self._shares: dict[str, float] = {}  # of accounts; those of other nodes are 1
        self.ratios: dict[str, float] = {}
        self._paths: dict[str, tuple[str, ...]] = {}
        self._changed: set[str] = set()
        self.set(tree, billing or Billing())

    def set(self, tree: AccountTree, billing: Billing) -> None:
        """Replace accounts and weights; usage stays."""
        self.tree, self.billing = tree, billing
        self._half_life_ns = max(billing.half_life_days, 1e-6) * DAY_NS
        self._growth = self._growth_at(self._now_ns)
        self._paths.clear()
        self._ranked = 0, {}
        self._level_shares.clear()
        self._sums, self.ratios = {}, {}
        self._shares = {name: each.share for name, each in tree.accounts.items()}
        self.changes += 1
        for leaf in dict.fromkeys((*self._settled, *self._pending)):
            self._add(leaf, self._settled.get(leaf, 0.0) + self._pending.get(leaf, 0.0))

    def at(self, now_ns: int) -> None:
        """Set the present time, up to which usage decays."""
        self._now_ns = now_ns
        if not self._base_ns:
            self._base_ns = now_ns
        self._growth = growth = self._growth_at(now_ns)
        if growth > _REBASE:
            for figures in (self._settled, self._pending, self._sums):
                for key in figures:
                    figures[key] /= growth
            self.ratios = {n: used / self._share(n) for n, used in self._sums.items()}
            self._base_ns, self._growth = now_ns, 1.0
            self.changes += 1
            self._fall(*self._paths)  # entries of heaps are of the old base

    def _growth_at(self, now_ns: int) -> float:
        return math.exp2((now_ns - self._base_ns) / self._half_life_ns)

    def path(self, leaf: str) -> tuple[str, ...]:
        path = self._paths.get(leaf)
        if path is None:
            account, slash, _ = leaf.partition("/")
            accounts = self.tree.path(account) if slash else ()
            path = self._paths[leaf] = (*accounts, leaf)
        return path

    def _share(self, node: str) -> float:
        return self._shares.get(node, 1.0)

    def ratio(self, node: str) -> float:
        return self.ratios.get(node, 0.0)

    def arrive(self, leaf: str, waiting: Iterable[str]) -> None:
        """Usage is remembered: nothing changes."""

    def assigned(self, leaf: str, count: int, units: float) -> None:
        grown = units * self._growth
        self._running[leaf] = self._running.get(leaf, 0) + count
        self._pending[leaf] = self._pending.get(leaf, 0.0) + grown
        self._add(leaf, grown)

    def ended(self, leaf: str, count: int, expected: float, units: float = 0.0) -> None:
        """Replace the expected units of assigned tasks by what they used; 0: they go back to the
        queue, or did not run. The last task of an association takes all that was expected."""
        growth, pending = self._growth, self._pending.get(leaf, 0.0)
        left = self._running.get(leaf, 0) - count
        removed = min(expected * growth, pending) if left > 0 else pending
        if left > 0:
            self._running[leaf], self._pending[leaf] = left, pending - removed
        else:
            self._running.pop(leaf, None)
            self._pending.pop(leaf, None)
        self.charge(leaf, units, removed)

    def charge(self, leaf: str, units: float, removed: float = 0.0) -> None:
        """Add used units; `removed`: grown units to take from what was expected."""
        added = units * self._growth
        if added:
            self._settled[leaf] = self._settled.get(leaf, 0.0) + added
            self._changed.add(leaf)
        self._add(leaf, added - removed)
        if added < removed:
            self._fall(leaf)

    def expect(self, leaf: str, units: float) -> None:
        """Add units of a task that runs longer than expected."""
        if leaf in self._running:
            grown = units * self._growth
            self._pending[leaf] = self._pending.get(leaf, 0.0) + grown
            self._add(leaf, grown)

    def _add(self, leaf: str, grown: float) -> None:
        sums, ratios, shares = self._sums, self.ratios, self._shares
        self.changes += 1
        for node in self.path(leaf):
            used = sums.get(node, 0.0) + grown
            sums[node] = used = used if used > 0.0 else 0.0
            ratios[node] = used / shares[node] if node in shares else used

    def _fall(self, *leaves: str) -> None:
        self.fell += leaves
        excess = len(self.fell) - _FELL
        if excess > _FELL:  # rarely, because it moves the others
            self.forgotten += excess
            del self.fell[:excess]

    def copy(self) -> FairShare:
        copy = FairShare.__new__(FairShare)
        for name, value in vars(self).items():
            vars(copy)[name] = value.copy() if isinstance(value, dict | set | list) else value
        return copy

    # --- what is shown and stored ----------------------------------------------------------------

    def user(self, leaf: str) -> str:
        """Return the user of an association."""
        return self._names[leaf][1] if leaf in self._names else leaf.rpartition("/")[2]

    def name(self, leaf: str, account: str, user: str) -> None:
        """Note whose an association is."""
        if leaf not in self._names:
            self._names[leaf] = account, user
            self._level_shares.clear()

    def usage(self, account: str, user: str = "", now_ns: int = 0) -> float:
        """Return the decayed units of a user in an account; of all users with user ""."""
        self.at(max(now_ns, self._now_ns))
        growth = self._growth
        if user or not account:
            return self._settled.get(association(account, user), 0.0) / growth
        below = (leaf for leaf in self._settled if account in self.path(leaf))
        return sum(self._settled[leaf] for leaf in below) / growth

    def standing(self, leaf: str, now_ns: int) -> tuple[float, float, int]:
        """Return the share of the site (0 to 1), the decayed units of its account, and the rank of
        an association as of the last second: 1 goes first."""
        self.at(now_ns)
        ranked_ns, ranks = self._ranked
        if now_ns - ranked_ns > _RANKED_NS or leaf not in ranks:
            ranks = self._ranking(dict.fromkeys((*self._users(), leaf)))
            self._ranked = now_ns, ranks
        path = self.path(leaf)
        account = path[-2] if len(path) > 1 else leaf
        used = self._sums.get(account, 0.0) / self._growth
        return self._norm_share(path), used, ranks[leaf]

    def _users(self) -> dict[str, tuple[str, str]]:
        """Return account and user of all associations that exist or have used something."""
        members = self.tree.members.items()
        of_tree = {association(name, user): (name, user) for name, each in members for user in each}
        unnamed = {leaf: ("", leaf) for leaf in self._settled}  # without accounts
        return {**of_tree, **unnamed, **self._names}

    def sort_key(self, leaf: str) -> tuple[float, ...]:
        """Return the sort key of an association: usage for its share at each level of the tree."""
        get = self.ratios.get
        return tuple([get(node, 0.0) for node in self.path(leaf)])

    def _ranking(self, leaves: Iterable[str]) -> dict[str, int]:
        """Return the rank of each of these associations, in their order: 1 goes first."""
        order = sorted(leaves, key=self.sort_key)
        return {leaf: place for place, leaf in enumerate(order, 1)}

    def _norm_share(self, path: tuple[str, ...]) -> float:
        """Return the share of the site of the last node of a path."""
        share, parent = 1.0, ""
        for node in path:
            if parent not in self._level_shares:
                self._level_shares[parent] = self._level_share(parent)
            share *= self._share(node) / max(self._share(node), self._level_shares[parent])
            parent = node
        return share

    def _level_share(self, parent: str) -> float:
        """Return the sum of the shares of a node's children: accounts, and users with 1 each."""
        accounts = sum(each.share for each in self.tree.accounts.values() if each.parent == parent)
        if parent or not self.tree:
            users = sum(account == parent for account, _ in self._users().values())
        else:  # of those in no account of the tree, only the environment's own user
            users = int(any(account == ROOT for account, _ in self._names.values()))
        return accounts + users

    def rows(self, now_ns: int) -> list[ShareRow]:
        """Return all accounts, each with its users below it, in the order of the tree."""
        self.at(now_ns)
        growth, used = self._growth, dict[str, float]()
        for leaf, units in self._settled.items():
            for node in (SITE, *self.path(leaf)):
                used[node] = used.get(node, 0.0) + units / growth
        users = self._users()
        ranks = self._ranking(users)
        rows: list[ShareRow] = []

        def add(path: tuple[str, ...], account: str, user: str) -> None:
            node, level = path[-1], len(path) - 1
            of_site = used.get(node, 0.0) / (used.get(SITE) or 1.0)
            norm_share, rank = self._norm_share(path), ranks.get(node, 0)
            figures = self._share(node), norm_share, used.get(node, 0.0), of_site, rank
            rows.append(ShareRow(account, user, level, *figures))

        def below(parent: str) -> None:
            for leaf in ranks:
                account, user = users[leaf]
                if account == parent or (account not in self.tree.accounts and not parent):
                    add(self.path(leaf), account, user)
            for name, entry in self.tree.accounts.items():
                if entry.parent == parent:
                    add(self.tree.path(name), name, "")
                    below(name)

        below("")
        return rows

    def take_changes(self, offset_ns: int = 0) -> dict[str, tuple[str, str, float, int]]:
        """Return account, user, decayed units and time (wall clock, ns) of the associations whose
        usage changed since the last call. `offset_ns`: wall clock minus monotonic clock."""
        growth, at_ns = self._growth, self._now_ns + offset_ns
        changed, self._changed = self._changed, set()
        return {
            leaf: (*self._names.get(leaf, ("", leaf)), self._settled[leaf] / growth, at_ns)
            for leaf in sorted(changed)
        }

    def restore(
        self, stored: Mapping[str, tuple[str, str, float, int]], offset_ns: int, now_ns: int
    ) -> None:
        """Continue from stored usage, decayed since then."""
        self.at(now_ns)
        for leaf, (account, user, units, at_ns) in stored.items():
            age_ns = max(0, now_ns + offset_ns - at_ns)
            self._names[leaf] = account, user
            self.charge(leaf, units * math.exp2(-age_ns / self._half_life_ns))
        self._changed.clear()
