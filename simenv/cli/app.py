"""The command `simenv`: options of every command, errors on stderr, and the list of commands.

`--name`, `--service`, `--json` and `--debug`, which select the connection, may stand before or
after the command: `hoist` moves them to the front before typer reads the line.

Errors are shown on stderr, with a hint, and as an exit code. Invariant: no traceback without
`--debug`; with `--json` the error's object is the last line of stdout.

Invariant: the import of this module loads typer and msgspec at most, and the import of a command's
module also zmq. Each command imports the rest when it runs, which keeps short commands fast.
"""

from __future__ import annotations

import ast
import inspect
import math
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
import typer.core

from simenv import config, errors
from simenv._version import build
from simenv.cli import terminal
from simenv.cli.command_examples import EXAMPLES
from simenv.errors import NoServiceError, OptionError, SimenvWarning

if TYPE_CHECKING:
    from simenv.client.client import Client

FLAGS = ("--json", "--debug")
VALUED = ("--name", "--service")
# `--name` after these words names a device.
_NAMED_THERE = (["devices", "import"], ["devices", "link"], ["devices", "encode"])


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

    def connect(self, patience_s: float | None = None) -> Client:
        """Return a client of the environment that is up. `patience_s`: None, or as for
        `simenv.connect`. Raises NoServiceError if none is."""
        import simenv
        from simenv.client.connection import tracing

        tracing.configure("simenv")
        client = simenv.connect(self.name, service=self.service)
        if patience_s is not None:
            client.session.channel.liveness.be_patient(patience_s)
        return client

    def connect_or_read(self) -> Client:
        """Return a client of the environment that is up, or else one that reads its journal. For
        commands that change nothing. Raises NoServiceError if there is neither."""
        try:
            return self.connect()
        except NoServiceError as error:
            from simenv.cli.archive import open_archive

            return open_archive(self.name, self.service, error)

    def answer(self, value: object, lines: Iterable[str]) -> None:
        """Print a value as a JSON object with `--json`, else the lines."""
        if self.as_json:
            terminal.json_line(value)
            return
        for line in lines:
            terminal.line(line)


def settings_of(context: typer.Context) -> Settings:
    """Return the settings of this call."""
    settings = context.obj
    assert isinstance(settings, Settings)
    return settings


