"""Input of commands about one program: its file, a noise model, shared options, the progress line.

A program is a circuit, or a pulse sequence, which its content tells apart: pulser's abstract
representation is a JSON object.

`CircuitOptions` has a field for each option of `simenv.model.options` with words for the command
line; `run`, `submit`, `simulate` and `explain` take their parameters from it. `FORMS` says which
are written otherwise than in JSON. Errors of a submission name the option of the command line, not
that of the client. The progress line of a waiting command shows compilation
in its own process, or checks of the service.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, make_dataclass
from enum import EnumType, StrEnum
from functools import partial
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from types import SimpleNamespace
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NamedTuple,
    TextIO,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from simenv.cli import app, execute
from simenv.client.tasks.progress import LOG, PATIENCE_S, ProgressLine, progress_line
from simenv.errors import OptionError, ProgramError, SimenvError, rename_options
from simenv.model.options import OPTIONS, CallOptions
from simenv.model.paradigms import annealing_refused, is_annealing_text
from simenv.model.pulses import MAX_SEQUENCE_BYTES, OUTPUTS as OF_SEQUENCES
from simenv.model.task_rules import OUTPUTS, PRECISIONS
from simenv.text import elapsed

if TYPE_CHECKING:
    from simenv.client.circuits import ChannelNames, PackedCircuit
    from simenv.client.client import Client
    from simenv.model.options import SubmitOptions

_HEAD_BYTES = 4_096  # in which a JSON object begins
MAX_TEXT_BYTES = 16 * 2**20  # one more byte is read, so that the parser reports its own limit


def client_and_circuit(
    common: app.Settings, file: str, asked: CircuitOptions, stack: ExitStack
) -> tuple[Client, bool, PackedCircuit | PulseText]:
    """Return a client, whether its environment is a private one, and the program. If an environment
    must be started, the program is read meanwhile."""
    client = execute.client_of(common, stack)
    if client is not None:
        return client, False, _read_program(file, asked)
    if file != "-" and not Path(file).is_file():
        read_circuit(file)  # raises before an environment is started
    with ThreadPoolExecutor(1, "load") as pool:
        loading = pool.submit(_read_program, file, asked)
        client = stack.enter_context(execute.started(workers=1))
        return client, True, loading.result()


class PulseText(NamedTuple):
    """Text of the abstract representation of a pulse sequence."""

    program: str


_KEYS = ("register", "channels", "operations")  # of that JSON object, as pulser's schema has them


def _read_program(file: str, asked: CircuitOptions) -> PackedCircuit | PulseText:
    source = _read(file)
    text = _json_text(source)
    if text is None:
        return _loaded(source, file, asked.channels())
    if not all(f'"{key}"' in text for key in _KEYS):
        name = "stdin" if file == "-" else file
        if is_annealing_text(text):
            raise annealing_refused(name)
        message = f"{name} is JSON without {', '.join(_KEYS)}: no program"
        hint = "a pulse sequence is the text of pulser's Sequence.to_abstract_repr()"
        raise ProgramError(message, hint=hint)
    return PulseText(text)


def _json_text(source: str | Path) -> str | None:
    """Return the text of a file or of stdin that begins as a JSON object; None for others, which
    are not read any further."""
    if isinstance(source, Path):
        if not source.is_file():
            return None
        with source.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            if head.lstrip()[:1] != b"{":
                return None
            data = head + file.read(MAX_SEQUENCE_BYTES + 1)
        try:
            source = data.decode()
        except UnicodeDecodeError as error:
            raise ProgramError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    return source if source.lstrip()[:1] == "{" else None


def read_circuit(
    file: str, channels: ChannelNames | None = None, purpose: str = ""
) -> PackedCircuit:
    """Read the circuit of a file or of stdin. `channels`: see `load`; `purpose`: what there is of
    circuits alone, where no environment has it of pulse sequences. Raises ProgramError with the
    place of the error."""
    source = _read(file)
    if _json_text(source) is not None:
        if purpose:
            hint = (
                f"simenv explain {file}: its engine and time; or run it without some of its noise"
            )
            raise ProgramError(f"{purpose} is of circuits, and this is a pulse sequence", hint=hint)
        message = "a pulse sequence runs in an environment"
        raise ProgramError(message, hint=f"simenv run {file}, which starts one if none is up")
    return _loaded(source, file, channels)


def _loaded(source: str | Path, file: str, channels: ChannelNames | None) -> PackedCircuit:
    from simenv.client.circuits import load

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


_OUTPUTS = dict.fromkeys((*OUTPUTS, *OF_SEQUENCES))
Output = StrEnum("Output", list(_OUTPUTS))  # type: ignore[misc]
# Of the amplitudes: complex128 or complex64.
Precision = StrEnum("Precision", PRECISIONS)  # type: ignore[misc]
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


def times_of(text: str | None) -> list[float] | None:
    """Parse the relative times of --evaluation-times. Raises OptionError."""
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        hint = "ascending parts of the duration, such as 0.25,0.5"
        raise OptionError(f"--evaluation-times {text[:80]!r}", hint=hint) from error


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


Variable = list[float] | float | dict[str, int]


def variables_of(params: list[str] | None) -> dict[str, Variable] | None:
    """Parse NAME=VALUE texts into values of the variables of a pulse sequence; NAME=A,B,C is the
    value of an array, qubits=ATOM:TRAP,ATOM:TRAP that of a register that is mapped."""
    values: dict[str, Variable] = {}
    for param in params or ():
        name, equals, text = param.partition("=")
        pairs = [part.rpartition(":") for part in text.split(",")]
        if all(atom and trap.isdecimal() for atom, _, trap in pairs):
            values[name] = {atom: int(trap) for atom, _, trap in pairs}
            continue
        numbers = [_angle(part) for part in text.split(",")]
        known = [number for number in numbers if number is not None]
        if not equals or not name or len(known) < len(numbers):
            hint = "NAME=VALUE, for example rabi=6.28, NAME=A,B,C for an array, or"
            hint += " qubits=q0:3,q1:7 for the traps of atoms"
            raise OptionError(f"--param {param!r:.80}", hint=hint)
        values[name] = known if len(known) > 1 else known[0]
    return values or None


def _angle(text: str) -> float | None:
    from simenv.client.circuits import qasm2

    try:
        return float(text)
    except ValueError:
        return qasm2.angle(text)


@dataclass(frozen=True, slots=True)
class Form:
    """Form of an option on the command line, where it is not that of its row. `field`: its name
    there; `kind`: its type; `convert`: from its value to that of `Client.submit`; `flags` and
    `settings`: of typer. `none`: the value that stands for None; `value`: a description of any."""

    field: str = ""
    kind: Any = None
    convert: Callable[[Any], Any] = lambda value: value
    flags: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    none: str = ""
    value: str = ""


Texts = list[str] | None
FORMS = {
    "shots": Form(
        kind=int,
        convert=lambda shots: shots or None,
        settings=(("parser", _parse_count), ("metavar", "N")),
        none="0",
    ),
    "seed": Form(settings=(("min", 0),)),
    "outputs": Form(
        "output", list[Output] | None, lambda outputs: tuple(map(str, outputs or ("counts",)))
    ),
    "observables": Form("observable", Texts, lambda sums: sums or None),
    "amplitudes": Form("amplitude", Texts, lambda strings: strings or None),
    "parameter_values": Form(
        "param", Texts, lambda texts: bindings_of(texts or []), value="NAME=VALUE"
    ),
    "precision": Form(kind=Precision, convert=str),
    "options": Form("engine_option", Texts, lambda texts: settings_of(texts or [])),
    "prefer": Form(kind=str | None, convert=preferred),
    "noise": Form(kind=str, convert=noise_of),
    "compile": Form(kind=Compile, convert=str),
    "qubit_mapping": Form(kind=str | None, convert=mapping_of),
    "partition": Form(kind=str, convert=str),
    "fractional_gates": Form(flags=("--fractional-gates",)),
    "account": Form(flags=("--account", "-A")),
    "after": Form(kind=Texts, convert=lambda tasks: tasks or None),
    "name": Form("task_name"),
    "evaluation_times": Form(kind=str | None, convert=times_of),
}
_FORMS = {name: FORMS.get(name, Form()) for name, option in OPTIONS.items() if option.help}
FIELDS = {name: form.field or name.removesuffix("_s") for name, form in _FORMS.items()}
# Options for the queue of an environment; `simulate` and `explain` do not have them.
QUEUED = [
    FIELDS[name]
    for name in CallOptions.__optional_keys__
    if name in FIELDS and name not in ("pool", "run_timeout_s")
]
# Types in JSON, without the bounds of requests; headers are texts.
_JSON = {name: OPTIONS[name].json or str | None for name in FIELDS}
_KINDS = {
    name: _FORMS[name].kind or kind
    for name, kind in get_type_hints(SimpleNamespace(__annotations__=_JSON)).items()
}


def _field(name: str) -> tuple[str, Any, Any]:
    """Return the field of an option: its name, its type with the words of typer, its default."""
    form, kind, default = _FORMS[name], _KINDS[name], OPTIONS[name].default
    if isinstance(kind, EnumType):
        default = kind(default)
    elif isinstance(default, tuple):
        default = None
    option = typer.Option(*form.flags, help=OPTIONS[name].help, **dict(form.settings))
    return FIELDS[name], Annotated[kind, option], field(default=default)


_Fields: Any = make_dataclass("_Fields", map(_field, FIELDS), frozen=True, kw_only=True)


class CircuitOptions(_Fields):  # type: ignore[misc]  # its fields follow from `OPTIONS`
    """Values of the options of one command."""

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

    def arguments(self, loaded: PackedCircuit | PulseText | None = None) -> SubmitOptions:
        """Return the options for `Client.submit`. `loaded`: the program, to whose parameters
        --param gives values. Raises OptionError."""
        if isinstance(loaded, PulseText):
            return self._of_pulses()
        values = {name: form.convert(getattr(self, FIELDS[name])) for name, form in _FORMS.items()}
        bindings = values.pop("parameter_values")
        if loaded is not None and (loaded.parameters or bindings):
            values["parameter_values"] = loaded.bind(bindings)
        return values  # type: ignore[return-value]

    def _of_pulses(self) -> SubmitOptions:
        given = {name: getattr(self, FIELDS[name]) for name in _FORMS}
        variables = variables_of(given.pop("parameter_values"))
        if not given["outputs"]:
            del given["outputs"]  # what a sequence has by default depends on its shots
        values = {name: _FORMS[name].convert(value) for name, value in given.items()}
        values["parameter_values"] = variables
        return values  # type: ignore[return-value]


def _shown(name: str, literal: str) -> str:
    """Return the option of the command line for an option of `Client.submit` and its value."""
    form = _FORMS[name]
    flag = form.flags[0] if form.flags else f"--{FIELDS[name].replace('_', '-')}"
    is_repeated = any(get_origin(each) is list for each in get_args(_KINDS[name]))
    return app.option_text(
        flag, literal, none=form.none, described=form.value, is_repeated=is_repeated
    )


NAMES = {name: partial(_shown, name) for name in FIELDS}


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
