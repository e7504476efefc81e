"""Commands of other distributions: entry points of the group `simenv.commands`.

An entry point has the command's name and names a function, or a `typer.Typer` with subcommands. A
command of simenv keeps its name. Invariant: one that cannot be loaded hides no other; it says why
when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points

import typer

from simenv.errors import ConfigError

ENTRY_POINTS = "simenv.commands"
Command = Callable[..., None] | typer.Typer


def commands(taken: Collection[str], *, load: bool = True) -> dict[str, Command]:
    """Return the commands of entry points, by name. `taken`: names of simenv's commands. `load`:
    import them; else each has only its name, which is all that a completion needs."""
    results: dict[str, Command] = {}
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        if entry.name in taken:
            continue
        if not load:
            results[entry.name] = _named(entry)
        else:
            twice = entry.name in results
            results[entry.name] = _broken(entry, "two have this name") if twice else _loaded(entry)
    return results


def _loaded(entry: EntryPoint) -> Command:
    try:
        found = entry.load()
    except Exception as error:  # noqa: BLE001 - another distribution may raise anything
        return _broken(entry, f"{type(error).__name__}: {error}"[:200])
    if not isinstance(found, typer.Typer) and not callable(found):
        return _broken(entry, "neither a function nor a typer.Typer")
    command: Command = found
    return command


def _named(entry: EntryPoint) -> Command:
    def command() -> None: ...

    command.__doc__ = f"Command of {entry.value}"
    return command


def _broken(entry: EntryPoint, reason: str) -> Command:
    """Return a command that raises ConfigError with the reason why the real one is not there."""

    def command() -> None:
        text = f"command {entry.name!r} of {entry.value} cannot be loaded: {reason}"
        raise ConfigError(text, hint=f"repair or remove the distribution that has {entry.value}")

    command.__doc__ = f"Cannot be loaded: {reason}"
    return command
