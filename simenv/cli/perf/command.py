"""`simenv perf`: fetch the history of a run, profile it, say what was found."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import typer

from simenv.cli import moments, out, settings
from simenv.cli.listing import Column, Style, listing
from simenv.cli.past import LAST, App, Since, app_named
from simenv.cli.perf.findings import Finding, findings
from simenv.cli.perf.profile import Profile, Span, Stage, profile
from simenv.errors import NotFound, OptionError
from simenv.model import Event

if TYPE_CHECKING:
    from simenv.client.client import Client

MOST_TASKS = 200_000  # profiled at once: some 200 MB
EARLY_S = 120.0  # a worker's start that began so long before the first task is still seen

_STAGES: tuple[Column[Stage], ...] = (
    Column("STAGE", lambda stage: stage.name),
    Column("WALL_S", lambda stage: f"{stage.wall_s:.3f}", right=True),
    Column("SHARE", lambda stage: f"{100 * stage.share:.1f}%", right=True),
    Column("TASKS_S", lambda stage: f"{stage.task_s:.3f}", right=True),
    Column("WHAT", lambda stage: stage.what),
)


class Report(msgspec.Struct, frozen=True):
    """What `--json` prints."""

    profile: Profile
    findings: list[Finding]


def perf(context: typer.Context, app: App = "", since: Since = "") -> None:
    """Where an application's time went, stage by stage, and what would better it.

    Of the last `simenv run`, unless a run or a time is named.
    """
    common = settings.of(context)
    if app and since:
        raise OptionError("--app beside --since", hint="one of them")
    since_s = moments.since(since)
    with common.connect() as client:
        run = "" if since else app_named(client, app or LAST)
        report = look(client, run, since_s)
    if common.as_json:
        out.json_line(report)
        return
    _show(report)


def look(client: Client, app: str, since_s: float = 0.0) -> Report:
    """Profile and findings of a run, or of all since a time; NotFound where nothing has ended."""
    rows = deque(client.past.tasks(since_s, app, structure=True), maxlen=MOST_TASKS)
    starts: list[Span] = []
    if rows:
        before = client.past.events_before(rows[0].submitted_s - EARLY_S)
        starts = worker_starts(client.events(before, ["worker.started", "worker.ready"]))
    found = profile(rows, starts, app)
    if not found.tasks:
        what = f"of {app}" if app else "since then"
        raise NotFound(f"no task {what} has ended", hint="simenv log shows what there is")
    return Report(found, findings(found))


def worker_starts(events: Iterable[Event]) -> list[Span]:
    """When workers were starting; one that is not ready yet, until now."""
    begun: dict[str, float] = {}
    spans: list[Span] = []
    for event in events:
        if event.kind == "worker.started":
            begun[event.subject] = event.time_s
        elif event.subject in begun:
            spans.append((begun.pop(event.subject), event.time_s))
    now_s = time.time()
    return spans + [(begin_s, now_s) for begin_s in begun.values()]


def _show(report: Report) -> None:
    found = report.profile
    if found.tasks == MOST_TASKS:
        out.note(f"the last {out.number(MOST_TASKS)} tasks are profiled")
    out.line(f"RUN       {found.app or '-'}   {_counts(found)}")
    out.line(
        f"STEPS     {out.number(found.steps)} of {found.step_circuits:.0f} circuits   "
        f"{out.number(found.messages)} messages"
    )
    out.line(
        f"TIME      {found.wall_s:.3f} s   {found.busy:.1f} of {found.workers} workers busy while "
        "there was work"
    )
    out.line(
        f"CLIENT    packing {found.packed_s:.3f} s, acceptance {found.accepted_s:.3f} s; "
        f"results read {1e3 * found.late_s:.1f} ms after they were ready"
    )
    out.line()
    stages: Sequence[Stage] = sorted(found.stages, key=lambda stage: -stage.wall_s)
    listing(_STAGES, Style(False), lambda: stages)
    out.line()
    for finding in report.findings:
        out.line(f"- {finding.words}")
        if finding.way:
            out.line(f"  {finding.way}")


def _counts(found: Profile) -> str:
    words = f"{out.number(found.circuits)} circuits in {out.number(found.tasks)} tasks"
    if found.failed:
        words += f", {found.failed} without a result"
    if found.unfinished:
        words += f", {found.unfinished} more have not ended"
    return words
