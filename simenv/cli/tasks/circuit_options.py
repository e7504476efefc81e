"""Options of commands about one circuit: one table, from which `submit`, `simulate` and `explain`
take their parameters.

A field of `CircuitOptions` is an option of the command line. It is sent as the option of
`Client.submit` of the same name, or as its `Sent` says. Errors of a submission name the option of
the command line, not that of the client.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

import typer

from simenv.cli.options import types_of
from simenv.cli.tasks.circuit_input import noise_of
from simenv.errors import OptionError, SimenvError, rename_options

if TYPE_CHECKING:
    from simenv.client.circuits import PackedCircuit
    from simenv.client.submission.options import SubmitOptions


class Output(StrEnum):
    """Outputs that can be requested."""

    counts = "counts"
    probabilities = "probabilities"
    statevector = "statevector"
    expectation = "expectation"
    gradient = "gradient"
    memory = "memory"


class Precision(StrEnum):
    """Precision of the amplitudes: complex128 or complex64."""

    double = "double"
    single = "single"


class Compile(StrEnum):
    """Conditions under which a circuit is compiled for its device."""

    auto = "auto"
    never = "never"
    always = "always"
    fresh = "fresh"


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
        try:
            values[name] = [float(number)]
        except ValueError:
            equals = ""
        if not equals or not name:
            raise OptionError(f"--param {param!r}", hint="NAME=VALUE, for example theta=0.25")
    return values or None


@dataclass(frozen=True, slots=True)
class Sent:
    """Option of `Client.submit` that a field gives; `convert`: from the value of the field.
    `none`: value of the field for None; `value`: a description of any value."""

    name: str = ""  # "": that of the field
    convert: Callable[[Any], Any] = lambda value: value
    none: str = ""
    value: str = ""


Texts = list[str] | None


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
            " fresh fails where the calibration has changed since, and is compiled again with"
            " --wait.",
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


_TYPES = types_of(CircuitOptions)
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
    try:
        value = ast.literal_eval(literal)
    except (SyntaxError, ValueError):  # none, or NAME for any value
        return f"{flag} {literal or sent.value}".rstrip()
    if value is None or value is ...:
        return f"{flag} {sent.none}".rstrip()
    if isinstance(value, dict):
        value = [f"{key}={each}" for key, each in value.items()]
    if not isinstance(value, list | tuple):
        return f"{flag} {value}"
    texts = [str(each) for each in value if each is not ...]
    if any(get_origin(each) is list for each in get_args(hint.__origin__)):
        return " ".join(f"{flag} {word}" for word in texts)
    return f"{flag} {','.join(texts)}"


NAMES = {sent.name or name: partial(_shown, name) for name, sent in SENT.items()}


@contextmanager
def errors_for_command_line() -> Iterator[None]:
    """Name options of the command line in errors that are raised inside."""
    try:
        yield
    except SimenvError as error:
        rename_options(error, NAMES)
        raise
