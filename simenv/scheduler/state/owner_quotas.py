"""Limits of owners, and checks of submissions and reservations against them.

Pure functions. Limits are looked up by the owner's name; the environment's own user, "", has none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from simenv import model
from simenv.errors import InfeasibleError, LimitExceededError, QueueFullError, SimenvError
from simenv.scheduler.core import Route
from simenv.scheduler.reservations.policies import DELAYED, REJECTED, PolicyVerdict
from simenv.text import size

RETRY_AFTER_S = 1.0
SlotLimits = tuple[tuple[str, int], ...]  # of a user, as @NAME, and of accounts
BURST_S = 2  # a token bucket holds the messages of so many seconds
NS = 10**9


class Quotas:
    """Table of limits. Owners that are not in it have the limits of the role client."""

    def __init__(self) -> None:
        self._of: Mapping[str, model.OwnerLimits] = {}
        self._default = model.CLIENT_LIMITS
        self.caps_slots = False  # True if any owner or account has a limit of running slots
        self._accounts: Collection[Mapping[str, int]] = ()  # limits of each
        self.removed: frozenset[str] = frozenset()  # users whose waiting tasks are held
        # Billing units of this month that are not spent, by account with a budget.
        self.budgets_left: Mapping[str, float] = {}
        self.changed = False  # since the last assignment of tasks
        # Of running slots, by association, and what each limits; see `ShareState.slot_limits`.
        self.slot_limits: dict[str, SlotLimits] = {}
        self.limited: dict[str, tuple[int, set[str]]] = {}  # (limit, associations) by node

    def copy(self) -> Quotas:
        result = Quotas()
        vars(result).update(vars(self))
        result.slot_limits = self.slot_limits.copy()
        result.limited = {node: (most, {*of}) for node, (most, of) in self.limited.items()}
        return result

    def set(self, table: Mapping[str, model.OwnerLimits], default: model.OwnerLimits) -> None:
        """Replace the table."""
        self._of, self._default = table, default
        self._renew()

    def set_accounts(self, limits: Collection[Mapping[str, int]]) -> None:
        """Take the limits of all accounts."""
        self._accounts = limits
        self._renew()

    def _renew(self) -> None:
        self.changed = True
        self.slot_limits.clear()
        self.limited.clear()
        owners = (self._default, *self._of.values())
        self.caps_slots = any(each.max_running_slots for each in owners) or any(
            each.get("max_running_slots") for each in self._accounts
        )

    def of(self, owner: str) -> model.OwnerLimits:
        return self._of.get(owner, self._default) if owner else model.UNLIMITED


# By what has a limit: its name in messages, and the command by which an admin sets it.
_HOLDERS = {
    "owner": ("", "limits"),
    "account": ("account ", "accounts"),
    "class": ("a user in class ", "qos"),
}


def raise_limit(key: str, owner: str, kind: str = "owner") -> str:
    """Return the hint of a refusal by a limit: how an admin raises the limit. `kind`: owner,
    account or class; `owner` is the name of any of them."""
    return f"an admin can raise it: simenv {_HOLDERS[kind][1]} set {owner} {key}=..."


def check_terms(
    limits: model.OwnerLimits, owner: str, terms: model.TaskOptions, kind: str = "owner"
) -> SimenvError | None:
    """Return the refusal of a priority or a run timeout above its limit; None if there is none.
    `kind`: see `raise_limit`."""
    holder = _HOLDERS[kind][0]
    if abs(terms.priority) > limits.max_priority:
        return LimitExceededError(
            f"priority {terms.priority} is above the limit of {limits.max_priority}, or below "
            f"-{limits.max_priority}, for {holder}{owner!r} (max_priority)",
            hint=f"a priority nearer to 0; {raise_limit('max_priority', owner, kind)}",
        )
    if limits.max_run_s and terms.run_timeout_s > limits.max_run_s:
        return LimitExceededError(
            f"run_timeout_s = {terms.run_timeout_s:g} is above the limit of {limits.max_run_s} s "
            f"for {holder}{owner!r} (max_run_s)",
            hint=f"a shorter run_timeout_s; {raise_limit('max_run_s', owner, kind)}",
        )
    return None


def check_queue(
    limits: model.OwnerLimits,
    owner: str,
    use: model.OwnerUse,
    count: int,
    size_bytes: int,
    kind: str = "owner",
) -> SimenvError | None:
    """Return the refusal of `count` more tasks that hold `size_bytes`; None if they are allowed.
    `kind`: see `raise_limit`."""
    holder = _HOLDERS[kind][0]
    if limits.max_queued_tasks and use.queued_tasks + count > limits.max_queued_tasks:
        key = "max_queued_tasks"
        message = (
            f"{holder}{owner!r} has {use.queued_tasks} unfinished tasks; {count} more would pass "
            f"the limit of {limits.max_queued_tasks} ({key})"
        )
    elif limits.max_queued_bytes and use.queued_bytes + size_bytes > limits.max_queued_bytes:
        key = "max_queued_bytes"
        message = (
            f"the unfinished tasks of {holder}{owner!r} hold {size(use.queued_bytes)}; "
            f"{size(size_bytes)} more would pass the limit of {size(limits.max_queued_bytes)} "
            f"({key})"
        )
    else:
        return None
    hint = f"wait for results, then submit again; {raise_limit(key, owner, kind)}"
    return QueueFullError(message, hint=hint, retry_after_s=RETRY_AFTER_S)


def check_room(
    max_use: model.OwnerUse,
    use: model.OwnerUse,
    others: model.OwnerUse,
    count: int,
    size_bytes: int,
    account: str,
) -> SimenvError | None:
    """Return the refusal of `count` more tasks of an account that has no limit of its own; None if
    they are allowed. An account may hold half of what the others leave of the queue, whatever
    number of users it has, so that room for another account is left at any time (Choudhury, Hahne,
    IEEE/ACM Trans. Netw. 1998). `max_use`: of the queue; 0 where the account has a limit."""
    max_tasks = (max_use.queued_tasks - others.queued_tasks) // 2
    max_bytes = (max_use.queued_bytes - others.queued_bytes) // 2
    if max_use.queued_tasks and use.queued_tasks + count > max_tasks:
        key, more, limit = "max_queued_tasks", str(count), str(max_tasks)
        has, have = f"has {use.queued_tasks} unfinished tasks", str(others.queued_tasks)
        full = str(max_use.queued_tasks)
    elif max_use.queued_bytes and use.queued_bytes + size_bytes > max_bytes:
        key, more, limit = "max_queued_bytes", size(size_bytes), size(max_bytes)
        has, have = f"holds {size(use.queued_bytes)}", size(others.queued_bytes)
        full = size(max_use.queued_bytes)
    else:
        return None
    return QueueFullError(
        f"account {account!r} {has}, the others {have}, and the queue takes {full}; {more} more "
        f"would pass {limit}, half of what the others leave ({key})",
        hint=f"wait for results, then submit again; {raise_limit(key, account, 'account')}",
        retry_after_s=RETRY_AFTER_S,
    )


def check_routes(
    limits: model.OwnerLimits, owner: str, routes: list[Route], kind: str = "owner"
) -> SimenvError | None:
    """Return the refusal of tasks over more ranks than the owner may have slots; None if all fit.
    `kind`: see `raise_limit`."""
    max_count = limits.max_running_slots
    ranks = max((route.ranks for route in routes), default=1) if max_count else 0
    if ranks <= max_count:
        return None
    return InfeasibleError(
        f"a task needs {ranks} ranks, one slot each; the limit for {_HOLDERS[kind][0]}{owner!r} is "
        f"{max_count} slots (max_running_slots)",
        hint="a smaller circuit or precision='single'; "
        + raise_limit("max_running_slots", owner, kind),
    )


def run_limit_s(
    limits: model.OwnerLimits, terms: model.TaskOptions, account_s: float = 0.0
) -> float:
    """Return the run timeout of a task in seconds; 0: none. `account_s`: the limit of its account
    and class of service; 0: none."""
    limits_s = [each for each in (terms.run_timeout_s, float(limits.max_run_s), account_s) if each]
    return min(limits_s, default=0.0)


def check_renewal(limits: model.OwnerLimits, owner: str, ttl_ns: int) -> None:
    """Raise LimitExceededError if a renewal would last longer than the owner's limit."""
    if limits.max_reservation_s and ttl_ns > limits.max_reservation_s * NS:
        raise LimitExceededError(
            _duration_error(limits, owner, ttl_ns),
            hint=f"renew it again before it expires; {raise_limit('max_reservation_s', owner)}",
        )


