"""Who leads an environment whose journal is in PostgreSQL, and what a replaced leader can store."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
from failing import fails
from postgres_journal import new_place, stepped_server
from waiting import until

from simenv.errors import JournalError
from simenv.model import TaskState
from simenv.service.journal import leadership, postgres
from simenv.service.journal.accepted import AcceptedRow
from simenv.service.journal.database import LeadershipLost, PostgresPlace
from simenv.service.journal.postgres import PostgresDatabase
from simenv.service.journal.writer import Journal

LEASE_S = 1.0
MANY = 100  # rows of one commit, which are copied


@pytest.fixture
def place() -> Iterator[PostgresPlace]:
    with new_place(LEASE_S) as place:
        yield place


def accept(journal: Journal, first: int) -> None:
    journal.accept(AcceptedRow(first, 1, 1.5, "~auto", first, b"digest", b"routes", b"body"))


def firsts(journal: Journal) -> list[int]:
    return [row.first for row in journal.records.accepted.all()]


def database(journal: Journal) -> PostgresDatabase:
    assert isinstance(journal.database, PostgresDatabase)
    return journal.database


def stop_renewal(journal: Journal) -> None:
    """As of a process that is stopped, or whose node is cut off."""
    database(journal)._lease.stop()


def break_connection(place: PostgresPlace, broken: PostgresDatabase) -> None:
    with leadership.connect(place) as session:
        pid = broken._session.info.backend_pid
        session.execute("select pg_terminate_backend($1::int)", [pid])


def waited(place: PostgresPlace) -> bool:
    return leadership.wait_to_lead(place, "", lambda: False, lambda _: "")


def test_a_second_service_is_refused_while_the_first_leads(place: PostgresPlace) -> None:
    ready = threading.Event()
    assert not leadership.end_environment(place), "it was never started"
    assert leadership.wait_to_lead(place, "", lambda: False, lambda _: "", ready.set)
    assert ready.is_set(), "it leads at once"
    Journal(place, "accepted")
    fails(JournalError, "leads the environment", Journal, place, "accepted")


def test_standby_waits_for_end_of_lease_and_old_leader_is_fenced(place: PostgresPlace) -> None:
    old = Journal(place, "accepted")
    accept(old, 1)
    old.commit()
    leads = threading.Event()
    thread = threading.Thread(target=lambda: waited(place) and leads.set())
    thread.start()
    assert not leads.wait(2 * LEASE_S)  # it lives
    stop_renewal(old)  # its session, and the lock with it, stay
    assert leads.wait(20 * LEASE_S)
    thread.join()
    new = Journal(place, "accepted")
    assert new.epoch == old.epoch + 1
    accept(old, 2)
    accept(new, 2)
    fails(LeadershipLost, "another service leads", old.commit)
    fails(LeadershipLost, "another service leads", old.check_leadership)
    assert firsts(new) == [1]
    new.commit()
    assert firsts(new) == [1, 2]


def test_a_step_of_the_servers_clock_neither_ends_a_leader_nor_keeps_one() -> None:
    with stepped_server() as (url, step), new_place(LEASE_S, url) as place:
        journal, leads = Journal(place, "accepted"), threading.Event()
        accept(journal, 1)
        journal.commit()
        thread = threading.Thread(target=lambda: waited(place) and leads.set())
        thread.start()
        with leadership.connect(place) as session:
            for offset_s in (3600, 0, -3600):
                step(f"{offset_s:+d}")
                row = session.execute("select extract(epoch from clock_timestamp())").fetchone()
                assert abs(float(row[0]) - time.time() - offset_s) < 60.0, "it was not stepped"
                assert not leads.wait(LEASE_S / 2)  # the leader lives
        accept(journal, 2)
        journal.commit()
        stop_renewal(journal)
        step("-7200")
        assert leads.wait(20 * LEASE_S)
        thread.join()
        new = Journal(place, "accepted")
        assert firsts(new) == [1, 2]
        fails(LeadershipLost, "another service leads", journal.transaction("FULL").__enter__)


def test_a_leader_that_was_stopped_in_a_transaction_delays_nobody(place: PostgresPlace) -> None:
    old = Journal(place, "accepted")
    accept(old, 1)
    old.commit()

    def replaced() -> None:
        with old.transaction("FULL") as db:
            db.execute("delete from accepted")
            stop_renewal(old)
            assert waited(place)
            new = Journal(place, "accepted")
            accept(new, 2)
            new.commit()
            assert firsts(new) == [1, 2]

    fails(LeadershipLost, "another service leads", replaced)


@pytest.mark.parametrize("rows", [1, MANY])
def test_commit_of_an_older_epoch_stores_nothing(place: PostgresPlace, rows: int) -> None:
    journal = Journal(place, "accepted")
    with leadership.connect(place) as session:
        session.execute("update leader set epoch = epoch + 1")
    for first in range(1, rows + 1):
        accept(journal, first)
    fails(LeadershipLost, "another service leads", journal.commit)
    fails(LeadershipLost, "another service leads", journal.index, [(1, 1, 1)], 1)
    with leadership.connect(place) as session:
        assert session.execute("select count(*) from accepted").fetchone() == (0,)


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_whose_connection_breaks_is_stored_once(
    place: PostgresPlace, when: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(place, "accepted")
    store, broken = PostgresDatabase._store, []

    def breaking(self: PostgresDatabase, *args: object) -> None:
        is_first = not broken
        broken.append(1)
        if when == "after" and is_first:
            store(self, *args)  # type: ignore[arg-type]
        if is_first:
            break_connection(place, self)
        if when == "before" or not is_first:
            store(self, *args)  # type: ignore[arg-type]
        else:
            self.execute("update leader set lease_s = lease_s")  # it finds that it is broken

    monkeypatch.setattr(PostgresDatabase, "_store", breaking)
    for first in range(1, rows + 1):
        accept(journal, first)
    journal.finish(1, [TaskState.DONE], b"completed")
    journal.commit()
    assert firsts(journal) == list(range(1, rows + 1))
    assert len(broken) == (2 if when == "before" else 1)
    accept(journal, rows + 1)
    journal.commit()
    break_connection(place, database(journal))
    assert firsts(journal)[-1] == rows + 1, "queries survive it, too"


def test_query_in_transaction_whose_connection_breaks_is_not_repeated(place: PostgresPlace) -> None:
    journal = Journal(place, "accepted")

    def broken() -> None:
        with journal.transaction("FULL") as db:
            break_connection(place, database(journal))
            journal.records.meta("first")
            db.execute("insert into meta values('second', 1)")

    fails(JournalError, "terminating connection", broken)
    assert journal.records.meta("second") == 0
    accept(journal, 1)
    journal.commit()
    assert firsts(journal) == [1]


def test_ended_leader_is_followed_at_once_stopped_environment_never(place: PostgresPlace) -> None:
    with new_place(600.0) as place:
        first = Journal(place, "accepted")
        first.close()
        begun = time.monotonic()
        assert waited(place)
        second = Journal(place, "accepted")
        assert time.monotonic() - begun < 60.0  # not the lease
        second.database.end_standbys()
        second.close()
        assert not waited(place)
        assert Journal(place, "accepted").epoch == 3  # `simenv up` leads again


def test_a_leader_that_cannot_renew_its_lease_stops_by_its_own_clock(
    place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "RECONNECT_S", 0.1)
    journal = Journal(place, "accepted")
    with leadership.connect(place) as session, session.transaction():
        session.execute("select 1 from leader for update")  # a renewal waits for this
        until(lambda: database(journal)._lease.is_doubtful)
        fails(LeadershipLost, "the lease is over", journal.check_leadership)


def test_end_is_stored_over_broken_connection_and_no_standby_follows(place: PostgresPlace) -> None:
    journal = Journal(place, "accepted")
    break_connection(place, database(journal))
    journal.database.end_standbys()
    database(journal).abandon()
    assert not waited(place)


def test_an_end_that_another_process_stores_ends_leader_and_standbys(place: PostgresPlace) -> None:
    journal = Journal(place, "accepted")

    def stopped_in_a_transaction() -> None:
        with journal.transaction("FULL") as db:
            db.execute("delete from accepted")
            assert leadership.end_environment(place)
            assert not leadership.end_environment(place)  # it was already

    fails(Exception, "", stopped_in_a_transaction)
    assert not waited(place)
    until(lambda: journal.database.is_ended)
    accept(journal, 1)
    journal.commit()  # until it has ended
    journal.close()
    late = msgspec.structs.replace(place, is_standby=True)
    fails(LeadershipLost, "was ended", Journal, late, "accepted")
    assert firsts(Journal(place, "accepted")) == [1]


def test_standbys_of_ended_environment_or_other_format_are_refused(place: PostgresPlace) -> None:
    def begin() -> None:
        leadership.wait_to_lead(place, "", lambda: False, lambda _: "", lambda: None)

    journal = Journal(place, "accepted")
    journal.database.end_standbys()
    fails(JournalError, "was ended", begin)
    with leadership.connect(place) as session:
        session.execute("update leader set format = format + 1")
    fails(JournalError, "this build reads", begin)


def test_standbys_are_shown_with_what_they_lack_until_they_are_silent(
    place: PostgresPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leadership, "MEMBER_S", LEASE_S)
    journal, ends, lacks = Journal(place, "accepted"), threading.Event(), ["kernels"]

    def waits() -> None:
        leadership.wait_to_lead(place, "tcp://a:1", ends.is_set, lambda _: lacks[0])

    thread = threading.Thread(target=waits)
    thread.start()
    until(lambda: [s.state for s in journal.database.standbys] == ["kernels"])
    lacks[0] = ""
    until(lambda: [s.state for s in journal.database.standbys] == [""])
    ends.set()
    thread.join()
    until(lambda: not journal.database.standbys)
    with leadership.connect(place) as session:
        leadership._announce(session, "", "")  # of one that dies then
    until(lambda: journal.database.standbys)
    until(lambda: not journal.database.standbys)


def test_standby_is_ready_when_the_leader_lists_it(place: PostgresPlace) -> None:
    leader, ready = Journal(place, "accepted"), threading.Event()
    ended = threading.Event()

    def listed() -> None:
        assert [each.address for each in database(leader).standbys] == ["tcp://here:1"]
        ready.set()

    def wait() -> bool:
        return leadership.wait_to_lead(place, "tcp://here:1", ended.is_set, lambda _: "", listed)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        until(lambda: ready.is_set() or waiting.done())
        ended.set()
        assert not waiting.result(60)
    assert ready.is_set()
