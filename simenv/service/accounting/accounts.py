"""Accounts and classes of service of an environment: who may use which, and what they have left.

Invariants: a change by an administrator is stored in the commit that precedes its answer. The
tables of the configuration are applied once, and again only where the configuration changes, so
that the settings of an administrator survive a restart. The account and the class of a task are
those of its acceptance, also after a restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import msgspec

from simenv import errors
from simenv.config import Config
from simenv.config.accounts import check_accounts
from simenv.model import (
    UNLIMITED,
    AdmissionReason,
    OwnerLimits,
    OwnerUse,
    ReservationRequest,
    ReservationState,
    TaskOptions,
    TaskSpec,
)
from simenv.model.accounts import GROUP, Account, AccountTree, Qos, association
from simenv.model.reservations import BATCH_ACCOUNT, JOB_SCOPE
from simenv.model.task_rules import merged
from simenv.scheduler import core
from simenv.scheduler.reservations.policies import REJECTED, PolicyVerdict
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.scheduler import Scheduler
from simenv.scheduler.state import owner_quotas
from simenv.scheduler.state.task_index import AssociationUse
from simenv.service.accounting.budgets import ENDED_PER_TICK, Budgets
from simenv.service.accounting.groups import GroupMembers
from simenv.service.journal import tables, writer
from simenv.service.journal.tables import Standing
from simenv.wire.messages import accounting

START_S = 5.0  # longest wait of a start for the members of groups
# After a start in which the broker names the groups of users who have tasks or reservations. Until
# then nobody is removed who is in no account, but waiting tasks may be held.
CONFIRM_NS = 40_000_000_000
CUT_NS = 1_000_000_000  # between two looks at the budgets that end tasks
RETRY_AFTER_S = 2.0

Value = TypeVar("Value", Account, Qos)


class BatchAccount(msgspec.Struct, frozen=True):
    """Fields of the `SubmitBatch` of tasks in an account or a class of service."""

    account: str
    qos: str
    association: str
    usage_factor: float
    class_priority: int
    units: float
    run_limit_s: float


class AccountRegistry:
    """Configured accounts and classes of service, and those set by administrators. Used from the
    loop's thread."""

    def __init__(
        self,
        config: Config,
        scheduler: Scheduler,
        journal: writer.Journal,
        spent_units: Callable[[str], float] = lambda _: 0.0,
        members: GroupMembers | None = None,
    ) -> None:
        """`spent_units`: returns the billing units that an account and those below it spent in this
        calendar month (UTC). `members`: of groups of the operating system. Raises ConfigError if
        the configuration does not fit the accounts that administrators have added."""
        self.billing = config.billing
        self.budgets = Budgets(scheduler, spent_units)
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._configured: dict[str, Account] = config.accounts
        self._configured_qos: dict[str, Qos] = config.qos
        self._removed_policy = config.removed_users
        self._hold_ns = round(config.removed_hold_s * 1e9)
        self._refused: dict[str, str] = {}  # users whom the site's identity refuses, and why
        self._removed_since_ns: dict[str, int] = {}  # by user whose waiting tasks are held
        self._members = members or GroupMembers()
        self._certain_ns = time.monotonic_ns() + CONFIRM_NS if config.identity.has_users else 0
        self._next_cut_ns = 0
        self._removed_unchecked = False  # users may have been removed, or have come back
        query = f"{tables.STANDING.query} limit 1"
        self._has_standings = any(True for _ in journal.records.rows(query))
        accounts = _merged_with_stored(self._configured, tables.ACCOUNT, journal)
        qos = _merged_with_stored(self._configured_qos, tables.QOS, journal)
        try:
            self._set(accounts, qos, "configuration and `simenv accounts`")
        except errors.ConfigError as error:
            hint = (
                f"{error.hint}; what `simenv accounts` and `simenv qos` set stays until they remove"
            )
            hint += " it: start with the former file for that"
            raise errors.ConfigError(error.message, hint=hint) from error
        if self._groups:
            self._members.wait(self._groups, START_S)
            self._arrange()

    def _set(self, accounts: dict[str, Account], qos: dict[str, Qos], source: str) -> None:
        """Replace accounts and classes. Raises ConfigError, and then nothing has changed."""
        check_accounts(accounts, qos, source)
        self._accounts, self.qos = accounts, qos
        names = (name for account in accounts.values() for name in account.users)
        self._groups = frozenset(name[1:] for name in names if name.startswith(GROUP))
        self._limits = {
            name: merged(UNLIMITED, account.limits)
            for name, account in accounts.items()
            if account.limits
        }
        self._qos_limits = {
            name: merged(UNLIMITED, {**each.limits, "max_run_s": each.max_run_s})
            for name, each in qos.items()
        }
        self._arrange()

    def _arrange(self) -> None:
        """Build the tree of accounts with the present members of groups."""
        self.tree = AccountTree(self._accounts, self._members.known)
        self.is_active = bool(self.tree or self.qos)
        self._coordinators = {
            user for account in self._accounts.values() for user in account.coordinators
        }
        self._removed_unchecked = True
        self._scheduler.set_accounts(self.tree, self.billing, self.qos)

    # --- views and changes -----------------------------------------------------------------------

    def view(self, request: int, scope: str) -> accounting.Accounts:
        """Return the answer to a request: all, or what the user `scope` uses and coordinates."""
        accounts, qos = self._accounts, self.qos
        if scope:
            seen = set(self.tree.accounts_of(scope))
            if scope in self._coordinators:
                seen |= self.tree.sees(scope)
            accounts = {name: each for name, each in accounts.items() if name in seen}
            if all(each.qos for each in accounts.values()):
                usable = {name for each in accounts.values() for name in each.qos}
                qos = {name: each for name, each in qos.items() if name in usable or not self.tree}
        return accounting.Accounts(request, accounts, qos, self.billing)

    def set_account(self, name: str, account: Account | None) -> None:
        """Add, replace or remove (None) an account; the next commit stores it. Raises
        NotFoundError, OptionError."""
        accounts = _changed(self._accounts, name, account, "account")
        below = [each for each, entry in accounts.items() if entry.parent == name]
        if account is None and below:
            raise errors.OptionError(
                f"account {name!r} has accounts below it: {', '.join(below[:10])}",
                hint=f"first: simenv accounts move {below[0]} -, or remove it",
            )
        self._change(accounts, self.qos)
        self._store(tables.ACCOUNT, name, account, self._configured.get(name))

    def set_qos(self, name: str, qos: Qos | None) -> None:
        """Add, replace or remove (None) a class of service; the next commit stores it. Raises
        NotFoundError, OptionError."""
        changed = _changed(self.qos, name, qos, "class of service")
        naming = [each for each, entry in self._accounts.items() if name in entry.qos]
        if qos is None and naming:
            raise errors.OptionError(
                f"class of service {name!r} is named by accounts: {', '.join(naming[:10])}",
                hint=f"first: simenv accounts set {naming[0]} --qos OTHERS",
            )
        self._change(self._accounts, changed)
        self._store(tables.QOS, name, qos, self._configured_qos.get(name))

    def _change(self, accounts: dict[str, Account], qos: dict[str, Qos]) -> None:
        configured = [name for name in self._configured if name in accounts]
        added = sorted(accounts.keys() - self._configured.keys())
        try:
            self._set({name: accounts[name] for name in (*configured, *added)}, qos, "this change")
        except errors.ConfigError as error:
            raise errors.OptionError(error.message, hint=error.hint) from error

    def _store(
        self,
        table: tables.JournalTable[str, tuple[Value | None, Value | None]],
        name: str,
        present: Value | None,
        configured: Value | None,
    ) -> None:
        if present is None and configured is None:
            statements = [table.remove(name)]
        else:
            statements = table.statements({name: (present, configured)})
        self._journal.put(statements, forced=True)

    # --- admission -------------------------------------------------------------------------------

    def admit(
        self,
        owner: str,
        terms: TaskOptions,
        size_bytes: int,
        routes: list[core.Route],
        specs: list[TaskSpec],
    ) -> tuple[Standing, BatchAccount]:
        """Return account and class of a Submit of `size_bytes`, and what they mean for its tasks.
        Raises NotFoundError, NotAllowedError, LimitExceededError, InfeasibleError,
        QueueFullError."""
        wanted = terms.account
        if terms.reservation and not wanted:
            reservation = self._state.reservations.all.get(terms.reservation)
            wanted = "" if reservation is None else reservation.grant.ask.account
        account = self._resolve(owner, wanted)
        qos = self._resolve_class(owner, account, terms.qos)
        path = self.tree.path(account)
        error = self._limit_error(owner, qos, path, terms, size_bytes, routes)
        batch = self.batch_account(Standing(account, qos), owner, routes, specs)
        needed = batch.units * len(specs)
        error = error or self.budgets.error(path, needed, terms.reservation)
        if error is not None:
            raise error
        self._has_standings = True
        standing = Standing(account, qos)
        if account:
            place = self._state.shares.fair_share.standing(batch.association, time.monotonic_ns())
            standing = Standing(account, qos, *place)
        return standing, batch

    def batch_account(
        self, standing: Standing, owner: str, routes: list[core.Route], specs: list[TaskSpec]
    ) -> BatchAccount:
        """Return what the account and the class of accepted tasks mean for them now."""
        qos, path = self.qos.get(standing.qos, Qos()), self.tree.path(standing.account)
        limits_s = [qos.max_run_s, *(each.max_run_s for _, each in self._limits_of(path))]
        units = 0.0
        if any(map(self.budgets.of, path)):
            units = self.budgets.forecast(routes, specs) * qos.usage_factor / len(specs)
        return BatchAccount(
            standing.account,
            standing.qos,
            association(standing.account, owner),
            qos.usage_factor,
            qos.priority,
            units,
            float(min(filter(None, limits_s), default=0)),
        )

    def of_stored(
        self, first: int, owner: str, routes: list[core.Route], specs: list[TaskSpec]
    ) -> BatchAccount | None:
        """Return the same of a stored Submit, by its first task; None if it has neither account nor
        class."""
        if not self._has_standings:
            return None
        standing = tables.read_standing(self._journal.records, first)
        if not (standing.account or standing.qos):
            return None
        return self.batch_account(standing, owner, routes, specs)

    def _resolve(self, owner: str, account: str) -> str:
        try:
            return self.tree.resolve(owner, account)
        except errors.NotAllowedError as error:
            if self._is_certain(owner, time.monotonic_ns()):
                raise
            raise errors.InsufficientError(
                f"{error.message}, unless by a group, whose members are being looked up",
                hint="submit again in a few seconds",
                retry_after_s=RETRY_AFTER_S,
            ) from error

    def _resolve_class(self, owner: str, account: str, qos: str) -> str:
        """Return the class of service: the one asked for, else the first of the account. The
        environment's own user may use all."""
        entry = self._accounts.get(account)
        allowed = entry.qos if entry is not None else ()
        if not qos:
            return allowed[0] if allowed else ""
        if qos not in self.qos:
            there = ", ".join(list(self.qos)[:10]) or "none"
            raise errors.NotFoundError(
                f"there is no class of service {qos!r}", hint=f"there are: {there}"
            )
        if owner and allowed and qos not in allowed:
            raise errors.NotAllowedError(
                f"account {account!r} may not use the class of service {qos!r}",
                hint=f"it may use: {', '.join(allowed)}",
            )
        return qos

    def _limits_of(self, path: tuple[str, ...]) -> Iterator[tuple[str, OwnerLimits]]:
        return ((name, self._limits[name]) for name in path if name in self._limits)

    def _limit_error(
        self,
        owner: str,
        qos: str,
        path: tuple[str, ...],
        terms: TaskOptions,
        size_bytes: int,
        routes: list[core.Route],
    ) -> errors.SimenvError | None:
        """Return the refusal by the first limit of the class or an account that the tasks would
        pass; None: they may be queued."""
        count, check_queue = len(routes), owner_quotas.check_queue
        if owner and qos:
            limits = self._qos_limits[qos]
            error = owner_quotas.check_terms(limits, qos, terms, "class")
            if error is None and (limits.max_queued_tasks or limits.max_queued_bytes):
                uses = [each for each in self._state.tasks.by_association if each.qos == qos]
                use = _sum([each for each in uses if each.owner == owner])
                error = check_queue(limits, qos, use, count, size_bytes, "class")
            if error is not None:
                return error
        for name, limits in self._limits_of(path):
            use = _sum(self.budgets.below(name))
            error = (
                owner_quotas.check_terms(limits, name, terms, "account")
                or owner_quotas.check_routes(limits, name, routes, "account")
                or check_queue(limits, name, use, count, size_bytes, "account")
            )
            if error is not None:
                return error
        return self._room_error(owner, path, count, size_bytes)

    def _room_error(
        self, owner: str, path: tuple[str, ...], count: int, size_bytes: int
    ) -> errors.SimenvError | None:
        """Return the refusal of tasks that would leave too little room in the queue for other
        accounts. The environment's own user has no limits."""
        if not (owner and path):
            return None
        state, limits = self._state, self._state.limits
        max_tasks, max_bytes = limits.max_queued_tasks, limits.max_queued_bytes
        fits_tasks = not max_tasks or 2 * (len(state.tasks) + count) <= max_tasks
        fits_bytes = not max_bytes or 2 * (state.tasks.queued_bytes + size_bytes) <= max_bytes
        if fits_tasks and fits_bytes:  # mostly: all together have at most half of the queue
            return None
        for _, own in self._limits_of(path):
            max_tasks = 0 if own.max_queued_tasks else max_tasks
            max_bytes = 0 if own.max_queued_bytes else max_bytes
        use = _sum([each for each in state.tasks.by_association if each.account == path[-1]])
        others = OwnerUse(
            len(state.tasks) - use.queued_tasks, state.tasks.queued_bytes - use.queued_bytes
        )
        max_use = OwnerUse(max_tasks, max_bytes)
        return owner_quotas.check_room(max_use, use, others, count, size_bytes, path[-1])

    # --- reservations ----------------------------------------------------------------------------

    def reservation_terms(
        self, owner: str, request: ReservationRequest
    ) -> tuple[ReservationRequest, PolicyVerdict | None]:
        """Return the request with the account that it is charged to, and the refusal by a budget of
        that account or one above it; None: there is none. Raises NotFoundError, NotAllowedError."""
        if refusal := self._refused.get(owner):  # no certificate, but perhaps a planned request
            raise errors.NotAllowedError(refusal)
        ledger = self._state.reservations
        existing = ledger.find_repeated(owner, request.request_id, time.time_ns())
        if existing is not None:  # it has its account, whatever the default is by now
            first = existing.grant.ask
            # A job has less time left than at its first request.
            times = first if request.scope.startswith(JOB_SCOPE) else request
            request = msgspec.structs.replace(
                request,
                account=request.account or first.account,
                ttl_ns=times.ttl_ns,
                walltime_ns=times.walltime_ns,
            )
            return request, None
        account = self._resolve(owner, request.account or self._batch_account(owner, request))
        error = self.budgets.reservation_error(account, request)
        verdict = None
        if error is not None:
            text = f"{error.message}; {error.hint}"
            verdict = PolicyVerdict(REJECTED, AdmissionReason.OVER_LIMIT, text)
        return msgspec.structs.replace(request, account=account), verdict

    def _batch_account(self, owner: str, request: ReservationRequest) -> str:
        """Return the account that a batch system names in the metadata, if it is one of this
        environment that the owner may use; else "". Raises InsufficientError."""
        named = dict(request.metadata).get(BATCH_ACCOUNT, "")
        if named not in self.tree.accounts:
            return ""
        try:
            return self._resolve(owner, named)
        except errors.NotAllowedError:
            return ""

    def check_renewal(self, reservation: ReservationEntry, ttl_ns: int) -> None:
        """Check that the owner of a reservation may still use its account, and that the budget of
        the account allows a renewal by `ttl_ns`. Raises NotFoundError, NotAllowedError,
        InsufficientError while groups are looked up, LimitExceededError."""
        if self.tree:  # where all accounts were removed, nothing is refused
            self._resolve(reservation.grant.owner, reservation.grant.ask.account)
        error = self.budgets.renewal_error(reservation, ttl_ns)
        if error is not None:
            raise error

    # --- passage of time -------------------------------------------------------------------------

    def tick(self, now_ns: int) -> list[core.Action]:
        """Take over changes of groups; end tasks of removed users and of spent budgets."""
        if self._groups and self._members.poll(self._groups, now_ns):
            self._arrange()
        actions: list[core.Action] = []
        is_due = now_ns >= self._next_cut_ns and self._removed_since_ns
        if self._removed_unchecked or is_due:
            actions += self._end_removed(now_ns)
        if now_ns >= self._next_cut_ns:
            self._next_cut_ns = now_ns + CUT_NS
            actions += self.budgets.cut(now_ns)
        return actions

    def note_identity(self, owner: str, refusal: str) -> None:
        """Note why the site's identity refuses a user who had entered; "": it accepts them."""
        if refusal != self._refused.get(owner, ""):
            self._refused[owner] = refusal
            self._removed_unchecked = True

    @property
    def has_groups(self) -> bool:
        """True if accounts name groups of the operating system."""
        return bool(self._groups)

    def confirm_groups(self, user: str, groups: Iterable[str]) -> None:
        """Record all groups of a user, as the site's identity names them."""
        if self._members.confirm(user, groups, time.monotonic_ns()):
            self._arrange()

    def retain_groups(self, users: Collection[str]) -> None:
        """Forget the groups of all users but these."""
        if self._members.retain(users, time.monotonic_ns()):
            self._arrange()

    def _is_certain(self, owner: str, now_ns: int) -> bool:
        """Return whether all groups of an owner that accounts name are known."""
        if self._members.lacks(self._groups):
            return False
        is_named = now_ns >= self._certain_ns or self._members.is_confirmed(owner)
        return is_named or not self._groups

    def _removed(self) -> dict[str, str]:
        """Return the users with unfinished tasks or reservations who may not enter any more, each
        with a reason."""
        removed: dict[str, str] = {}
        live = self._state.reservations.live.values()
        reserving = self._state.reserving_owners()
        if self.tree:
            owners = {each.owner for each in self._state.tasks.by_association}
            for owner in owners | {each.grant.owner for each in live if each.grant.ask.account}:
                if owner and not self.tree.accounts_of(owner):
                    removed[owner] = f"{owner!r} is in no account of this environment any more"
        self._refused = {
            owner: text
            for owner, text in self._refused.items()
            if text and (owner in reserving or self._state.tasks.by_owner.of(owner))
        }
        return removed | self._refused

    def _end_removed(self, now_ns: int) -> list[core.Action]:
        """End the reservations of users who may not enter any more, and hold or cancel their
        waiting tasks, some in each tick."""
        self._removed_unchecked = self._members.lacks(self._groups)
        if self._removed_unchecked:
            return []
        removed, since_ns = self._removed(), self._removed_since_ns
        certain = {
            owner: text
            for owner, text in removed.items()
            if owner in self._refused or self._is_certain(owner, now_ns)
        }
        self._removed_unchecked = len(certain) < len(removed)
        actions = self._end_reservations(certain, now_ns)
        if self._removed_policy == "keep":
            return actions
        self._removed_since_ns = {owner: since_ns.get(owner, now_ns) for owner in removed}
        self._scheduler.hold_removed(frozenset(removed))
        hold_ns = self._hold_ns if self._removed_policy == "hold" else 0
        for owner, text in sorted(certain.items()):
            if now_ns - self._removed_since_ns[owner] < hold_ns:
                continue
            records = self._state.tasks.by_owner.of(owner)
            waiting = (record.number for record in records if record.phase in core.UNSENT)
            if numbers := list(islice(waiting, ENDED_PER_TICK)):
                self._removed_unchecked = True
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


