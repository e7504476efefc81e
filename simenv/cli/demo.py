"""`simenv demo`: circuits with known exact results on a private environment, and their plots."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config
from simenv.cli import app, terminal
from simenv.cli.listing import Column, Style, following, listing
from simenv.text import elapsed

if TYPE_CHECKING:
    from simenv.cli import demo_runs, demo_variational
    from simenv.client.client import Client


def demo(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Option("--out", help="Folder of demo.png.", file_okay=False)
    ] = Path("."),
    workers: Annotated[int, typer.Option(min=1, help="Number of workers.")] = 2,
) -> None:
    """Run fifteen algorithms, and one circuit on 127 noisy qubits; check and draw the results."""
    import simenv
    from simenv.cli import demo_runs, demo_variational

    common = app.settings_of(context)
    folder.mkdir(parents=True, exist_ok=True)
    terminal.note("starting a private environment")
    acts: list[demo_runs.DemoRow] = []
    columns: tuple[Column[demo_runs.DemoRow], ...] = (
        Column("CIRCUIT", lambda act: act.circuit, width=20),
        Column("QUBITS", lambda act: str(act.qubits), right=True),
        Column("ENGINE", lambda act: act.engine, width=11),
        Column("QUEUE ms", lambda act: f"{act.queue_ms:.2f}", right=True),
        Column("RUN ms", lambda act: f"{act.run_ms:.2f}", right=True),
        Column("ANSWER", lambda act: "ok" if not act.fault else "fail"),
        Column("TOP COUNTS", demo_runs.top),
    )

    whole: list[demo_runs.DemoRow] = []  # on an emulated QPU, with noise

    def rows(client: Client) -> Iterator[list[demo_runs.DemoRow]]:
        for act in demo_runs.perform(client):
            acts.append(act)
            yield [act]
        whole.append(demo_runs.whole_device(client))
        yield whole

    with simenv.local(workers=workers) as client:
        _compile_kernels()
        following(columns, Style(common.as_json, aligned=True), rows(client))
        run = demo_variational.minimise(client)
        comparisons = demo_runs.compare(demo_runs.submit(client))
        noisy = demo_variational.minimise(client, device=demo_runs.DEVICE)
    emulated = f"\nshares of right outcomes, ideal and on the emulated {demo_runs.DEVICE}:"
    common.answer(run, ("", demo_variational.summary(run), emulated))
    listing(_COMPARED, Style(common.as_json, aligned=True), lambda: comparisons)
    kernels = f"kernels: {config.kernel_cache()}, compiled once for every environment"
    common.answer(noisy, ("", demo_variational.summary(noisy), kernels))
    picture = _draw(acts, run, comparisons, noisy, folder)
    if picture and not common.as_json:
        terminal.line(f"picture: {picture.resolve()}")
    wrong = [(act.circuit, act.fault) for act in (*acts, *whole) if act.fault]
    wrong += [(each.circuit, each.fault) for each in comparisons if each.fault]
    for circuit, fault in wrong:
        terminal.note(f"{terminal.paint('fail')}: {circuit}: {fault}")
    if wrong or not run.converged:
        raise typer.Exit(1)


def _compile_kernels() -> None:
    """Compile the kernels that are not on disk, together with the environment, before any circuit:
    the times of the demo are those of circuits. A bar shows how many are left."""
    from simenv.client.tasks.progress import LOG, TaskProgress, progress_line
    from simulators.compiler import warmup

    folder = config.kernel_folder()
    if warmup.is_compiled(folder):
        return
    text = "compiling kernels, once on this machine"
    terminal.note(text)
    begun_s = time.monotonic()
    with progress_line(LOG, sys.stderr) as line:

        def show(done: int, total: int) -> None:
            progress = TaskProgress(done / total, done, total, "kernels")
            spent = elapsed(time.monotonic() - begun_s)
            line.show(f"{progress}, {spent}, once on this machine", progress)

        warmup.compile_all(folder, show)
    terminal.note(f"kernels are compiled, after {elapsed(time.monotonic() - begun_s)}")


_COMPARED: tuple[Column[demo_runs.EmulatedComparison], ...] = (
    Column("CIRCUIT", lambda each: each.circuit),
    Column("QUBITS", lambda each: str(each.qubits), right=True),
    Column("ENGINE", lambda each: each.engine),
    Column("2Q GATES", lambda each: str(each.gates_2q), right=True),
    Column("IDEAL", lambda each: f"{each.right_ideal:.3f}", right=True),
    Column("EMULATED", lambda each: f"{each.right_emulated:.3f}", right=True),
    Column("FIDELITY", lambda each: f"{each.hellinger:.3f}", right=True),
)


def _draw(
    acts: list[demo_runs.DemoRow],
    run: demo_variational.VariationalRun,
    comparisons: list[demo_runs.EmulatedComparison],
    noisy: demo_variational.VariationalRun,
    folder: Path,
) -> Path | None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        terminal.note("no picture: matplotlib is not installed; pip install 'simenv[plots]'")
        return None
    from simenv.cli import demo_picture

    return demo_picture.draw(acts, run, comparisons, noisy, folder / "demo.png")
