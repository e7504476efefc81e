"""Accounts and classes of service of an environment: who may use which, and what they have left.

Invariant: the account and the class of a task are those of its acceptance, also after a restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

import msgspec

from simenv import errors
from simenv.config import Config
from simenv.config.accounts import check_accounts
from simenv.model import AdmissionReason, ReservationRequest, TaskOptions, TaskSpec
from simenv.model.accounts import GROUP, Account, AccountTree, Qos, association
from simenv.model.reservations import BATCH_ACCOUNT, JOB_SCOPE
from simenv.scheduler import core
from simenv.scheduler.admission import task_limits
from simenv.scheduler.reservations.policies import REJECTED, PolicyVerdict
from simenv.scheduler.reservations.reservation import ReservationEntry
from simenv.scheduler.scheduler import Scheduler
from simenv.service.accounting.budgets import Budgets
from simenv.service.accounting.configured import ConfiguredTable
from simenv.service.accounting.groups import AccountGroups, GroupMembers
from simenv.service.accounting.removed_users import RemovedUsers
from simenv.service.journal import tables, writer
from simenv.service.journal.tables import Standing
from simenv.wire.messages import accounting

START_S = 5.0  # longest wait of a start for the members of groups
RETRY_AFTER_S = 2.0


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
        self.budgets = Budgets(scheduler, spent_units)
        self._billing = config.billing
        self._scheduler = scheduler
        self._state = scheduler.state
        self._journal = journal
        self._groups = AccountGroups(
            members or GroupMembers(), has_broker=config.identity.has_users
        )
        self.removed = RemovedUsers(config, scheduler, self._groups)
        query = f"{tables.STANDING.query} limit 1"
        self._has_standings = any(True for _ in journal.records.rows(query))
        self._accounts = ConfiguredTable("account", config.accounts, tables.ACCOUNT, journal)
        self._qos = ConfiguredTable("class of service", config.qos, tables.QOS, journal)
        accounts, qos = self._accounts.present, self._qos.present
        try:
            self._set(accounts, qos, "configuration and `simenv accounts`")
        except errors.ConfigError as error:
            hint = (
                f"{error.hint}; what `simenv accounts` and `simenv qos` set stays until they remove"
            )
            hint += " it: start with the former file for that"
            raise errors.ConfigError(error.message, hint=hint) from error
        if self._groups.names:
            self._groups.members.wait(self._groups.names, START_S)
            self._arrange()

    def _set(self, accounts: dict[str, Account], qos: dict[str, Qos], source: str) -> None:
        """Replace accounts and classes. Raises ConfigError, and then nothing has changed."""
        check_accounts(accounts, qos, source)
        self._accounts.present, self._qos.present = accounts, qos
        names = (name for account in accounts.values() for name in account.users)
        self._groups.names = frozenset(name[1:] for name in names if name.startswith(GROUP))
        self._arrange()

    def _arrange(self) -> None:
        """Build the tree of accounts with the present members of groups."""
        tree = AccountTree(self._accounts.present, self._groups.members.known)
        self.is_active = bool(tree or self._qos.present)
        self.removed.check_again()
        self._scheduler.set_accounts(tree, self._billing, self._qos.present)

    @property
    def tree(self) -> AccountTree:
        """The accounts, with the present members of groups."""
        return self._state.shares.accounts

    # --- views and changes -----------------------------------------------------------------------

    def view(self, request: int, scope: str) -> accounting.Accounts:
        """Return the answer to a request: all, or what the user `scope` uses and coordinates."""
        accounts, qos = self._accounts.present, self._qos.present
        if scope:
            seen = {*self.tree.accounts_of(scope), *self.tree.sees(scope)}
            accounts = {name: each for name, each in accounts.items() if name in seen}
            if all(each.qos for each in accounts.values()):
                usable = {name for each in accounts.values() for name in each.qos}
                qos = {name: each for name, each in qos.items() if name in usable or not self.tree}
        return accounting.Accounts(request, accounts, qos, self._billing)

    def set_account(self, name: str, account: Account | None) -> None:
        """Add, replace or remove (None) an account; the next commit stores it. Raises
        NotFoundError, OptionError."""
        accounts = self._accounts.changed(name, account)
        below = [each for each, entry in accounts.items() if entry.parent == name]
        if account is None and below:
            raise errors.OptionError(
                f"account {name!r} has accounts below it: {', '.join(below[:10])}",
                hint=f"first: simenv accounts move {below[0]} -, or remove it",
            )
        self._change(accounts, self._qos.present)
        self._accounts.store(name)

    def set_qos(self, name: str, qos: Qos | None) -> None:
        """Add, replace or remove (None) a class of service; the next commit stores it. Raises
        NotFoundError, OptionError."""
        classes, accounts = self._qos.changed(name, qos), self._accounts.present
        naming = [each for each, entry in accounts.items() if name in entry.qos]
        if qos is None and naming:
            raise errors.OptionError(
                f"class of service {name!r} is named by accounts: {', '.join(naming[:10])}",
                hint=f"first: simenv accounts set {naming[0]} --qos OTHERS",
            )
        self._change(accounts, classes)
        self._qos.store(name)

    def _change(self, accounts: dict[str, Account], qos: dict[str, Qos]) -> None:
        try:
            self._set(accounts, qos, "this change")
        except errors.ConfigError as error:
            raise errors.OptionError(error.message, hint=error.hint) from error

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
        task_limits.check_tasks(self._state, owner, account, qos, terms, routes, size_bytes)
        batch = self.batch_account(Standing(account, qos), owner, routes, specs)
        path, needed = self.tree.path(account), batch.units * len(specs)
        error = self.budgets.error(path, needed, terms.reservation)
        if error is not None:
            raise error
        self._has_standings = True
        if not account:
            return Standing(account, qos), batch
        place = self._state.shares.fair_share.standing(batch.association, time.monotonic_ns())
        return Standing(account, qos, *place), batch

    def batch_account(
        self, standing: Standing, owner: str, routes: list[core.Route], specs: list[TaskSpec]
    ) -> BatchAccount:
        """Return what the account and the class of accepted tasks mean for them now."""
        qos, path = self._qos.present.get(standing.qos, Qos()), self.tree.path(standing.account)
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
            self._state.shares.limits.account_run_s(standing.qos, path),
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
            if self._groups.is_certain(owner, time.monotonic_ns()):
                raise
            raise errors.InsufficientError(
                f"{error.message}, unless by a group, whose members are being looked up",
                hint="submit again in a few seconds",
                retry_after_s=RETRY_AFTER_S,
            ) from error

    def _resolve_class(self, owner: str, account: str, qos: str) -> str:
        """Return the class of service: the one asked for, else the first of the account. The
        environment's own user may use all."""
        entry = self._accounts.present.get(account)
        allowed = entry.qos if entry is not None else ()
        if not qos:
            return allowed[0] if allowed else ""
        if qos not in self._qos.present:
            there = ", ".join(list(self._qos.present)[:10]) or "none"
            raise errors.NotFoundError(
                f"there is no class of service {qos!r}", hint=f"there are: {there}"
            )
        if owner and allowed and qos not in allowed:
            raise errors.NotAllowedError(
                f"account {account!r} may not use the class of service {qos!r}",
                hint=f"it may use: {', '.join(allowed)}",
            )
        return qos

    # --- reservations ----------------------------------------------------------------------------

    def reservation_terms(
        self, owner: str, request: ReservationRequest
    ) -> tuple[ReservationRequest, PolicyVerdict | None]:
        """Return the request with the account that it is charged to, and the refusal by a budget of
        that account or one above it; None: there is none. Raises NotFoundError, NotAllowedError."""
        if refusal := self.removed.refusal(owner):  # no certificate, but perhaps a planned request
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
        if self._groups.names and self._groups.members.poll(self._groups.names, now_ns):
            self._arrange()
        return self.removed.tick(now_ns) + self.budgets.cut(now_ns)

    @property
    def has_groups(self) -> bool:
        """True if accounts name groups of the operating system."""
        return bool(self._groups.names)

    def confirm_groups(self, user: str, groups: Iterable[str]) -> None:
        """Record all groups of a user, as the site's identity names them."""
        if self._groups.members.confirm(user, groups, time.monotonic_ns()):
            self._arrange()

    def retain_groups(self, users: Collection[str]) -> None:
        """Forget the groups of all users but these."""
        if self._groups.members.retain(users, time.monotonic_ns()):
            self._arrange()
