"""Tables of reservations and of device controls: statements to write them, functions to read them.

Invariant: the row of a reservation, the units of its tasks and the submits and ends that changed
them are in one transaction, so that `read_reservations` returns a state that existed. An
unfinished task has a row of units; the order of rows determines whether it holds them or is parked.
Each device control is one row, in the commit that precedes the answer. Older journals do not have
these tables; they are created empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from simenv.scheduler.reservations.ledger import (
    ReservationLedger,
    StoredReservations,
    UnstoredChanges,
)
from simenv.scheduler.reservations.policies import DeviceTerms
from simenv.scheduler.reservations.reservation import Grant, Progress
from simenv.scheduler.state.device_controls import DeviceControl
from simenv.scheduler.state.paced import StoredRun
from simenv.service.journal.reader import Records

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


def reservation_statements(ledger: ReservationLedger, changes: UnstoredChanges) -> list[Statement]:
    """Return the statements that store these changes."""
    results: list[Statement] = []
    for number in changes.reservations:
        entry = ledger.all[number]
        row = (number, _encode((entry.grant, entry.progress)))
        results.append(("insert or replace into reservation values(?,?)", row))
    for device in changes.devices:
        row_of_it = (device, _encode(ledger.devices[device]))
        results.append(("insert or replace into device values(?,?)", row_of_it))
    for task, held in changes.units.items():
        if held is None:
            results.append(("delete from units where task = ?", (task,)))
        else:
            results.append(("insert or replace into units values(?,?,?)", (task, *held)))
    for number in changes.forgotten:
        results.append(("delete from reservation where id = ?", (number,)))
    if changes.urgent:
        results.append(("insert or replace into meta values(?,?)", (NEXT_ID, ledger.next_id)))
    return results


def read_reservations(
    records: Records,
) -> tuple[StoredReservations, dict[int, tuple[int, int]]]:
    """Read the stored reservations and devices, and the reservation and units of each unfinished
    task with a reservation. Raises JournalError if a row cannot be read."""
    subject = "a reservation"
    devices = dict(records.decoded("select name, body from device", _DEVICE, subject))
    query = "select id, body from reservation order by id"
    reservations = [pair for _, pair in records.decoded(query, _RESERVATION, subject)]
    rows = records.rows("select task, reservation, units from units")
    units = {task: (reservation, count) for task, reservation, count in rows}
    return StoredReservations(devices, reservations, records.meta(NEXT_ID)), units


CONTROL_SCHEMA = (
    "create table if not exists steered(device text primary key, body blob) without rowid;"
)
_CONTROL = msgspec.msgpack.Decoder(DeviceControl)


def control_statements(changes: Mapping[str, DeviceControl]) -> list[Statement]:
    """Return the statements that store changed controls of devices."""
    return [
        ("insert or replace into steered values(?,?)", (device, _encode(control)))
        for device, control in changes.items()
    ]


def read_controls(records: Records) -> dict[str, DeviceControl]:
    """Read the stored controls of devices. Raises JournalError if a row cannot be read."""
    query = "select device, body from steered"
    return dict(records.decoded(query, _CONTROL, "a device's steering"))


PACED_SCHEMA = (
    "create table if not exists paced_runs"
    "(task integer primary key, device text, place int, earliest_ns int);"
)


def paced_statements(changes: Mapping[int, StoredRun | None]) -> list[Statement]:
    """Return the statements that store the runs of paced devices, by task."""
    results: list[Statement] = []
    for task, run in changes.items():
        if run is None:
            results.append(("delete from paced_runs where task = ?", (task,)))
        else:
            row = (task, run.device, run.place, run.earliest_ns)
            results.append(("insert or replace into paced_runs values(?,?,?,?)", row))
    return results


def read_paced(records: Records) -> dict[int, StoredRun]:
    """Read the runs of paced devices, by task."""
    rows = records.rows("select task, device, place, earliest_ns from paced_runs")
    return {task: StoredRun(*run) for task, *run in rows}
