"""Input of commands about one circuit: its file, a noise model, shared options, the progress line.

A field of `CircuitOptions` is an option of the command line: one table, from which `run`,
`submit`, `simulate` and `explain` take their parameters. It is sent as the option of
`Client.submit` of the same name, or as its `Sent` says. Errors of a submission name the option of
the command line, not that of the client. The progress line of a waiting command shows compilation
in its own process, or checks of the service.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, TextIO, get_args, get_origin

import typer

from simenv.cli import app, execute
from simenv.client.tasks.progress import LOG, PATIENCE_S, ProgressLine, progress_line
from simenv.errors import OptionError, ProgramError, SimenvError, rename_options
from simenv.text import elapsed

if TYPE_CHECKING:
    from simenv.client.circuits import ChannelNames, PackedCircuit
    from simenv.client.client import Client
    from simenv.client.submission.options import SubmitOptions

MAX_TEXT_BYTES = 16 * 2**20  # one more byte is read, so that the parser reports its own limit


def client_and_circuit(
    common: app.Settings, file: str, asked: CircuitOptions, stack: ExitStack
) -> tuple[Client, bool, PackedCircuit]:
    """Return a client, whether its environment is a private one, and the circuit. If an environment
    must be started, the circuit is read meanwhile."""
    client = execute.client_of(common, stack)
    if client is not None:
        return client, False, read_circuit(file, asked.channels())
    if file != "-" and not Path(file).is_file():
        read_circuit(file)  # raises before an environment is started
    with ThreadPoolExecutor(1, "load") as pool:
        loading = pool.submit(read_circuit, file, asked.channels())
        client = stack.enter_context(execute.started(workers=1))
        return client, True, loading.result()


def read_circuit(file: str, channels: ChannelNames | None = None) -> PackedCircuit:
    """Read the circuit of a file or of stdin. `channels`: see `load`. Raises ProgramError with the
    place of the error."""
    from simenv.client.circuits import load

    source = _read(file)
    try:
        return load(source, channels)
    except ProgramError as error:
        _add_location(error, file, source)
        raise


def _read(file: str) -> str | Path:
    if file != "-":
        return Path(file)
    text = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
    try:
        return text.decode() + "\n"  # a newline marks it as text, not as a path
    except UnicodeDecodeError as error:
        raise ProgramError(f"stdin is not UTF-8: {error.reason} at byte {error.start}") from error


def _add_location(error: ProgramError, file: str, source: str | Path) -> None:
    """Add the place and the line of text to an error that has a line number."""
    if not error.line:
        return
    for prefix in (
        f"{file}:{error.line}:{error.column}: ",
        f"line {error.line}, column {error.column}: ",
    ):
        error.message = error.message.removeprefix(prefix)  # the note has the place
    text = source if isinstance(source, str) else source.read_text(errors="replace")
    lines = text.splitlines()
    quoted = lines[error.line - 1].strip()[:80] if error.line <= len(lines) else ""
    name = "stdin" if file == "-" else file
    error.add_note(f"at {name}:{error.line}:{error.column}   {quoted}".rstrip())


_NOISE_HINT = "auto, on, off, a recipe (aer), COMPONENT=FACTOR, or a file"


def noise_of(text: str) -> Any:
    """Parse --noise for `Client.submit`: a word, factors, or the content of a file. Raises
    OptionError for a text that is none of these."""
    if not text:
        raise OptionError("--noise ''", hint=_NOISE_HINT)
    path = Path(text)
    if path.suffix == ".json" or path.is_file():
        try:
            return path.read_bytes()
        except OSError as error:
            raise OptionError(f"--noise {text[:80]!r}: {error.strerror}") from error
    if "=" not in text:
        return text
    entries: dict[str, float | str] = {}
    for word in text.split(","):
        name, _, value = (part.strip() for part in word.partition("="))
        if name in entries:
            raise OptionError(f"--noise: {name[:64]!r} is given twice", hint="give it once")
        try:
            entries[name] = value if name == "recipe" and value else float(value)
        except ValueError as error:
            message = f"--noise: {word[:80]!r} is not COMPONENT=FACTOR"
            hint = "such as gate.depolarizing=0.5,qubit.relaxation=0"
            raise OptionError(message, hint=hint) from error
    return entries


Output = StrEnum("Output", "counts probabilities statevector expectation gradient memory")
Precision = StrEnum("Precision", "double single")  # of the amplitudes: complex128 or complex64
# Conditions under which a circuit is compiled for its device.
Compile = StrEnum("Compile", "auto never always fresh")


def _parse_count(text: str | int) -> int:
    """Parse a number of shots, such as 1024 or 1e6."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (number >= 0 and number.is_integer()):
        raise typer.BadParameter(f"{text!r} is not a whole number from 0 up, such as 1024 or 1e6")
    return int(text) if str(text).isdecimal() else int(number)


def preferred(text: str | None) -> list[str] | None:
    """Split A,B,C into a list."""
    return [word.strip() for word in text.split(",") if word.strip()] if text else None


