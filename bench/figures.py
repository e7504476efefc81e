"""Tables of measured figures as Markdown: goals, their texts, and stored results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.harness.report import ROOT, catalogue, goals
from bench.harness.results import Result, read

STORED = ROOT / "docs/data/results.jsonl"
README = ROOT / "README.md"
BEGIN, END = "<!-- figures: python -m bench chart -->\n", "<!-- end of figures -->"
_HEADER = (
    "| figure | case | unit | goal | measured | goal met | commit |\n|---|---|---|---|---|---|---|"
)


def latest(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """Return the results of each goal's newest commit by goal; of each case, only the newest.
    Results of goals that were removed are left out."""
    by_goal: dict[tuple[str, str], list[Result]] = {}
    present = goals()
    for result in sorted(results, key=lambda each: each.time_s):
        if not result.quick and result.key in present.get(result.benchmark, {}):
            by_goal.setdefault((result.benchmark, result.key), []).append(result)
    return {
        goal: list({each.label: each for each in match if each.commit == match[-1].commit}.values())
        for goal, match in by_goal.items()
    }


def performance_tables(stored: Path = STORED) -> str:
    """Return the misses of each benchmark, the machines of the measurements, and a section with a
    table for each benchmark."""
    texts, match = catalogue(), latest(read(stored))
    lines = ["## Known misses\n", *_misses(texts, match)]
    lines += ["\n## Measured versions\n", *_machines(match)]
    all_goals, names = goals(), (name for name in texts if name != "readme")
    for benchmark, entry in ((name, texts[name]) for name in names):
        title = f"\n## {entry['title']} {{ #{benchmark} }}\n"
        lines += [title, f"`python -m bench run {benchmark}`\n", _HEADER]
        for key, goal in all_goals[benchmark].items():
            text, unit = entry[key]
            none = f"| {text} | | {unit} | {number(goal)} | not measured | | |"
            results = match.get((benchmark, key))
            lines += [_row(text, unit, each) for each in results] if results else [none]
    return "\n".join(lines) + "\n"


def readme_table(stored: Path = STORED) -> str:
    """Return the README's table, which shows for each goal its worst case."""
    texts, match = catalogue(), latest(read(stored))
    lines = ["| figure | measured | goal | command |", "|---|---|---|---|"]
    for benchmark, key, text in texts["readme"]:
        unit = texts[benchmark][key][1]
        results = match[benchmark, key]
        worst = _worst(results)
        missed = "" if worst.met else " (**missed**)"
        bound = f"{_bound(worst)} {unit}"
        command = f"`python -m bench run {benchmark}`"
        lines.append(f"| {text} | {number(worst.value)} {unit} | {bound}{missed} | {command} |")
    return "\n".join(lines) + "\n"


def write_readme_table(readme: Path = README, stored: Path = STORED) -> None:
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + readme_table(stored) + END + after)


def number(value: float | None) -> str:
    """Return a figure as text with three significant digits."""
    if value is None:
        return "not measured"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _worst(results: Sequence[Result]) -> Result:
    """Return the result that is farthest from its goal, or closest to missing it."""
    return (min if results[0].at_least else max)(results, key=lambda each: each.value or 0.0)


def _bound(result: Result) -> str:
    return f"{'>=' if result.at_least else '<='} {number(result.goal)}"


def _row(text: str, unit: str, result: Result) -> str:
    value = number(result.value)
    if result.value is None:  # nothing states the direction of its goal
        bound, met = number(result.goal), ""
    else:
        bound, met = _bound(result), "yes" if result.met else "**no**"
    return f"| {text} | {result.label} | {unit} | {bound} | {value} | {met} | `{result.commit}` |"


def _misses(texts: dict[str, Any], groups: dict[tuple[str, str], list[Result]]) -> Iterator[str]:
    """Yield a table of the goals that are missed or not measured: how many of their cases, and the
    worst one."""
    yield "| benchmark | figure | missed in | worst | goal |\n|---|---|---|---|---|"
    for (benchmark, key), results in sorted(groups.items(), key=lambda group: group[0][0]):
        missed = [each for each in results if not each.met]
        if missed:
            text, unit = texts[benchmark][key]
            values = [each for each in missed if each.value is not None]
            value = f"{number(_worst(values).value)} {unit}" if values else "not measured"
            # Nothing states the direction of a goal that was not measured.
            goal = _bound(_worst(values)) if values else number(missed[0].goal)
            yield (
                f"| [{benchmark}](#{benchmark}) | {text} | {len(missed)} of {len(results)}"
                f" | {value} | {goal} |"
            )


def _machines(groups: dict[tuple[str, str], list[Result]]) -> Iterator[str]:
    """Yield a table of the commits that were measured, with their machines."""
    table = {
        (each.commit, each.machine, each.cores): None for group in groups.values() for each in group
    }
    yield "| commit | machine | cores |\n|---|---|---|"
    for commit, machine, cores in table:
        yield f"| `{commit}` | {machine} | {cores} |"
