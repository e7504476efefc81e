"""`simenv qpm diff`: read the circuits, look at both pools, compare, show."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv.cli import out, settings
from simenv.cli.reading import read_circuit
from simenv.errors import NotFound, ProgramError

if TYPE_CHECKING:
    from simenv.cli.cutover.values import Source

NOT_ALIKE = 1
MAX_FILE_BYTES = 16 * 2**20


def diff(
    context: typer.Context,
    pool1: Annotated[str, typer.Argument(help="A pool of the environment that is up.")],
    pool2: Annotated[str, typer.Argument(help="Another, such as a machine's.")],
    files: Annotated[list[Path], typer.Argument(help="OpenQASM files, or folders of *.qasm.")],
    shots: Annotated[int, typer.Option(min=1, help="Of each circuit on each pool.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="A machine does not heed it.")] = 7,
    bound: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0,
            help="Counts further apart than this total variation, and than noise, are a failure.",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(callback=settings.seconds, help="Seconds a circuit may take.")
    ] = 600.0,
    every: Annotated[bool, typer.Option("--all", help="Show what is the same too.")] = False,
) -> None:  # fmt: skip
    """Would an application notice that it moved from one pool to the other?

    Runs the same circuits and the same mistakes through a QPM on both pools, and compares calls,
    errors, states, times, devices and counts. The exit code is 1 if their behaviour differs, 4 if
    there is no such pool or file.
    """
    from simenv.cli.cutover import show
    from simenv.cli.cutover.compare import compare
    from simenv.cli.cutover.observe import observed

    common = settings.of(context)
    sources = read(files)
    with common.connect() as watch:
        there = watch.pools()
        for pool in (pool1, pool2):
            if pool not in there:
                raise NotFound(f"no pool {pool!r} here", hint=f"there are: {', '.join(there)}")
        seen = []
        for pool in (pool1, pool2):
            with common.connect() as own:  # and with it a QPM of its own

                def told(name: str, pool: str = pool) -> None:
                    if sys.stderr.isatty() and not common.as_json:
                        out.note(f"{pool}: {out.clean(name)}")

                seen.append(observed(own, watch, pool, sources, shots, seed, timeout, told))
    found = compare(seen[0], seen[1], bound)
    if common.as_json:
        out.json_line(show.plain(found))
    else:
        show.table(found, everything=every, stream=sys.stdout)
    if not found.alike:
        raise typer.Exit(NOT_ALIKE)


def read(files: Sequence[Path]) -> list[Source]:
    """The circuits, named by their files; NotFound, ProgramError."""
    from simenv.cli.cutover.values import Source

    found = [path for file in files for path in _inside(file)]
    names = [path.name for path in found]
    return [
        Source(path.name if names.count(path.name) == 1 else str(path), *_text(path))
        for path in found
    ]


def _inside(file: Path) -> list[Path]:
    if not file.is_dir():
        return [file]
    found = sorted(file.glob("*.qasm"))
    if not found:
        raise NotFound(f"no *.qasm in {file}", hint="name the files")
    return found


def _text(path: Path) -> tuple[str, str]:
    """A circuit and its format; one that cannot be read would be refused by any pool."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}", hint="an OpenQASM file, or a folder") from error
    if len(data) > MAX_FILE_BYTES:
        raise ProgramError(f"{path}: more than {MAX_FILE_BYTES} bytes", hint="is it OpenQASM?")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ProgramError(
            f"{path} is not UTF-8: {error.reason} at byte {error.start}", hint="OpenQASM as a text"
        ) from error
    read_circuit(str(path))
    return text, _format(text)


def _format(text: str) -> str:
    for line in text.splitlines():
        words = line.split("//")[0].split()
        if words[:1] == ["OPENQASM"] and len(words) > 1:
            return "openqasm3" if words[1].startswith("3") else "openqasm2"
    return "openqasm2"
