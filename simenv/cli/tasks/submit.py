"""`simenv run`, `simenv submit`, `simenv result` and `simenv cancel`.

`run` and `submit` send one circuit from a file, to the environment that is up or to a private one;
`run` waits for its result. `result` waits for a submitted task. `cancel` ends tasks by their ids,
or all that match.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import app, terminal
from simenv.cli.tasks import circuit_input
from simenv.cli.tasks.history import resolve_run_name
from simenv.cli.tasks.result_view import Save, present
from simenv.errors import NotFoundError, OptionError
from simenv.model import FINAL_STATES, TaskInfo, TaskState
from simenv.wire.messages import client as messages, queries

if TYPE_CHECKING:
    from simenv.client.client import Client

Timeout = Annotated[
    float | None,
    typer.Option(callback=app.seconds, help="Maximum seconds to wait; then the exit code is 124."),
]


def result(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="Id of a task, as `submit` and `queue` print it.")],
    timeout: Timeout = None,
    save: Save = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder or .zip to create with all that `submit` needs to run it again."),
    ] = None,
) -> None:
    """Wait for a task and show its result.

    For a sweep, t-8k2f names all bindings that travelled together, t-8k2f.17 one of them.
    """
    common = app.settings_of(context)
    with common.connect_or_read() as client:
        entry = client.task(task)
        if bundle is not None:
            from simenv.cli.tasks.bundle import collect

            entry.wait(progress=sys.stderr.isatty(), timeout_s=timeout)
            collect(client, entry, bundle)
            terminal.note(f"run it again: simenv run {bundle}")
        present(client, entry, common.as_json, timeout, save)


CircuitFile = Annotated[
    str, typer.Argument(help="OpenQASM 2 or 3, QPY, or a bundle; - is stdin.", metavar="FILE")
]


@app.with_options(circuit_input.CircuitOptions)
def run(
    context: typer.Context,
    file: CircuitFile,
    asked: circuit_input.CircuitOptions,
    timeout: Timeout = None,
    save: Save = None,
) -> None:
    """Run a circuit: submit it, show its progress, print its result.

    With no environment up, a private one is started for this call. A bundle (from
    `simenv result ID --bundle`) is run again as it was.
    """
    _submit(context, file, asked, True, timeout, save)


@app.with_options(circuit_input.CircuitOptions)
def submit(
    context: typer.Context,
    file: CircuitFile,
    asked: circuit_input.CircuitOptions,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for the result and show it, as `simenv run` does.")
    ] = False,
    timeout: Timeout = None,
) -> None:
    """Submit a circuit and print the id of its task; `simenv result ID` waits for it.

    With no environment up, a private one is started for this call, which waits. A bundle (from
    `simenv result ID --bundle`) is run again as it was.
    """
    _submit(context, file, asked, wait, timeout)


def _submit(
    context: typer.Context,
    file: str,
    asked: circuit_input.CircuitOptions,
    wait: bool,
    timeout: float | None,
    save: Path | None = None,
) -> None:
    """Submit the circuit or the bundle of `file`; print its id or, with `wait`, its result."""
    common, path = app.settings_of(context), Path(file)
    if file != "-" and (path.is_dir() or path.suffix.lower() == ".zip"):
        from simenv.cli.tasks.bundle import rerun

        rerun(context, common, path, wait, timeout, save)
        return
    with circuit_input.errors_for_command_line(), contextlib.ExitStack() as stack:
        client, is_private, loaded = circuit_input.client_and_circuit(common, file, asked, stack)
        with circuit_input.answer_progress():
            task = client.submit(loaded.program, **asked.arguments(loaded))
        if wait or is_private:
            present(client, task, common.as_json, timeout, save, is_private=is_private)
        else:
            common.answer({"task": task.id}, [task.id])


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
    rows: Iterable[TaskInfo | queries.LogRow]
    total, rows = (LISTED + 1, []) if run_name else client.queue(limit=LISTED)
    if total > LISTED:
        rows = client.history.tasks(run_name=resolve_run_name(client, run_name), states=wanted)
    for row in rows:
        if row.state in wanted and (not user or row.owner == owner):
            yield row.id
