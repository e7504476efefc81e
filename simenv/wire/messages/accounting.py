"""Messages about limits of owners, accounts, classes of service, shares, usage and receipts."""

from __future__ import annotations

from typing import Annotated

import msgspec

from simenv.model import OwnerReport
from simenv.model.accounts import Account, Billing, Qos, Receipt, ShareRow, UsageRow
from simenv.model.program import FEW, Text
from simenv.wire.messages.base import AdminRequest, ClientRequest, Number, Reply

Name = Annotated[str, msgspec.Meta(max_length=64)]
MAX_RECEIPTS = 2_000  # of one request


class GetAccounts(ClientRequest["Accounts"], frozen=True, tag=50):
    """Request the accounts and classes: those of the sender, or all for an admin; answered by
    Accounts."""


class SetAccount(AdminRequest["Accounts"], frozen=True, tag=51):
    """Add or replace an account; None removes it. Answered by Accounts, when stored."""

    name: Name
    account: Account | None


class SetQos(AdminRequest["Accounts"], frozen=True, tag=52):
    """Add or replace a class of service; None removes it. Answered by Accounts, when stored."""

    name: Name
    qos: Qos | None


class GetShares(ClientRequest["Shares"], frozen=True, tag=53):
    """Request shares and usage: the rows of the sender's accounts, or all for an admin; answered by
    Shares."""


class GetUsage(ClientRequest["Usage"], frozen=True, tag=54):
    """Request sums over ended tasks, answered by Usage: those of the sender and of the accounts
    that the sender coordinates, or all for an admin. `by`: some of USAGE_KEYS. Times of day in
    seconds since 1970; 0: no bound."""

    by: Annotated[tuple[Text, ...], FEW] = ()
    since_s: float = 0.0
    until_s: float = 0.0


class GetReceipts(ClientRequest["Receipts"], frozen=True, tag=55):
    """Request the receipts of ended tasks; answered by Receipts, without unknown ones and those
    that the sender may not see."""

    tasks: Annotated[list[Number], msgspec.Meta(max_length=MAX_RECEIPTS)]


class Accounts(Reply, frozen=True, tag=50):
    accounts: dict[str, Account]
    qos: dict[str, Qos]
    billing: Billing = Billing()


class Shares(Reply, frozen=True, tag=53):
    rows: list[ShareRow]


class Usage(Reply, frozen=True, tag=54):
    """`from_s`, `to_s`: the time that the sums cover, widened to whole hours, or whole days where
    hours are no longer kept."""

    rows: list[UsageRow]
    from_s: float
    to_s: float


class Receipts(Reply, frozen=True, tag=55):
    receipts: list[Receipt]


class GetLimits(ClientRequest["OwnerReports"], frozen=True, tag=44):
    """Request the limits and usage of the sender, or of all owners for an admin. Answered by
    OwnerReports."""


class SetLimits(AdminRequest["OwnerReports"], frozen=True, tag=45):
    """Replace some limits of the owner of a key; answered by OwnerReports, when stored. `values`:
    names of Limits and their values, added to those that were set before. `reset`: remove the
    limits that were set before, so that the configuration's limits hold again."""

    owner: Name
    values: Annotated[dict[Name, Number], FEW] = msgspec.field(default_factory=dict)
    reset: bool = False


class OwnerReports(Reply, frozen=True, tag=44):
    owners: list[OwnerReport]
