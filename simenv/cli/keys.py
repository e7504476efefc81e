"""`simenv keys`: who may use an environment from other machines.

Invariant: a secret key goes into the one file it is meant for; it is shown only where asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simenv import config
from simenv.cli import out, settings
from simenv.cli.listing import Column, Columns, NoHeader, Style, listing
from simenv.client import address
from simenv.client.afar import KeyAddress
from simenv.wire.people import KeyInfo

if TYPE_CHECKING:
    from simenv.client.people import People

_SHOWN_CHARS = 10  # of a public key: enough to tell two apart
_KEYS: tuple[Column[KeyInfo], ...] = (
    Column("NAME", lambda key: key.name),
    Column("ROLE", lambda key: key.role),
    Column("ADDED", lambda key: time.strftime("%Y-%m-%d %H:%M", time.localtime(key.at_s))),
    Column("KEY", lambda key: key.public_key[:_SHOWN_CHARS]),
)

keys = typer.Typer(help="Who may use it from other machines: add, list, revoke.")


@keys.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key; her tasks carry this name.")],
    role: Annotated[
        str, typer.Option(help="client (submits, sees her own tasks) or admin (sees and ends all).")
    ] = "client",
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The file to make; `-`: stdout. By default keys/NAME.simenv in the environment's"
            " own folder.",
        ),
    ] = None,
) -> None:
    """Make a key, and the file its owner connects with; give it to nobody else."""
    from simenv.client import people

    to_stdout = str(file) == "-"
    path = file or _default_file(context, config.check_name(name, "key"))
    with _kept(context) as kept:
        if to_stdout:
            out.json_line(kept.add(name, role))
            return
        person = people.issue(kept, name, role, path)
    shown = path.absolute()
    if settings.of(context).as_json:
        out.json_line({"name": name, "role": role, "file": str(shown), "address": person.address})
        return
    out.line(f"key   {name}, role {role}, for {person.address}")
    out.line(f"file  {shown} (0600: it holds her secret key)")
    out.line(f"use   simenv --service {path} status, or export SIMENV_SERVICE={shown}")


@keys.command("list")
def list_keys(context: typer.Context, columns: Columns = "", no_header: NoHeader = False) -> None:
    """The keys that are let in."""
    with _kept(context) as kept:
        listing(_KEYS, Style(settings.of(context).as_json, columns, no_header), kept.listed)


@keys.command()
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key, as `list` shows it.")],
) -> None:
    """Shut a key out at once, its open connections too; its tasks stay."""
    with _kept(context) as kept:
        kept.revoke(name)
    if settings.of(context).as_json:
        out.json_line({"name": name, "revoked": True})
    else:
        out.line(f"{name} is shut out; her tasks stay")


def _default_file(context: typer.Context, name: str) -> Path:
    """A secret does not belong into whatever folder the user works in: it goes to the environment's
    folder, where that is on this machine."""
    common = settings.of(context)
    where = address.find(common.name, common.service)
    if isinstance(where, KeyAddress) or not where.path.parent.is_dir():
        return Path(f"{name}.simenv")
    return config.private_folder(where.path.with_name("keys")) / f"{name}.simenv"


@contextmanager
def _kept(context: typer.Context) -> Iterator[People]:
    """Through the service if it is up, else in the environment's files."""
    from simenv.client import people

    common = settings.of(context)
    down = people.stopped(common.name, common.service)
    if down is not None:
        yield down
        return
    with common.connect() as client:
        yield client.people
