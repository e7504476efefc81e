"""Who leads an environment whose journal is in PostgreSQL.

One row of the table `leader` says who leads: its epoch, its node, and the time of its last sign of
life by the server's clock. The leader holds an advisory lock in the session that stores, and a
thread renews its lease through a session of its own. Who takes over, because the lease is over,
ends that session, takes the lock, and raises the epoch.

Invariant: each transaction of a leader calls `fence`, which fails if the epoch is another one and
otherwise keeps the row locked until the commit: of a leader that was replaced nothing is stored,
however long it was stopped or cut off.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import psycopg
from psycopg.types.numeric import (
    Int8BinaryDumper,
    Int8Dumper,
    NumericBinaryLoader,
    NumericLoader,
)
from psycopg.types.string import StrDumper

from simenv.errors import JournalError
from simenv.service.journal.database import (
    PostgresPlace,
    Standby,
    check_format,
    journal_format,
)

BEATS = 4  # renewals of the lease in its length
MEMBER_S = 5.0  # a standby that was silent for so long, or a lease, has ended
LOCK_S = 5.0  # for the lock of a session that is ended
FREE_S = 1.0  # for that of a process that has just ended
# Of a server that cannot be reached; the URL may have others.
_TIMEOUTS = {
    "connect_timeout": 3,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 4_000,  # ms
}
_LEADER = """
create table if not exists leader(one int primary key check (one = 1), epoch bigint not null,
  commits bigint not null, format int not null, node text not null, pid bigint not null,
  renewed timestamptz not null, lease_s double precision not null, state text not null);
create table if not exists member(node text, pid bigint, address text, renewed timestamptz,
  primary key(node, pid));
create or replace function fence(of_epoch bigint, number bigint, forced boolean) returns void
language plpgsql as $$ begin
  if not forced then perform set_config('synchronous_commit', 'off', true); end if;
  update leader set commits = number where epoch = of_epoch;
  if not found then raise exception 'another service leads' using errcode = 'SIM01'; end if;
end $$;
"""
_LOCK = "'leader'::regclass::oid::bigint"


class HeldElsewhere(JournalError):
    """Another service leads the environment. `left_s`: until its lease is over, at the earliest."""

    def __init__(self, place: PostgresPlace, leader: LeaderRow) -> None:
        super().__init__(
            f"process {leader.pid} on {leader.node} leads the environment {place}, last sign of "
            f"life {leader.age_s:.1f} s ago",
            hint="simenv up --standby waits for its end; simenv down ends it",
        )
        self.left_s = max(0.0, leader.lease_s - leader.age_s)


class _Text(StrDumper):
    """Text without the character 0, which PostgreSQL cannot store."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


class _Whole(NumericLoader):
    def load(self, data: Any) -> Any:
        return int(super().load(data))


class _WholeBinary(NumericBinaryLoader):
    def load(self, data: Any) -> Any:
        return int(super().load(data))


Session = psycopg.Connection[tuple[Any, ...]]


def connect(place: PostgresPlace) -> Session:
    """Return a new connection whose statements see the environment's schema. Raises
    psycopg.Error."""
    given = psycopg.conninfo.conninfo_to_dict(place.url)
    limits = "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s"
    options = f'-c search_path="simenv_{place.environment}" {limits} {given.pop("options", "")}'
    settings = {"application_name": "simenv", **_TIMEOUTS, **given, "options": options}
    url = psycopg.conninfo.make_conninfo("", **settings)
    session = psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor)
    session.prepare_threshold, session.prepared_max = 2, 1_000
    adapters = session.adapters
    for dumper in (Int8Dumper, Int8BinaryDumper):  # the type of a column, whatever the value
        adapters.register_dumper(int, dumper)
    adapters.register_dumper(str, _Text)
    adapters.register_loader("numeric", _Whole)  # sums of integers
    adapters.register_loader("numeric", _WholeBinary)
    return session


class LeaderRow(NamedTuple):
    """The row of the table `leader`."""

    epoch: int
    commits: int
    node: str
    pid: int
    age_s: float  # since its last sign of life
    lease_s: float
    state: str  # leads; released: another one may; stopped: the environment was ended

    @property
    def is_over(self) -> bool:
        """True if another service may lead."""
        return self.state != "leads" or self.age_s > self.lease_s


def create_leader(session: Session, place: PostgresPlace) -> None:
    """Create the schema with the tables of leadership. Raises JournalError for a journal of another
    format, psycopg.Error."""
    with session.transaction():
        session.execute("select pg_advisory_xact_lock(hashtext($1))", [place.environment])
        session.execute(f'create schema if not exists "simenv_{place.environment}"')
        for statement in _split(_LEADER):
            session.execute(statement)
        # Not `on conflict`, which would wait for a transaction that a stopped leader has begun.
        session.execute(
            "insert into leader select 1, 0, 0, $1::bigint, '', 0, '-infinity', 0, 'released'"
            " where not exists (select 1 from leader)",
            [journal_format()],
        )
    row = session.execute("select format from leader").fetchone()
    if row is not None:
        check_format(row[0], place)


def _split(script: str) -> list[str]:
    """Split a script at the semicolons that end lines outside functions."""
    return [each for each in re.split(r";\n(?=create|\Z)", script.strip() + "\n") if each.strip()]


