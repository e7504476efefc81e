"""`simenv trace`: the stages of one task, and its lost attempts."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from simenv.cli import app, terminal
from simenv.cli.listing import (
    Column,
    Style,
    keyed,
    listing,
)
from simenv.wire.messages.history import LogRow


class TraceStage(msgspec.Struct, frozen=True):
    """Stage of a task. `at_ms`: time since the submission."""

    stage: str
    at_ms: float
    took_ms: float
    what: str


class LostAttempt(msgspec.Struct, frozen=True):
    """Attempt that ended without a message from its worker."""

    event: int
    time_s: float
    reason: str


class Trace(msgspec.Struct, frozen=True):
    """Object that `--json` prints."""

    task: object  # the row of `simenv history`
    route: str
    stages: list[TraceStage]
    lost: list[LostAttempt]
    trace_id: str  # of OpenTelemetry; "": not traced


INDENT = 9  # column of a line's text, after its keyword
_STAGES: tuple[Column[TraceStage], ...] = (
    Column("STAGE", lambda stage: stage.stage),
    Column("AT_MS", lambda stage: f"{stage.at_ms:.3f}", right=True),
    Column("TOOK_MS", lambda stage: f"{stage.took_ms:.3f}", right=True),
    Column("WHAT", lambda stage: stage.what),
)


def trace(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="Id of a task, as `submit` and `history` print it.")],
) -> None:
    """Show the stages and attempts of one task."""
    common = app.settings_of(context)
    with common.connect_or_read() as client:
        row = client.history.task(task)
        submission = client.history.submitted(task)
        lost = [
            LostAttempt(each.seq, each.time_s, each.message)
            for each in client.history.lost_attempts(row)
        ]
    trace_id = submission.terms.trace[3:35]
    result = Trace(keyed(row), submission.route, stages(row), lost, trace_id)
    if common.as_json:
        terminal.json_line(result)
    else:
        _show(row, result, task)


def stages(row: LogRow) -> list[TraceStage]:
    """Return the stages of a task in their order."""
    timing = row.timing
    rest_us = timing.run_us - timing.decode_us - timing.plan_us - timing.engine_us
    parts = [
        ("queued", timing.queued_us, "accepted, until it was sent to a worker"),
        ("sent", timing.sent_us, "at the worker, after other tasks of its message"),
        ("compile", timing.compile_us, "engine and kernels compiled or loaded, once in a worker"),
        ("decode", timing.decode_us, "bytes to circuit"),
        ("plan", timing.plan_us, "planning its structure"),
        ("engine", timing.engine_us, "evolving and sampling"),
        ("encode", max(0, rest_us), "result to bytes"),
        ("returned", timing.returned_us, "transfer in both directions, until it was stored"),
    ]
    if not timing.compile_us:
        del parts[2]
    begun = timing.run_us > 0
    result, at_us = [], 0
    for name, took_us, what in parts if begun else parts[:1]:
        result.append(TraceStage(name, at_us / 1000, took_us / 1000, what))
        at_us += took_us
    return result


def _show(row: LogRow, task_trace: Trace, task: str) -> None:
    def line(text: str) -> None:
        terminal.fitted(text, INDENT)

    reason = f"   ({terminal.clean(row.reason)})" if row.reason else ""
    line(f"TASK     {task}  {row.name or '-'}  {terminal.paint(str(row.state))}{reason}")
    structure = f", structure {row.structure}" if row.structure else ""  # sequences have none
    line(f"PROGRAM  width {row.num_qubits}{structure}")
    exact = f"{terminal.number(row.shots)} shots" if row.shots else "exact"
    bindings_text = (
        f", {terminal.number(row.bindings)} bindings from number {row.binding} that ran together"
    )
    line(f"ASKED    {exact}, seed {row.seed}{bindings_text if row.bindings > 1 else ''}")
    line(f"ENGINE   {row.engine}: {terminal.clean(task_trace.route)}")
    where = f"{row.worker} on {row.node}, ranks {row.ranks}, slots {row.slots}"
    line(f"WHERE    {where if row.worker else 'not assigned to a worker'}")
    submitted, ended = terminal.format_time(row.submitted_s), terminal.format_time(row.ended_s)
    times = f"submitted {submitted}, ended {ended}"
    line(f"TIMES    {times}, attempt {row.attempts}" + (f", run {row.app}" if row.app else ""))
    if task_trace.trace_id:
        line(f"TRACE    {task_trace.trace_id}")
    for lost in task_trace.lost:
        line(f"LOST     {terminal.format_time(lost.time_s)}  {terminal.clean(lost.reason)}")
    terminal.line()
    listing(_STAGES, Style(False), lambda: task_trace.stages)
