"""Input of commands about one circuit: the file of the circuit, and that of a noise model."""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simenv.cli.environment import private
from simenv.cli.options import Settings
from simenv.errors import OptionError, ProgramError

if TYPE_CHECKING:
    from simenv.client.circuits import PackedCircuit
    from simenv.client.client import Client

MAX_TEXT_BYTES = 16 * 2**20  # one more byte is read, so that the parser reports its own limit


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
