"""Run of checks on a target, and its report as a table, as JUnit XML, and as plain values.

Invariant: a check that hangs, or damages its QPM, affects only itself: it is abandoned after
`limit_s`, and the following checks get a new QPM.
"""

from __future__ import annotations

import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from fnmatch import fnmatchcase
from typing import Any

import msgspec

from simenv.qpm_check import target as targets
from simenv.qpm_check.check import Check, CheckNotApplicable, TargetProperty, Verdict, VerdictState
from simenv.qpm_check.circuits import WANTED_S, LongCircuit
from simenv.qpm_check.session import WAIT_S, CheckSession

LIMIT_S = 60.0
CLOSING_S = 10.0
PROBE_S = 30.0


class Options(msgspec.Struct, frozen=True):
    """Options of a check run. `only`: patterns of check ids; `long`: a circuit that takes `long_s`,
    if one is known; `probe_s`: time limit of the first circuit."""

    only: tuple[str, ...] = ()
    revisions: tuple[int, ...] = (1, 2)
    long: str = ""
    max_qubits: int = 22
    long_s: float = WANTED_S
    limit_s: float = LIMIT_S
    probe_s: float = PROBE_S
    wait_s: float = WAIT_S


class CheckReport(msgspec.Struct, frozen=True):
    """All verdicts on one target."""

    target: str
    verdicts: tuple[Verdict, ...]
    seconds: float

    def count(self, state: VerdictState) -> int:
        return sum(verdict.state is state for verdict in self.verdicts)

    @property
    def ok(self) -> bool:
        """True if no check failed and at least one passed."""
        return self.count(VerdictState.FAILED) == 0 and self.count(VerdictState.PASSED) > 0


def check(
    target: targets.CheckTarget,
    rows: Sequence[Check],
    options: Options | None = None,
    on_verdict: Callable[[Verdict], None] = lambda _: None,
) -> CheckReport:
    """Run every check in each of its revisions; `on_verdict` is called with each verdict. Raises
    NothingToCheckError."""
    chosen = options or Options()
    patterns = chosen.only or ("*",)
    expected = [row for row in rows if any(fnmatchcase(row.id, each) for each in patterns)]
    if not expected:
        message = f"no row is called {', '.join(chosen.only)}"
        raise targets.NothingToCheckError(message, hint="--list shows all")
    begun = time.monotonic()
    served = {revision: target.serves(revision) for revision in chosen.revisions}
    if all(served.values()):  # then the checks report the faults
        served = dict.fromkeys(served, "")
    long_circuit = LongCircuit(chosen.long, chosen.max_qubits, chosen.long_s)
    verdicts: list[Verdict] = []
    for revision, why in sorted(served.items()):
        of_it = [row for row in expected if revision in row.revisions]
        if why:
            result = _not_served(of_it, revision, why)
        else:
            result = _Series(target, revision, long_circuit, chosen).run(of_it)
        for verdict in result:
            verdicts.append(verdict)
            on_verdict(verdict)
    return CheckReport(target.name, tuple(verdicts), time.monotonic() - begun)


