"""Limits of the owners of keys and certificates, and what they use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simenv import errors
from simenv.config.limits import LimitSettings
from simenv.model import UNLIMITED, Limits, OwnerReport
from simenv.model.limits import merged, owner_of
from simenv.scheduler.scheduler import Scheduler
from simenv.service.journal import tables, writer
from simenv.token_buckets import Rate, TokenBuckets
from simenv.wire import rights
from simenv.wire.messages import accounting, credentials

REFUSED_MESSAGES = 10  # as many messages as a refused Submit counts
RETRY_AFTER_S = 1.0
BURST_S = 2  # a token bucket holds the messages of so many seconds


class Owners:
    """Limits of the owners of all keys and certificates: configured values and those set by an
    administrator. Invariant: the scheduler's table has one entry for each owner and is rebuilt
    whenever an owner or a limit changes. A limit set by an administrator survives restarts until it
    is reset or its key is revoked. Used from the loop's thread."""

    def __init__(
        self,
        limits: LimitSettings,
        scheduler: Scheduler,
        journal: writer.Journal,
        kept_bytes: Callable[[str], int],
        *,
        has_users: bool = False,
    ) -> None:
        """`kept_bytes`: returns the bytes of the stored results of an owner. `has_users`: users get
        certificates, so that an owner of limits may have no key."""
        self._has_users = has_users
        self._users: dict[str, str] = {}  # roles of those with certificates since the start
        self._kept_bytes = kept_bytes
        self._limits = limits
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._set = tables.OWNER_LIMITS.read(journal.records)
        self._keys: dict[str, str] = {}  # roles by name of key
        self._rates = TokenBuckets()

    def refresh(self, keys: list[credentials.KeyInfo]) -> None:
        """Replace the keys whose owners have limits."""
        before, self._keys = self._keys, {key.name: key.role for key in keys}
        gone = [name for name in self._set if name not in self._roles]
        for name in [name for name in gone if name in before or not self._has_users]:
            del self._set[name]
            self._journal.put([tables.OWNER_LIMITS.remove(name)], forced=False)
        self._arrange()

    def admit(self, user: str, role: str) -> None:
        """Add a user who has a certificate now. The role monitor submits nothing: it leaves the
        user's limits as they are."""
        if user and role != rights.Role.MONITOR and self._users.get(user) != role:
            self._users[user] = role
            self._arrange()

    @property
    def _roles(self) -> dict[str, str]:
        return {**self._users, **self._keys}

    def check_rate(self, owner: str, now_ns: int) -> None:
        """Count one message of an owner. Raises QueueFullError above the owner's rate."""
        rate = self._rate_of(owner)
        wait_s = self._rates.take(owner, rate, now_ns / 1e9) if rate.per_s else 0.0
        if wait_s:
            raise errors.QueueFullError(
                f"{owner!r} sends more than {rate.per_s:.0f} messages a second "
                "(max_messages_per_s), of which a refused submission counts as several",
                hint="submit_many sends many tasks in one message; "
                + owner_of(owner).way_out("max_messages_per_s"),
                retry_after_s=max(wait_s, RETRY_AFTER_S),
            )

    def count_refusal(self, owner: str) -> None:
        """Count a refused Submit, which took more time than its message: as other messages, but
        none that come later than 10 ms."""
        count = min(REFUSED_MESSAGES - 1, self._rate_of(owner).per_s / 100)
        self._rates.take_more(owner, count)

    def _rate_of(self, owner: str) -> Rate:
        """Return the rate of messages; 0.0: there is no bound."""
        per_s = self._state.shares.limits.of(owner).max_messages_per_s
        return Rate(float(per_s), float(per_s * BURST_S))

    def change(self, message: accounting.SetLimits) -> str:
        """Set or reset limits, which the next commit stores. Returns a description of the change.
        Raises NotFoundError, OptionError."""
        if message.owner not in self._roles:
            names = ", ".join(sorted(self._roles)[:10]) or "none"
            text = f"no key named {message.owner!r:.80}"
            raise errors.NotFoundError(text, hint=f"there are: {names}")
        if not (message.values or message.reset):
            hint = "KEY=VALUE, such as max_queued_tasks=1000"
            raise errors.OptionError("no limit is named", hint=hint)
        values = {**({} if message.reset else self._set.get(message.owner, {})), **message.values}
        merged(UNLIMITED, values)
        if values:
            self._set[message.owner] = values
            statements = tables.OWNER_LIMITS.statements({message.owner: values})
        else:
            self._set.pop(message.owner, None)
            statements = [tables.OWNER_LIMITS.remove(message.owner)]
        self._journal.put(statements, forced=True)
        self._arrange()
        settings = [f"{key} = {value}" for key, value in message.values.items()]
        return ", ".join((["as configured"] if message.reset else []) + settings)

    def reports(self, identity: rights.Identity) -> list[OwnerReport]:
        """Return limits and usage: of all owners for an admin, else of the requesting owner."""
        if identity.scope:
            return [self._report(identity.owner, self._roles.get(identity.owner, ""))]
        return [
            self._report("", rights.Role.ADMIN),
            *(self._report(name, role) for name, role in sorted(self._roles.items())),
        ]

    def _report(self, owner: str, role: str) -> OwnerReport:
        use = self._state.use_of(owner, self._kept_bytes(owner))
        return OwnerReport(owner, role, self._state.shares.limits.of(owner), use)

    def _arrange(self) -> None:
        table = {name: self._of(name, role) for name, role in self._roles.items()}
        self._scheduler.set_owner_limits(table, self._limits.client)

    def _of(self, name: str, role: str) -> Limits:
        limits = self._limits.admin if role == rights.Role.ADMIN else self._limits.client
        settings: Mapping[str, int] = {**self._limits.keys.get(name, {}), **self._set.get(name, {})}
        return merged(limits, settings)
