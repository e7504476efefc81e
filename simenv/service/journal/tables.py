"""Tables of the journal besides those of accepted and finished tasks: statements to write them,
functions to read them.

Invariants: the row of a reservation, the units of its tasks and the submits and ends that changed
them are in one transaction, so that `read_reservations` returns a state that existed; the order of
the rows of units determines whether a task holds them or is parked. A noise document is in the
journal before, or in one commit with, the first task that names it. Each control of a device is one
row, in the commit that precedes the answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from simenv.errors import JournalError
from simenv.model.accounts import MAX_UNITS, Account, Qos
from simenv.model.reservations import CalendarEntry
from simenv.scheduler.core import LearnedEstimate
from simenv.scheduler.forecast.expected_starts import StoredErrors
from simenv.scheduler.reservations import ledger as ledgers, policies, reservation
from simenv.scheduler.state.device_controls import DeviceControl
from simenv.scheduler.state.paced_devices import StoredRun
from simenv.service.journal.database import WAY_OUT, Statement
from simenv.service.journal.reader import Records
from simenv.service.journal.schema import CORE, META, Columns

Key = TypeVar("Key")
Value = TypeVar("Value")


class JournalTable(Columns, Generic[Key, Value]):
    """A table with a key and a msgpack body of one type. `what`: a row, in errors."""

    def __init__(self, name: str, key: str, of: Any, what: str, cost: str) -> None:
        options = " without rowid" if " text " in key else ""
        super().__init__(name, f"{key}, body blob", options, cost=cost)
        self.decoder: msgspec.msgpack.Decoder[Value] = msgspec.msgpack.Decoder(of)
        self._what = what

    def statements(self, changes: Mapping[Key, Value]) -> list[Statement]:
        """Return the statements that store these values."""
        encode = msgspec.msgpack.encode
        return [self.put(key, encode(value)) for key, value in changes.items()]

    def read(self, records: Records) -> dict[Key, Value]:
        """Read all values, by key. Raises JournalError if a row cannot be decoded."""
        return dict(records.decoded(self.query, self.decoder, self._what))


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


class UsageKey(NamedTuple):
    """Whose tasks were summed, and where they ran."""

    account: str  # "": there were no accounts
    user: str  # "": the environment's own user
    qos: str
    pool: str
    device: str  # emulated; "": none
    engine: str


class Standing(msgspec.Struct, frozen=True):
    """Account, class, and place in the order of the fair share of a Submit at its acceptance."""

    account: str = ""  # "": there were no accounts
    qos: str = ""
    share: float = 0.0  # of account and user among all
    usage: float = 0.0  # decayed billing units of the account
    rank: int = 0  # 1 went first


# Sums over ended tasks, next to `units`; shots are of tasks that are DONE.
SUMS = (
    *("done", "failed", "cancelled", "expired", "shots"),
    *("slot_us", "gpu_us", "gib_us", "device_us", "wait_us"),
)
# Sums saturate there: two of them fit into the signed 64-bit numbers of the journal.
MAX_SUM = 2**61
SUM_BOUNDS = (*(MAX_SUM for _ in SUMS), MAX_UNITS)
# After which hours are merged into days, and days into months: with 4,000 keys that are used every
# hour the sums of a year of 10^7 tasks take less than 100 MB.
HOURS_DAYS, DAYS_DAYS = 35, 120
_EVER = 2**62

StoredReservation = tuple[reservation.Grant, reservation.Progress]
RESERVATION = JournalTable[int, StoredReservation](
    "reservation",
    "id integer primary key",
    StoredReservation,
    "a reservation",
    "the reservation: its tasks wait as those without one",
)
DEVICE = JournalTable[str, policies.DeviceTerms](
    "device",
    "name text primary key",
    policies.DeviceTerms,
    "a reservation",
    "what was set for reservations of the device",
)
CONTROL = JournalTable[str, DeviceControl](
    "steered",
    "device text primary key",
    DeviceControl,
    "a device's steering",
    "what was set for the device: it takes tasks as configured",
)
DRIFT = JournalTable[str, DriftState](
    "drift",
    "pool text primary key",
    DriftState,
    "the drift of a device",
    "the drift of the pool's device begins anew",
)
OWNER_LIMITS = JournalTable[str, dict[str, int]](
    "owner_limits",
    "owner text primary key",
    dict[str, int],
    "an owner's limits",
    "the owner's own limits: those of the configuration hold",
)
# The present value, None: removed by an admin; and that of the configuration, None: not in it.
StoredAccount = tuple[Account | None, Account | None]
StoredQos = tuple[Qos | None, Qos | None]
ACCOUNT = JournalTable[str, StoredAccount](
    "account",
    "name text primary key",
    StoredAccount,
    "an account",
    "what was changed of the account: it is as configured, or gone",
)
QOS = JournalTable[str, StoredQos](
    "qos",
    "name text primary key",
    StoredQos,
    "a class of service",
    "what was changed of the class of service: it is as configured, or gone",
)
CALENDAR = JournalTable[int, CalendarEntry](
    "calendar",
    "id integer primary key",
    CalendarEntry,
    "an entry of the calendar",
    "the entry of the calendar",
)
UNITS = Columns(
    "units",
    "task integer primary key, reservation int, units int",
    cost="the task holds no unit of its reservation",
)
PACED = Columns(
    "paced_runs",
    "task integer primary key, device text, place int, earliest_ns int",
    cost="the task has no place in the order of the paced device",
)
NOISE = Columns(
    "noise_document",
    "digest text primary key, owner text, at real, body blob",
    " without rowid",
    cost="tasks that name the document fail when they start",
)
ESTIMATE = Columns(
    "estimate",
    "kind text, width int, factor real, deviation real, count int, primary key(kind, width)",
    " without rowid",
    cost="the run time is learned anew",
)
WAIT_ERRORS = JournalTable[str, StoredErrors](
    "wait_errors",
    "pool text primary key",
    StoredErrors,
    "errors of expected starts",
    "forecasts of waits in the pool learn anew",
)
STANDING = Columns(
    "standing",
    "first integer primary key, account text, qos text, share real, usage real, rank int",
    cost="the Submit's account and class of service",
)
FAIR_USAGE = Columns(
    "fair_usage",
    'association text primary key, account text, "user" text, units real, at_s real',
    " without rowid",
    cost="the decayed usage of the association: it counts as unused",
)
_KEY_NAMES = [f'"{name}"' for name in UsageKey._fields]  # `user` is a word of PostgreSQL
USAGE_KEY = Columns(
    "usage_key",
    f"id integer primary key, {' text, '.join(_KEY_NAMES)} text",
    cost="the sums of usage under this key have no name",
)
# `start`: of the hour, day or month (`level`), in hours since 1970.
_MODULUS = 127  # no power of two is a multiple of it: no flipped bit leaves a sum as it was


class _Usage(Columns):
    """The sums. The database adds to them, so their checksum is a sum as well; one byte of it, as
    there are many rows. It does not cover the billing units: sums of these are rounded."""

    def checksum(self, values: Sequence[Any]) -> int:
        return int(super().checksum(values[:3]) + sum(values[3:-1])) % _MODULUS


USAGE = _Usage(
    "usage",
    f"level int, start int, key int, {' int, '.join(SUMS)} int, units real,"
    " primary key(level, start, key)",
    " without rowid",
    cost="the sums of one hour, day or month of one key",
)
# `created`, `ended`: seconds since 1970, 0: it has not ended. `bytes`: also of its blobs.
JOB = Columns(
    "job",
    "number integer primary key, owner text, id text, kind text, version int, created real,"
    " ended real, bytes int, labels blob, tasks blob, metadata blob, reservation int",
    indexes=(
        "owner, id",
        "owner, number, kind, created, ended",
        "owner, ended, bytes",
        "ended, created, kind, bytes",
    ),
    cost="the job of a gateway, with its data",
)
JOB_BLOB = Columns(  # with row ids: a tree of keys that holds the data would be read through
    "job_blob",
    "job int, name text, start int, data blob, primary key(job, name, start)",
    cost="a part of the data of a job",
)
CALIBRATION = Columns(
    "calibration",
    "device text, calibration text, calibrated real, body blob, primary key(device, calibration)",
    " without rowid",
    cost="one calibration of the history of a device",
)
TABLES: tuple[Columns, ...] = (
    *(RESERVATION, UNITS, DEVICE, CONTROL, PACED, DRIFT, OWNER_LIMITS, NOISE, ESTIMATE),
    *(ACCOUNT, QOS, STANDING, FAIR_USAGE, USAGE_KEY, USAGE, WAIT_ERRORS, CALENDAR),
    *(JOB, JOB_BLOB, CALIBRATION),
)
ALL = (*CORE, *TABLES)  # of the journal
SCHEMA = "".join(table.schema for table in ALL)
NEXT_ENTRY = "next_calendar_entry"
NEXT_ID, NEXT_JOB = "next_reservation", "next_job"  # keys of `meta`: ids are never used twice
_ORPHANS = "from job_blob where job not in (select number from job)"
COUNT_ORPHANS, DROP_ORPHANS = f"select count(*) {_ORPHANS}", f"delete {_ORPHANS}"  # without a job


def next_job_statement(number: int) -> Statement:
    """Return the statement that stores the number of the next job."""
    return META.put(NEXT_JOB, number)


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
        results.append(META.put(NEXT_ID, ledger.next_id))
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


def calendar_statements(
    changes: Mapping[int, CalendarEntry | None], next_id: int
) -> list[Statement]:
    """Return the statements that store changed entries of the calendar (None: removed), and the
    next number."""
    stored = {number: entry for number, entry in changes.items() if entry is not None}
    results = CALENDAR.statements(stored)
    results += [CALENDAR.remove(number) for number in changes if number not in stored]
    results.append(META.put(NEXT_ENTRY, next_id))
    return results


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
    """Read the standing of a Submit by its first task; empty if it has none."""
    rows = records.rows(f"{STANDING.query} where first = ?", first)
    return next((Standing(*columns[1:]) for columns in rows), Standing())


# --- usage ----------------------------------------------------------------------------------------

HOUR, DAY, MONTH = range(3)  # values of `level`
_ADD_USAGE = (
    f"{USAGE.insert} on conflict(level, start, key) do update set "
    + ", ".join(f"{name} = usage.{name} + excluded.{name}" for name in (*SUMS, "units"))
    + f", crc = (usage.crc + ?) % {_MODULUS}"
)
_USAGE_PAGE = (
    f"{USAGE.query} where level = ? and start >= ? and start < ? and (start, key) > (?, ?)"
    " order by start, key limit ?"
)
_DROP_USAGE = "delete from usage where level = ? and start = ? and key = ?"
_KEY_OF_USAGE = f"{USAGE_KEY.query} where " + " and ".join(f"{n} = ?" for n in _KEY_NAMES)


def add_usage(start: int, key: int, sums: Sequence[float], level: int = HOUR) -> Statement:
    """Return the statement that adds sums, in the order of SUMS and then units, to those of an
    hour (or day, or month) and key. What is added has SUM_BOUNDS."""
    sums = bounded_sums(sums)
    return _ADD_USAGE, (*USAGE.row(level, start, key, *sums), int(sum(sums[:-1])) % _MODULUS)


def bounded_sums(sums: Sequence[float]) -> list[Any]:
    """Return sums, in the order of SUMS and then units, within SUM_BOUNDS; 0 for what is no
    number. Integers stay integers."""
    return [
        min(max(each, -bound), bound) if each == each else 0
        for each, bound in zip(sums, SUM_BOUNDS, strict=True)
    ]


def period_start(level: int, hour: int) -> int:
    """Return the first hour of the day or month of an hour, all in hours since 1970, UTC."""
    if level == HOUR:
        return hour
    day = hour - hour % 24
    return day if level == DAY else day - 24 * (time.gmtime(3_600 * day).tm_mday - 1)


def period_end(level: int, start: int) -> int:
    """Return the hour at which a period that begins at `start` is over."""
    return period_start(MONTH, start + 24 * 31) if level == MONTH else start + (1, 24)[level]


def usage_page(
    records: Records, level: int, span: tuple[int, int], after: tuple[int, int], limit: int
) -> list[tuple[Any, ...]]:
    """Return the rows of some periods that begin in [span[0], span[1]), behind a row (start, key),
    in order."""
    rows = records.rows(_USAGE_PAGE, level, *span, *after, limit)
    return [(*row[:3], *bounded_sums(row[3:])) for row in rows]


def merge_usage(records: Records, hour: int, limit: int) -> list[Statement]:
    """Return the statements that merge some rows of hours older than HOURS_DAYS into days, or of
    days older than DAYS_DAYS into months; [] if there are none. `hour`: the present one."""
    for level, days in ((HOUR, HOURS_DAYS), (DAY, DAYS_DAYS)):
        before = period_start(level + 1, hour - 24 * days)  # whole days and months only
        rows = usage_page(records, level, (-_EVER, before), (-_EVER, 0), limit)
        if rows:
            merged = [
                add_usage(period_start(level + 1, start), key, sums, level + 1)
                for _, start, key, *sums in rows
            ]
            return merged + [(_DROP_USAGE, row[:3]) for row in rows]
    return []


def find_usage_key(records: Records, key: UsageKey) -> int | None:
    """Return the number of a key, or of the one without names of places that stands for too many
    keys; None if nothing was counted for either."""
    keys = key, key._replace(pool="", device="", engine="")
    return next((row[0] for each in keys for row in records.rows(_KEY_OF_USAGE, *each)), None)


def read_usage_keys(records: Records) -> dict[UsageKey, int]:
    """Read the keys of usage, with their numbers."""
    return {UsageKey(*names): number for number, *names in records.rows(USAGE_KEY.query)}


def read_units(records: Records, since: int, until: int) -> dict[str, float]:
    """Read the billing units of each account from one hour to another; hours are kept for
    HOURS_DAYS."""
    query = (
        "select account, sum(units) from usage join usage_key on id = key"
        " where level = 0 and start >= ? and start < ? group by account"
    )
    return {account: min(units, MAX_UNITS) for account, units in records.rows(query, since, until)}


def fair_usage_statements(changes: Mapping[str, tuple[str, str, float, int]]) -> list[Statement]:
    """Return the statements that store the decayed usage of associations: account, user, units and
    their time in ns, wall clock."""
    return [
        FAIR_USAGE.put(name, account, user, units, at_ns / 1e9)
        for name, (account, user, units, at_ns) in changes.items()
    ]


def read_fair_usage(records: Records) -> dict[str, tuple[str, str, float, int]]:
    """Read what `fair_usage_statements` stored."""
    return {
        name: (account, user, min(max(units, 0.0), MAX_UNITS), round(at_s * 1e9))
        for name, account, user, units, at_s in records.rows(FAIR_USAGE.query)
    }
