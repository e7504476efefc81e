"""How devices are steered, in the journal: one row each, written with the commit that answers."""

from __future__ import annotations

import msgspec

from simenv.errors import JournalError
from simenv.scheduler import steering
from simenv.scheduler.books import Books
from simenv.scheduler.steering import Steer
from simenv.service.records import WAY_OUT, Records
from simenv.service.reserved_rows import Statement

SCHEMA = "create table if not exists steered(device text primary key, body blob) without rowid;"
_encode = msgspec.msgpack.Encoder().encode
_STEER = msgspec.msgpack.Decoder(Steer)


def statements(books: Books) -> list[Statement]:
    """What stores that which has changed; it is forgotten here."""
    changes, books.steers.changes = books.steers.changes, {}
    return [
        ("insert or replace into steered values(?,?)", (name, _encode(books.steers.of(name))))
        for name in changes
    ]


def restore(records: Records, books: Books) -> None:
    """As it was when the last service ended; JournalError if a row cannot be read."""
    try:
        for device, body in records.rows("select device, body from steered"):
            steering.restore(books, device, _STEER.decode(body))
    except msgspec.MsgspecError as error:
        raise JournalError(
            f"a device's steering in the journal cannot be read: {error}", hint=WAY_OUT
        ) from error
