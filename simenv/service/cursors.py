"""Cursors: how far a reader of completions has safely come.

Invariant: a cursor stands at a completion its owner may know of; those of one owner are bounded.
"""

from __future__ import annotations

from simenv.errors import LimitExceeded, OptionError
from simenv.service.journal import Journal
from simenv.wire.messages import Ack

MAX_CURSOR_CHARS = 64
MAX_CURSORS = 1_000  # of one owner; they are kept for ever


def acknowledge(journal: Journal, newest: int, owner: str, message: Ack) -> None:
    """Have it stored with the next commit. `newest`: the last completion its owner may know of.

    Raises OptionError, LimitExceeded.
    """
    if not (0 <= message.seq <= newest and 0 < len(message.cursor) <= MAX_CURSOR_CHARS):
        raise OptionError(
            f"completion {message.seq} cannot be acknowledged by {message.cursor[:64]!r}",
            hint=f"0 to {newest}; a cursor's name has 1 to {MAX_CURSOR_CHARS} characters",
        )
    records = journal.records
    is_new = not records.cursor_at(owner, message.cursor)
    if is_new and records.cursors_of(owner) >= MAX_CURSORS:
        raise LimitExceeded(
            f"there are {MAX_CURSORS} cursors already", hint="go on with one of them"
        )
    journal.cursor(owner, message.cursor, message.seq)