def settings_of(assignments: list[str]) -> dict[str, float]:
    """Parse NAME=VALUE texts into an engine's options; whole numbers stay integers."""
    values: dict[str, float] = {}
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        try:
            values[name] = int(text) if text.lstrip("+-").isdigit() else float(text)
        except ValueError as error:
            hint = "NAME=VALUE, for example bond=64"
            raise OptionError(f"--engine-option {assignment[:80]!r}", hint=hint) from error
    return values


def mapping_of(text: str | None) -> list[int] | None:
    """Parse the device's qubits of --qubit-mapping. Raises OptionError."""
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError as error:
        hint = "the device's qubit of each qubit of the circuit, such as 5,4,3"
        raise OptionError(f"--qubit-mapping {text[:80]!r}", hint=hint) from error


def bindings_of(params: list[str]) -> dict[str, list[float]] | None:
    """Parse NAME=VALUE texts into one set of parameter values."""
    values: dict[str, list[float]] = {}
    for param in params:
        name, equals, number = param.partition("=")
        value = _angle(number)
        if not equals or not name or value is None:
            hint = "NAME=VALUE, for example theta=0.25 or theta=-3*pi/4"
            raise OptionError(f"--param {param!r}", hint=hint)
        values[name] = [value]
    return values or None


def _angle(text: str) -> float | None:
    from simenv.client.circuits import qasm2

    try:
        return float(text)
    except ValueError:
        return qasm2.angle(text)


@dataclass(frozen=True, slots=True)
class Sent:
    """Option of `Client.submit` that a field gives; `convert`: from the value of the field.
    `none`: value of the field for None; `value`: a description of any value."""

    name: str = ""  # "": that of the field
    convert: Callable[[Any], Any] = lambda value: value
    none: str = ""
    value: str = ""


Texts = list[str] | None
# Options for the queue of an environment; `simulate` and `explain` do not have them.
QUEUED = (
    *("priority", "queue_timeout", "after", "task_name", "account", "qos", "reservation"),
    "idempotency_key",
)


@dataclass(frozen=True, kw_only=True)
class CircuitOptions:
    """Values of the options of one command."""

    shots: Annotated[
        int,
        typer.Option(
            parser=_parse_count,
            metavar="N",
            help="Number of shots; 0: exact results without sampling.",
        ),
        Sent(convert=lambda shots: shots or None, none="0"),
    ] = 1024
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed; the same seed gives the same counts.")
    ] = None
    engine: Annotated[str, typer.Option(help="Engine; auto chooses one.")] = "auto"
    observable: Annotated[
        Texts,
        typer.Option(help='Pauli sum such as "ZZI:0.5,IXX:-1"; may be repeated.'),
        Sent("observables", lambda sums: sums or None),
    ] = None
    amplitude: Annotated[
        Texts,
        typer.Option(
            help="Bit string whose amplitude is wanted, highest qubit first; may be repeated."
        ),
        Sent("amplitudes", lambda strings: strings or None),
    ] = None
    output: Annotated[
        list[Output] | None,
        typer.Option(help="Requested output; may be repeated."),
        Sent("outputs", lambda outputs: tuple(map(str, outputs or ("counts",)))),
    ] = None
    precision: Annotated[
        Precision, typer.Option(help="Precision of the amplitudes."), Sent(convert=str)
    ] = Precision.double
    param: Annotated[
        Texts,
        typer.Option(help="NAME=VALUE of a free parameter, in radians; may be repeated."),
        Sent("parameter_values", lambda texts: bindings_of(texts or []), value="NAME=VALUE"),
    ] = None
    pool: Annotated[str | None, typer.Option(help="Run on this pool.")] = None
    prefer: Annotated[
        str | None,
        typer.Option(
            help="Pools or kinds (hardware, emulator, simulator), with commas; the first that can"
            " run it now."
        ),
        Sent(convert=preferred),
    ] = None
    device: Annotated[
        str | None, typer.Option(help="Run on this emulated device; simenv devices lists them.")
    ] = None
    noise: Annotated[
        str,
        typer.Option(
            help="auto (the device's), on, off, a recipe (aer), COMPONENT=FACTOR with commas, or a"
            " file with a noise model. All but auto, off and a file need a device."
        ),
        Sent(convert=noise_of),
    ] = "auto"
    compiled: Annotated[
        Compile,
        typer.Option(
            "--compile",
            help="Compile for the device: auto where the circuit does not fit; never refuses it;"
            " fresh fails where the calibration has changed since; `run` compiles it again.",
        ),
        Sent("compile", str),
    ] = Compile.auto
    qubit_mapping: Annotated[
        str | None,
        typer.Option(help="The device's qubit of each qubit of the circuit, with commas: 5,4,3."),
        Sent(convert=mapping_of),
    ] = None
    ranks: Annotated[
        int | None,
        typer.Option(help="MPI ranks, a power of two; default: as many as the memory needs."),
    ] = None
    engine_option: Annotated[
        Texts,
        typer.Option(help="NAME=VALUE of an option of the engine, such as bond=64."),
        Sent("options", lambda texts: settings_of(texts or [])),
    ] = None
    priority: Annotated[int, typer.Option(help="Priority; a higher number runs first.")] = 0
    account: Annotated[
        str | None,
        typer.Option("--account", "-A", help="Account that is charged; default: SIMENV_ACCOUNT."),
    ] = None
    qos: Annotated[str | None, typer.Option(help="Class of service; default: SIMENV_QOS.")] = None
    reservation: Annotated[
        int | None,
        typer.Option(help="Number of a reservation to run under; default: SIMENV_RESERVATION."),
    ] = None
    queue_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds of waiting after which the task is EXPIRED."),
        Sent("queue_timeout_s"),
    ] = None
    run_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds of running after which the task is EXPIRED."),
        Sent("run_timeout_s"),
    ] = None
    after: Annotated[
        Texts,
        typer.Option(help="Id of a task that must be DONE before; may be given several times."),
        Sent(convert=lambda tasks: tasks or None),
    ] = None
    task_name: Annotated[
        str | None, typer.Option(help="Name of the task in listings."), Sent("name")
    ] = None
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="A repeat of the same submission with this key is the same task."),
    ] = None

    def channels(self) -> ChannelNames | None:
        """Return the names that a noise model in a file has channels of; None without one. Raises
        OptionError."""
        document = noise_of(self.noise)
        if not isinstance(document, bytes):
            return None
        from simenv.client.circuits import ChannelNames
        from simenv.client.submission.noise import channel_names

        names, is_placed = channel_names(document), self.device or self.pool or self.prefer
        return ChannelNames(names, not is_placed) if names else None

    def arguments(self, loaded: PackedCircuit | None = None) -> SubmitOptions:
        """Return the options for `Client.submit`. `loaded`: the circuit, to whose parameters
        --param gives values. Raises OptionError."""
        values = {
            sent.name or name: sent.convert(getattr(self, name)) for name, sent in SENT.items()
        }
        bindings = values.pop("parameter_values")
        if loaded is not None and (loaded.parameters or bindings):
            values["parameter_values"] = loaded.bind(bindings)
        return values  # type: ignore[return-value]