def read_leader(session: Session) -> LeaderRow:
    """Return who leads. Raises psycopg.Error."""
    row = session.execute(
        "select epoch, commits, node, pid, greatest(0, least(1e9, extract(epoch from "
        "clock_timestamp() - case when isfinite(renewed) then renewed else to_timestamp(0) end)))"
        "::double precision, lease_s, state from leader"
    ).fetchone()
    assert row is not None
    return LeaderRow(*row)


def lead(session: Session, place: PostgresPlace, after: int) -> int:
    """Lead from here on, with the lock held, after the epoch `after`; return the new one. Raises
    HeldElsewhere if another service was faster, psycopg.Error."""
    row = session.execute(
        "update leader set epoch = epoch + 1, commits = 0, node = $1, pid = $2, renewed = "
        "clock_timestamp(), lease_s = $3, state = 'leads' where epoch = $4 returning epoch",
        [*_self(), place.lease_s, after],
    ).fetchone()
    if row is None:
        raise HeldElsewhere(place, read_leader(session))
    session.execute("delete from member where node = $1 and pid = $2", _self())
    return int(row[0])


def release(session: Session, epoch: int, state: str = "released") -> None:
    """End the leadership of an epoch; see `LeaderRow.state`. Raises psycopg.Error."""
    query = "update leader set state = $2 where epoch = $1 and state <> 'stopped'"
    session.execute(query, [epoch, state])


def take_lock(session: Session, *, by_force: bool) -> bool:
    """Take the lock of the leader, with `by_force` also from the session that holds it."""
    end_s = time.monotonic() + (LOCK_S if by_force else FREE_S)
    while True:
        row = session.execute(f"select pg_try_advisory_lock({_LOCK})").fetchone()
        if row is not None and row[0]:
            return True
        if time.monotonic() > end_s:
            return False
        if by_force:
            session.execute(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and "
                f"objsubid = 1 and (classid::bigint << 32) + objid::bigint = {_LOCK} and "
                "database = (select oid from pg_database where datname = current_database())"
            )
        time.sleep(0.05)


class LeaseThread:
    """Thread that renews the lease of a leader through a connection of its own. `lost`: why another
    service may lead now; "": none does. `standbys`: at the last renewal. A server that cannot be
    reached ends nothing: while nobody can store, nobody can take over."""

    def __init__(self, place: PostgresPlace, epoch: int) -> None:
        self.lost = ""
        self.standbys: tuple[Standby, ...] = ()
        self._place, self._epoch = place, epoch
        self._renewed_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    @property
    def is_doubtful(self) -> bool:
        """True if the lease may be over, and nobody knows yet."""
        return not self.lost and time.monotonic() - self._renewed_s > self._place.lease_s

    def _run(self) -> None:
        session: Session | None = None
        while not self._stop.wait(self._place.lease_s / BEATS) and not self.lost:
            try:
                session = session or connect(self._place)
                query = "update leader set renewed = clock_timestamp() where epoch = $1"
                begun_s = time.monotonic()
                if session.execute(query, [self._epoch]).rowcount:
                    self._renewed_s = begun_s
                else:
                    self.lost = "another service leads the environment"
                query = (
                    "select node, address from member where"
                    " renewed > clock_timestamp() - make_interval(secs => $1) order by node, pid"
                )
                rows = session.execute(query, [max(MEMBER_S, self._place.lease_s)])
                self.standbys = tuple(Standby(*row) for row in rows)
            except psycopg.Error:
                if session is not None:
                    session.close()
                session = None
        if session is not None:
            session.close()

    def stop(self) -> None:
        """End the thread, which may wait for the server."""
        self._stop.set()
        self._thread.join(timeout=1.0)


def wait_to_lead(
    place: PostgresPlace,
    address: str,
    is_ended: Callable[[], bool],
    ready: Callable[[], None] | None = None,
) -> bool:
    """Wait, as a standby, until this process may lead. `address`: at which it will listen for other
    machines, "" for none; the leader tells its clients. `is_ended`: polled; True ends the wait.
    `ready`: called when it has begun to wait; None: nobody waits for that, and a server that cannot
    be reached is tried again. Returns False if the environment was ended, or this process. Raises
    JournalError if it cannot begin to wait."""
    session: Session | None = None
    poll_s = min(0.5, place.lease_s / BEATS)
    waits = ready is None
    while not is_ended():
        try:
            if session is None:
                session = connect(place)
                create_leader(session, place)
            _announce(session, address)
            leader = read_leader(session)
            if ready is not None and not waits:
                waits = True
                ready()
            elif leader.state == "stopped":
                break
            if leader.is_over and leader.state != "stopped":
                session.close()
                return True
        except psycopg.Error as error:
            if session is not None:
                session.close()
            session = None
            if not waits:
                raise unusable(place, error) from error
        time.sleep(poll_s)
    if session is not None:
        with suppress(psycopg.Error):
            session.execute("delete from member where node = $1 and pid = $2", _self())
        session.close()
    return False


def _self() -> list[object]:
    return [os.uname().nodename, os.getpid()]


def _announce(session: Session, address: str) -> None:
    session.execute(
        "insert into member values($1, $2, $3, clock_timestamp()) on conflict(node, pid)"
        " do update set address = excluded.address, renewed = excluded.renewed",
        [*_self(), address],
    )


def unusable(place: PostgresPlace, error: Exception) -> JournalError:
    text = f"the journal {place} cannot be opened: {' '.join(str(error).split())}"
    return JournalError(text, hint="is the server up, and may this user create a schema there?")