def given(context: typer.Context) -> list[str]:
    """Return the names of the parameters that stand on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, by in sources.items() if by is not None and by.name == "COMMANDLINE"]


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
        elif remaining[:2] in _NAMED_THERE and token.startswith("--name"):
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
    command: Callable[..., None], like: Callable[..., Any], parameters: Sequence[inspect.Parameter]
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
                    each.name, own.KEYWORD_ONLY, default=each.default, annotation=types[each.name]
                )
                for each in taken
            ]
        set_signature(run, command, parameters)
        return run

    return decorate


def types_of(kind: type) -> dict[str, Any]:
    """Return the annotations of the fields of a dataclass, evaluated in its module."""
    return get_type_hints(kind, vars(sys.modules[kind.__module__]), include_extras=True)


def option_text(
    flag: str, literal: str, *, none: str = "", described: str = "", is_repeated: bool = False
) -> str:
    """Return an option of Python as it is typed: `--hosts n1:2` for `hosts='n1:2'`. `none`: value
    that stands for None; `described`: shown without a literal; `is_repeated`: one option for each
    value of a list."""
    try:
        value = ast.literal_eval(literal)
    except (SyntaxError, ValueError):  # none, or NAME for any value
        return f"{flag} {literal or described}".rstrip()
    if value is None or value is ...:
        return f"{flag} {none}".rstrip()
    if value is True:
        return flag
    if isinstance(value, dict):
        value = [f"{key}={_typed(each)}" for key, each in value.items()]
    if not isinstance(value, list | tuple):
        return f"{flag} {value}"
    texts = [str(each) for each in value if each is not ...]
    if is_repeated:
        return " ".join(f"{flag} {word}" for word in texts)
    return f"{flag} {','.join(texts)}"


def _typed(value: object) -> object:
    """Return a value within a table as it is typed."""
    if not isinstance(value, dict):
        return value
    return ",".join(f"{key}:{each}" for key, each in value.items())


USAGE = 2
INTERRUPTED = 130
# typer has its own copy of click, or uses click; in both, this is the base of all usage errors.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run_guarded(call: Callable[[], object], as_json: bool, debug: bool) -> int:
    """Run `call` and return the exit code; an error is shown before."""
    try:
        code = call()
        terminal.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (terminal.ReaderGone, BrokenPipeError):
        terminal.abandon()
        return 0  # the reader closed the pipe
    except typer.Abort:
        return INTERRUPTED
    except errors.SimenvError as error:
        if debug:
            traceback.print_exc()
        show_error(error, as_json)
        return error.exit_code
    except _UsageError as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "simenv"
        message, hint = getattr(error, "format_message", error.__str__)(), f"see: {path} --help"
        if similar := getattr(error, "possibilities", None):  # of an unknown option
            message = getattr(error, "message", message)
            hint = f"did you mean {' or '.join(similar)}? {hint}"
        show_error(errors.OptionError(message, hint=hint), as_json)
        return USAGE
    except Exception as error:  # noqa: BLE001 - the outermost handler
        if debug:
            traceback.print_exc()
        description = f"{type(error).__name__}: {error}"
        hint = "this is a fault of simenv; --debug shows where"
        if isinstance(error, OSError):
            hint = ""
            if error.filename is not None and error.strerror:
                description = f"{os.fsdecode(error.filename)}: {error.strerror}"
        show_error(errors.SimenvError(description, hint=hint), as_json)
        return 1
    return code if isinstance(code, int) else 0


def as_object(error: errors.SimenvError) -> dict[str, object]:
    """Return the error as `--json` prints it."""
    names = ("code", "message", "hint", "retryable", "line", "column", "reason", "host", "log")
    present = [name for name in (*names, "retry_after_s", "task") if hasattr(error, name)]
    shown: dict[str, object] = {name: getattr(error, name) for name in present}
    if error.maybe_accepted:
        shown["maybe_accepted"] = True
    if error.tasks:
        shown["tasks"] = list(error.tasks)
    if isinstance(error, errors.BatchRefusedError):
        shown["errors"] = [{"index": each.index, **as_object(each)} for each in error.errors]
    return shown


def show_error(error: errors.SimenvError, as_json: bool = False) -> None:
    """Print the error, its place and its hint on stderr; with `as_json` also the object on
    stdout."""
    try:
        terminal.flush()
    except (OSError, terminal.ReaderGone):
        terminal.abandon()  # after a full disk, for example, the error must still be shown
    terminal.note(
        f"{terminal.paint('error', sys.stderr)}: {terminal.clean(error.message, keep=chr(10))}"
    )
    for note in getattr(error, "__notes__", ()):
        terminal.note(f"  {terminal.clean(note)}")
    if error.hint:
        hint = terminal.clean(error.hint, keep="\n").replace("\n", "\n  ")
        terminal.note(f"  {hint}")
    if as_json:
        try:
            terminal.json_line({"error": as_object(error)})
            terminal.flush()
        except (OSError, terminal.ReaderGone):
            terminal.abandon()


# The module of each command, in the order and the groups of `simenv --help`; the function has the
# command's name, or `execute`.
_GROUPS = {
    "Tasks": {
        **dict.fromkeys(("run", "submit", "result"), "tasks.submit"), "cancel": "tasks.cancel",
        "explain": "tasks.explain", "simulate": "tasks.simulate", "exec": "execute",
    },
    "Environments": {
        **dict.fromkeys(("up", "down", "status"), "environment"),
        "environments": "observe", "logs": "environment", "demo": "demo",
        "examples": "examples",
        "doctor": "admin.doctor", **dict.fromkeys(("gateway", "web"), "admin.gateway"),
        "help": "manual",
    },
    "Calibration": {
        "certify": "devices.certify",
        **dict.fromkeys(("calibrate", "score"), "devices.calibrate"),
    },
    "Observation": {
        **dict.fromkeys(("queue", "pools", "workers", "nodes"), "observe"),
        "devices": "devices.command", "history": "tasks.history", "trace": "tasks.trace",
        "profile": "profiling", "events": "tasks.history",
    },
    "Accounting": {name: name for name in ("usage", "shares", "receipt")},
    "Administration": {
        **dict.fromkeys(("scale", "drain", "undrain", "calendar", "policy"), "admin.pools"),
        **dict.fromkeys(("accounts", "qos"), "admin.accounts"),
        "admin": "admin.lifecycle",
        "limits": "admin.limits", "keys": "admin.keys", "prune": "admin.pools",
        "qpm": "admin.qpm", "qfw": "admin.integrations", "qpi": "admin.integrations",
        "slurm": "admin.slurm",
    },
}  # fmt: skip
_MODULES = {name: module for group in _GROUPS.values() for name, module in group.items()}


class _Grouped(typer.core.TyperGroup):
    """Command group that lists the commands in sections."""

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Write the sections of `simenv --help`."""
        others = [name for name in self.commands if name not in _MODULES]
        groups: dict[str, Iterable[str]] = {**_GROUPS, "Installed commands": others}
        for title, names in groups.items():
            loaded = [(name, self.commands[name]) for name in names if name in self.commands]
            rows = [(name, command.get_short_help_str()) for name, command in loaded]
            if not rows:
                continue
            with formatter.section(title):
                formatter.write_dl(rows)


