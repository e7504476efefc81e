"""`simenv submit`: one circuit from a file, to the environment that is up or to one of its own."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import out, private, settings
from simenv.cli.bundle.container import is_bundle
from simenv.cli.settings import Settings
from simenv.cli.spoken import spoken_errors
from simenv.cli.tasks import Timeout, present
from simenv.errors import OptionError, ProgramError, TimedOut

if TYPE_CHECKING:
    from simenv.client.circuits import Loaded
    from simenv.client.client import Client

MAX_TEXT_BYTES = 16 * 2**20  # one more byte is read, so that the parser's own limit speaks


class Output(StrEnum):
    """What can be asked for."""

    counts = "counts"
    probabilities = "probabilities"
    statevector = "statevector"
    expectation = "expectation"


class Precision(StrEnum):
    """complex128 or complex64."""

    double = "double"
    single = "single"


def submit(
    context: typer.Context,
    file: Annotated[str, typer.Argument(help="OpenQASM 2 or 3; - is stdin; or a bundle.")],
    shots: Annotated[int, typer.Option(min=0, help="0: exact, nothing is sampled.")] = 1024,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same counts.")
    ] = None,
    engine: Annotated[str, typer.Option(help="Which engine; auto chooses and says why.")] = "auto",
    observable: Annotated[
        list[str] | None,
        typer.Option(help='A Pauli sum such as "ZZI:0.5,IXX:-1"; may be given again.'),
    ] = None,
    output: Annotated[
        list[Output] | None, typer.Option(help="What is wanted; may be given again.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Of the amplitudes.")] = Precision.double,
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a free parameter, in radians.")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="Only on this pool.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE of an engine's own option, such as bond=64."),
    ] = None,
    priority: Annotated[int, typer.Option(help="Higher goes first.")] = 0,
    queue_timeout: Annotated[
        float | None, typer.Option(help="EXPIRED after so many seconds of waiting.")
    ] = None,
    run_timeout: Annotated[
        float | None, typer.Option(help="EXPIRED after so many seconds of running.")
    ] = None,
    task_name: Annotated[str | None, typer.Option(help="A name for listings.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and show what it found.")] = False,
    timeout: Timeout = None,
) -> None:
    """Submit a circuit; prints its id, or what it found.

    With no environment up, a private one is started for this call, which then waits. A bundle (of
    `simenv result ID --bundle`) is run again as it was.
    """
    common = settings.of(context)
    if file != "-" and is_bundle(Path(file)):
        from simenv.cli.bundle.rerun import rerun

        rerun(context, common, Path(file), wait, timeout)
        return
    values = _bindings(param or [])
    with spoken_errors(), contextlib.ExitStack() as stack:
        env, alone, loaded = _ready(common, file, stack)
        task = env.submit(
            loaded.program,
            shots=shots or None,
            seed=seed,
            outputs=tuple(each.value for each in output) if output else ("counts",),
            observables=observable or None,
            bindings=loaded.bind(values) if loaded.parameters or values else None,
            engine=engine,
            precision=precision.value,
            pool=pool,
            priority=priority,
            queue_timeout_s=queue_timeout,
            run_timeout_s=run_timeout,
            options=_settings(option or []),
            name=task_name,
        )
        if wait or alone:
            try:
                present(task, common.as_json, timeout)
            except TimedOut as error:
                if alone:
                    error.hint = "it ended with its private environment; simenv up keeps one"
                raise
        elif common.as_json:
            out.json_line({"task": task.id})
        else:
            out.line(task.id)


def _ready(common: Settings, file: str, stack: contextlib.ExitStack) -> tuple[Client, bool, Loaded]:
    """An environment, whether it is a private one, and the circuit.

    Where an environment must be started, the circuit is read meanwhile.
    """
    client = private.found(common, stack)
    if client is not None:
        return client, False, _load(file)
    with ThreadPoolExecutor(1, "load") as pool:
        loading = pool.submit(_load, file)
        client = stack.enter_context(private.started(workers=1))
        return client, True, loading.result()


def _load(file: str) -> Loaded:
    """The circuit of a file or of stdin; ProgramError tells the place."""
    from simenv.client.circuits import load

    source = _read(file)
    try:
        return load(source)
    except ProgramError as error:
        _say_where(error, file, source)
        raise


def _read(file: str) -> str | Path:
    if file != "-":
        return Path(file)
    text = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    try:
        return text.decode() + "\n"  # a newline says that it is a text and not a path
    except UnicodeDecodeError as error:
        raise ProgramError(f"stdin is not UTF-8: {error.reason} at byte {error.start}") from error


def _say_where(error: ProgramError, file: str, source: str | Path) -> None:
    """Add the place and the line of text to an error that knows them."""
    if not error.line:
        return
    for prefix in (
        f"{file}:{error.line}:{error.column}: ",
        f"line {error.line}, column {error.column}: ",
    ):
        error.message = error.message.removeprefix(prefix)  # it stands in the next line
    text = source if isinstance(source, str) else source.read_text(errors="replace")
    lines = text.splitlines()
    quoted = lines[error.line - 1].strip()[:80] if error.line <= len(lines) else ""
    name = "stdin" if file == "-" else file
    error.add_note(f"at {name}:{error.line}:{error.column}   {quoted}")


def _settings(words: list[str]) -> dict[str, float]:
    """NAME=VALUE words to an engine's options; whole numbers stay whole."""
    values: dict[str, float] = {}
    for word in words:
        name, _, text = word.partition("=")
        try:
            values[name] = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError as error:
            hint = "NAME=VALUE, for example bond=64"
            raise OptionError(f"--option {word[:80]!r}", hint=hint) from error
    return values


def _bindings(params: list[str]) -> dict[str, list[float]] | None:
    """NAME=VALUE words to one set of parameter values."""
    values: dict[str, list[float]] = {}
    for param in params:
        name, equals, number = param.partition("=")
        try:
            values[name] = [float(number)]
        except ValueError:
            equals = ""
        if not equals or not name:
            raise OptionError(f"--param {param!r}", hint="NAME=VALUE, for example theta=0.25")
    return values or None
