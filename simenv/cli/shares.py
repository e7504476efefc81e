"""`simenv shares`: the tree of accounts with shares and usage, as `sshare` of Slurm prints it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from simenv.cli import terminal
from simenv.cli.listing import Column, listed
from simenv.model.accounts import ShareRow

if TYPE_CHECKING:
    from simenv.client.client import Client


_SHARES: tuple[Column[ShareRow], ...] = (
    Column("ACCOUNT", lambda row: "  " * row.level + (row.account or "-")),
    Column("USER", lambda row: row.user or (terminal.OWN_USER if row.rank else "-")),
    Column("SHARE", lambda row: f"{row.share:g}", right=True),
    Column("NORM_SHARE", lambda row: f"{row.norm_share:.4f}", right=True),
    Column("USAGE", lambda row: terminal.amount(row.usage), right=True),
    Column("NORM_USAGE", lambda row: f"{row.norm_usage:.4f}", right=True),
    Column("RANK", lambda row: str(row.rank or "-"), right=True),
    Column(
        "LEFT",
        lambda row: terminal.amount(row.left_units) if row.left_units >= 0 else "-",
        right=True,
    ),
)


@listed(_SHARES)
def shares(client: Client) -> Iterable[ShareRow]:
    """List accounts and their users with shares and usage.

    SHARE is relative to the siblings, NORM_SHARE to the whole site. USAGE has billing units, of
    which half is forgotten after each half-life; of the users, RANK 1 goes first. LEFT are units
    of the budget of this month.
    """
    return client.shares()
