"""`simenv limits`: limits and present use of each owner of a key; admins change limits here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import options
from simenv.cli.listing import Column, Columns, NoHeader, Style, Watch, listing
from simenv.cli.output import terminal
from simenv.config.quotas import limit_values
from simenv.errors import ConfigError, OptionError

if TYPE_CHECKING:
    from simenv.model import OwnerReport

OWN_USER = "(own user)"
# The use that each limit bounds; a limit on single requests bounds no use.
_USED_BY = {
    "max_queued_tasks": "queued_tasks",
    "max_queued_bytes": "queued_bytes",
    "max_running_slots": "running_slots",
    "max_kept_bytes": "kept_bytes",
    "max_reservations": "reservations",
    "max_reserved_percent": "reserved_workers",
    "max_state_bytes": "state_bytes",
}


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One limit of one owner. `used` is None for a limit on single requests."""

    owner: str
    role: str
    limit: str
    used: int | None
    maximum: int | None  # None: no limit


_LINES: tuple[Column[LimitRow], ...] = (
    Column("OWNER", lambda line: line.owner or OWN_USER),
    Column("ROLE", lambda line: line.role or "-"),
    Column("LIMIT", lambda line: line.limit),
    Column("USED", lambda line: "-" if line.used is None else _figure(line, line.used), right=True),
    Column(
        "MAXIMUM",
        lambda line: "none" if line.maximum is None else _figure(line, line.maximum),
        right=True,
    ),
)

limits = typer.Typer(help="Show and set limits for each owner of a key.")


@limits.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    owner: Annotated[str, typer.Option(help="Only this owner (name as in `keys list`).")] = "",
    columns: Columns = "",
    no_header: NoHeader = False,
    watch: Watch = 0.0,
) -> None:
    """List limits and use: of all owners for an admin, else of your own key.

    USED is the present use; `-` where the limit holds for each request.
    """
    if context.invoked_subcommand is not None:
        return
    common = options.settings_of(context)
    style = Style(common.as_json, columns, no_header, watch)
    with common.connect() as client:
        listing(_LINES, style, lambda: _lines(client.limits().values(), owner))


@limits.command("set")
def set_limits(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="Owner (name as in `keys list`).")],
    values: Annotated[
        list[str], typer.Argument(help="KEY=VALUE: max_queued_tasks=1000, max_kept_bytes=2GiB.")
    ],
) -> None:
    """Set limits of one owner; they persist over restarts. 0 means no limit."""
    settings = _parse_values(values)
    common = options.settings_of(context)
    with common.connect() as client:
        _print_report(client.set_limits(owner, settings), common.as_json)


@limits.command()
def reset(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="Owner (name as in `keys list`).")],
) -> None:
    """Remove the limits set for one owner; those of simenv.toml hold again."""
    common = options.settings_of(context)
    with common.connect() as client:
        _print_report(client.set_limits(owner, reset=True), common.as_json)


def _lines(reports: Iterable[OwnerReport], owner: str) -> Iterator[LimitRow]:
    return (line for each in reports if owner in ("", each.owner) for line in _of(each))


def _of(report: OwnerReport) -> Iterator[LimitRow]:
    for name in report.limits.__struct_fields__:
        value = getattr(report.limits, name)
        used = _USED_BY.get(name)
        is_bound = bool(value) or (name == "max_priority" and bool(report.owner))
        yield LimitRow(
            report.owner,
            report.role,
            name,
            None if used is None else getattr(report.use, used),
            value if is_bound else None,
        )


def _parse_values(assignments: list[str]) -> dict[str, int]:
    entries: dict[str, object] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise OptionError(f"{assignment[:80]!r} is not understood", hint="KEY=VALUE")
        entries[key] = int(value) if value.isdecimal() else value
    try:
        return limit_values(entries, "simenv limits set")
    except ConfigError as error:
        raise OptionError(error.message, hint=error.hint) from error


def _print_report(report: OwnerReport, as_json: bool) -> None:
    if as_json:
        terminal.json_line(report)
        return
    for line in _of(report):
        maximum = "none" if line.maximum is None else _figure(line, line.maximum)
        terminal.line(f"{line.limit:<22}{maximum}")


def _figure(line: LimitRow, value: int) -> str:
    return terminal.size(value) if line.limit.endswith("_bytes") else str(value)
