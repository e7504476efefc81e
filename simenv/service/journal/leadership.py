"""Who leads an environment whose journal is in PostgreSQL.

One row of the table `leader` says who leads: its epoch, its node, and a counter of the renewals of
its lease, as in Kubernetes' leader election. No clock is shared: the lease is over for a standby
that has not seen the counter change for its length, by the standby's monotonic clock, and for the
leader whose last renewal began so long ago by its own. The leader holds an advisory lock in the
session that stores, and a thread renews its lease through a session of its own. Who takes over ends
that session, takes the lock, and raises the epoch.

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

from simenv._version import __version__
from simenv.errors import JournalError, SimenvError
from simenv.service.journal.database import (
    FORMAT,
    LeadershipLost,
    PostgresPlace,
    Standby,
    check_format,
)

BEATS = 4  # renewals of the lease in its length
LISTED = 2  # renewals after which a leader lists a standby
MEMBER_S = 5.0  # a standby that was silent for so long, or a lease, has ended
LOCK_S = 5.0  # for the lock of a session that is ended
FREE_S = 1.0  # for that of a process that has just ended
STATE_CHARS = 300  # of what a standby lacks
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
  renewals bigint not null, lease_s double precision not null, state text not null,
  version text not null, settings text not null, tables bigint not null);
create table if not exists member(node text, pid bigint, address text, renewals bigint, state text,
  primary key(node, pid));
create or replace function fence(of_epoch bigint, number bigint, forced boolean) returns void
language plpgsql as $$ begin
  if not forced then perform set_config('synchronous_commit', 'off', true); end if;
  update leader set commits = number where epoch = of_epoch and state <> 'released';
  if not found then raise exception 'another service leads' using errcode = 'SIM01'; end if;
end $$;
"""
_LOCK = "'leader'::regclass::oid::bigint"


class HeldElsewhere(JournalError):
    """Another service leads the environment."""

    def __init__(self, place: PostgresPlace, leader: LeaderRow) -> None:
        super().__init__(
            f"process {leader.pid} on {leader.node} leads the environment {place}",
            hint="simenv up --standby waits for its end; simenv down ends it",
        )


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
    renewals: int  # of the lease
    lease_s: float
    state: str  # leads; released: another one may; stopped: the environment was ended
    version: str  # of simenv
    settings: str  # `PostgresPlace.settings`


class LeaseWatch:
    """Judgment of a lease by its renewals, as this process sees them."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._seen_s = 0.0

    def is_over(self, leader: LeaderRow) -> bool:
        """Return whether another service may lead, after a new look at the row."""
        now_s, seen = time.monotonic(), (leader.epoch, leader.renewals)
        if seen != self._seen:
            self._seen, self._seen_s = seen, now_s
        return leader.state != "leads" or now_s - self._seen_s > leader.lease_s


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
            "insert into leader select 1, 0, 0, $1::bigint, '', 0, 0, 0, 'released', '', '', 0"
            " where not exists (select 1 from leader)",
            [FORMAT],
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
        "select epoch, commits, node, pid, renewals, lease_s, state, version, settings from leader"
    ).fetchone()
    assert row is not None
    return LeaderRow(*row)


def await_leadership(session: Session, place: PostgresPlace) -> int:
    """Lead as soon as the leader has ended, and no other service does; return the epoch. Raises
    HeldElsewhere if the leader lives or another service was faster, LeadershipLost for a standby
    of an environment that was ended, psycopg.Error."""
    watch, first = LeaseWatch(), read_leader(session)
    is_over = watch.is_over(first)
    while not take_lock(session, by_force=is_over):
        leader = read_leader(session)
        if leader.renewals != first.renewals or leader.epoch != first.epoch or is_over:
            raise HeldElsewhere(place, leader)
        is_over = watch.is_over(leader)
    leader = read_leader(session)
    if place.is_standby and leader.state == "stopped":
        raise LeadershipLost(f"the environment {place} was ended")
    row = session.execute(
        "update leader set epoch = epoch + 1, commits = 0, node = $1, pid = $2, renewals = 0, "
        "lease_s = $3, state = 'leads', version = $4, settings = $5 "
        "where epoch = $6 and state = $7 returning epoch",
        [*_self(), place.lease_s, __version__, place.settings, leader.epoch, leader.state],
    ).fetchone()
    if row is None:
        raise HeldElsewhere(place, read_leader(session))
    session.execute("delete from member where node = $1 and pid = $2", _self())
    return int(row[0])


def release(session: Session, epoch: int) -> None:
    """Leave the lead to a standby, unless the environment was ended. Raises psycopg.Error."""
    query = "update leader set state = 'released' where epoch = $1 and state = 'leads'"
    session.execute(query, [epoch])


def end_environment(place: PostgresPlace) -> bool:
    """Store, for a leader that does not answer, that the environment is ended: no standby takes
    over, and the leader ends if it lives. Return whether it was not ended before. Raises
    JournalError."""
    try:
        with connect(place) as session:
            if session.execute("select to_regclass('leader')").fetchone() == (None,):
                return False
            # A leader that was stopped in a transaction has locked the row.
            take_lock(session, by_force=read_leader(session).state != "stopped")
            query = "update leader set state = 'stopped' where state <> 'stopped'"
            return bool(session.execute(query).rowcount)
    except psycopg.Error as error:
        raise unusable(place, error) from error


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
    service may lead now; "": none does. `is_ended`: the environment was ended by another process.
    `standbys`: at the last renewal. A server that cannot be reached ends nothing: while nobody can
    store, nobody can take over."""

    def __init__(self, place: PostgresPlace, epoch: int, since_s: float) -> None:
        """`since_s`: monotonic time before which it did not lead."""
        self.lost = ""
        self.is_ended = False
        self.standbys: tuple[Standby, ...] = ()
        self._place, self._epoch = place, epoch
        self._renewed_s = since_s
        self._members: dict[tuple[str, int], tuple[int, float]] = {}  # renewals, and since when
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    @property
    def is_doubtful(self) -> bool:
        """True if the lease may be over, and nobody knows yet."""
        return not self.lost and time.monotonic() - self._renewed_s > self._place.lease_s

    def _run(self) -> None:
        session: Session | None = None
        while not self.lost:
            try:
                session = session or connect(self._place)
                self._renew(session)
                self._look_for_standbys(session)
            except psycopg.Error:
                if session is not None:
                    session.close()
                session = None
            if self._stop.wait(self._place.lease_s / BEATS):
                break
        if session is not None:
            session.close()

    def _renew(self, session: Session) -> None:
        begun_s = time.monotonic()
        row = session.execute(
            "update leader set renewals = renewals + 1 where epoch = $1 and state <> 'released' "
            "returning state",
            [self._epoch],
        ).fetchone()
        if row is None:
            self.lost = "another service leads the environment"
            return
        self.is_ended = row[0] == "stopped"
        self._renewed_s = begun_s

    def _look_for_standbys(self, session: Session) -> None:
        rows = session.execute(
            "select node, pid, renewals, address, state from member order by node, pid"
        ).fetchall()
        now_s, silent_s = time.monotonic(), max(MEMBER_S, self._place.lease_s)
        before, self._members, standbys = self._members, {}, list[Standby]()
        for node, pid, renewals, address, state in rows:
            last = before.get((node, pid))
            since_s = last[1] if last is not None and last[0] == renewals else now_s
            if now_s - since_s > silent_s:
                session.execute("delete from member where node = $1 and pid = $2", [node, pid])
                continue
            self._members[node, pid] = renewals, since_s
            standbys.append(Standby(node, address, state))
        self.standbys = tuple(standbys)

    def stop(self) -> None:
        """End the thread, which may wait for the server."""
        self._stop.set()
        self._thread.join(timeout=1.0)