def _merged_with_stored(
    configured: Mapping[str, Value],
    table: tables.JournalTable[str, tuple[Value | None, Value | None]],
    journal: writer.Journal,
) -> dict[str, Value]:
    """Return the present values: those that were stored, but for those that have changed in the
    configuration since; these are stored with the next commit. Configured ones come first, in
    their order."""
    stored = table.read(journal.records)
    changed: dict[str, tuple[Value | None, Value | None]] = {
        name: (value, value)
        for name, value in configured.items()
        if stored.get(name, (None, None))[1] != value
    }
    gone: list[str] = [
        name for name, (_, then) in stored.items() if then and name not in configured
    ]
    journal.put([*table.statements(changed), *map(table.remove, gone)], forced=False)
    merged_rows: dict[str, tuple[Value | None, Value | None]] = {**stored, **changed}
    present: dict[str, Value | None] = {name: row[0] for name, row in merged_rows.items()}
    names = (*configured, *sorted(present.keys() - configured.keys() - set(gone)))
    return {name: value for name in names if (value := present[name]) is not None}


def _changed(
    values: Mapping[str, Value], name: str, value: Value | None, what: str
) -> dict[str, Value]:
    """Return the values with one added, replaced, or removed (None). Raises NotFoundError."""
    if value is not None:
        return {**values, name: value}
    if name not in values:
        there = ", ".join(list(values)[:10]) or "none"
        raise errors.NotFoundError(f"there is no {what} {name!r}", hint=f"there are: {there}")
    return {each: kept for each, kept in values.items() if each != name}


def _sum(uses: Sequence[AssociationUse]) -> OwnerUse:
    return OwnerUse(sum(each.tasks for each in uses), sum(each.size_bytes for each in uses))
