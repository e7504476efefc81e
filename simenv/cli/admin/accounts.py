"""`simenv accounts` and `simenv qos`: accounts of users, and classes of service.

A user sees the own accounts, an admin all and changes them. Changes persist over restarts;
`simenv.toml` overrides them where it changes afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv.cli import app
from simenv.cli.admin.limits import changed_limits, limits_text
from simenv.cli.listing import Column, Row, listed, printed
from simenv.errors import NotFoundError, OptionError

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.model.accounts import Account, Qos

SITE = "-"  # in place of the parent of an account
Limits = Annotated[
    list[str] | None,
    typer.Argument(metavar="LIMIT=VALUE", help="Limits, as max_queued_tasks=1000; 0: no limit."),
]
Name = Annotated[str, typer.Argument(help="Name of the account.")]
Names = list[str] | None


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account."""

    account: str
    parent: str
    share: float
    budget_slot_h: float
    cut: bool
    users: tuple[str, ...]
    coordinators: tuple[str, ...]
    qos: tuple[str, ...]
    limits: dict[str, int]


def _row(name: str, account: Account) -> AccountRow:
    return AccountRow(
        *(name, account.parent, account.share, account.budget_slot_h, account.cut),
        *(account.users, account.coordinators, account.qos, account.limits),
    )


_ACCOUNTS: tuple[Column[AccountRow], ...] = (
    Column("ACCOUNT", lambda row: row.account),
    Column("PARENT", lambda row: row.parent or SITE),
    Column("SHARE", lambda row: f"{row.share:g}", right=True),
    Column("BUDGET_H", lambda row: _budget_text(row)),
    Column("USERS", lambda row: ",".join(row.users) or "-"),
    Column("COORDINATORS", lambda row: ",".join(row.coordinators) or "-", optional=1),
    Column("QOS", lambda row: ",".join(row.qos) or "all", optional=2),
    Column("LIMITS", lambda row: limits_text(row.limits), optional=3),
)


def _budget_text(row: AccountRow) -> str:
    """`cut`: tasks end when it is spent."""
    return f"{row.budget_slot_h:g}{' cut' * row.cut}" if row.budget_slot_h else "none"


accounts = typer.Typer(help="Show and change accounts.")


def show(client: Client) -> Iterable[AccountRow]:
    """List accounts: all for an admin, else those that you may use or coordinate."""
    entries = client.accounts.listed()
    return (_row(name, entries[name]) for name in _in_tree_order(entries))


accounts.callback(invoke_without_command=True)(listed(_ACCOUNTS)(show))
accounts.command("list")(listed(_ACCOUNTS)(show))


def _in_tree_order(entries: Mapping[str, Account], parent: str = "") -> Iterator[str]:
    """Yield accounts, each before those below it. An account whose parent is not shown counts as
    one below the site."""
    for name, account in entries.items():
        above = account.parent if account.parent in entries else ""
        if above == parent:
            yield name
            yield from _in_tree_order(entries, name)


@dataclass(frozen=True, kw_only=True)
class AccountChanges:
    """Options that change an account."""

    parent: Annotated[
        str | None, typer.Option(help=f"Account above it; {SITE}: none, below the site.")
    ] = None
    share: Annotated[
        float | None, typer.Option(help="Share, relative to accounts with the same parent.")
    ] = None
    budget_slot_h: Annotated[
        float | None, typer.Option(help="Slot-hours of a calendar month; 0: no budget.")
    ] = None
    cut: Annotated[
        bool | None, typer.Option("--cut/--no-cut", help="End tasks when the budget is spent.")
    ] = None
    add_user: Annotated[
        Names, typer.Option(help="User, or @GROUP of the operating system; may be repeated.")
    ] = None
    remove_user: Annotated[Names, typer.Option(help="User, or @GROUP; may be repeated.")] = None
    add_coordinator: Annotated[
        Names, typer.Option(help="User who sees all usage of the account; may be repeated.")
    ] = None
    remove_coordinator: Annotated[Names, typer.Option(help="User; may be repeated.")] = None
    qos: Annotated[
        str | None,
        typer.Option(help="Classes that it may use, with commas, the default first; '': all."),
    ] = None

    def of(self, account: Account, limits: Names) -> dict[str, Any]:
        """Return the fields of the account that change. `limits`: LIMIT=VALUE texts."""
        changes: dict[str, Any] = {
            name: value
            for name in ("share", "budget_slot_h", "cut")
            if (value := getattr(self, name)) is not None
        }
        if self.parent is not None:
            changes["parent"] = "" if self.parent == SITE else self.parent
        if self.qos is not None:
            changes["qos"] = [word.strip() for word in self.qos.split(",") if word.strip()]
        for key, added, removed in (
            ("users", self.add_user, self.remove_user),
            ("coordinators", self.add_coordinator, self.remove_coordinator),
        ):
            before = getattr(account, key)
            if absent := [name for name in removed or () if name not in before]:
                hint = f"there are: {', '.join(before) or 'none'}"
                raise NotFoundError(f"{absent[0]!r} is not one of its {key}", hint=hint)
            if added or removed:
                kept = [name for name in before if name not in (removed or ())]
                changes[key] = list(dict.fromkeys([*kept, *(added or ())]))
        return changes | changed_limits(account.limits, limits, "simenv accounts set")


