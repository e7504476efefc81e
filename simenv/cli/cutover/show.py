"""A comparison as a table for people and as one object for programs."""

from __future__ import annotations

from typing import Any

from simenv.cli import out
from simenv.cli.cutover.values import Comparison, Finding, Row

_WIDTH = 160  # where no terminal says how wide it is
_MOST_CHARS = 160  # of a cell
_COLOURS = {
    Finding.SAME: "dim", Finding.FACT: "cyan", Finding.NOISE: "green", Finding.COUNTS: "yellow",
    Finding.BEHAVIOUR: "red", Finding.BOUND: "red",
}  # fmt: skip


def table(found: Comparison, *, everything: bool, stream: Any) -> None:
    """Write what differs, or all, and a line of sums to `stream`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, width=None if stream.isatty() else _WIDTH, highlight=False)
    shown = [row for row in found.rows if everything or row.finding is not Finding.SAME]
    if shown:
        grid = Table(box=None, pad_edge=False, show_edge=False)
        grid.add_column("FINDING", no_wrap=True)
        for header in ("ABOUT", "WHAT", found.first, found.second):
            grid.add_column(out.clean(header), no_wrap=header == "ABOUT")
        for row in shown:
            grid.add_row(
                Text(str(row.finding), _COLOURS[row.finding]),
                str(row.aspect),
                Text(_short(_what(row))),
                Text(_short(row.first)),
                Text(_short(row.second)),
            )
        console.print(grid)
    console.print(Text(summary(found)))


def summary(found: Comparison) -> str:
    """One line: alike or not, and how many of each."""
    pair = f"{found.first} and {found.second}"
    counts = ", ".join(f"{found.count(each)} {each}" for each in Finding if found.count(each))
    if found.alike:
        return f"{pair} behave alike: {counts}"
    return f"{pair} do not behave alike: {counts}"


def plain(found: Comparison) -> dict[str, Any]:
    """The object of `--json`."""
    return {
        "pools": [found.first, found.second],
        "alike": found.alike,
        **{str(finding): found.count(finding) for finding in Finding},
        "rows": found.rows,
    }


def _what(row: Row) -> str:
    far = row.distance
    if far is None:
        return row.what
    return (
        f"{row.what}: total variation {far.total_variation:.4f}"
        f" (shot noise {far.noise_total_variation:.4f}, at most {far.most_total_variation:.4f}),"
        f" Hellinger {far.hellinger:.4f}"
        f" (shot noise {far.noise_hellinger:.4f}, at most {far.most_hellinger:.4f})"
    )


def _short(words: str) -> str:
    words = out.clean(" ".join(words.split()))
    return words if len(words) <= 2 * _MOST_CHARS else f"{words[: 2 * _MOST_CHARS]}..."
