"""Accounts, shares, classes of service, usage and receipts.

The tree: the site, its accounts, accounts below them, and users as leaves. A user in an account is
an association, as in Slurm's accounting (sacctmgr); it is written "account/user". Among siblings,
shares are relative: the child with share 2 of three with 1, 1 and 2 gets half of what their parent
gets. Usage is counted in billing units, as Slurm's TRESBillingWeights do: one unit is one slot for
one second.

Without any configured account there is no tree: the association of a task is its owner.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from simenv.errors import ConfigError, NotAllowedError, NotFoundError
from simenv.model.program import FEW, Text
from simenv.model.task import TaskState

ROOT = "root"  # the account of the environment's own user, a child of the site like the others
MAX_ACCOUNTS = 1_000
MAX_DEPTH = 8  # levels of accounts below the site
MAX_SHARE = 1e6
MAX_UNITS = 1e15
GROUP = "@"  # begins the name of a group of the operating system in `Account.users`
SLOT_HOUR = 3_600.0  # billing units
Names = Annotated[tuple[Text, ...], msgspec.Meta(max_length=10_000)]
LimitValues = Annotated[dict[Text, int], FEW]


class Account(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One account: a table [accounts.NAME]."""

    parent: Text = ""  # another account; "": the site
    share: float = 1.0  # relative to that of its siblings
    users: Names = ()  # names of users, and "@group": all members of a group
    coordinators: Names = ()  # users who see what all users of the account used
    budget_slot_h: float = 0.0  # billing units of a calendar month / 3600; 0: no budget
    cut: bool = False  # end its tasks when the budget is spent
    qos: Names = ()  # the classes that it may use, the default first; empty: all
    limits: LimitValues = {}  # of all its users together, by name of `simenv.model.Limits`


