"""What a run did not test: each run ends with the reasons of its skipped tests, and how many.

With `CI=true` a test that lacks root, a network or namespaces fails: there is a machine for it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Generator, Iterable

import pytest

# Of a reason: what a machine for CI has, or what `.ci/run` can install there.
NEEDED = re.compile(
    r"\broot\b|\bnetwork|namespaces?\b|unshare|cannot be had|no route|not reachable",
    re.IGNORECASE,
)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test was skipped, without its place."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ").splitlines()[0] if text else "no reason"


def summary(reports: Iterable[pytest.TestReport | pytest.CollectReport]) -> list[str]:
    """Return the lines about skipped tests: a number and a reason each, the most frequent first."""
    counts = Counter(map(reason_of, reports))
    lines = [f"{count:6}  {reason}" for reason, count in counts.most_common()]
    return [f"{counts.total()} tests were skipped, with these reasons:", *lines] if lines else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test fail in CI if it lacks what CI has."""
    report = yield
    is_ci = os.environ.get("CI") == "true"
    if is_ci and report.skipped and not hasattr(report, "wasxfail"):
        reason = reason_of(report)
        if NEEDED.search(reason):
            report.outcome = "failed"
            report.longrepr = f"skipped, which CI=true forbids: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in summary(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)