_TYPES = app.types_of(CircuitOptions)
SENT: dict[str, Sent] = {
    name: next((each for each in hint.__metadata__ if isinstance(each, Sent)), Sent())
    for name, hint in _TYPES.items()
}


def _shown(name: str, literal: str) -> str:
    """Return the option of the command line for a field and a value of `Client.submit`."""
    hint, sent = _TYPES[name], SENT[name]
    option = hint.__metadata__[0]  # in Annotated, typer has a first word as `default`
    named = [
        word for word in (option.default, *(option.param_decls or ())) if isinstance(word, str)
    ]
    flag = named[0] if named else f"--{name.replace('_', '-')}"
    is_repeated = any(get_origin(each) is list for each in get_args(hint.__origin__))
    return app.option_text(
        flag, literal, none=sent.none, described=sent.value, is_repeated=is_repeated
    )


NAMES = {sent.name or name: partial(_shown, name) for name, sent in SENT.items()}


@contextmanager
def errors_for_command_line() -> Iterator[None]:
    """Name options of the command line in errors that are raised inside."""
    try:
        yield
    except SimenvError as error:
        rename_options(error, NAMES)
        raise


_LOOK_S = 0.2


def kernel_progress(stream: TextIO | None = None) -> AbstractContextManager[None]:
    """Show for how long this process has been compiling, from PATIENCE_S on. `stream`: default
    stderr."""

    def busy_s() -> float:
        from simulators.compiler.kernel_time import busy_ns

        return busy_ns() / 1e9

    return _progress("compiling kernels, once on this machine", busy_s, stream)


def answer_progress(stream: TextIO | None = None) -> AbstractContextManager[None]:
    """Show for how long the service has been checking a circuit, from PATIENCE_S on. The first
    circuit of its kind may wait for kernels in the service."""
    begin_s = monotonic()
    text = "the service checks the circuit; the first of its kind waits for kernels"
    return _progress(text, lambda: monotonic() - begin_s, stream)


@contextmanager
def _progress(text: str, since_s: Callable[[], float], stream: TextIO | None) -> Iterator[None]:
    """Show `text` with a duration. `since_s`: returns the seconds that the wait has lasted."""
    line = progress_line(LOG, sys.stderr if stream is None else stream)
    over = Event()
    arguments = (line, text, since_s, over)
    thread = Thread(target=_watch, args=arguments, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        line.clear()


def _watch(line: ProgressLine, text: str, since_s: Callable[[], float], over: Event) -> None:
    while not over.wait(_LOOK_S):
        lasted_s = since_s()
        if lasted_s >= PATIENCE_S:
            line.show(f"{text}, {elapsed(lasted_s)}")
        else:
            line.clear()
