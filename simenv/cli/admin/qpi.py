"""`simenv qpi`: build the C library for compiled programs, and print the flags to compile with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simenv.cli import options
from simenv.cli.output import terminal

qpi = typer.Typer(help="Build the C library for compiled programs.")
Folder = Annotated[
    Path,
    typer.Argument(metavar="[FOLDER]", help="Folder of the library: include and lib below it."),
]
DEFAULT = Path("build/qpi")


@qpi.callback()
def nouns() -> None:
    """Commands for the C library."""


@qpi.command()
def build(context: typer.Context, folder: Folder = DEFAULT) -> None:
    """Compile the library with CC, default cc, and install it in a folder."""
    from simenv.frontends.qpi import build

    built = build(folder)
    if options.settings_of(context).as_json:
        terminal.json_line({"folder": str(built.folder), "library": str(built.library)})
        return
    terminal.line(str(built.library))
    terminal.line(f"next: cc program.c $(simenv qpi flags {folder}) -o program")


@qpi.command()
def flags(context: typer.Context, folder: Folder = DEFAULT) -> None:
    """Print the flags to compile and link a program with, as `pkg-config --cflags --libs`."""
    from simenv.errors import NotFoundError
    from simenv.frontends.qpi import InstalledLibrary

    result = InstalledLibrary(folder.absolute())
    if not result.library.exists():
        raise NotFoundError(
            f"there is no {result.library}", hint=f"build it: simenv qpi build {folder}"
        )
    if options.settings_of(context).as_json:
        terminal.json_line({"cflags": result.cflags, "libs": result.libs})
        return
    terminal.line(" ".join([*result.cflags, *result.libs]))
