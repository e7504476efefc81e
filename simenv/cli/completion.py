"""Completion of names in the shell: devices, engines, pools, tasks and others of the environment.

A shell asks for completions by starting `simenv` with the line in its environment. NAMES has the
names by parameter, for all commands or for one. Invariant: the environment that is up is asked for
at most ANSWER_S, and whatever fails gives no names and prints nothing. Names of environments come
from their folders.
"""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from simenv.cli import app

if TYPE_CHECKING:
    from simenv.client.client import Client

_LINE = ("COMP_WORDS", "_TYPER_COMPLETE_ARGS")  # the typed line: of bash, of other shells
ANSWER_S = 0.1
TASKS = 100  # most waiting and running tasks, and most ended ones
_COMMON = "common_"  # prefix of the common options' names where they follow a command

Fetch = Callable[[app.Settings], Iterable[str]]


class _NoAnswer(BaseException):
    """The environment has not answered in time. No handler of errors may stop it."""


def answer() -> int:
    """Print the completions of the line; none after any failure. Return the exit code."""
    try:
        tree().main([], prog_name="simenv", standalone_mode=False)
    except SystemExit as ended:
        return int(ended.code or 0)
    except Exception:  # noqa: BLE001 - an error would be printed into the line
        return 1
    return 0


def tree() -> Any:
    """Return the tree of commands with completions, of the command on the line or of all."""
    line = next(filter(None, (os.environ.get(name, "") for name in _LINE)), "")
    application = app.application(*app.command_of_line(line.split()[1:]), load=False)
    _attach(application)
    result: Any = typer.main.get_command(application)
    for command in result.commands.values():
        _add_options(command, result.params)
    return result


def _attach(application: typer.Typer) -> None:
    """Give the parameters of all commands their completions."""
    callbacks: list[Any] = [command.callback for command in application.registered_commands]
    if application.registered_callback is not None:
        callbacks.append(application.registered_callback.callback)
    for callback in callbacks:
        hints = get_type_hints(callback, include_extras=True)
        callback.__annotations__ = hints  # evaluated once: typer reads the same objects
        for name, hint in hints.items():
            for info in getattr(hint, "__metadata__", ()):
                if name in _PARAMETERS and isinstance(info, ArgumentInfo | OptionInfo):
                    info.autocompletion = _completion(name)
    for group in application.registered_groups:
        if group.typer_instance is not None:
            _attach(group.typer_instance)


def _add_options(command: Any, options: Iterable[Any]) -> None:
    """Let the common options of `simenv` be completed after a command as well."""
    taken = {each for param in command.params for each in param.opts}
    for option in options:
        if not taken.intersection(option.opts) and option.opts[0] in (*app.VALUED, *app.FLAGS):
            added = copy.copy(option)
            added.name = f"{_COMMON}{option.name}"
            added.shell_complete = partial(_complete_common, option)
            command.params.append(added)
    for each in getattr(command, "commands", {}).values():
        _add_options(each, options)


def _complete_common(option: Any, context: typer.Context, incomplete: str) -> Any:
    return option.shell_complete(context.find_root(), incomplete)


def _completion(name: str) -> Callable[[typer.Context, str], list[str]]:
    """Return the completion of a parameter of this name."""

    def complete(context: typer.Context, incomplete: str) -> list[str]:
        path = context.command_path.partition(" ")[2]
        fetch = NAMES.get(f"{path}.{name}", NAMES.get(name))
        try:
            names = [] if fetch is None else fetch(_common(context))
            return [name for name in names if name.startswith(incomplete)]
        except (_NoAnswer, Exception):  # noqa: BLE001 - an error would be printed into the line
            return []

    return complete


def _common(context: typer.Context) -> app.Settings:
    """Return the common options, which stand before or after the command."""
    before, after = context.find_root().params, context.params
    name, service = (
        after.get(f"{_COMMON}{each}") or before.get(each) for each in ("name", "service")
    )
    return app.Settings(name, service)


def _of(fetch: Callable[[Client], Iterable[str]]) -> Fetch:
    """Return the names that `fetch` reads from the environment that is up, in ANSWER_S at most."""

    def late(*_: object) -> None:
        raise _NoAnswer

    def names(common: app.Settings) -> list[str]:
        import simenv.client.client  # noqa: F401 - its time is that of Python, not of the answer

        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, ANSWER_S)
        try:
            with common.connect() as client:
                return list(fetch(client))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, before)

    return names


def _engines(client: Client) -> list[str]:
    from simenv.wire.messages import queries

    found = client.session.request(queries.GetEngines(0)).engines
    return ["auto", *(engine.name for engine in found)]


def _open_tasks(client: Client) -> list[str]:
    return [info.id for info in client.queue(limit=TASKS)[1]]


def _tasks(client: Client) -> list[str]:
    return [*_open_tasks(client), *(row.id for row in client.history.newest(TASKS))]


def _users(client: Client) -> list[str]:
    members = {user for account in client.accounts.listed().values() for user in account.users}
    return sorted(members.union(key.name for key in client.keys.listed()))


def _environments(_: app.Settings) -> list[str]:
    from simenv.client.environments import environments

    return [each.name for each in environments()]


_ACCOUNTS = _of(lambda client: client.accounts.listed())
_DEVICES = _of(lambda client: client.device_names())
_DEVICES_AND_POOLS = _of(lambda client: [*client.device_names(), *client.pools()])
_KEYS = _of(lambda client: (each.name for each in client.keys.listed()))
_POOLS = _of(lambda client: client.pools())
_POOLS_OR_ALL = _of(lambda client: [*client.pools(), "all"])
_QOS = _of(lambda client: client.qos.listed())
_RESERVATIONS = _of(lambda client: (str(each.id) for each in client.reservations()))
_USERS = _of(_users)
# By name of the parameter, or by the words of the command, a point and that name.
NAMES: dict[str, Fetch] = {
    ".name": _environments,
    "account": _ACCOUNTS,
    **dict.fromkeys(("accounts set.name", "accounts move.name", "accounts move.parent"), _ACCOUNTS),
    **dict.fromkeys(
        ("accounts remove.name", "accounts add.parent", "accounts set.parent"), _ACCOUNTS
    ),
    "after": _of(_open_tasks),
    "calendar remove.number": _of(lambda client: (str(each.id) for each in client.calendar)),
    "claims": _DEVICES_AND_POOLS,
    "device": _DEVICES,
    "certify.device": _DEVICES_AND_POOLS,
    **dict.fromkeys(("devices show.name", "devices remove.name", "devices refresh.name"), _DEVICES),
    "engine": _of(_engines),
    "gateway tokens revoke.numbers": _of(
        lambda client: (each.number for each in client.tokens.listed())
    ),
    **dict.fromkeys(("keys revoke.name", "keys rotate.name"), _KEYS),
    "node": _of(lambda client: [*client.nodes(), "all"]),
    "owner": _USERS,
    **dict.fromkeys(("pool", "pool1", "pool2"), _POOLS),
    **dict.fromkeys(("policy queue.pool", "policy admission.pool"), _POOLS_OR_ALL),
    "qos": _QOS,
    **dict.fromkeys(("qos set.name", "qos remove.name"), _QOS),
    "reservation": _RESERVATIONS,
    "series": _of(lambda client: ["list", *client.history.series_names()]),
    "task": _of(_tasks),
    "tasks": _of(_open_tasks),
    "undrain.name": _of(lambda client: [*client.nodes(), *client.pools()]),
    "user": _USERS,
    "worker": _of(lambda client: (each.name for each in client.workers())),
}
_PARAMETERS = {key.rpartition(".")[2] for key in NAMES}
