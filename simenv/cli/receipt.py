"""`simenv receipt`: what one ended task used, and why it waited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from simenv.cli import app, terminal
from simenv.cli.listing import keyed
from simenv.model.accounts import Receipt, WaitReason

INDENT = 9  # column of a line's text, after its keyword
_REASONS = {
    WaitReason.OWN_TASKS: "after tasks of the same user",
    WaitReason.SHARE: "after others by fair share",
    WaitReason.SLOTS: "no free slot",
    WaitReason.RANKS: "no {slots} free slots at once",
    WaitReason.RESERVED: "slots reserved by others",
    WaitReason.UNITS: "no units left in its reservation",
    WaitReason.PARENTS: "for the tasks that it comes after",
    WaitReason.LIMIT: "at a limit of running slots",
    WaitReason.DEVICE: "its device took no task",
    WaitReason.STARTING: "workers were starting",
    WaitReason.NODES: "no node was up",
    WaitReason.LOST: "in an attempt that was lost",
    WaitReason.PREEMPTED: "ended for an account below its share",
    WaitReason.ALLOCATION: "too long for the rest of the allocation",
    WaitReason.ISOLATION: "restart of a worker that had served another account",
    WaitReason.REMOVED: "held: its user may not use the environment any more",
    WaitReason.SERVICE: "in admission, the journal and the way to its worker",
}


def receipt(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="Id of a task, as `submit` and `history` print it.")],
) -> None:
    """Show what an ended task used, and why it waited. A receipt never changes."""
    common = app.settings_of(context)
    with common.connect_or_read() as client:
        stored = client.receipt(task)
    if common.as_json:
        names = ((WaitReason(reason).name.lower(), us) for reason, us in stored.waits)
        waits = [{"reason": name, "us": us} for name, us in names]
        fields: Any = keyed(stored)
        terminal.json_line({**fields, "waits": waits})
        return
    for line in receipt_lines(stored):
        terminal.fitted(line, INDENT)


def receipt_lines(stored: Receipt) -> Iterator[str]:
    """Yield the text of a receipt."""
    used = stored.used
    yield f"TASK     {stored.task}  {terminal.paint(str(stored.state))}"
    of_account = f", account {stored.account}" if stored.account else ""
    of_class = f", class {stored.qos}" if stored.qos else ""
    yield f"WHO      {stored.user or terminal.OWN_USER}{of_account}{of_class}"
    slots = f"{stored.slots} slot{'s' * (stored.slots != 1)}"
    yield f"WHERE    pool {stored.pool}, engine {stored.engine}, {slots}"
    submitted, ended = map(terminal.format_time, (stored.submitted_s, stored.ended_s))
    yield f"TIMES    submitted {submitted}, ended {ended}"
    amounts = (("slots", used.slot_us), ("GPUs", used.gpu_us), ("GiB", used.gib_us))
    parts = [f"{us / 1e6:.3f} s x {unit}" for unit, us in amounts if us or unit == "slots"]
    parts += [f"{used.device_us / 1e6:.3f} s of its device"] if used.device_us else []
    yield f"USED     {', '.join(parts)}"
    yield f"RAN      {run_text(stored)}"
    yield f"UNITS    {stored.units:.6f}"
    if stored.rank:
        of_site = (
            f"{100 * stored.share:.2f} % of the site, usage {terminal.amount(stored.usage)} units"
        )
        yield f"SHARE    {of_site}, rank {stored.rank} at the submission"
    yield f"WAITED   {waited_text(stored)}"


def run_text(stored: Receipt) -> str:
    """Return the run time of a task, and the time on one slot that was forecast for it."""
    forecast = f"forecast {stored.forecast_us / 1e6:.3f} s on one slot"
    times = stored.run_us * stored.slots / max(1, stored.forecast_us)
    beyond = f": {times:.0f} x its forecast" if times >= 10 else ""
    return f"{stored.run_us / 1e6:.3f} s, {forecast}{beyond}"


def waited_text(stored: Receipt) -> str:
    """Return the wait of a task and its parts, the longest first, in milliseconds that add up."""
    parts = sorted(stored.waits, key=lambda part: -part[1])
    ms = rounded_parts([us for _, us in parts], stored.waited_us)
    texts = [
        f"{part_ms / 1000:.3f} s {_REASONS[WaitReason(reason)].format(slots=stored.slots)}"
        for (reason, _), part_ms in zip(parts, ms, strict=True)
        if part_ms
    ]
    total = f"{sum(ms) / 1000 if ms else 0.0:.3f} s"
    return f"{total}: {', '.join(texts)}" if texts else total


def rounded_parts(parts_us: list[int], total_us: int) -> list[int]:
    """Round microseconds to milliseconds whose sum is the rounded total (largest remainders)."""
    ms = [us // 1000 for us in parts_us]
    left = round(total_us / 1000) - sum(ms)
    for k in sorted(range(len(ms)), key=lambda k: -(parts_us[k] % 1000))[: max(0, left)]:
        ms[k] += 1
    return ms
