"""`simenv cancel`: end tasks by their ids, or all that match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import app, terminal
from simenv.cli.tasks.history import resolve_run_name
from simenv.errors import NotFoundError, OptionError
from simenv.model import FINAL_STATES, TaskInfo, TaskState
from simenv.wire.messages import client as messages
from simenv.wire.messages.history import LogRow

if TYPE_CHECKING:
    from simenv.client.client import Client


OPEN_STATES = tuple(state for state in TaskState if state not in FINAL_STATES)
LISTED = 10_000  # most tasks of the queue in one answer
_OUTCOMES = {"cancelled": "cancelled", "cancelling": "asked to stop", "final": "had ended before"}


def cancel(
    context: typer.Context,
    tasks: Annotated[list[str] | None, typer.Argument(help="Ids of tasks.")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="All waiting and running tasks that you may see.")
    ] = False,
    run_name: Annotated[
        str, typer.Option(help="Tasks of this run (`simenv exec`); last: the last run.")
    ] = "",
    state: Annotated[
        TaskState | None, typer.Option(help="Tasks in this state: QUEUED or RUNNING.")
    ] = None,
    user: Annotated[
        str, typer.Option(help="Tasks of this owner, as `queue` shows it; -: your own.")
    ] = "",
) -> None:
    """Cancel waiting and running tasks.

    Give ids, or options that select tasks; tasks that match all options are cancelled.
    """
    if bool(tasks) == bool(every or run_name or state or user):
        message = "cancel needs ids of tasks, or one of --all, --run-name, --state, --user"
        raise OptionError(message, hint="simenv cancel t-8k2f; simenv cancel --state QUEUED")
    if state is not None and state not in OPEN_STATES:
        raise OptionError(f"--state {state}: tasks in it have ended", hint=" or ".join(OPEN_STATES))
    common = app.settings_of(context)
    outcomes: Counter[str] = Counter()
    unknown: list[str] = []
    with common.connect() as client:
        chosen = iter(tasks or _matching(client, run_name, state, user))
        while part := list(islice(chosen, messages.MAX_QUESTION_TASKS)):
            for task, word in zip(part, client.cancel(part), strict=True):
                outcomes[word] += 1
                if common.as_json:
                    terminal.json_line({"task": task, "outcome": word})
                elif tasks and word == "final":
                    terminal.note(f"{task} had ended before")
                if word == "unknown":
                    unknown.append(task)
    if tasks and unknown:
        hint = "simenv queue lists them"
        raise NotFoundError(f"there is no task {', '.join(unknown)}", hint=hint)
    if not tasks and not common.as_json:
        settings = [
            f"{terminal.counted(outcomes[word], 'task')} {text}"
            for word, text in _OUTCOMES.items()
            if outcomes[word]
        ]
        terminal.line(", ".join(settings) or "no task matches")


def _matching(client: Client, run_name: str, state: TaskState | None, user: str) -> Iterator[str]:
    """Yield the ids of the waiting and running tasks that match; each may end before it is
    cancelled.

    The queue is read if it fits into one answer and no run is selected, which the queue does not
    know; otherwise the history is read.
    """
    wanted = (state,) if state is not None else OPEN_STATES
    owner = "" if user == "-" else user
    rows: Iterable[TaskInfo | LogRow]
    total, rows = (LISTED + 1, []) if run_name else client.queue(limit=LISTED)
    if total > LISTED:
        rows = client.history.tasks(run_name=resolve_run_name(client, run_name), states=wanted)
    for row in rows:
        if row.state in wanted and (not user or row.owner == owner):
            yield row.id
