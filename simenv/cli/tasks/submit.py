"""`simenv run`, `simenv submit` and `simenv result`.

`run` and `submit` send one program from a file, to the environment that is up or to a private one;
`run` waits for its result. `result` waits for a submitted task.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import app, terminal
from simenv.cli.tasks import circuit_input
from simenv.cli.tasks.result_view import Save, present
from simenv.errors import SimenvError

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
    str,
    typer.Argument(
        help="OpenQASM 2 or 3, QPY, QIR, a pulse sequence, or a bundle; - is stdin.",
        metavar="FILE",
    ),
]


@app.with_options(circuit_input.CircuitOptions)
def run(
    context: typer.Context,
    file: CircuitFile,
    asked: circuit_input.CircuitOptions,
    timeout: Timeout = None,
    save: Save = None,
) -> None:
    """Run a program: submit it, show its progress, print its result.

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
    """Submit a program and print the id of its task; `simenv result ID` waits for it.

    With no environment up, a private one is started for this call, which waits. A bundle (from
    `simenv result ID --bundle`) is run again as it was.
    """
    _submit(context, file, asked, wait, timeout)


WITHDRAWAL_S = 30.0  # for the answer to a submission that Ctrl-C has interrupted


def _withdraw(client: Client) -> None:
    """Wait until an interrupted submission is withdrawn, so that no task comes later and takes a
    worker; say what became of it."""
    terminal.note("withdraws the submission, which the service has not answered; Ctrl-C leaves it")
    try:
        tasks, is_over = client.await_withdrawn(WITHDRAWAL_S)
    except KeyboardInterrupt:
        tasks, is_over = [], False
    for task in tasks:
        terminal.note(f"{task} was accepted meanwhile, and is cancelled")
    if not is_over:
        terminal.note("it may continue: simenv queue shows its id, simenv cancel ID ends it")
    elif not tasks:
        terminal.note("nothing was submitted")


def _submit(
    context: typer.Context,
    file: str,
    asked: circuit_input.CircuitOptions,
    wait: bool,
    timeout: float | None,
    save: Path | None = None,
) -> None:
    """Submit the program or the bundle of `file`; print its id or, with `wait`, its result."""
    common, path = app.settings_of(context), Path(file)
    if file != "-" and (path.is_dir() or path.suffix.lower() == ".zip"):
        from simenv.cli.tasks.bundle import rerun

        rerun(context, common, path, wait, timeout, save)
        return
    with circuit_input.errors_for_command_line(), contextlib.ExitStack() as stack:
        client, is_private, loaded = circuit_input.client_and_circuit(common, file, asked, stack)
        try:
            with circuit_input.answer_progress():
                task = client.submit(loaded.program, **asked.arguments(loaded))
        except KeyboardInterrupt:
            if not is_private:
                _withdraw(client)
            raise
        if wait or is_private:
            try:
                present(client, task, common.as_json, timeout, save, is_private=is_private)
            except SimenvError as error:
                error.retryable = error.retryable and not error.tasks  # it would run twice
                raise
        else:
            common.answer({"task": task.id}, [task.id])
