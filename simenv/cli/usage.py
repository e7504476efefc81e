"""`simenv usage`: what ended tasks used.

Sums over tasks, or one line a task in the columns that `sacct --parsable2` of Slurm prints and Open
XDMoD's shredder of Slurm reads.
"""

from __future__ import annotations

import functools
import grp
import math
import os
import pwd
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv.cli import app, terminal
from simenv.cli.listing import Column, Columns, NoHeader, Style, listing
from simenv.errors import OptionError
from simenv.model import FINAL_STATES, TaskState, task_number
from simenv.model.accounts import Used
from simenv.wire.messages.history import LogRow

if TYPE_CHECKING:
    from simenv.model.accounts import UsageRow

Since = Annotated[
    str, typer.Option(help="Ended at or after this: 1h30m ago, 12:00 today, or an ISO 8601 time.")
]


def _sums(as_csv: bool) -> tuple[Column[dict[str, Any]], ...]:
    """Return columns of sums: rounded for readers, to the microsecond for programs."""

    def column(name: str, optional: int) -> Column[dict[str, Any]]:
        text = "{:.6f}".format if as_csv else terminal.amount
        return Column(name.upper(), lambda row: text(row[name]), right=True, optional=optional)

    return (
        Column("TASKS", lambda row: str(row["tasks"]), right=True),
        Column("SHOTS", lambda row: str(row["shots"]), right=True, optional=3),
        column("slot_s", 0),
        column("gpu_s", 1),
        column("gib_s", 4),
        column("device_s", 2),
        column("wait_s", 5),
        column("units", 0),
    )


def usage(
    context: typer.Context,
    by: Annotated[
        str,
        typer.Option(help="Sum for each: some of account,user,qos,pool,device,engine."),
    ] = "account,user",
    since: Since = "",
    until: Annotated[str, typer.Option(help="Ended before this; forms as for --since.")] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    sacct: Annotated[
        bool,
        typer.Option(
            "--sacct", help="One line a task, as `sacct --parsable2` prints it for Open XDMoD."
        ),
    ] = False,
    columns: Columns = "",
    no_header: NoHeader = False,
) -> None:
    """Sum what ended tasks used: slots, GPUs, memory, devices, and billing units.

    A table rounds the sums to three significant digits or more; --csv has microseconds.

    You see your own tasks and those of accounts that you coordinate, an admin sees all. The sums
    are kept by hour for 35 days, by day for 120 days, then by month; --sacct reads the tasks that
    the history keeps, and two windows that adjoin have each of them once.
    """
    common = app.settings_of(context)
    if as_csv + sacct + common.as_json > 1:
        raise OptionError("--csv, --sacct and --json exclude each other", hint="give one of them")
    since_s, until_s = terminal.since(since), terminal.since(until)
    with common.connect_or_read() as client:
        if sacct:
            if not no_header:
                terminal.line("|".join(_SACCT))
            window = since_s, until_s or math.inf
            for task in client.history.tasks(states=FINAL_STATES, ended_between=window):
                terminal.line(sacct_line(task, client.name))
            return
        names = tuple(name.strip() for name in by.split(",") if name.strip())
        sums = client.usage(names, since_s=since_s, until_s=until_s)
        keys = tuple(map(_key_column, names))
        style = Style(common.as_json, columns, no_header, as_csv=as_csv)
        listing(keys + _sums(as_csv), style, lambda: [_summed(names, row) for row in sums.rows])
    if since or until:
        span = f"{terminal.format_time(sums.from_s)} to {terminal.format_time(sums.to_s)}"
        terminal.note(f"tasks that ended from {span}")


def _key_column(name: str) -> Column[dict[str, Any]]:
    return Column(name.upper(), lambda row: row[name] or "-")


