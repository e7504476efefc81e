"""Commands about tasks there are: `result`, `cancel`; and how an ended task is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import out, settings
from simenv.cli.border import as_object, show_error
from simenv.cli.settings import seconds
from simenv.errors import (
    OptionError,
    TaskCancelled,
    TaskExpired,
    TaskFailed,
    TimedOut,
)

if TYPE_CHECKING:
    from simenv.client.result import Result
    from simenv.client.task import Task

SHOWN = 32  # amplitudes on the screen
ROWS = 32  # bindings of a sweep on the screen
BLOCK = 2**20  # looked at together

Timeout = Annotated[
    float | None,
    typer.Option(callback=seconds, help="Wait so many seconds at most; exit code 124 after it."),
]


def result(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="A task's id, as `submit` and `queue` print it.")],
    timeout: Timeout = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write all of it to FILE.h5, FILE.npz or FILE.json.", dir_okay=False),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(help="A folder or .zip to make, with all that `submit` needs to rerun it."),
    ] = None,
) -> None:
    """Wait for a task's end and show what it found.

    Of a sweep t-8k2f stands for all bindings that travelled together, t-8k2f.17 for one.
    """
    common = settings.of(context)
    with common.connect_or_read() as client:
        found = client.task(task)
        if bundle is not None:
            from simenv.cli.bundle.collect import collect

            found.wait(progress=sys.stderr.isatty(), timeout=timeout)
            collect(client, found, bundle)
            out.note(f"run it again: simenv submit {bundle} --wait")
        present(found, common.as_json, timeout, save)


def present(
    task: Task,
    as_json: bool,
    timeout: float | None,
    save: Path | None = None,
    alone: bool = False,
) -> None:
    """Wait for the end and show it; exit code 1 if the task did not end well.

    `alone`: its environment is there for this call only.
    """
    _wait(task, timeout, alone)
    try:
        found = task.results(0.0)
    except (TaskFailed, TaskCancelled, TaskExpired) as error:
        show_error(error)
        if as_json:
            ended = {"task": task.id, "state": str(task.state), "error": as_object(error)}
            out.json_line(ended)
        raise typer.Exit(error.exit_code) from error
    if save is not None and len(found) > 1:
        raise OptionError(
            f"--save {save}: task {task.id} carries {len(found)} bindings",
            hint=f"one by one: simenv result {task.id}.0 --save {save}",
        )
    shown(found, as_json, save)


def shown(found: list[Result], as_json: bool, save: Path | None = None) -> None:
    """Show what a task found; `save`: a file for all of it, where there is one binding."""
    if save is not None:
        found[0].save(save)
    if as_json:
        for each in found:
            out.json_line(each.to_json())
    elif save is None and len(found) == 1:
        _show(found[0])
    elif save is None:
        _sweep(found)


def _wait(task: Task, timeout: float | None, alone: bool) -> None:
    try:
        task.wait(progress=sys.stderr.isatty(), timeout=timeout)
    except KeyboardInterrupt:
        if not alone:
            out.note(f"{task.id} goes on: simenv result {task.id}, or simenv cancel {task.id}")
        raise
    except TimedOut as error:
        if alone:
            error.hint = "it ended with its private environment; simenv up keeps one"
        raise


def _sweep(found: list[Result]) -> None:
    """The first bindings of several, each under its own id."""
    for each in found[:ROWS]:
        out.line(each.task)
        _show(each)
    if len(found) > ROWS:
        out.note(f"the first {ROWS} of {len(found)}; --json prints all")


def _show(found: Result) -> None:
    if found.has("counts"):
        out.bars(found.counts, {key: str(count) for key, count in found.counts.items()})
    if found.has("probabilities"):
        shares = found.probabilities
        out.bars(shares, {key: f"{share:.6f}" for key, share in shares.items()})
    if found.has("statevector"):
        _amplitudes(found)
    if found.has("expectations"):
        for value, error in zip(found.expectations, found.std_errors, strict=True):
            out.line(f"{value:.9g} +- {error:.2g}" if error else f"{value:.12g}")
    if found.has("gradients"):
        for slopes in found.gradients.tolist():
            out.line("gradient " + " ".join(f"{slope:.9g}" for slope in slopes))
    if found.truncation:
        out.note(f"approximate: truncation {found.truncation:.2g}, 1 minus the fidelity expected")


def _amplitudes(found: Result) -> None:
    """The largest ones, whatever the size: a vector may fill the memory."""
    import numpy as np

    vector, width = found.statevector, found.num_qubits
    best = np.zeros(0, np.int64)
    for start in range(0, len(vector), BLOCK):
        places = np.arange(start, min(start + BLOCK, len(vector)))
        both = np.concatenate([best, places])
        weights = np.abs(vector[both])
        best = both[np.argsort(-weights, kind="stable")[:SHOWN]]
    shares = {format(k, f"0{width}b"): float(abs(vector[k]) ** 2) for k in np.sort(best).tolist()}
    texts = {
        key: f"{vector[int(key, 2)].real:+.6f} {vector[int(key, 2)].imag:+.6f}j" for key in shares
    }
    out.bars(shares, texts)
    if len(vector) > SHOWN:
        out.note(f"the {SHOWN} largest of {len(vector)}; --save FILE.h5 writes all")
