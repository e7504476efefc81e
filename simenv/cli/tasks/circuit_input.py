"""Input of commands about one circuit: the file, and the options that they share."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simenv.cli.environment import private
from simenv.cli.options import Settings
from simenv.errors import OptionError, ProgramError

if TYPE_CHECKING:
    from simenv.client.circuits import PackedCircuit
    from simenv.client.client import Client

MAX_TEXT_BYTES = 16 * 2**20  # one more byte is read, so that the parser reports its own limit


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


# Options that are the same in every command about a circuit.


def _parse_count(text: str | int) -> int:
    """Parse a number of shots, such as 1024 or 1e6."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (number >= 0 and number.is_integer()):
        raise typer.BadParameter(f"{text!r} is not a whole number from 0 up, such as 1024 or 1e6")
    return int(text) if str(text).isdecimal() else int(number)


Shots = Annotated[
    int,
    typer.Option(
        parser=_parse_count, metavar="N", help="Number of shots; 0: exact results without sampling."
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed; the same seed gives the same counts.")]
Engine = Annotated[str, typer.Option(help="Engine; auto chooses one.")]
Observables = Annotated[
    list[str] | None,
    typer.Option(help='Pauli sum such as "ZZI:0.5,IXX:-1"; may be repeated.'),
]
BitStrings = Annotated[
    list[str] | None,
    typer.Option(
        help="Bit string whose amplitude is wanted, highest qubit first; may be repeated."
    ),
]
Outputs = Annotated[list[Output] | None, typer.Option(help="Requested output; may be repeated.")]
Amplitudes = Annotated[Precision, typer.Option(help="Precision of the amplitudes.")]
Params = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE of a free parameter, in radians; may be repeated."),
]
Pool = Annotated[str | None, typer.Option(help="Run on this pool.")]
Prefer = Annotated[
    str | None,
    typer.Option(
        help="Pools or kinds (hardware, emulator, simulator), with commas; the first that can run"
        " it now."
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Run on this emulated device; simenv devices lists them.")
]
Noise = Annotated[
    str,
    typer.Option(
        help="auto (the device's), on, off, a recipe (aer), COMPONENT=FACTOR with commas, or a file"
        " with a noise model. All but auto, off and a file need a device."
    ),
]


class Compile(StrEnum):
    """Conditions under which a circuit is compiled for its device."""

    auto = "auto"
    never = "never"
    always = "always"
    fresh = "fresh"


Compiled = Annotated[
    Compile,
    typer.Option(
        "--compile",
        help="Compile for the device: auto where the circuit does not fit; never refuses it; fresh"
        " fails where the calibration has changed since, and is compiled again with --wait.",
    ),
]
QubitMapping = Annotated[
    str | None,
    typer.Option(help="The device's qubit of each qubit of the circuit, with commas: 5,4,3."),
]
Ranks = Annotated[
    int | None,
    typer.Option(help="MPI ranks, a power of two; default: as many as the memory needs."),
]


def client_and_circuit(
    common: Settings, file: str, stack: contextlib.ExitStack
) -> tuple[Client, bool, PackedCircuit]:
    """Return a client, whether its environment is a private one, and the circuit.

    If an environment must be started, the circuit is read meanwhile.
    """
    client = private.client_of(common, stack)
    if client is not None:
        return client, False, read_circuit(file)
    if file != "-" and not Path(file).is_file():
        read_circuit(file)  # raises before an environment is started
    with ThreadPoolExecutor(1, "load") as pool:
        loading = pool.submit(read_circuit, file)
        client = stack.enter_context(private.started(workers=1))
        return client, True, loading.result()


def read_circuit(file: str) -> PackedCircuit:
    """Read the circuit of a file or of stdin. Raises ProgramError with the place of the error."""
    from simenv.client.circuits import load

    source = _read(file)
    try:
        return load(source)
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


def preferred(text: str | None) -> list[str] | None:
    """Split A,B,C into a list."""
    return [word.strip() for word in text.split(",") if word.strip()] if text else None


def settings_of(assignments: list[str]) -> dict[str, float]:
    """Parse NAME=VALUE words into an engine's options; whole numbers stay integers."""
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
    """Parse NAME=VALUE words into one set of parameter values."""
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


_NOISE_HINT = "auto, on, off, a recipe (aer), COMPONENT=FACTOR, or a file"


def noise_of(text: str) -> Any:
    """Parse --noise for `Client.submit`: a word, factors, or the content of a file.

    Raises OptionError for a text that is none of these.
    """
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
            raise OptionError(
                f"--noise: {word[:80]!r} is not COMPONENT=FACTOR",
                hint="such as gate.depolarizing=0.5,qubit.relaxation=0",
            ) from error
    return entries
