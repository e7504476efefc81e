"""`simenv submit`: one circuit from a file, to the environment that is up or to a private one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from simenv.cli import options
from simenv.cli.bundle.container import is_bundle
from simenv.cli.errors import errors_for_command_line
from simenv.cli.output import terminal
from simenv.cli.tasks.circuit_input import (
    Amplitudes,
    BitStrings,
    Compile,
    Compiled,
    Device,
    Engine,
    Noise,
    Observables,
    Outputs,
    Params,
    Pool,
    Precision,
    Prefer,
    QubitMapping,
    Ranks,
    Seed,
    Shots,
    bindings_of,
    client_and_circuit,
    mapping_of,
    noise_of,
    preferred,
    settings_of,
)
from simenv.cli.tasks.result import Timeout
from simenv.cli.tasks.result_view import present
from simenv.cli.tasks.waiting import answer_progress


def submit(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="OpenQASM 2 or 3, QPY, or a bundle; - is stdin.")],
    shots: Shots = 1024,
    seed: Seed = None,
    engine: Engine = "auto",
    observable: Observables = None,
    amplitude: BitStrings = None,
    output: Outputs = None,
    precision: Amplitudes = Precision.double,
    param: Params = None,
    pool: Pool = None,
    prefer: Prefer = None,
    device: Device = None,
    noise: Noise = "auto",
    compiled: Compiled = Compile.auto,
    qubit_mapping: QubitMapping = None,
    ranks: Ranks = None,
    engine_option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of an option of the engine, such as bond=64."),
    ] = None,
    priority: Annotated[int, typer.Option(help="Priority; a higher number runs first.")] = 0,
    queue_timeout: Annotated[
        float | None, typer.Option(help="Seconds of waiting after which the task is EXPIRED.")
    ] = None,
    run_timeout: Annotated[
        float | None, typer.Option(help="Seconds of running after which the task is EXPIRED.")
    ] = None,
    after: Annotated[
        list[str] | None,
        typer.Option(help="Id of a task that must be DONE before; may be given several times."),
    ] = None,
    task_name: Annotated[str | None, typer.Option(help="Name of the task in listings.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the result and show it.")] = False,
    timeout: Timeout = None,
) -> None:
    """Submit a circuit; print its id, or its result (--wait).

    With no environment up, a private one is started for this call, which waits. A bundle (from
    `simenv result ID --bundle`) is run again as it was.
    """
    common = options.settings_of(context)
    if file != "-" and is_bundle(Path(file)):
        from simenv.cli.bundle.rerun import rerun

        rerun(context, common, Path(file), wait, timeout)
        return
    values = bindings_of(param or [])
    with errors_for_command_line(), contextlib.ExitStack() as stack:
        client, is_private, loaded = client_and_circuit(common, file, stack)
        with answer_progress():
            task = client.submit(
                loaded.program,
                shots=shots or None,
                seed=seed,
                outputs=tuple(each.value for each in output) if output else ("counts",),
                observables=observable or None,
                amplitudes=amplitude or None,
                parameter_values=loaded.bind(values) if loaded.parameters or values else None,
                engine=engine,
                precision=precision.value,
                pool=pool,
                prefer=preferred(prefer),
                device=device,
                noise=noise_of(noise),
                compile=compiled.value,
                qubit_mapping=mapping_of(qubit_mapping),
                ranks=ranks,
                priority=priority,
                queue_timeout_s=queue_timeout,
                run_timeout_s=run_timeout,
                options=settings_of(engine_option or []),
                after=after or None,
                name=task_name,
            )
        if wait or is_private:
            present(client, task, common.as_json, timeout, is_private=is_private)
        elif common.as_json:
            terminal.json_line({"task": task.id})
        else:
            terminal.line(task.id)
