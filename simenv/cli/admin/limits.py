"""`simenv limits`: limits and present use of each owner of a key, which admins change here.

Accounts and classes of service have limits too: `changed_limits` and `limits_text` serve their
commands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv.cli import app, terminal
from simenv.cli.listing import Column, listed, printed
from simenv.config.limits import limit_values
from simenv.errors import ConfigError, OptionError

if TYPE_CHECKING:
    from simenv.client.client import Client
    from simenv.model import OwnerReport


# Uses that have not the name of the limit; a limit on single requests bounds no use.
_USED_BY = {"max_reserved_percent": "reserved_workers"}


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit of one owner. `used` is None for a limit on single requests."""

    owner: str
    role: str
    limit: str
    used: int | None
    maximum: int | None  # None: no limit


_LINES: tuple[Column[LimitRow], ...] = (
    Column("OWNER", lambda line: line.owner or terminal.OWN_USER),
    Column("ROLE", lambda line: line.role or "-"),
    Column("LIMIT", lambda line: line.limit),
    Column("USED", lambda line: _figure(line, line.used, "-"), right=True),
    Column("MAXIMUM", lambda line: _figure(line, line.maximum, "none"), right=True),
)

limits = typer.Typer(help="Show and set limits for each owner of a key.")


@limits.callback(invoke_without_command=True)
@listed(_LINES)
def show(
    client: Client,
    owner: Annotated[str, typer.Option(help="Only this owner (name as in `keys list`).")] = "",
) -> Iterable[LimitRow]:
    """List limits and use: of all owners for an admin, else of your own key.

    USED is the present use; `-` where the limit holds for each request.
    """
    reports = client.limits().values()
    return (row for each in reports if owner in ("", each.owner) for row in _of(each))


def _report(report: OwnerReport) -> Iterator[str]:
    for row in _of(report):
        yield f"{row.limit:<22}{_figure(row, row.maximum, 'none')}"


@limits.command("set")
def set_limits(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="Owner (name as in `keys list`).")],
    values: Annotated[
        list[str], typer.Argument(help="KEY=VALUE: max_queued_tasks=1000, max_kept_bytes=2GiB.")
    ],
) -> None:
    """Set limits of one owner; they persist over restarts. 0 means no limit."""
    # A wrong one is refused without an environment too.
    settings = parse_limits(values, "simenv limits set")
    common = app.settings_of(context)
    with common.connect() as client:
        report = client.set_limits(owner, settings)
    common.answer(report, _report(report))


@limits.command()
@printed(_report)
def reset(
    client: Client, owner: Annotated[str, typer.Argument(help="Owner (name as in `keys list`).")]
) -> OwnerReport:
    """Remove the limits set for one owner; those of simenv.toml hold again."""
    return client.set_limits(owner, reset=True)


def _of(report: OwnerReport) -> Iterator[LimitRow]:
    for name in report.limits.__struct_fields__:
        value = getattr(report.limits, name)
        used = _USED_BY.get(name, name.removeprefix("max_"))
        is_bound = bool(value) or (name == "max_priority" and bool(report.owner))
        maximum = value if is_bound else None
        yield LimitRow(report.owner, report.role, name, getattr(report.use, used, None), maximum)


def parse_limits(assignments: Iterable[str], command: str) -> dict[str, int]:
    """Parse KEY=VALUE texts of limits; sizes may have units. Raises OptionError."""
    entries: dict[str, object] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise OptionError(f"{assignment[:80]!r} is not understood", hint="KEY=VALUE")
        entries[key] = int(value) if value.isdecimal() else value
    try:
        return limit_values(entries, command)
    except ConfigError as error:
        raise OptionError(error.message, hint=error.hint) from error


def changed_limits(
    present: Mapping[str, int], asked: list[str] | None, command: str
) -> dict[str, Any]:
    """Return the field `limits` of an account or a class after a change by LIMIT=VALUE texts, if
    there are any; a limit of 0 is removed. Raises OptionError."""
    if not asked:
        return {}
    values = {**present, **parse_limits(asked, command)}
    return {"limits": {key: value for key, value in values.items() if value}}


def limits_text(limits: Mapping[str, int]) -> str:
    """Return limits as one cell of a table."""
    return ",".join(f"{key}={value}" for key, value in limits.items()) or "none"


def _figure(line: LimitRow, value: int | None, none: str) -> str:
    if value is None:
        return none
    return terminal.size(value) if line.limit.endswith("_bytes") else str(value)
