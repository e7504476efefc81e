"""Audit log, and limits of owners."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from simenv.config import Limits
from simenv.errors import NotFoundError, OptionError
from simenv.model import UNLIMITED, OwnerLimits, OwnerReport
from simenv.model.task_rules import merged
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state import scheduler_state
from simenv.scheduler.state.owner_quotas import MessageRates, too_fast
from simenv.service.journal import reader, tables, writer
from simenv.service.workers.action_executor import ActionExecutor
from simenv.wire.keyfiles import Identity, Role
from simenv.wire.messages.admin import KeyInfo, SetLimits

# Audit log: the user, time and origin of each change of the environment.
#
# An entry is an event whose kind begins with `audit.`; only administrators can read it. Invariant:
# the entry is in the same commit as the change, and the change is acknowledged after that commit.
# On a full disk two changes do not wait for it: revocation of a key and an immediate stop. Their
# entries are in the first commit that succeeds.

OWN_USER = "the environment's own user"


class AuditLog:
    """Writer of audit entries. Used from the loop's thread. `origin` returns the origin of the
    present message."""

    def __init__(self, executor: ActionExecutor, origin: Callable[[], str]) -> None:
        self._executor = executor
        self._origin = origin

    def write(self, identity: Identity, kind: str, subject: str, detail: str) -> None:
        """Add an entry of the kind `audit.KIND`."""
        name = f"{identity.owner} ({identity.role})" if identity.owner else OWN_USER
        self._executor.record_event(
            f"audit.{kind}", subject, f"{detail}; by {name} from {self._origin()}", reader.AUDIT
        )


# Limits of each owner of a key: configured values and those set by an administrator.
#
# Invariant: the scheduler's table has one entry for each key and is rebuilt whenever a key or a
# limit changes. A limit set by an administrator survives restarts until it is reset or its key is
# revoked.

REFUSED_MESSAGES = 10  # as many messages as a refused Submit counts


class Owners:
    """Limits of the owners of all keys. Used from the loop's thread."""

    def __init__(
        self,
        limits: Limits,
        scheduler: Scheduler,
        journal: writer.Journal,
        kept_bytes: Callable[[str], int],
    ) -> None:
        """`kept_bytes`: returns the bytes of the stored results of an owner."""
        self._kept_bytes = kept_bytes
        self._limits = limits
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._set = tables.OWNER_LIMITS.read(journal.records)
        self._roles: dict[str, str] = {}
        self._rates = MessageRates()

    def refresh(self, keys: list[KeyInfo]) -> None:
        """Replace the keys whose owners have limits."""
        self._roles = {key.name: key.role for key in keys}
        for name in [name for name in self._set if name not in self._roles]:
            del self._set[name]
            self._journal.put([tables.OWNER_LIMITS.remove(name)], forced=False)
        self._arrange()

    def check_rate(self, owner: str, now_ns: int) -> None:
        """Count one message of an owner. Raises QueueFullError above the owner's rate."""
        limits = self._state.quotas.of(owner)
        wait_s = self._rates.take(owner, limits, now_ns)
        if wait_s:
            raise too_fast(owner, limits, wait_s)

    def count_refusal(self, owner: str) -> None:
        """Count a refused Submit, which took more time than its message."""
        self._rates.take_more(owner, self._state.quotas.of(owner), REFUSED_MESSAGES - 1)

    def change(self, message: SetLimits) -> str:
        """Set or reset limits, which the next commit stores. Returns a description of the change.
        Raises NotFoundError, OptionError."""
        if message.owner not in self._roles:
            names = ", ".join(sorted(self._roles)[:10]) or "none"
            raise NotFoundError(f"no key named {message.owner!r:.80}", hint=f"there are: {names}")
        if not (message.values or message.reset):
            raise OptionError("no limit is named", hint="KEY=VALUE, such as max_queued_tasks=1000")
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

    def reports(self, identity: Identity) -> list[OwnerReport]:
        """Return limits and usage: of all owners for an admin, else of the requesting owner."""
        if identity.scope:
            return [self._report(identity.owner, self._roles.get(identity.owner, ""))]
        return [
            self._report("", Role.ADMIN),
            *(self._report(name, role) for name, role in sorted(self._roles.items())),
        ]

    def _report(self, owner: str, role: str) -> OwnerReport:
        use = scheduler_state.of_owner(self._state, owner, self._kept_bytes(owner))
        return OwnerReport(owner, role, self._state.quotas.of(owner), use)

    def _arrange(self) -> None:
        table = {name: self._of(name, role) for name, role in self._roles.items()}
        self._scheduler.set_owner_limits(table, self._limits.client)

    def _of(self, name: str, role: str) -> OwnerLimits:
        limits = self._limits.admin if role == Role.ADMIN else self._limits.client
        settings: Mapping[str, int] = {**self._limits.keys.get(name, {}), **self._set.get(name, {})}
        return merged(limits, settings)
