"""`simenv keys`: keys of users who may use an environment from other machines.

Invariant: a secret key is written only to the file of its owner; it is printed only on request
(`--out -`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config, files
from simenv.cli import app, terminal
from simenv.cli.listing import Column, Columns, NoHeader, Style, listing
from simenv.client.connection import address
from simenv.errors import OptionError
from simenv.model import Limits, ResourceUse
from simenv.model.accounts import Account

if TYPE_CHECKING:
    from simenv.client.administration.keys import KeyStore

_SHOWN_CHARS = 10  # shown characters of a public key, enough to distinguish keys


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key with the limits of its owner; None while the service is down."""

    name: str
    role: str
    public_key: str
    at_s: float
    limits: Limits | None = None
    use: ResourceUse | None = None
    expires_s: float = 0.0  # 0: never


_KEYS: tuple[Column[KeyRow], ...] = (
    Column("NAME", lambda key: key.name),
    Column("ROLE", lambda key: key.role),
    Column("ADDED", lambda key: time.strftime("%Y-%m-%d %H:%M", time.localtime(key.at_s))),
    Column("EXPIRES", lambda key: _end_text(key.expires_s)),
    Column("KEY", lambda key: key.public_key[:_SHOWN_CHARS]),
    Column("TASKS", lambda key: str(key.use.queued_tasks) if key.use else "?", right=True),
    Column("MAX_TASKS", lambda key: _limit_text(key, "max_queued_tasks"), right=True),
    Column("SLOTS", lambda key: str(key.use.running_slots) if key.use else "?", right=True),
    Column("MAX_SLOTS", lambda key: _limit_text(key, "max_running_slots"), right=True),
    Column("KEPT", lambda key: terminal.size(key.use.kept_bytes) if key.use else "?", right=True),
    Column("MAX_KEPT", lambda key: _limit_text(key, "max_kept_bytes"), right=True),
)

keys = typer.Typer(help="Manage the keys of users on other machines.")


@keys.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the key: the owner of its tasks.")],
    role: Annotated[
        str,
        typer.Option(
            help="client (sees its own tasks), gateway (serves those with tokens) or admin (all)."
        ),
    ] = "client",
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write; `-`: stdout. Default: keys/NAME.simenv of the environment.",
        ),
    ] = None,
    expires: Annotated[
        str, typer.Option(help="Time in which it is accepted: 12h, 30d; default: for ever.")
    ] = "",
) -> None:
    """Create a key, and the connection file of its owner (give it to nobody else)."""
    to_stdout = str(file) == "-"
    end_s = time.time() + _span(expires, "--expires") if expires else 0.0
    path = file or _default_file(context, config.check_name(name, "key"))
    with _key_store(context) as kept:
        if to_stdout:
            terminal.json_line(kept.add(name, role, end_s))
            return
        from simenv.client.administration.keys import issue_key

        user_key = issue_key(kept, name, role, path, end_s)
        if role == "client":
            note_without_account(kept.accounts(), name)
    absolute = path.absolute()
    until = f", until {_end_text(end_s)}" if end_s else ""
    value = {"name": name, "role": role, "file": str(absolute), "address": user_key.address}
    app.settings_of(context).answer(
        {**value, "expires_s": end_s},
        (
            f"key   {name}, role {role}, for {user_key.address}{until}",
            f"file  {absolute} (0600: it holds the secret key)",
            f"use   simenv --service {path} status, or export SIMENV_SERVICE={absolute}",
        ),
    )


def note_without_account(accounts: Mapping[str, Account], user: str) -> None:
    """Warn where the environment has accounts, and a user is in none. Members of groups of the
    operating system are not known here."""
    users = {each for account in accounts.values() for each in account.users}
    if accounts and user not in users and not any(each.startswith("@") for each in users):
        hint = f"simenv accounts set NAME --add-user {user}"
        terminal.note(
            f"{terminal.paint('warn')}: {user} is in no account and cannot submit: {hint}"
        )