def veto(
    limits: model.OwnerLimits,
    owner: str,
    use: model.OwnerUse,
    workers: int,
    ttl_ns: int,
    pool_workers: int,
    pool_reserved: int,
    own_reserved: int,
) -> PolicyVerdict | None:
    """Return the verdict of the limit that a reservation would pass; None if there is none.

    - `workers`: requested workers
    - `ttl_ns`: duration of the reservation, or the default of its device
    - `pool_workers`: workers of the pool that can be reserved
    - `pool_reserved`: workers that all owners have reserved; `own_reserved`: those of this owner
    """
    if limits.max_reservation_s and ttl_ns > limits.max_reservation_s * NS:
        hint = f"ask for less, and renew it; {raise_limit('max_reservation_s', owner)}"
        return _rejected(f"{_duration_error(limits, owner, ttl_ns)}; {hint}")
    if limits.max_reservations and use.reservations >= limits.max_reservations:
        return _rejected(
            f"{owner!r} has {use.reservations} live reservations; the limit is "
            f"{limits.max_reservations} (max_reservations); release some; "
            f"{raise_limit('max_reservations', owner)}"
        )
    if not workers or not limits.max_reserved_percent:
        return None
    max_count = pool_workers * limits.max_reserved_percent // 100
    if own_reserved + workers > max_count:
        besides = f" in addition to {own_reserved} that {owner!r} has" if own_reserved else ""
        return _rejected(
            f"workers = {workers}{besides}: {owner!r} may reserve {limits.max_reserved_percent} "
            f"% of the {pool_workers} workers of a pool, which are {max_count} "
            f"(max_reserved_percent); ask for fewer; {raise_limit('max_reserved_percent', owner)}"
        )
    if pool_reserved + workers >= pool_workers and limits.max_reserved_percent < 100:
        message = (
            f"reservations have {pool_reserved} of the {pool_workers} workers of the pool; one is "
            "left for tasks without a reservation"
        )
        return PolicyVerdict(DELAYED, model.AdmissionReason.OVER_LIMIT, message, missing=1)
    return None


