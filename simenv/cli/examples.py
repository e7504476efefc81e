"""`simenv examples`: the examples of the documentation, for a folder of the user."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

import simenv
from simenv.cli.app import settings_of
from simenv.errors import OptionError, StoreError

_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")


def examples(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("examples"),
) -> None:
    """Write the example circuits and programs into a folder.

    The lines of the documentation name files of this folder, such as examples/bell.qasm. Files that
    are there already stay as they are.
    """
    source = _source()
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"{folder} is a file", hint="simenv examples FOLDER")
    written = there = 0
    try:
        for inside, folders, files in os.walk(source):
            left_out = _LEFT_OUT(inside, [*folders, *files])
            folders[:] = sorted(set(folders) - left_out)
            target = folder / Path(inside).relative_to(source)
            target.mkdir(parents=True, exist_ok=True)
            names = sorted(set(files) - left_out)
            there += len(names)
            for name in names:
                with suppress(FileExistsError), (target / name).open("xb") as file:
                    file.write((Path(inside) / name).read_bytes())
                    written += 1
                    there -= 1
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error}") from error
    answer = {"folder": str(folder), "written": written}
    stay = f"; {there} were there already and stay as they are" if there else ""
    settings_of(context).answer(answer, [f"{folder}: {written} files written{stay}"])


def _source() -> Path:
    """The folder in the wheel, or that of the clone."""
    inside = Path(simenv.__file__).with_name("examples")
    return inside if inside.is_dir() else inside.parents[1] / "examples"
