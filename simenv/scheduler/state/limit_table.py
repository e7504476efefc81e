"""Table of limits by subject, and who may start nothing for another reason.

Limits are looked up by name; the environment's own user, "", has none but those of its accounts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from simenv import model
from simenv.model.accounts import Account, Qos
from simenv.model.limits import Subject, SubjectKind, merged, owner_of
from simenv.scheduler.core import SubmitBatch

SlotLimits = tuple[tuple[str, int], ...]  # of a user, as @NAME, and of accounts


class LimitTable:
    """Limits of owners, accounts and classes of service. Owners that are not in it have the limits
    of the role client."""

    def __init__(self) -> None:
        self._owners: Mapping[str, model.Limits] = {}
        self._default = model.CLIENT_LIMITS
        self._accounts: Mapping[str, model.Limits] = {}  # that have any
        self._qos: Mapping[str, model.Limits] = {}
        self.caps_slots = False  # True if any owner or account has a limit of running slots
        self.removed: frozenset[str] = frozenset()  # users whose waiting tasks are held
        # Billing units of this month that are not spent, by account with a budget.
        self.budgets_left: Mapping[str, float] = {}
        self.changed = False  # since the last assignment of tasks
        # Of running slots, by association, and what each limits; see `ShareState.slot_limits`.
        self.slot_limits: dict[str, SlotLimits] = {}
        self.limited: dict[str, tuple[int, set[str]]] = {}  # (limit, associations) by node

    def copy(self) -> LimitTable:
        result = LimitTable()
        vars(result).update(vars(self))
        result.slot_limits = self.slot_limits.copy()
        result.limited = {node: (most, {*of}) for node, (most, of) in self.limited.items()}
        return result

    def set_owners(self, limits: Mapping[str, model.Limits], default: model.Limits) -> None:
        """Replace the limits of owners."""
        self._owners, self._default = limits, default
        self._renew()

    def set_accounts(self, accounts: Mapping[str, Account], qos: Mapping[str, Qos]) -> None:
        """Replace the limits of accounts and classes of service."""
        self._accounts = {
            name: merged(model.UNLIMITED, account.limits)
            for name, account in accounts.items()
            if account.limits
        }
        self._qos = {
            name: merged(model.UNLIMITED, {**each.limits, "max_run_s": each.max_run_s})
            for name, each in qos.items()
        }
        self._renew()

    def _renew(self) -> None:
        self.changed = True
        self.slot_limits.clear()
        self.limited.clear()
        all_limits = (self._default, *self._owners.values(), *self._accounts.values())
        self.caps_slots = any(each.max_running_slots for each in all_limits)

    def of(self, owner: str) -> model.Limits:
        """Return the limits of an owner."""
        return self._owners.get(owner, self._default) if owner else model.UNLIMITED

    def of_account(self, account: str) -> model.Limits:
        """Return the limits of an account."""
        return self._accounts.get(account, model.UNLIMITED)

    def subjects(
        self, owner: str, qos: str, path: tuple[str, ...]
    ) -> Iterator[tuple[Subject, model.Limits]]:
        """Yield the subjects with limits of a task, in the order in which they are asked. `path`:
        its account and those above it."""
        if owner:
            yield owner_of(owner), self.of(owner)
            if qos in self._qos:
                yield Subject(SubjectKind.QOS, qos), self._qos[qos]
        for name in path:
            if name in self._accounts:
                yield Subject(SubjectKind.ACCOUNT, name), self._accounts[name]

    def run_limit_s(self, batch: SubmitBatch) -> float:
        """Return the run timeout of a task in seconds, by its options, owner, accounts and class;
        0: none."""
        of_owner = float(self.of(batch.owner).max_run_s)
        limits_s = [
            each for each in (batch.terms.run_timeout_s, of_owner, batch.run_limit_s) if each
        ]
        return min(limits_s, default=0.0)

    def account_run_s(self, qos: str, path: tuple[str, ...]) -> float:
        """Return the longest run in seconds that a class and the accounts of a path allow, also to
        the environment's own user; 0: any."""
        limits = [self._qos.get(qos, model.UNLIMITED), *map(self.of_account, path)]
        return float(min((each.max_run_s for each in limits if each.max_run_s), default=0))
