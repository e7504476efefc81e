"""`simenv`: the list of commands and the options that they share.

Invariant: the import of this module loads typer and msgspec at most, and the import of a command's
module also zmq. Each command imports the rest when it runs, which keeps short commands fast.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from simenv._version import __version__
from simenv.cli.errors import run_guarded
from simenv.cli.options import VALUED, Settings, hoist
from simenv.cli.output import terminal

# The module of each command, in the order and the groups of `simenv --help`; the function has the
# command's name, or `execute`.
_GROUPS = {
    "Environments": {
        "up": "environment.up",
        "down": "environment.status",
        "status": "environment.status",
        "environments": "observe.listings",
        "logs": "environment.status",
        "demo": "demo.command",
        "doctor": "doctor.command",
    },
    "Tasks": {
        "submit": "tasks.submit",
        "result": "tasks.result",
        "cancel": "tasks.cancel",
        "explain": "tasks.explain",
        "simulate": "tasks.simulate",
        "exec": "environment.execute",
    },
    "Calibration": {
        "certify": "calibration.certify",
        "calibrate": "calibration.calibrate",
        "score": "calibration.score",
    },
    "Observation": {
        "queue": "observe.listings",
        "pools": "observe.listings",
        "workers": "observe.listings",
        "nodes": "observe.listings",
        "devices": "devices.command",
        "history": "observe.history",
        "trace": "observe.trace",
        "profile": "profiling.command",
        "events": "observe.history",
    },
    "Administration": {
        "scale": "admin.pools_nodes",
        "drain": "admin.pools_nodes",
        "undrain": "admin.pools_nodes",
        "policy": "admin.policy",
        "limits": "admin.limits",
        "keys": "admin.keys",
        "prune": "admin.prune",
        "qpm": "admin.qpm",
        "qfw": "admin.qfw",
        "qpi": "admin.qpi",
    },
}
_MODULES = {name: module for group in _GROUPS.values() for name, module in group.items()}


class _Grouped(typer.core.TyperGroup):
    """Command group that lists the commands in sections."""

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Write the sections of `simenv --help`."""
        for title, names in _GROUPS.items():
            loaded = [(name, self.commands[name]) for name in names if name in self.commands]
            rows = [(name, command.get_short_help_str(60)) for name, command in loaded]
            with formatter.section(title):
                formatter.write_dl(rows)


def application(*names: str) -> typer.Typer:
    """Return the command line with these commands, or with all."""
    app = typer.Typer(
        cls=_Grouped,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(common)
    for name in names or _MODULES:
        module = import_module(f"simenv.cli.{_MODULES[name]}")
        command = getattr(module, "execute" if name == "exec" else name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _command_of_line(hoisted: Sequence[str]) -> tuple[str, ...]:
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
        typer.Option(help="Connection file of the environment; overrides SIMENV_SERVICE."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Run quantum circuits on resident simulators. The options below may also follow a command."""
    context.obj = Settings(name, service, as_json, debug)
    if version:
        terminal.line(__version__)
    elif context.invoked_subcommand is None:
        terminal.line(context.get_help())


def run(arguments: Sequence[str]) -> int:
    """Run one command line; return the exit code."""
    common_tokens = arguments[: arguments.index("--")] if "--" in arguments else arguments

    def call() -> object:
        argv = hoist(arguments)
        command = typer.main.get_command(application(*_command_of_line(argv)))
        return command.main(argv, prog_name="simenv", standalone_mode=False)

    return run_guarded(call, as_json="--json" in common_tokens, debug="--debug" in common_tokens)


def main() -> None:
    """Run the command line of this process. SIGTERM ends it as cleanly as an error does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(run(sys.argv[1:]))
