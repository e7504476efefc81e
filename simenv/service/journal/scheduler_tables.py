"""Tables of reservations and of device controls: what is written, and what a start reads.

Invariant: a reservation's row, its tasks' units and the accepts and ends that changed them are of
one transaction, so the state that `read_reservations` makes is the one that was stored. A task has
a row of units while it is unfinished; which of them hold theirs and which are parked follows from
the order. Controls of devices: one row each, written with the commit that answers. The tables are
additions: a journal from before them has none of their rows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from simenv.errors import JournalError
from simenv.scheduler.events import devices
from simenv.scheduler.reservations.ledger import Changes, Reservations
from simenv.scheduler.reservations.policies import DeviceTerms
from simenv.scheduler.reservations.reservation import Grant, Progress
from simenv.scheduler.state.device_controls import DeviceControl
from simenv.scheduler.state.state import Books
from simenv.service.journal.reader import WAY_OUT, Records

RESERVATION_SCHEMA = """
create table if not exists reservation(id integer primary key, body blob);
create table if not exists units(task integer primary key, reservation int, units int);
create table if not exists device(name text primary key, body blob) without rowid;
"""
NEXT_ID = "next_reservation"  # a key of `meta`: ids are never used twice
Statement = tuple[str, tuple[Any, ...]]
_encode = msgspec.msgpack.Encoder().encode
_RESERVATION = msgspec.msgpack.Decoder(tuple[Grant, Progress])
_DEVICE = msgspec.msgpack.Decoder(DeviceTerms)


def reservation_statements(ledger: Reservations, changes: Changes) -> list[Statement]:
    """What stores these changes."""
    found: list[Statement] = []
    for number in changes.reservations:
        one = ledger.all[number]
        row = (number, _encode((one.grant, one.progress)))
        found.append(("insert or replace into reservation values(?,?)", row))
    for device in changes.devices:
        row_of_it = (device, _encode(ledger.devices[device]))
        found.append(("insert or replace into device values(?,?)", row_of_it))
    for task, held in changes.units.items():
        if held is None:
            found.append(("delete from units where task = ?", (task,)))
        else:
            found.append(("insert or replace into units values(?,?,?)", (task, *held)))
    for number in changes.forgotten:
        found.append(("delete from reservation where id = ?", (number,)))
    if changes.asked:
        found.append(("insert or replace into meta values(?,?)", (NEXT_ID, ledger.next_id)))
    return found


def read_reservations(records: Records, ledger: Reservations) -> dict[int, tuple[int, int]]:
    """Reservations and devices as they were stored; the reservation and units of each unfinished
    task under one, for those that queue them again. JournalError if a row cannot be read."""
    try:
        for name, body in records.rows("select name, body from device"):
            ledger.devices[name] = _DEVICE.decode(body)
        for _, body in records.rows("select id, body from reservation order by id"):
            ledger.restore(*_RESERVATION.decode(body))
    except msgspec.MsgspecError as error:
        raise JournalError(
            f"a reservation in the journal cannot be read: {error}", hint=WAY_OUT
        ) from error
    ledger.next_id = max(ledger.next_id, records.meta(NEXT_ID))
    rows = records.rows("select task, reservation, units from units")
    return {task: (reservation, units) for task, reservation, units in rows}


CONTROL_SCHEMA = (
    "create table if not exists steered(device text primary key, body blob) without rowid;"
)
_STEER = msgspec.msgpack.Decoder(DeviceControl)


def control_statements(books: Books) -> list[Statement]:
    """What stores that which has changed; it is forgotten here."""
    changes, books.steers.changes = books.steers.changes, {}
    return [
        ("insert or replace into steered values(?,?)", (name, _encode(books.steers.of(name))))
        for name in changes
    ]


def read_controls(records: Records, books: Books) -> None:
    """As it was when the last service ended; JournalError if a row cannot be read."""
    try:
        for device, body in records.rows("select device, body from steered"):
            devices.restore(books, device, _STEER.decode(body))
    except msgspec.MsgspecError as error:
        raise JournalError(
            f"a device's steering in the journal cannot be read: {error}", hint=WAY_OUT
        ) from error
