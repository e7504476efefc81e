"""`simenv prune`: remove stored data of ended tasks."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import options
from simenv.cli.output import terminal
from simenv.errors import OptionError
from simenv.text import elapsed

if TYPE_CHECKING:
    from simenv.wire.messages.queries import RetainedData

_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def prune(
    context: typer.Context,
    older_than: Annotated[
        str | None,
        typer.Option(help="Of tasks that ended this long ago: 12h, 7d; default: retention limits."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be removed.")
    ] = False,
) -> None:
    """Remove history and results of ended tasks."""
    common = options.settings_of(context)
    older_s = None if older_than is None else _seconds(older_than)
    with common.connect() as client:
        done = client.prune(older_s, dry_run)
    if common.as_json:
        terminal.json_line({"dry_run": dry_run, "freed": done.freed, "left": done.left})
        return
    freed, left = done.freed, done.left
    label = "would free" if dry_run else "freed"
    terminal.line(f"{label}  {_amounts(freed)}")
    if freed.unread:
        terminal.note(
            f"{freed.unread} of their completions have not been acknowledged by every cursor"
        )
    age = f", the oldest of {elapsed(time.time() - left.oldest_s)} ago" if left.oldest_s else ""
    terminal.line(f"{'kept'.ljust(len(label))}  {_amounts(left)}{age}")


def _amounts(kept: RetainedData) -> str:
    return (
        f"{terminal.counted(kept.tasks, 'task')}, {terminal.size(kept.journal_bytes)} of journal, "
        f"{terminal.counted(kept.files, 'file')} of results with {terminal.size(kept.file_bytes)}"
    )


def _seconds(text: str) -> float:
    result = _AGE.match(text)
    if result is None:
        raise OptionError(f"--older-than {text!r:.40}", hint="a number and s, m, h, d or w: 7d")
    return float(result[1]) * _SECONDS[result[2]]
