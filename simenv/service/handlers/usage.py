"""Answers to queries about accounts and limits, and about what tasks have used."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from simenv.model.accounts import SLOT_HOUR
from simenv.service.accounting.usage import usage_report
from simenv.service.queries.query_queue import ReplySteps
from simenv.service.results.receipts import ReceiptReader
from simenv.service.service import ServiceComponents
from simenv.wire import codec
from simenv.wire.messages import accounting
from simenv.wire.rights import Identity

TASKS_PER_CLOCK_CHECK = 16  # entries of an answer between two checks of the clock


class UsageQueries:
    """Answers about accounts, limits and usage."""

    def __init__(self, service: ServiceComponents) -> None:
        self._service = service
        self._receipts = ReceiptReader(service.journal.records, service.completions)

    def accounts(
        self, message: accounting.GetAccounts, identity: Identity, _peer: bytes
    ) -> accounting.Accounts:
        return self._service.accounting.accounts.view(message.request, identity.scope)

    def limits(
        self, message: accounting.GetLimits, identity: Identity, _peer: bytes
    ) -> accounting.OwnerReports:
        reports = self._service.accounting.owners.reports(identity)
        return accounting.OwnerReports(message.request, reports)

    def _sees(self, identity: Identity) -> Callable[[str, str], bool]:
        """Return whether the sender may see the usage of an account and user."""
        if not identity.scope:
            return lambda _account, _user: True
        seen = self._service.accounting.usage.tree.sees(identity.owner)
        return lambda account, user: user == identity.owner or account in seen

    def usage(self, message: accounting.GetUsage, identity: Identity, _peer: bytes) -> ReplySteps:
        service, sees = self._service, self._sees(identity)
        for answer in usage_report(service.journal, service.accounting.usage.names, message, sees):
            yield None if answer is None else codec.encode(answer)

    def shares(
        self, message: accounting.GetShares, identity: Identity, _peer: bytes
    ) -> accounting.Shares:
        usage, sees = self._service.accounting.usage, self._sees(identity)
        rows = self._service.state.shares.fair_share.rows(time.monotonic_ns())
        accounts = usage.tree.accounts_of(identity.owner)
        own = {name for each in accounts for name in usage.tree.path(each)}
        result = []
        for row in rows:
            is_account = not (row.user or row.rank)  # the own user has no name, but a rank
            if sees(row.account, row.user) or (is_account and row.account in own):
                account = usage.tree.accounts.get(row.account)
                if account is not None and account.budget_slot_h and is_account:
                    left = SLOT_HOUR * account.budget_slot_h - usage.month_units(row.account)
                    row = msgspec.structs.replace(row, left_units=max(0.0, left))
                result.append(row)
        return accounting.Shares(message.request, result)

    def receipts(
        self, message: accounting.GetReceipts, identity: Identity, _peer: bytes
    ) -> ReplySteps:
        sees, result = self._sees(identity), []
        for count, number in enumerate(message.tasks, 1):
            receipt = self._receipts.receipt(number)
            if receipt is not None and sees(receipt.account, receipt.user):
                result.append(receipt)
            if not count % TASKS_PER_CLOCK_CHECK:
                yield None
        yield codec.encode(accounting.Receipts(message.request, result))
