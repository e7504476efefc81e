"""`simenv keys`: keys of users who may use an environment from other machines.

Invariant: a secret key is written only to the file of its owner; it is printed only on request
(`--out -`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config, files
from simenv.cli import options
from simenv.cli.listing import Column, Columns, NoHeader, Style, listing
from simenv.cli.output import terminal
from simenv.client.connection import address
from simenv.client.connection.remote_address import KeyFileAddress
from simenv.model import OwnerLimits, OwnerUse

if TYPE_CHECKING:
    from simenv.client.keys import KeyStore

_SHOWN_CHARS = 10  # shown characters of a public key, enough to distinguish keys


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key with the limits of its owner; None while the service is down."""

    name: str
    role: str
    public_key: str
    at_s: float
    limits: OwnerLimits | None = None
    use: OwnerUse | None = None


_KEYS: tuple[Column[KeyRow], ...] = (
    Column("NAME", lambda key: key.name),
    Column("ROLE", lambda key: key.role),
    Column("ADDED", lambda key: time.strftime("%Y-%m-%d %H:%M", time.localtime(key.at_s))),
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
        str, typer.Option(help="client (sees its own tasks) or admin (sees and cancels all).")
    ] = "client",
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File to write; `-`: stdout. Default: keys/NAME.simenv of the environment.",
        ),
    ] = None,
) -> None:
    """Create a key, and the connection file of its owner (give it to nobody else)."""
    to_stdout = str(file) == "-"
    path = file or _default_file(context, config.check_name(name, "key"))
    with _key_store(context) as kept:
        if to_stdout:
            terminal.json_line(kept.add(name, role))
            return
        from simenv.client.keys import issue_key

        user_key = issue_key(kept, name, role, path)
    absolute = path.absolute()
    if options.settings_of(context).as_json:
        terminal.json_line(
            {"name": name, "role": role, "file": str(absolute), "address": user_key.address}
        )
        return
    terminal.line(f"key   {name}, role {role}, for {user_key.address}")
    terminal.line(f"file  {absolute} (0600: it holds the secret key)")
    terminal.line(f"use   simenv --service {path} status, or export SIMENV_SERVICE={absolute}")


@keys.command("list")
def list_keys(context: typer.Context, columns: Columns = "", no_header: NoHeader = False) -> None:
    """List keys with their use and limits; `simenv limits` shows all limits."""
    with _key_store(context) as kept:
        style = Style(options.settings_of(context).as_json, columns, no_header)
        listing(_KEYS, style, lambda: _rows(kept))


@keys.command()
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the key, as `list` shows it.")],
) -> None:
    """Revoke a key at once, also on open connections; its tasks stay."""
    with _key_store(context) as kept:
        kept.revoke(name)
    if options.settings_of(context).as_json:
        terminal.json_line({"name": name, "revoked": True})
    else:
        terminal.line(f"key {name} is revoked; its tasks stay")


def _default_file(context: typer.Context, name: str) -> Path:
    """Return the default file of a key: in the environment's folder if that is on this machine.

    A secret key must not be written into an arbitrary working directory.
    """
    common = options.settings_of(context)
    location = address.find(common.name, common.service)
    if isinstance(location, KeyFileAddress) or not location.path.parent.is_dir():
        return Path(f"{name}.simenv")
    return files.private_folder(location.path.with_name("keys")) / f"{name}.simenv"


def _rows(kept: KeyStore) -> list[KeyRow]:
    reports = kept.reports()
    results = []
    for key in kept.listed():
        report = reports.get(key.name)
        limits, use = (report.limits, report.use) if report is not None else (None, None)
        results.append(KeyRow(key.name, key.role, key.public_key, key.at_s, limits, use))
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
    common = options.settings_of(context)
    from simenv.client.keys import offline_key_store

    down = offline_key_store(common.name, common.service)
    if down is not None:
        yield down
        return
    with common.connect() as client:
        yield client.keys
