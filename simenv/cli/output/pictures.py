"""Pictures that commands write with matplotlib, an optional dependency."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from simenv.cli.output import terminal
from simenv.errors import ConfigError, OptionError


def require_matplotlib(options: str) -> None:
    """Raise ConfigError without matplotlib; `options`: options that need it, such as `--plot`."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            f"{options}: matplotlib is not installed", hint="pip install 'simenv[plots]'"
        )


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Map OSError to OptionError that names the file; `path`: used if the error names none."""
    try:
        yield
    except OSError as error:
        name = error.filename or path
        raise OptionError(f"cannot write {name}: {error.strerror}") from error


def plot(path: Path, what: str, draw: Callable[[], None]) -> None:
    """Write the picture of `--plot PATH`: `draw` writes the PNG file; a note says that `what` is in
    it.

    Raises ConfigError, OptionError.
    """
    require_matplotlib("--plot")
    if path.suffix != ".png":
        raise OptionError(f"--plot {path}: not a PNG file", hint="give a name that ends in .png")
    with write_errors(path):
        draw()
    terminal.note(f"{what} drawn in {path}")
