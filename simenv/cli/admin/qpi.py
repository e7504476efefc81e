"""`simenv qpi`: build the C library for compiled programs, print the flags to compile with."""

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
    """A group of commands."""


@qpi.command()
def build(context: typer.Context, folder: Folder = DEFAULT) -> None:
    """Compile the library with CC, default cc, and install it in a folder."""
    from simenv.frontends.qpi import build

    made = build(folder)
    if options.settings_of(context).as_json:
        terminal.json_line({"folder": str(made.folder), "library": str(made.library)})
        return
    terminal.line(str(made.library))
    terminal.line(f"next: cc program.c $(simenv qpi flags {folder}) -o program")


@qpi.command()
def flags(context: typer.Context, folder: Folder = DEFAULT) -> None:
    """Print the flags to compile and link a program with, as `pkg-config --cflags --libs`."""
    from simenv.errors import NotFoundError
    from simenv.frontends.qpi import InstalledLibrary

    found = InstalledLibrary(folder.absolute())
    if not found.library.exists():
        raise NotFoundError(
            f"there is no {found.library}", hint=f"build it: simenv qpi build {folder}"
        )
    if options.settings_of(context).as_json:
        terminal.json_line({"cflags": found.cflags, "libs": found.libs})
        return
    terminal.line(" ".join([*found.cflags, *found.libs]))
