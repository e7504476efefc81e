"""`simenv perf`: fetch the history of a run, profile it, say what was found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from simenv.cli import moments, out, settings
from simenv.cli.listing import Column, Style, listing
from simenv.cli.past import LAST, App, Since, app_named
from simenv.client.signs import elapsed
from simenv.errors import OptionError

if TYPE_CHECKING:
    from simenv.cli.perf.profile import Profile, Stage
    from simenv.cli.perf.report import Report

_STAGES: tuple[Column[Stage], ...] = (
    Column("STAGE", lambda stage: stage.name),
    Column("WALL_S", lambda stage: f"{stage.wall_s:.3f}", right=True),
    Column("SHARE", lambda stage: f"{100 * stage.share:.1f}%", right=True),
    Column("TASKS_S", lambda stage: f"{stage.task_s:.3f}", right=True),
    Column("WHAT", lambda stage: stage.what),
)


def perf(context: typer.Context, app: App = "", since: Since = "") -> None:
    """Where an application's time went, stage by stage, and what would better it.

    Of the last `simenv run`, unless a run or a time is named.
    """
    from simenv.cli.perf.report import MOST_TASKS, look

    common = settings.of(context)
    if app and since:
        raise OptionError("--app beside --since", hint="one of them")
    since_s = moments.since(since)
    with common.connect_or_read() as client:
        run = "" if since else app_named(client, app or LAST)
        report = look(client, run, since_s)
    if report.profile.tasks + report.profile.unfinished == MOST_TASKS:
        out.note(f"only the last {out.number(MOST_TASKS)} tasks are profiled")
    if common.as_json:
        out.json_line(report)
        return
    _show(report)


def _show(report: Report) -> None:
    found = report.profile
    out.line(f"RUN       {found.app or '-'}   {_counts(found)}   {_begun(found)}")
    out.line(
        f"STEPS     {out.number(found.steps)} of {found.step_circuits:.0f} circuits   "
        f"{out.number(found.messages)} messages"
    )
    out.line(
        f"TIME      {found.wall_s:.3f} s   {found.busy:.1f} workers busy while there was work; "
        f"{found.workers} had a part in it"
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


def _begun(found: Profile) -> str:
    """Which run this was: one that submitted nothing is none, and an older one is shown."""
    return f"begun {moments.shown(found.begun_s)}, {elapsed(time.time() - found.begun_s)} ago"


def _counts(found: Profile) -> str:
    words = f"{out.counted(found.circuits, 'circuit')} in {out.counted(found.tasks, 'task')}"
    if found.failed:
        words += f", {found.failed} without a result"
    if found.unfinished:
        words += f", {found.unfinished} more have not ended"
    return words