def application(*names: str, load: bool = True) -> typer.Typer:
    """Return the command line with these commands, or with all, those of other distributions
    included, which are imported if `load`."""
    app = typer.Typer(
        cls=_Grouped,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(common)
    commands = {name: _own_command(name) for name in names or _MODULES}
    if not names:
        from simenv.cli import extensions

        commands |= extensions.commands(_MODULES, load=load)
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _own_command(name: str) -> Callable[..., None] | typer.Typer:
    module = import_module(f"simenv.cli.{_MODULES[name]}")
    command: Callable[..., None] | typer.Typer
    command = getattr(module, "execute" if name == "exec" else name)
    return command


_WHOLE = 1_000_000  # limit of a summary: none is cut


def command_line(*names: str) -> Any:
    """Return the tree of these commands, or of all, as typer runs it: with examples below the help
    of each command, with whole summaries, and with its own options in errors of the library."""
    tree = typer.main.get_command(application(*names))
    _complete(tree, "")
    return tree


def _complete(command: Any, path: str) -> None:
    if command.callback is not None:
        command.callback = _with_own_options(command)
    command.short_help = command.get_short_help_str(_WHOLE)
    if examples := EXAMPLES.get(path):
        title = f"Examples, with {examples.needs}:" if examples.needs else "Examples:"
        command.epilog = "\n".join(("\b", title, *(f"  {line}" for line in examples.lines)))
    for name, each in getattr(command, "commands", {}).items():
        _complete(each, f"{path} {name}".strip())


def _with_own_options(command: Any) -> Callable[..., Any]:
    """Return the callback of a command; errors of the library, which name options as in Python,
    name those of the command."""
    callback = command.callback
    flags = {each.name: each.opts[0] for each in command.params if each.opts[0].startswith("--")}
    names = {name: partial(option_text, flag) for name, flag in flags.items()}

    @wraps(callback)
    def call(*arguments: Any, **values: Any) -> Any:
        try:
            return callback(*arguments, **values)
        except errors.SimenvError as error:
            errors.rename_options(error, names)
            raise

    return call


def command_of_line(hoisted: Sequence[str]) -> tuple[str, ...]:
    """Return the command of a line, if it is certain before typer parses the line."""
    tokens = iter(hoisted)
    for token in tokens:
        if token in VALUED:
            next(tokens, "")
        elif token in _MODULES:
            return (token,)
        elif not token.startswith("--") or token in ("-h", "--help", "--version"):
            break
    return ()


def common(
    context: typer.Context,
    name: Annotated[str | None, typer.Option(help="Name of the environment.")] = None,
    service: Annotated[
        Path | None,
        typer.Option(
            help="Connection file, or local:OWNER/NAME of another user; overrides SIMENV_SERVICE."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and the commit.")
    ] = False,
) -> None:
    """Run quantum circuits on resident simulators. The options below may also follow a command."""
    context.obj = Settings(name, service, as_json, debug)
    if version:
        terminal.line(build())
    elif context.invoked_subcommand is None:
        terminal.line(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return the exit code."""
    common_tokens = arguments[: arguments.index("--")] if "--" in arguments else arguments

    def call() -> object:
        argv = hoist(arguments)
        tree = command_line(*command_of_line(argv))
        return tree.main(argv, prog_name="simenv", standalone_mode=False)

    return run_guarded(call, as_json="--json" in common_tokens, debug="--debug" in common_tokens)


def main() -> None:
    """Run the command line of this process. SIGTERM ends it as cleanly as an error does."""
    warnings.simplefilter("ignore", SimenvWarning)  # commands show them in their own way
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(run(sys.argv[1:]))