def wait_to_lead(
    place: PostgresPlace,
    address: str,
    is_ended: Callable[[], bool],
    assess: Callable[[LeaderRow], str],
    ready: Callable[[], None] | None = None,
) -> bool:
    """Wait, as a standby, until this process may lead. Returns False if the environment was ended,
    or this process. Raises JournalError or the error of `assess` if it cannot begin to wait.

    - `address`: at which it will listen for other machines, "" for none; the leader tells its
      clients
    - `is_ended`: polled; True ends the wait
    - `assess`: polled; returns or raises what it lacks to lead, which the leader shows, "": nothing
    - `ready`: called when it waits and the leader lists it. None: nobody waits for that; whatever
      is wrong may change, and is tried again.
    """
    session: Session | None = None
    watch, poll_s = LeaseWatch(), min(0.5, place.lease_s / BEATS)
    announced: LeaderRow | None = None  # the leader after the first announcement to it
    while not is_ended():
        try:
            if session is None:
                # Renewals that it could not see are none that were missing.
                session, watch = connect(place), LeaseWatch()
                create_leader(session, place)
            leader = read_leader(session)
            if leader.state == "stopped":
                if ready is not None:
                    text = f"the environment {place} was ended"
                    raise JournalError(text, hint="simenv up starts it; then come standbys")
                break
            if announced is not None and announced.epoch != leader.epoch:
                announced = None
            # It looks for standbys after each renewal: it has done so since once it renews again.
            is_listed = announced is not None and leader.renewals >= announced.renewals + LISTED
            _announce(session, address, _assessment(assess, leader, ready is None))
            announced = announced or read_leader(session)
            leads = watch.is_over(leader) and _replace(session, leader)
            if ready is not None and (is_listed or leads):
                ready()
                ready = None
            if leads:
                session.close()
                return True
        except (psycopg.Error, SimenvError) as error:
            if session is not None:
                session.close()
            session = None
            if isinstance(error, SimenvError):
                raise
            if ready is not None:
                raise unusable(place, error) from error
        time.sleep(poll_s)
    if session is not None:
        with suppress(psycopg.Error):
            session.execute("delete from member where node = $1 and pid = $2", _self())
        session.close()
    return False


def _assessment(assess: Callable[[LeaderRow], str], leader: LeaderRow, waits: bool) -> str:
    try:
        return assess(leader)
    except SimenvError as error:
        if not waits:
            raise
        return error.message


def _replace(session: Session, leader: LeaderRow) -> bool:
    """End the leadership of a leader whose lease is over. Returns False if it was renewed in the
    last moment, or the environment was ended. Raises psycopg.Error."""
    if leader.state == "released":
        return True
    take_lock(session, by_force=True)  # its session may have locked the row
    query = "update leader set state = 'released' where epoch = $1 and renewals = $2 and state = $3"
    values = [leader.epoch, leader.renewals, leader.state]
    replaced = bool(session.execute(query, values).rowcount)
    session.execute(f"select pg_advisory_unlock({_LOCK})")
    return replaced


def _self() -> list[object]:
    return [os.uname().nodename, os.getpid()]


def _announce(session: Session, address: str, state: str) -> None:
    session.execute(
        "insert into member values($1, $2, $3, 1, $4) on conflict(node, pid) do update set "
        "address = excluded.address, renewals = member.renewals + 1, state = excluded.state",
        [*_self(), address, state[:STATE_CHARS]],
    )


def unusable(place: PostgresPlace, error: Exception) -> JournalError:
    text = f"the journal {place} cannot be opened: {' '.join(str(error).split())}"
    return JournalError(text, hint="is the server up, and may this user create a schema there?")