class Qos(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One class of service (quality of service, as in Slurm): a table [qos.NAME]."""

    priority: int = 0  # added to the priority of its tasks
    usage_factor: float = 1.0  # multiplies the billing units of its tasks
    preempt: bool = False  # its tasks may be preempted: checkpointed, and queued again for others
    max_run_s: int = 0  # of one task; 0: no limit
    limits: LimitValues = {}  # of each user in it, by name of `simenv.model.Limits`


class Billing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Weights of billing units, and how usage is forgotten: the table [billing]."""

    slot_s: float = 1.0  # one slot, for one second
    gpu_s: float = 20.0  # one GPU, for one second
    gib_s: float = 0.01  # GiB of memory granted, for one second
    device_s: dict[str, float] = {}  # by pool: of one second on its emulated device or machine
    half_life_days: float = 7.0  # of usage (Slurm's PriorityDecayHalfLife)
    preempt_after_s: float = 300.0  # waiting of an account far below its share; 0: never
    preempt_running_s: float = 0.0  # tasks of any class that run longer may be preempted; 0: none

    def units(self, used: Used, pool: str, usage_factor: float = 1.0) -> float:
        """Return the billing units of what a task used in a pool."""
        weighted = self.slot_s * used.slot_us + self.gpu_s * used.gpu_us + self.gib_s * used.gib_us
        return usage_factor * (weighted + self.device_s.get(pool, 0.0) * used.device_us) / 1e6


class Used(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a task used, in microseconds times number."""

    slot_us: int = 0
    gpu_us: int = 0
    gib_us: int = 0  # GiB of memory granted x microseconds, rounded
    device_us: int = 0  # on its emulated device or machine

    def __add__(self, other: Used) -> Used:
        return Used(
            self.slot_us + other.slot_us,
            self.gpu_us + other.gpu_us,
            self.gib_us + other.gib_us,
            self.device_us + other.device_us,
        )


class WaitReason(enum.IntEnum):
    """Why a task waited. The numbers are stored; each is used for one meaning for ever."""

    OWN_TASKS = 0  # behind earlier tasks of the same user in the same account
    SHARE = 1  # others went first: its account or user was further above its share
    SLOTS = 2  # it was next: no worker with a free slot
    RANKS = 3  # it was next: not enough free slots for its ranks
    RESERVED = 4  # it was next: slots are reserved by others, whom its user is not told
    UNITS = 5  # for units of its own reservation
    PARENTS = 6  # for the tasks that it comes after
    LIMIT = 7  # a limit of running slots of its user or account
    DEVICE = 8  # its device was paused, drained, in an outage or at its limit of tasks
    STARTING = 9  # workers were started
    LOST = 10  # an attempt that was lost with its worker or node, and ran again
    PREEMPTED = 11  # an attempt that was ended for an account below its share
    ALLOCATION = 12  # it would not have ended before the allocation
    REMOVED = 14  # its user is in no account or group of the site any more
    ISOLATION = 15  # it was next: a worker of another account was restarted for its account
    NODES = 16  # no node was up: they were drained, or lost
    SERVICE = 13  # nothing: admission, the journal and the way to the worker


Waits = tuple[tuple[int, int], ...]  # (WaitReason, microseconds)


def explained_waits(waits: Waits, waited_us: int) -> dict[WaitReason, int]:
    """Return the parts of a wait in microseconds, which add up to `waited_us`. What `waits` does
    not explain was spent behind the user's own earlier tasks, or in the service where there is
    nothing to explain; what it explains in excess (the clocks run for the whole queue) is taken
    from the longest parts."""
    parts: dict[WaitReason, int] = {}
    for reason, spent_us in waits:
        kind = WaitReason(reason)
        parts[kind] = parts.get(kind, 0) + spent_us
    excess = sum(parts.values()) - waited_us
    if excess < 0:
        rest = WaitReason.OWN_TASKS if waits else WaitReason.SERVICE
        parts[rest] = parts.get(rest, 0) - excess
    for kind in sorted(parts, key=parts.__getitem__, reverse=True):
        taken = min(max(excess, 0), parts[kind])
        parts[kind] -= taken
        excess -= taken
    return {kind: spent_us for kind, spent_us in parts.items() if spent_us}


class Receipt(msgspec.Struct, frozen=True):
    """The account of one ended task; it never changes."""

    task: str
    user: str  # "": the environment's own user
    account: str  # "": there were no accounts
    qos: str
    state: TaskState
    submitted_s: float  # seconds since 1970
    ended_s: float
    pool: str
    engine: str
    slots: int
    used: Used
    units: float  # billing units, with the class's factor
    share: float  # of the account and user among all, at submission, 0 .. 1
    usage: float  # decayed billing units of the account at submission
    rank: int  # among the associations at submission: 1 goes first
    waited_us: int
    waits: Waits  # see `explained_waits`
    run_us: int = 0
    forecast_us: int = 0  # of its run on one slot, by the cost model at its submission


class ShareRow(msgspec.Struct, frozen=True):
    """Share and usage of an account, or of a user in it (as `sshare` of Slurm shows them)."""

    account: str
    user: str  # "": the account itself
    level: int  # 0: a child of the site
    share: float
    norm_share: float  # of the whole site
    usage: float  # decayed billing units
    norm_usage: float  # of the whole site's
    rank: int  # of a user: 1 goes first; of an account: 0
    left_units: float = -1.0  # of the budget of this month; -1: no budget


USAGE_KEYS = ("account", "user", "qos", "pool", "device", "engine")


class UsageRow(msgspec.Struct, frozen=True):
    """Sums over ended tasks. `key`: values of the names asked for, in their order."""

    key: Names
    tasks: int
    shots: int
    used: Used
    wait_us: int
    units: float


class AccountTree:
    """The accounts of a site with the members of their groups. Values are never changed."""

    def __init__(
        self, accounts: Mapping[str, Account], groups: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        """`groups`: members of each group that accounts name. Raises ConfigError for a parent that
        does not exist, a circle, or a bad share."""
        self.accounts = dict(accounts)
        members = {name: frozenset(users) for name, users in (groups or {}).items()}
        self.members: dict[str, frozenset[str]] = {}  # users of each account
        self._coordinators: set[str] = set()
        self._of_user: dict[str, list[str]] = {}  # accounts of each user, in the order of the table
        for name, account in self.accounts.items():
            self._check(name, account)
            users: set[str] = set()
            for user in account.users:
                users |= members.get(user[1:], frozenset()) if user.startswith(GROUP) else {user}
            self.members[name] = frozenset(users)
            self._coordinators.update(account.coordinators)
            for user in users:
                self._of_user.setdefault(user, []).append(name)
        self._paths = {name: self._walk(name) for name in self.accounts}  # each submission asks

    def __bool__(self) -> bool:
        """True if accounts are configured."""
        return bool(self.accounts)

    def _check(self, name: str, account: Account) -> None:
        seen, parent = [name], account.parent
        while parent:
            if parent not in self.accounts:
                others = [each for each in self.accounts if each not in seen]
                there = f"there are: {', '.join(others[:10])}"
                text = f"account {seen[-1]!r}: there is no parent {parent!r}"
                raise ConfigError(text, hint=there if others else "add that account first")
            if parent in seen or len(seen) >= MAX_DEPTH:
                way = " < ".join([*seen, parent])
                hint = f"no circles, and at most {MAX_DEPTH} levels"
                raise ConfigError(f"account {name!r} is below itself or too deep: {way}", hint=hint)
            seen.append(parent)
            parent = self.accounts[parent].parent
        for key, value in (("share", account.share), ("budget_slot_h", account.budget_slot_h)):
            low = 0.0 if key == "budget_slot_h" else 1e-6
            if not low <= value <= MAX_SHARE:
                raise ConfigError(
                    f"account {name!r}: {key} = {value} is outside {low:g} .. {MAX_SHARE:g}"
                )

    def _walk(self, account: str) -> tuple[str, ...]:
        path: list[str] = []
        while account:
            path.append(account)
            account = self.accounts[account].parent
        return tuple(reversed(path))

    def path(self, account: str) -> tuple[str, ...]:
        """Return the accounts from a child of the site to this one; of one that is not in the tree
        itself alone."""
        return self._paths.get(account, (account,) if account else ())

    def accounts_of(self, user: str) -> tuple[str, ...]:
        """Return the accounts that a user may use, the default first."""
        return tuple(self._of_user.get(user, ()))

    def resolve(self, user: str, account: str) -> str:
        """Return the account of a submission: the one asked for, or the user's default one. The
        environment's own user ("") may use all. Raises NotFoundError, NotAllowedError."""
        if not self.accounts:
            if account:
                raise NotFoundError(
                    f"account {account!r}: this environment has no accounts",
                    hint="submit without account=; an admin makes one: simenv accounts add",
                )
            return ""
        if not user:
            account = account or ROOT
            if account != ROOT and account not in self.accounts:
                raise NotFoundError(f"there is no account {account!r}", hint=self._there_are())
            return account
        allowed = self._of_user.get(user, ())
        if not allowed:
            raise NotAllowedError(
                f"{user!r} is in no account of this environment",
                hint="ask a coordinator or an admin: simenv accounts set NAME --add-user",
            )
        if not account:
            return allowed[0]
        if account not in allowed:
            names = ", ".join(allowed)
            raise NotAllowedError(
                f"{user!r} is not in the account {account!r}", hint=f"yours: {names}"
            )
        return account

    def sees(self, user: str) -> frozenset[str]:
        """Return the accounts whose usage a user may see in full: those that the user coordinates,
        and all below them."""
        if user not in self._coordinators:
            return frozenset()
        return frozenset(
            name
            for name in self.accounts
            if any(user in self.accounts[each].coordinators for each in self.path(name))
        )

    def _there_are(self) -> str:
        return f"there are: {', '.join(list(self.accounts)[:10]) or 'none'}"


NO_ACCOUNTS = AccountTree({})


def association(account: str, user: str) -> str:
    """Return the name of a user in an account; without accounts, of the user alone."""
    return f"{account}/{user}" if account else user
