"""`simenv examples`: the examples of the documentation, for a folder of the user."""

from __future__ import annotations

import shutil
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
    written = 0

    def copy(origin: str, target: str) -> str:
        nonlocal written
        if not Path(target).exists():
            shutil.copy(origin, target)
            written += 1
        return target

    try:
        shutil.copytree(source, folder, ignore=_LEFT_OUT, copy_function=copy, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise StoreError(f"{folder} cannot be written: {error}") from error
    answer = {"folder": str(folder), "written": written}
    settings_of(context).answer(answer, [f"{folder}: {written} files written"])


def _source() -> Path:
    """The folder in the wheel, or that of the clone."""
    inside = Path(simenv.__file__).with_name("examples")
    return inside if inside.is_dir() else inside.parents[1] / "examples"