def _lines(columns: Iterable[Column[Row]], row: Row) -> Iterator[str]:
    """Yield the text of one account or class."""
    for column in columns:
        yield f"{column.header.lower():<14}{column.text(row)}"


_account_lines = partial(_lines, _ACCOUNTS)


@accounts.command("add")
@app.with_options(AccountChanges, "remove_user", "remove_coordinator")
def add(context: typer.Context, name: Name, asked: AccountChanges, limits: Limits = None) -> None:
    """Add an account; it persists over restarts."""
    _set_account(context, name, asked, limits, new=True)


@accounts.command("set")
@app.with_options(AccountChanges)
def set_account(
    context: typer.Context, name: Name, asked: AccountChanges, limits: Limits = None
) -> None:
    """Change an account; what is not named stays."""
    _set_account(context, name, asked, limits, new=False)


def _set_account(
    context: typer.Context, name: str, asked: AccountChanges, limits: Names, *, new: bool
) -> None:
    from simenv.model.accounts import Account

    common = app.settings_of(context)
    with common.connect() as client:
        existing = client.accounts.listed()
        if new and name in existing:
            hint = f"simenv accounts set {name} changes it"
            raise OptionError(f"there is an account {name!r} already", hint=hint)
        if not new and name not in existing:
            there = ", ".join(list(existing)[:10]) or "none"
            hint = f"there are: {there}; simenv accounts add {name} adds it"
            raise NotFoundError(f"there is no account {name!r}", hint=hint)
        before = existing.get(name, Account())
        row = _row(name, client.accounts.set(name, **asked.of(before, limits)))
    common.answer(row, _account_lines(row))


@accounts.command()
@printed(_account_lines)
def move(
    client: Client,
    name: Name,
    parent: Annotated[str, typer.Argument(help=f"Account above it; {SITE}: the site.")],
) -> AccountRow:
    """Move an account, with all below it, below another one."""
    if name not in client.accounts.listed():
        raise NotFoundError(f"there is no account {name!r}", hint="simenv accounts lists them")
    return _row(name, client.accounts.set(name, parent="" if parent == SITE else parent))


def _removed_lines(value: dict[str, Any]) -> Iterator[str]:
    yield f"{value['name']} is removed; its tasks stay"


@accounts.command("remove")
@printed(_removed_lines)
def remove_account(client: Client, name: Name) -> dict[str, Any]:
    """Remove an account that has none below it; its tasks stay."""
    client.accounts.remove(name)
    return {"name": name, "removed": True}


@dataclass(frozen=True, slots=True)
class QosRow:
    """One class of service."""

    qos: str
    priority: int
    usage_factor: float
    preempt: bool
    max_run_s: int
    limits: dict[str, int]


def _qos_row(name: str, each: Qos) -> QosRow:
    values = each.priority, each.usage_factor, each.preempt, each.max_run_s, each.limits
    return QosRow(name, *values)


_QOS: tuple[Column[QosRow], ...] = (
    Column("QOS", lambda row: row.qos),
    Column("PRIORITY", lambda row: str(row.priority), right=True),
    Column("USAGE_FACTOR", lambda row: f"{row.usage_factor:g}", right=True),
    Column("PREEMPT", lambda row: "yes" if row.preempt else "no"),
    Column("MAX_RUN_S", lambda row: str(row.max_run_s) if row.max_run_s else "none", right=True),
    Column("LIMITS", lambda row: limits_text(row.limits)),
)
QosName = Annotated[str, typer.Argument(help="Name of the class of service.")]

qos = typer.Typer(help="Show and change classes of service.")


def show_qos(client: Client) -> Iterable[QosRow]:
    """List classes of service: all for an admin, else those that you may use."""
    return (_qos_row(name, each) for name, each in client.qos.listed().items())


qos.callback(invoke_without_command=True)(listed(_QOS)(show_qos))
qos.command("list")(listed(_QOS)(show_qos))


@qos.command("set")
@printed(partial(_lines, _QOS))
def set_qos(
    client: Client,
    name: QosName,
    limits: Limits = None,
    priority: Annotated[
        int | None, typer.Option(help="Added to the priority of its tasks.")
    ] = None,
    usage_factor: Annotated[
        float | None, typer.Option(help="Multiplies the billing units of its tasks.")
    ] = None,
    preempt: Annotated[
        bool | None,
        typer.Option("--preempt/--no-preempt", help="Its tasks may be queued again for others."),
    ] = None,
    max_run_s: Annotated[
        int | None, typer.Option(min=0, help="Longest run of a task in seconds; 0: no limit.")
    ] = None,
) -> QosRow:
    """Add a class of service, or change it; what is not named stays."""
    from simenv.model.accounts import Qos

    values = {
        "priority": priority,
        "usage_factor": usage_factor,
        "preempt": preempt,
        "max_run_s": max_run_s,
    }
    changes: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    before = client.qos.listed().get(name, Qos())
    changes |= changed_limits(before.limits, limits, "simenv qos set")
    return _qos_row(name, client.qos.set(name, **changes))


@qos.command("remove")
@printed(_removed_lines)
def remove_qos(client: Client, name: QosName) -> dict[str, Any]:
    """Remove a class of service that no account names; its tasks stay."""
    client.qos.remove(name)
    return {"name": name, "removed": True}