def _summed(names: tuple[str, ...], row: UsageRow) -> dict[str, Any]:
    """Return the object that `--json` prints."""
    used = row.used
    return {
        **dict(zip(names, row.key, strict=True)),
        "tasks": row.tasks,
        "shots": row.shots,
        "slot_s": used.slot_us / 1e6,
        "gpu_s": used.gpu_us / 1e6,
        "gib_s": used.gib_us / 1e6,
        "device_s": used.device_us / 1e6,
        "wait_s": row.wait_us / 1e6,
        "units": row.units,
    }


# --- lines of sacct ---------------------------------------------------------------------------

_SACCT = (
    "JobID", "JobIDRaw", "Cluster", "Partition", "QOS", "Account", "Group", "GID", "User", "UID",
    "Submit", "Eligible", "Start", "End", "Elapsed", "ExitCode", "State", "NNodes", "NCPUS",
    "ReqCPUS", "ReqMem", "ReqTRES", "AllocTRES", "Timelimit", "NodeList", "JobName",
)  # fmt: skip
_NOBODY = 65_534  # of users whom the system does not know
_STATES = {  # state and exit code of Slurm
    TaskState.DONE: ("COMPLETED", "0:0"),
    TaskState.FAILED: ("FAILED", "1:0"),
    TaskState.CANCELLED: ("CANCELLED", "0:15"),
    TaskState.EXPIRED: ("TIMEOUT", "0:15"),
}


def sacct_line(task: LogRow, cluster: str) -> str:
    """Return the line of an ended task. Times are UTC. A task that never ran has no nodes, and Open
    XDMoD leaves it out."""
    number, (state, code) = str(task_number(task.id)), _STATES[task.state]
    user, uid, group, gid = _system_user(task.owner)
    nodes, timing = task.node.split(",") if task.node and task.slots else [], task.timing
    before_us = timing.queued_us + timing.sent_us + timing.compile_us
    begin_s = task.submitted_s + 1e-6 * before_us
    end_s = begin_s + 1e-6 * timing.run_us if nodes else task.ended_s  # without transfers
    submitted, begun, ended = (_utc(each) for each in (task.submitted_s, begin_s, end_s))
    elapsed_s = int(end_s) - int(begin_s) if nodes else 0
    cpus = task.slots * task.ranks
    mib, gpus = _per_second(task.used, timing.run_us)
    tres = f"cpu={cpus},mem={mib}M,node={len(nodes)}" + (f",gres/gpu={gpus}" if gpus else "")
    fields = (
        *(number, number, cluster, task.pool, task.qos, task.account, group, gid, user, uid),
        *(submitted, submitted, begun if nodes else "Unknown", ended, _clock(elapsed_s)),
        *(code, state, len(nodes), cpus, cpus, f"{mib}M", tres, tres, "UNLIMITED"),
        *(",".join(nodes) or "None assigned", task.name or task.engine),
    )
    *others, name = (terminal.clean(str(field)) for field in fields)
    return "|".join([*(field.replace("|", "_") for field in others), name])


def _per_second(used: Used, run_us: int) -> tuple[int, int]:
    """Return MiB of memory and number of GPUs, from their use over the time of the run."""
    if run_us <= 0:
        return 0, 0
    return round(1024 * used.gib_us / run_us), round(used.gpu_us / run_us)


@functools.lru_cache(1_024)
def _system_user(owner: str) -> tuple[str, int, str, int]:
    """Return name and number of a user, and of the user's group, as this system knows them."""
    try:
        entry = pwd.getpwnam(owner) if owner else pwd.getpwuid(os.getuid())
        return entry.pw_name, entry.pw_uid, grp.getgrgid(entry.pw_gid).gr_name, entry.pw_gid
    except KeyError:
        return owner or str(os.getuid()), _NOBODY, "nogroup", _NOBODY


def _utc(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time_s))


def _clock(seconds: int) -> str:
    """Return a span as sacct writes it: [days-]hours:minutes:seconds."""
    days, rest = divmod(seconds, 86_400)
    return f"{f'{days}-' if days else ''}{time.strftime('%H:%M:%S', time.gmtime(rest))}"
