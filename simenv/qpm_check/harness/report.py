"""Report results as a table, as JUnit XML, and as plain values."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from simenv.qpm_check.harness.check import Verdict, VerdictState
from simenv.qpm_check.harness.runner import CheckReport

_COLOURS = {
    VerdictState.PASSED: "green",
    VerdictState.FAILED: "red",
    VerdictState.SKIPPED: "yellow",
    VerdictState.NOT_APPLICABLE: "dim",
}
_WIDTH = 160  # columns of output that is no terminal
_MOST_CHARS = 400  # longest reason in a table


def table(report: CheckReport, *, everything: bool, stream: Any) -> None:
    """Write the checks that did not pass, or all of them, and a line of totals to `stream`."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, width=None if stream.isatty() else _WIDTH, highlight=False)
    shown = [v for v in report.verdicts if everything or v.state is not VerdictState.PASSED]
    if shown:
        result = Table(box=None, pad_edge=False, show_edge=False)
        for header in ("ROW", "REV", "VERDICT", "PROMISE, AND WHAT CAME INSTEAD"):
            result.add_column(header, no_wrap=header != "PROMISE, AND WHAT CAME INSTEAD")
        for verdict in shown:
            message = (
                verdict.title if not verdict.why else f"{verdict.title}\n  {_short(verdict.why)}"
            )
            result.add_row(
                verdict.id, str(verdict.revision),
                Text(str(verdict.state), _COLOURS[verdict.state]),
                Text(message),
            )  # fmt: skip
        console.print(result)
    console.print(Text(summary(report)))


def summary(report: CheckReport) -> str:
    """Return one line with the target and the number of checks in each state."""
    counts = ", ".join(f"{report.count(state)} {state}" for state in VerdictState)
    return f"{report.target}: {counts} ({report.seconds:.0f} s)"


def plain(report: CheckReport) -> dict[str, Any]:
    """Object of `--json`."""
    return {
        "target": report.target,
        "ok": report.ok,
        "seconds": round(report.seconds, 3),
        **{str(state).replace(" ", "_"): report.count(state) for state in VerdictState},
        "rows": [_row(verdict) for verdict in report.verdicts],
    }


def junit(report: CheckReport) -> str:
    """JUnit XML: a test case for each check and revision; "not applicable" counts as skipped."""
    left_out = report.count(VerdictState.SKIPPED) + report.count(VerdictState.NOT_APPLICABLE)
    suite = ET.Element(
        "testsuite",
        name=f"simenv qpm check {report.target}",
        tests=str(len(report.verdicts)),
        failures=str(report.count(VerdictState.FAILED)),
        errors="0",
        skipped=str(left_out),
        time=f"{report.seconds:.3f}",
    )
    for verdict in report.verdicts:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"revision{verdict.revision}.{verdict.id.partition('.')[0]}",
            name=f"{verdict.id}: {verdict.title}",
            time=f"{verdict.seconds:.3f}",
        )
        message = _printable(verdict.why)
        if verdict.state is VerdictState.FAILED:
            ET.SubElement(case, "failure", message=message[:_MOST_CHARS]).text = message
        elif verdict.state is not VerdictState.PASSED:
            ET.SubElement(case, "skipped", message=f"{verdict.state}: {message}")
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _row(verdict: Verdict) -> dict[str, Any]:
    return {
        "id": verdict.id,
        "revision": verdict.revision,
        "title": verdict.title,
        "state": str(verdict.state),
        "why": verdict.why,
        "seconds": round(verdict.seconds, 3),
    }


def _short(message: str) -> str:
    message = " ".join(_printable(message).split())
    return message if len(message) <= _MOST_CHARS else f"{message[:_MOST_CHARS]}..."


def _printable(message: str) -> str:
    """Replace characters of foreign texts that neither a terminal nor XML should get."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
