"""`simenv profile`: fetch the history of a run, profile it, and print the findings."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import typer

from simenv.cli import app, terminal
from simenv.cli.listing import Column, Style, listing
from simenv.cli.profile import PerfFinding, RunProfile, Span, findings, profile_of
from simenv.cli.tasks.history import LAST, RunName, Since, resolve_run_name
from simenv.errors import NotFoundError, OptionError
from simenv.model import Event
from simenv.text import elapsed

if TYPE_CHECKING:
    from simenv.cli.profile import ProfileStage
    from simenv.client.client import Client


MOST_TASKS = 200_000  # tasks that are profiled at once, which takes about 200 MB
EARLY_S = 120.0  # starts of workers are read from this long before the first task


class ProfileReport(msgspec.Struct, frozen=True):
    """Object that `--json` prints."""

    profile: RunProfile
    findings: list[PerfFinding]


def report_of(client: Client, run_name: str, since_s: float = 0.0) -> ProfileReport:
    """Return profile and findings of a run, or of all tasks since a time.

    Raises NotFoundError if none of the tasks has ended.
    """
    rows = client.history.newest(MOST_TASKS, since_s, run_name, structure=True)
    starts: list[Span] = []
    if rows:
        before = client.history.events_before(rows[0].submitted_s - EARLY_S)
        starts = worker_starts(client.events(before, ["worker.started", "worker.ready"]))
    result = profile_of(rows, starts, run_name)
    if not result.tasks:
        what = f"of {run_name}" if run_name else "since then"
        raise NotFoundError(f"no task {what} has ended", hint="simenv history lists the tasks")
    return ProfileReport(result, findings(result))


def worker_starts(events: Iterable[Event]) -> list[Span]:
    """Return the time spans in which workers were starting; an unfinished start lasts until now."""
    begun: dict[str, float] = {}
    spans: list[Span] = []
    for event in events:
        if event.subject in begun:  # ready, or started again after a start that failed
            spans.append((begun.pop(event.subject), event.time_s))
        if event.kind == "worker.started":
            begun[event.subject] = event.time_s
    now_s = time.time()
    return spans + [(begin_s, now_s) for begin_s in begun.values()]


_PROFILE_STAGES: tuple[Column[ProfileStage], ...] = (
    Column("STAGE", lambda stage: stage.name),
    Column("WALL_S", lambda stage: f"{stage.wall_s:.3f}", right=True),
    Column("SHARE", lambda stage: f"{100 * stage.share:.1f}%", right=True),
    Column("TASKS_S", lambda stage: f"{stage.task_s:.3f}", right=True),
    Column("WHAT", lambda stage: stage.what),
)


def profile(context: typer.Context, run_name: RunName = "", since: Since = "") -> None:
    """Profile a run by stage, with advice to reduce its time.

    Default: the last `simenv exec`.
    """

    common = app.settings_of(context)
    if run_name and since:
        raise OptionError("--run-name cannot be combined with --since", hint="give one of them")
    since_s = terminal.since(since)
    with common.connect_or_read() as client:
        run = "" if since else resolve_run_name(client, run_name or LAST)
        report = report_of(client, run, since_s)
    if report.profile.tasks + report.profile.unfinished == MOST_TASKS:
        terminal.note(f"only the last {terminal.number(MOST_TASKS)} tasks are profiled")
    if common.as_json:
        terminal.json_line(report)
        return
    _show_profile(report)


def _show_profile(report: ProfileReport) -> None:
    result = report.profile
    terminal.line(f"RUN       {result.app or '-'}   {_counts(result)}   {_begin_text(result)}")
    terminal.line(
        f"STEPS     {terminal.number(result.steps)} of {result.step_circuits:.0f} circuits   "
        f"{terminal.number(result.messages)} messages"
    )
    terminal.line(
        f"TIME      {result.wall_s:.3f} s   {result.busy:.1f} workers busy while there was work; "
        f"{result.workers} used"
    )
    terminal.line(
        f"CLIENT    packing {result.packed_s:.3f} s, acceptance {result.accepted_s:.3f} s; "
        f"results read {1e3 * result.late_s:.1f} ms after they were ready"
    )
    terminal.line()
    stages: Sequence[ProfileStage] = sorted(result.stages, key=lambda stage: -stage.wall_s)
    listing(_PROFILE_STAGES, Style(False), lambda: stages)
    terminal.line()
    for finding in report.findings:
        terminal.line(f"- {finding.words}")
        if finding.way:
            terminal.line(f"  {finding.way}")


def _begin_text(run: RunProfile) -> str:
    return f"started {terminal.format_time(run.begun_s)}, {elapsed(time.time() - run.begun_s)} ago"


def _counts(run: RunProfile) -> str:
    text = f"{terminal.counted(run.circuits, 'circuit')} in {terminal.counted(run.tasks, 'task')}"
    if run.failed:
        text += f", {run.failed} without a result"
    if run.unfinished:
        text += f", {run.unfinished} more have not ended"
    return text