class _Series:
    """Checks of one revision, one after the other, on one QPM while it works."""

    def __init__(
        self,
        target: targets.CheckTarget,
        revision: int,
        long_circuit: LongCircuit,
        options: Options,
    ) -> None:
        self._target = target
        self._revision = revision
        self._long_circuit = long_circuit
        self._limit_s, self._wait_s = options.limit_s, options.wait_s
        self._probe_s = options.probe_s
        self._probed = False
        self._bench: CheckSession | None = None
        self._stack = ExitStack()
        self._closed_to_us = ""  # why no QPM could be opened: no further attempt is made

    def run(self, rows: Sequence[Check]) -> Iterable[Verdict]:
        try:
            for row in rows:
                yield self._judge(row)
        finally:
            self._close()

    def _judge(self, row: Check) -> Verdict:
        for need in row.needs:
            if not _has(self._target, need):
                why = f"this is not {need}"
                return row.verdict(self._revision, VerdictState.NOT_APPLICABLE, why)
        if row.alone:
            self._close()
        begun = time.monotonic()
        state, why = self._outcome(row)
        # A failed check may have blocked its clients, which could delay the next check.
        if row.alone or (state is VerdictState.FAILED and TargetProperty.TRANSPORT in row.needs):
            self._close()
        return row.verdict(self._revision, state, why, time.monotonic() - begun)

    def _outcome(self, row: Check) -> tuple[VerdictState, str]:
        outcome: list[tuple[VerdictState, str]] = []
        thread = threading.Thread(
            target=lambda: outcome.append(self._run_check(row)), name=f"check {row.id}", daemon=True
        )
        thread.start()
        thread.join(self._limit_s)
        if not outcome:
            self._abandon()
            return VerdictState.FAILED, f"it has not come to an end in {self._limit_s:g} s"
        state, why = outcome[0]
        fate = "" if self._bench is None else self._bench.exit_reason()
        if fate:  # the check ended the plugin's process: the next one gets another process
            self._close()
            state, why = VerdictState.FAILED, f"{fate}\n{why}".strip()
        return state, why

    def _run_check(self, row: Check) -> tuple[VerdictState, str]:
        if self._closed_to_us and row.opens:
            return VerdictState.SKIPPED, self._closed_to_us
        try:
            session = self._open(row)
        except Exception as error:  # noqa: BLE001 - any error of the plugin is the verdict
            self._closed_to_us = "no QPM could be opened"
            self._abandon()
            return (VerdictState.FAILED, f"it could not be opened: {targets.named(error)}: {error}")
        try:
            row.check(session)
        except targets.CheckFailed as broken:
            return VerdictState.FAILED, str(broken)
        except targets.CheckSkipped as omitted:
            return VerdictState.SKIPPED, str(omitted)
        except CheckNotApplicable as irrelevant:
            return VerdictState.NOT_APPLICABLE, str(irrelevant)
        except Exception as error:  # noqa: BLE001 - a host would have met it
            return VerdictState.FAILED, f"{targets.named(error)}: {error}"[-2_000:]
        finally:
            session.clean_up()
        return VerdictState.PASSED, ""

    def _open(self, row: Check) -> CheckSession:
        if not row.opens:
            return CheckSession(self._target, None, self._revision, self._long_circuit)
        if self._bench is None:
            subject = self._stack.enter_context(self._target.open(self._revision))
            session = CheckSession(
                self._target, subject, self._revision, self._long_circuit, self._wait_s
            )
            if not self._probed:
                self._probed = True
                self._probe(session)
            self._bench = session
        return self._bench

    def _probe(self, session: CheckSession) -> None:
        """Raise CheckFailed if the first circuit is not answered: each check would wait in vain."""

        def ask() -> None:
            with suppress(Exception):  # an error is an answer
                session.run()

        thread = threading.Thread(target=ask, name="check probe", daemon=True)
        thread.start()
        thread.join(self._probe_s)
        if thread.is_alive():
            message = f"sync_run of a Bell pair was not answered within {self._probe_s:g} s"
            raise targets.CheckFailed(message)

    def _close(self) -> None:
        stack, self._stack, self._bench = self._stack, ExitStack(), None
        with suppress(Exception):  # other checks test the end
            stack.close()

    def _abandon(self) -> None:
        """Close the QPM in another thread, because an abandoned check still uses it."""
        stack, self._stack, self._bench = self._stack, ExitStack(), None
        thread = threading.Thread(target=stack.close, name="closing", daemon=True)
        thread.start()
        thread.join(CLOSING_S)


def _has(target: targets.CheckTarget, need: TargetProperty) -> bool:
    return {
        TargetProperty.PACKAGE: target.has_package,
        TargetProperty.TRANSPORT: target.has_transport,
        TargetProperty.OUTAGE: target.outage is not None,
    }[need]


def _not_served(rows: Sequence[Check], revision: int, why: str) -> Iterable[Verdict]:
    for row in rows:
        yield row.verdict(revision, VerdictState.NOT_APPLICABLE, f"revision {revision}: {why}")


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
    rows = (
        (
            verdict.id,
            str(verdict.revision),
            (str(verdict.state), _COLOURS[verdict.state]),
            f"{verdict.title}\n  {short(verdict.why)}" if verdict.why else verdict.title,
        )
        for verdict in report.verdicts
        if everything or verdict.state is not VerdictState.PASSED
    )
    headers = ("ROW", "REV", "VERDICT", "PROMISE, AND WHAT CAME INSTEAD")
    print_table(headers, rows, summary(report), stream, narrow=3)


def print_table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str | tuple[str, str]]],
    summary: str,
    stream: Any,
    narrow: int,
) -> None:
    """Write rows of texts, or of texts with their styles, and a line. `narrow`: number of columns
    at the left that are never wrapped."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream, width=None if stream.isatty() else _WIDTH, highlight=False)
    result = Table(box=None, pad_edge=False, show_edge=False)
    for place, header in enumerate(headers):
        result.add_column(Text(_printable(header)), no_wrap=place < narrow)
    for row in rows:
        cells = [(each, "") if isinstance(each, str) else each for each in row]
        result.add_row(*(Text(_printable(text), style) for text, style in cells))
    if result.row_count:
        console.print(result)
    console.print(Text(summary))


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


def short(message: str) -> str:
    message = " ".join(_printable(message).split())
    return message if len(message) <= _MOST_CHARS else f"{message[:_MOST_CHARS]}..."


def _printable(message: str) -> str:
    """Replace characters of foreign texts that neither a terminal nor XML should get."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
