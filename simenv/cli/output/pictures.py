"""Pictures that a command writes with matplotlib, which need not be installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simenv.cli.output import terminal
from simenv.errors import ConfigError, OptionError


def require_matplotlib(options: str) -> None:
    """Raise ConfigError without matplotlib; `options`: that need it, such as `--plot`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            f"{options}: matplotlib is not installed", hint="pip install 'simenv[plots]'"
        )


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise OSError as OptionError that names the file; `path`: where the error names none."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        raise OptionError(f"cannot write {name}: {error.strerror}") from error


def plot(path: Path, what: str, draw: Callable[[], None]) -> None:
    """`--plot PATH`: call `draw`, which writes the PNG file, and note `what` is in it.

    Raises ConfigError, OptionError.
    """
    require_matplotlib("--plot")
    if path.suffix != ".png":
        raise OptionError(f"--plot {path}: not a PNG file", hint="give a name that ends in .png")
    with write_errors(path):
        draw()
    terminal.note(f"{what} drawn in {path}")