def _duration_error(limits: model.OwnerLimits, owner: str, ttl_ns: int) -> str:
    return (
        f"ttl = {ttl_ns / NS:g} s is above the limit of {limits.max_reservation_s} s for "
        f"{owner!r} (max_reservation_s)"
    )


def _rejected(message: str) -> PolicyVerdict:
    return PolicyVerdict(REJECTED, model.AdmissionReason.SCOPE_LIMIT, message)


# --- rate of messages ----------------------------------------------------------------------------


class MessageRates:
    """Token bucket for each owner with a limit; it holds BURST_S seconds' worth of messages."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, int]] = {}  # tokens left, and the time of that count

    def take(self, owner: str, limits: model.OwnerLimits, now_ns: int) -> float:
        """Take one token. Return 0, or the seconds until there is one."""
        rate = limits.max_messages_per_s
        if not rate:
            return 0.0
        max_count = float(rate * BURST_S)
        tokens, last_ns = self._buckets.get(owner, (max_count, now_ns))
        tokens = min(max_count, tokens + (now_ns - last_ns) * rate / NS)
        if tokens >= 1.0:
            self._buckets[owner] = (tokens - 1.0, now_ns)
            return 0.0
        self._buckets[owner] = (tokens, now_ns)
        return (1.0 - tokens) / rate

    def take_more(self, owner: str, limits: model.OwnerLimits, count: int) -> None:
        """Take more tokens for a message that was let in, also those to come, but none that come
        later than 10 ms."""
        if owner in self._buckets:
            tokens, last_ns = self._buckets[owner]
            self._buckets[owner] = tokens - min(count, limits.max_messages_per_s / 100), last_ns

    def forget(self, owner: str) -> None:
        """Remove the bucket of an owner whose key is revoked."""
        self._buckets.pop(owner, None)


def too_fast(owner: str, limits: model.OwnerLimits, wait_s: float) -> QueueFullError:
    """Return the refusal of a message above the rate limit."""
    return QueueFullError(
        f"{owner!r} sends more than {limits.max_messages_per_s} messages a second "
        "(max_messages_per_s), of which a refused submission counts as several",
        hint="submit_many sends many tasks in one message; "
        + raise_limit("max_messages_per_s", owner),
        retry_after_s=max(wait_s, RETRY_AFTER_S),
    )
