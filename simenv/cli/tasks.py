"""Commands about tasks there are: `result`, `cancel`; and how an ended task is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import out, settings
from simenv.cli.border import as_object, show_error
from simenv.cli.settings import seconds
from simenv.errors import NotFound, OptionError, TaskCancelled, TaskExpired, TaskFailed

if TYPE_CHECKING:
    from simenv.client.result import Result
    from simenv.client.task import Task

Timeout = Annotated[
    float | None,
    typer.Option(callback=seconds, help="Wait so many seconds at most; exit code 124 after it."),
]


def result(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="A task's id, as `submit` and `queue` print it.")],
    timeout: Timeout = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the whole result there as JSON.", dir_okay=False)
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="A folder or .zip to make, with all that `submit` needs to rerun it."),
    ] = None,
) -> None:
    """Wait for a task's end and show what it found."""
    common = settings.of(context)
    with common.connect() as client:
        found = client.task(task)
        if bundle is not None:
            from simenv.cli.bundle.collect import collect

            found.wait(progress=sys.stderr.isatty(), timeout=timeout)
            collect(client, found, bundle)
            out.note(f"run it again: simenv submit {bundle} --wait")
        present(found, common.as_json, timeout, save)


def cancel(
    context: typer.Context,
    tasks: Annotated[list[str], typer.Argument(help="Ids of tasks.")],
) -> None:
    """Take tasks out of the queue, or stop them where they run."""
    common = settings.of(context)
    with common.connect() as client:
        words = client.cancel(tasks)
    for task, word in zip(tasks, words, strict=True):
        if common.as_json:
            out.json_line({"task": task, "outcome": word})
        elif word == "final":
            out.note(f"{task} had ended before")
    unknown = [task for task, word in zip(tasks, words, strict=True) if word == "unknown"]
    if unknown:
        raise NotFound(f"no task {', '.join(unknown)} here", hint="simenv queue lists them")


def present(task: Task, as_json: bool, timeout: float | None, save: Path | None = None) -> None:
    """Wait for the end and show it; exit code 1 if the task did not end well."""
    task.wait(progress=sys.stderr.isatty(), timeout=timeout)
    try:
        found = task.result(0.0)
    except (TaskFailed, TaskCancelled, TaskExpired) as error:
        show_error(error)
        if as_json:
            ended = {"task": task.id, "state": str(task.state), "error": as_object(error)}
            out.json_line(ended)
        raise typer.Exit(error.exit_code) from error
    if save is not None:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(found.to_json())) + b"\n"
        try:
            save.write_bytes(text)
        except OSError as error:
            hint = f"another file; the result is kept: simenv result {task.id}"
            raise OptionError(f"--save {save}: {error.strerror}", hint=hint) from error
    if as_json:
        out.json_line(found.to_json())
    elif save is None:
        _show(found)


def _show(found: Result) -> None:
    whole = found.to_json()
    if whole["counts"] is not None:
        out.bars(found.counts, {key: str(count) for key, count in found.counts.items()})
    if whole["probabilities"] is not None:
        shares = found.probabilities
        out.bars(shares, {key: f"{share:.6f}" for key, share in shares.items()})
    if whole["statevector"] is not None:
        vector = found.statevector
        width = found.num_qubits
        shares = {format(k, f"0{width}b"): abs(a) ** 2 for k, a in enumerate(vector.tolist())}
        texts = {
            key: f"{a.real:+.6f} {a.imag:+.6f}j" for key, a in zip(shares, vector, strict=True)
        }
        out.bars(shares, texts)
    for value, error in zip(whole["expectations"] or (), whole["std_errors"] or (), strict=True):
        out.line(f"{value:.9g} +- {error:.2g}" if error else f"{value:.12g}")
