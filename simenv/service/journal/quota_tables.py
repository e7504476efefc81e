"""Table of the owner limits set by administrators.

Older journals do not have this table; it is created empty.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.service.journal.reader import Records

SCHEMA = """
create table if not exists owner_limits(owner text primary key, body blob) without rowid;
"""
Statement = tuple[str, tuple[Any, ...]]
_VALUES = msgspec.msgpack.Decoder(dict[str, int])


def statement(owner: str, values: dict[str, int]) -> Statement:
    """Return the statement that stores the limits set for one owner; {} removes them."""
    if not values:
        return "delete from owner_limits where owner = ?", (owner,)
    body = msgspec.msgpack.encode(values)
    return "insert or replace into owner_limits values(?,?)", (owner, body)


def restore(records: Records) -> dict[str, dict[str, int]]:
    """Read the limits that were set, by owner. Raises JournalError if a row cannot be read."""
    query = "select owner, body from owner_limits"
    return dict(records.decoded(query, _VALUES, "an owner's limits"))
