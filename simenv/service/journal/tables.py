"""Tables of the journal besides those of accepted and finished tasks: statements to write them,
functions to read them.

Invariants: the row of a reservation, the units of its tasks and the submits and ends that changed
them are in one transaction, so that `read_reservations` returns a state that existed; the order of
the rows of units determines whether a task holds them or is parked. A noise document is in the
journal before, or in one commit with, the first task that names it. Each control of a device is one
row, in the commit that precedes the answer. Older journals lack some tables; they are created
empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from simenv.errors import JournalError
from simenv.model.accounts import Account, Qos
from simenv.scheduler.core import LearnedEstimate
from simenv.scheduler.reservations import ledger as ledgers, policies, reservation
from simenv.scheduler.state.device_state import DeviceControl, StoredRun
from simenv.service.journal.reader import WAY_OUT, Records

Statement = tuple[str, tuple[Any, ...]]
Key = TypeVar("Key")
Value = TypeVar("Value")


class Columns:
    """A table with a column for each value. `columns`: those of `create table`, the key first."""

    def __init__(self, name: str, columns: str, options: str = "") -> None:
        self.schema = f"create table if not exists {name}({columns}){options};"
        names = [column.split()[0] for column in columns.split(", primary key(")[0].split(", ")]
        self.query = f"select {', '.join(names)} from {name}"
        self._insert = f"insert or replace into {name} values({','.join('?' * len(names))})"
        self._delete = f"delete from {name} where {names[0]} = ?"

    def put(self, *values: Any) -> Statement:
        """Return the statement that stores a row."""
        return self._insert, values

    def remove(self, key: Any) -> Statement:
        return self._delete, (key,)


class JournalTable(Columns, Generic[Key, Value]):
    """A table with a key and a msgpack body of one type. `what`: a row, in errors."""

    def __init__(self, name: str, key: str, of: Any, what: str) -> None:
        options = " without rowid" if " text " in key else ""
        super().__init__(name, f"{key}, body blob", options)
        self._decoder: msgspec.msgpack.Decoder[Value] = msgspec.msgpack.Decoder(of)
        self._what = what

    def statements(self, changes: Mapping[Key, Value]) -> list[Statement]:
        """Return the statements that store these values."""
        encode = msgspec.msgpack.encode
        return [self.put(key, encode(value)) for key, value in changes.items()]

    def read(self, records: Records) -> dict[Key, Value]:
        """Read all values, by key. Raises JournalError if a row cannot be decoded."""
        return dict(records.decoded(self.query, self._decoder, self._what))


class StoredDocument(msgspec.Struct, frozen=True):
    """A noise document. `owner`: the owner of the task that brought it; "": the environment's own
    user, or the document of a device."""

    digest: str  # hex
    owner: str
    at: float  # wall clock, seconds since 1970
    body: bytes


class DriftState(msgspec.Struct, frozen=True):
    """Stored state of a drifting pool. Times are wall-clock nanoseconds."""

    drift: str  # option `drift` of the pool; the state of another one is not used
    begun_ns: int
    calibrated_ns: tuple[int, ...] = ()  # times at which the noise was published as calibration


class Standing(msgspec.Struct, frozen=True):
    """Account, class, and place in the order of the fair share of a Submit at its acceptance."""

    account: str = ""  # "": there were no accounts
    qos: str = ""
    share: float = 0.0  # of account and user among all
    usage: float = 0.0  # decayed billing units of the account
    rank: int = 0  # 1 went first


StoredReservation = tuple[reservation.Grant, reservation.Progress]
RESERVATION = JournalTable[int, StoredReservation](
    "reservation", "id integer primary key", StoredReservation, "a reservation"
)
DEVICE = JournalTable[str, policies.DeviceTerms](
    "device", "name text primary key", policies.DeviceTerms, "a reservation"
)
CONTROL = JournalTable[str, DeviceControl](
    "steered", "device text primary key", DeviceControl, "a device's steering"
)
DRIFT = JournalTable[str, DriftState](
    "drift", "pool text primary key", DriftState, "the drift of a device"
)
OWNER_LIMITS = JournalTable[str, dict[str, int]](
    "owner_limits", "owner text primary key", dict[str, int], "an owner's limits"
)
# The present value, None: removed by an admin; and that of the configuration, None: not in it.
StoredAccount = tuple[Account | None, Account | None]
StoredQos = tuple[Qos | None, Qos | None]
ACCOUNT = JournalTable[str, StoredAccount](
    "account", "name text primary key", StoredAccount, "an account"
)
QOS = JournalTable[str, StoredQos]("qos", "name text primary key", StoredQos, "a class of service")
STANDING = Columns(
    "standing",
    "first integer primary key, account text, qos text, share real, usage real, rank int",
)
UNITS = Columns("units", "task integer primary key, reservation int, units int")
PACED = Columns("paced_runs", "task integer primary key, device text, place int, earliest_ns int")
NOISE = Columns(
    "noise_document", "digest text primary key, owner text, at real, body blob", " without rowid"
)
ESTIMATE = Columns(
    "estimate",
    "kind text, width int, factor real, deviation real, count int, primary key(kind, width)",
    " without rowid",
)
TABLES = (
    *(RESERVATION, UNITS, DEVICE, CONTROL, PACED, DRIFT, OWNER_LIMITS, NOISE, ESTIMATE),
    *(ACCOUNT, QOS, STANDING),
)
NEXT_ID = "next_reservation"  # a key of `meta`: ids are never used twice


def reservation_statements(
    ledger: ledgers.ReservationLedger, changes: ledgers.UnstoredChanges
) -> list[Statement]:
    """Return the statements that store these changes."""
    entries = {number: ledger.all[number] for number in changes.reservations}
    results = RESERVATION.statements(
        {number: (entry.grant, entry.progress) for number, entry in entries.items()}
    )
    results += DEVICE.statements({name: ledger.devices[name] for name in changes.devices})
    for task, held in changes.units.items():
        results.append(UNITS.remove(task) if held is None else UNITS.put(task, *held))
    results += map(RESERVATION.remove, changes.forgotten)
    if changes.urgent:
        results.append(("insert or replace into meta values(?,?)", (NEXT_ID, ledger.next_id)))
    return results


def read_reservations(
    records: Records,
) -> tuple[ledgers.StoredReservations, dict[int, tuple[int, int]]]:
    """Read the stored reservations and devices, and the reservation and units of each unfinished
    task with a reservation. Raises JournalError if a row cannot be read."""
    reservations = [pair for _, pair in sorted(RESERVATION.read(records).items())]
    units = {task: (reservation, count) for task, reservation, count in records.rows(UNITS.query)}
    stored = DEVICE.read(records), reservations, records.meta(NEXT_ID)
    return ledgers.StoredReservations(*stored), units


def paced_statements(changes: Mapping[int, StoredRun | None]) -> list[Statement]:
    """Return the statements that store the runs of paced devices, by task."""
    return [
        PACED.remove(task)
        if run is None
        else PACED.put(task, run.device, run.place, run.earliest_ns)
        for task, run in changes.items()
    ]


def read_paced(records: Records) -> dict[int, StoredRun]:
    """Read the runs of paced devices, by task."""
    return {task: StoredRun(*run) for task, *run in records.rows(PACED.query)}


def read_documents(records: Records) -> list[StoredDocument]:
    """Read all noise documents, the oldest first. Raises JournalError."""
    return [StoredDocument(*row) for row in records.rows(f"{NOISE.query} order by at")]


def estimate_statements(
    changes: Mapping[tuple[str, int], LearnedEstimate],
) -> list[Statement]:
    """Return the statements that store learned run times, by kind and width."""
    return [
        ESTIMATE.put(*key, each.factor, each.deviation, each.count) for key, each in changes.items()
    ]


def read_estimates(records: Records) -> dict[tuple[str, int], LearnedEstimate]:
    """Read the learned run times, by kind and width. Raises JournalError."""
    results = {}
    for kind, width, factor, deviation, count in records.rows(ESTIMATE.query):
        figures = (factor, deviation, count)
        is_valid = isinstance(kind, str) and isinstance(width, int)
        if not is_valid or not all(isinstance(each, int | float) and each >= 0 for each in figures):
            raise JournalError(
                f"an estimate in the journal cannot be read: {kind!r}, {width!r}", hint=WAY_OUT
            )
        results[kind, width] = LearnedEstimate(float(factor), float(deviation), int(count))
    return results


def read_standing(records: Records, first: int) -> Standing:
    """Read the standing of a Submit by its first task; empty if there were no accounts."""
    rows = records.rows(f"{STANDING.query} where first = ?", first)
    return next((Standing(*columns[1:]) for columns in rows), Standing())
