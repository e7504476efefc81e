"""Options of every command, and the connection that they select.

`--name`, `--service`, `--json` and `--debug` may stand before or after the command: `hoist` moves
them to the front before typer reads the line.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import typer

from simenv import config
from simenv.errors import NoServiceError, OptionError

if TYPE_CHECKING:
    from simenv.client.client import Client

FLAGS = ("--json", "--debug")
VALUED = ("--name", "--service")
_NAMED_THERE = ["devices", "import"]  # `--name` after these words names a device


@dataclass(frozen=True, slots=True)
class Settings:
    """Values of the options that all commands have."""

    name: str | None = None
    service: Path | None = None
    as_json: bool = False
    debug: bool = False

    @property
    def environment(self) -> str:
        """The environment's name."""
        return config.check_name(self.name or "default")

    @property
    def named(self) -> bool:
        """True if the user named one environment, so that no other may take its place."""
        return bool(self.name or self.service or config.service_file())

    def connect(self) -> Client:
        """Return a client of the environment that is up. Raises NoServiceError if none is."""
        import simenv

        return simenv.connect(self.name, service=self.service)

    def connect_or_read(self) -> Client:
        """Return a client of the environment that is up, or else one that reads its journal.

        For commands that change nothing. Raises NoServiceError if there is neither.
        """
        try:
            return self.connect()
        except NoServiceError as error:
            from simenv.cli.observe.archive import open_archive

            return open_archive(self.name, self.service, error)


def settings_of(context: typer.Context) -> Settings:
    """Return the settings of this call."""
    settings = context.obj
    assert isinstance(settings, Settings)
    return settings


def seconds(value: float | None) -> float | None:
    """Callback of options in seconds: the value must be finite and not negative."""
    if value is not None and not 0.0 <= value < math.inf:
        raise typer.BadParameter(f"{value} is not a number of seconds from 0 up")
    return value


def hoist(arguments: Sequence[str]) -> list[str]:
    """Return the line with the common options in front; words after `--` stay as they are."""
    leading: list[str] = []
    remaining: list[str] = []
    tokens = iter(arguments)
    for token in tokens:
        if token == "--":
            remaining += [token, *tokens]
        elif remaining[:2] == _NAMED_THERE and token.startswith("--name"):
            remaining.append(token)  # the device's name
        elif token in FLAGS or token.startswith(tuple(f"{option}=" for option in VALUED)):
            leading.append(token)
        elif token in VALUED:
            value = next(tokens, "--")
            if value.startswith("-"):
                raise OptionError(f"{token} has no value", hint=f"{token} VALUE, or {token}=VALUE")
            leading += [token, value]
        else:
            remaining.append(token)
    if (
        remaining[:1] == ["exec"]
        and len(remaining) > 1
        and not {"--", "-h", "--help"} & set(remaining)
    ):
        raise OptionError("simenv exec: the command must follow --", hint="simenv exec -- CMD ARGS")
    return leading + remaining


def set_signature(
    command: Callable[..., None],
    like: Callable[..., Any],
    parameters: Sequence[inspect.Parameter],
) -> None:
    """Set the signature of a command, which typer reads, and the name and help of `like`."""
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__name__, command.__doc__ = like.__name__, like.__doc__


def with_options(kind: type, *without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options in the fields of a dataclass, except
    `without`, in place of its parameter `asked`, which gets their values."""
    types = types_of(kind)
    taken = [each for each in fields(kind) if each.name not in without]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            asked = kind(**{each.name: values.pop(each.name) for each in taken})
            command(asked=asked, **values)

        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            if own.name != "asked":
                parameters.append(own.replace(kind=own.KEYWORD_ONLY))
                continue
            parameters += [
                inspect.Parameter(
                    each.name,
                    own.KEYWORD_ONLY,
                    default=each.default,
                    annotation=types[each.name],
                )
                for each in taken
            ]
        set_signature(run, command, parameters)
        return run

    return decorate


def types_of(kind: type) -> dict[str, Any]:
    """Return the annotations of the fields of a dataclass, evaluated in its module."""
    return get_type_hints(kind, vars(sys.modules[kind.__module__]), include_extras=True)