@keys.command("list")
def list_keys(context: typer.Context, columns: Columns = "", no_header: NoHeader = False) -> None:
    """List keys with their use and limits; `simenv limits` shows all limits."""
    with _key_store(context) as kept:
        style = Style(app.settings_of(context).as_json, columns, no_header)
        listing(_KEYS, style, lambda: _rows(kept))


@keys.command()
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the key, as `list` shows it.")],
) -> None:
    """Revoke a key at once, also on open connections; its tasks stay."""
    with _key_store(context) as kept:
        kept.revoke(name)
    value = {"name": name, "revoked": True}
    app.settings_of(context).answer(value, [f"key {name} is revoked; its tasks stay"])


@keys.command()
def rotate(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Name of the key; default: that of the file of --service.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", help="File to write; default: the present file of the key."),
    ] = None,
    overlap: Annotated[
        str, typer.Option(help="Time in which the former key is still accepted: 10m, 2d.")
    ] = "1h",
) -> None:
    """Replace a key by a new one with the same name, role and end; the holder may do it."""
    overlap_s = _span(overlap, "--overlap")
    common = app.settings_of(context)
    if file is None:
        location = address.find(common.name, common.service)
        if name is not None:
            file = _default_file(context, config.check_name(name, "key"))
        elif isinstance(location, address.KeyFileAddress):
            file = location.path
        else:
            hint = "simenv keys rotate NAME, or --service with the file of a key"
            raise OptionError("no key is named", hint=hint)
    from simenv.client.administration.keys import rotate_key

    with _key_store(context) as kept:
        user_key = rotate_key(kept, name or "", file, overlap_s)
    common.answer(
        {"name": user_key.owner, "file": str(file.absolute()), "overlap_s": overlap_s},
        (
            f"key   {user_key.owner}, role {user_key.role}, is new",
            f"file  {file.absolute()} (0600: it holds the secret key)",
            f"the former key is accepted until {_end_text(time.time() + overlap_s)}",
        ),
    )


def _span(text: str, option: str) -> float:
    """Return a time span in seconds. Raises OptionError."""
    span_s = terminal.span_s(text)
    if not span_s:
        raise OptionError(f"{option} {text[:80]!r} is no time span", hint="90s, 1h30m, 30d")
    return span_s


def _end_text(end_s: float) -> str:
    if not end_s:
        return "never"
    text = time.strftime("%Y-%m-%d %H:%M", time.localtime(end_s))
    return text if end_s > time.time() else f"expired {text}"


def _default_file(context: typer.Context, name: str) -> Path:
    """Return the default file of a key: in the environment's folder if that is on this machine.

    A secret key must not be written into an arbitrary working directory.
    """
    common = app.settings_of(context)
    location = address.find(common.name, common.service)
    if not isinstance(location, address.FileAddress) or not location.path.parent.is_dir():
        return Path(f"{name}.simenv")
    return files.private_folder(location.path.with_name("keys")) / f"{name}.simenv"


def _rows(kept: KeyStore) -> list[KeyRow]:
    reports = kept.reports()
    results = []
    for key in kept.listed():
        report = reports.get(key.name)
        limits, use = (report.limits, report.use) if report is not None else (None, None)
        fields = (key.name, key.role, key.public_key, key.at_s, limits, use, key.expires_s)
        results.append(KeyRow(*fields))
    return results


def _limit_text(key: KeyRow, name: str) -> str:
    if key.limits is None:
        return "?"
    value: int = getattr(key.limits, name)
    text = terminal.size(value) if name == "max_kept_bytes" else str(value)
    return text if value else "none"


@contextmanager
def _key_store(context: typer.Context) -> Iterator[KeyStore]:
    """Yield the keys of the environment: through the service if it is up, else from its files."""
    common = app.settings_of(context)
    from simenv.client.administration.keys import offline_key_store

    down = offline_key_store(common.name, common.service)
    if down is not None:
        yield down
        return
    with common.connect() as client:
        yield client.keys
