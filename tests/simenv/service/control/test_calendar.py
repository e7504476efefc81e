"""Planned maintenance and reservations: in the scheduler with a clock of the test, and in a
service."""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from failing import fails
from live import PATIENCE_S, Live, environment
from waiting import until

from simenv.errors import LimitExceededError, NotFoundError, OptionError, SimenvError
from simenv.model.reservations import MAX_OWNED, CalendarEntry, ReservationRequest
from simenv.scheduler.state.maintenance import Calendar
from simenv.service.journal import tables
from simenv.wire.messages import admin

DAY_S = 86_400.0
QASM = "OPENQASM 2.0;include 'qelib1.inc';qreg q[2];creg c[2];h q[0];cx q[0],q[1];measure q->c;"


@pytest.mark.parametrize(
    ("every_s", "now_s", "begin_s"),
    [
        (100.0, 0.0, 100.0), (100.0, 105.0, 100.0), (100.0, 110.0, 200.0), (100.0, 250.0, 300.0),
        (0.0, 109.9, 100.0), (0.0, 110.0, None),
    ],
)  # fmt: skip
def test_single_entry_ends_and_a_regular_one_has_an_occurrence_each_interval(
    every_s: float, now_s: float, begin_s: float | None
) -> None:
    expected = None if begin_s is None else (begin_s, begin_s + 10.0)
    assert CalendarEntry(100.0, 10.0, every_s).occurrence(now_s) == expected


def local(zone: str, *moment: int) -> float:
    return datetime(*moment, tzinfo=ZoneInfo(zone)).timestamp()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("days", "first", "now", "expected"),
    [
        (1, (2026, 3, 28, 2, 0), (2026, 3, 29, 12, 0), (2026, 3, 30, 2, 0)),
        (7, (2026, 3, 1, 9, 0), (2026, 4, 1, 0, 0), (2026, 4, 5, 9, 0)),
        (7, (2026, 10, 20, 9, 0), (2026, 10, 27, 8, 59), (2026, 10, 27, 9, 0)),
        (28, (2026, 1, 3, 3, 0), (2026, 12, 1, 0, 0), (2026, 12, 5, 3, 0)),
        (1, (2026, 3, 28, 2, 30), (2026, 3, 28, 4, 0), (2026, 3, 29, 3, 30)),  # clocks skip 2:30
        (0.5, (2026, 3, 28, 12, 0), (2026, 3, 29, 13, 0), (2026, 3, 29, 13, 0)),
    ],
)
def test_days_are_counted_by_local_clocks_and_intervals_of_hours_are_not(
    days: float, first: tuple[int, ...], now: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    zone = "Europe/Berlin"
    entry = CalendarEntry(local(zone, *first), 60.0, days * DAY_S, zone=zone)
    begin_s = local(zone, *expected)
    assert entry.occurrence(local(zone, *now)) == (begin_s, begin_s + 60.0)
    assert entry.occurrence(begin_s + 59.0) == (begin_s, begin_s + 60.0)
    assert entry.last_end_s(begin_s + 60.0) == begin_s + 60.0


@pytest.mark.parametrize("zone", ["", "UTC", "Europe/Berlin"])
def test_occurrences_of_a_year_follow_one_another(zone: str) -> None:
    first_s = local("Europe/Berlin", 2026, 1, 1, 2, 30)
    entry = CalendarEntry(first_s, 3_600.0, DAY_S, zone=zone)
    now_s, begins = first_s, []
    for _ in range(365):
        found = entry.occurrence(now_s)
        begins.append(found[0])
        now_s = found[1]
        assert entry.last_end_s(now_s) == now_s
    hours = Counter(round((b - a) / 3_600, 6) for a, b in itertools.pairwise(begins))
    assert hours == ({24.0: 362, 25.0: 1, 23.0: 1} if zone == "Europe/Berlin" else {24.0: 364})


@pytest.mark.parametrize(
    ("wait_s", "run_s", "expected_s"),
    [
        (10.0, 5.0, 10.0),  # it ends before
        (98.0, 5.0, 200.0),  # it would not
        (150.0, 5.0, 250.0),  # behind those before it
        (0.0, 200.0, 200.0),
    ],
)
def test_starts_are_delayed_by_maintenance(wait_s: float, run_s: float, expected_s: float) -> None:
    calendar = Calendar()
    calendar.add(CalendarEntry(1_100.0, 100.0, id=1))
    now_ns = 5_000_000_000
    calendar.set_windows([], 1_000_000_000_000, now_ns)
    assert calendar.delayed_us(now_ns, wait_s * 1e6, run_s * 1e6) == expected_s * 1e6
    later_ns = now_ns + 150_000_000_000  # under way
    assert calendar.delayed_us(later_ns, 1e6, 1e6) == 51e6
    assert calendar.delayed_us(later_ns + 60_000_000_000, 1e6, 1e6) == 1e6


@pytest.mark.parametrize(
    ("nodes", "expected_s"),
    [
        (["n1", "n2"], [(150, 200)]),  # the second by both entries, the first by one
        (["n1"], [(100, 200)]),  # all that there are
        (["n1", "n2", "n3"], []),
        (["n2"], [(150, 250), (300, 350)]),
        ([], []),
    ],
)
def test_starts_are_delayed_while_all_nodes_are_in_maintenance(
    nodes: list[str], expected_s: list[tuple[int, int]]
) -> None:
    calendar = Calendar()
    calendar.add(CalendarEntry(1_100.0, 100.0, node="n1", id=1))
    calendar.add(CalendarEntry(1_150.0, 60.0, node="n2", id=2))
    calendar.add(CalendarEntry(1_200.0, 50.0, node="n2", id=3))
    calendar.add(CalendarEntry(1_300.0, 50.0, node="n2", id=4))
    calendar.set_windows(nodes, 1_000_000_000_000, 0)
    assert calendar.windows == tuple((a * 10**9, b * 10**9) for a, b in expected_s)


def test_node_that_is_used_again_ends_the_window_of_this_occurrence_alone() -> None:
    calendar = Calendar()
    calendar.add(CalendarEntry(1_000.0, 100.0, every_s=3_600.0, id=1))
    calendar.under_way[1] = 1_100.0, ("n2",)  # n1: drained by hand before, or it joined later
    calendar.release_node("n1")
    calendar.set_windows(["n1", "n2"], 1_050_000_000_000, 0)
    assert calendar.windows[0] == (3_550 * 10**9, 3_650 * 10**9)
    calendar.set_windows(["n2"], 1_050_000_000_000, 0)
    assert calendar.windows[0] == (-50 * 10**9, 50 * 10**9)
    calendar.release_node("n2")
    assert calendar.entries[1].released == ("n1", "n2")
    calendar.under_way[1] = 4_700.0, ("n2",)
    calendar.release_node("n2")
    assert calendar.entries[1].released == ("n2",)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with environment() as up:
        yield up


@pytest.mark.parametrize("is_named", [False, True])
def test_nodes_are_drained_and_used_again_at_their_times(live: Live, is_named: bool) -> None:
    with live.client() as client:
        (node,) = client.nodes()
        client.submit(QASM, shots=10).result(timeout_s=PATIENCE_S)
        named = {"node": node} if is_named else {}
        entry = client.calendar.plan_maintenance(
            start_s=time.time() + 0.5, for_s=3.0, reason="new kernel", **named
        )
        assert [each.id for each in client.calendar] == [entry.id]
        until(lambda: client.nodes()[node].state == "drained", PATIENCE_S)
        assert client.nodes()[node].reason == "maintenance: new kernel"
        task = client.submit(QASM, shots=10)
        assert 0.0 < task.expected_start - time.time() <= 4.0
        (reason,) = [each.reason for each in client.queue()[1] if each.id == task.id]
        assert reason.startswith(f"no node is in use: {node} (drained: maintenance: new")
        task.result(timeout_s=PATIENCE_S)
        assert client.nodes()[node].state == "up"
        assert list(client.calendar) == []


def test_long_task_waits_for_the_end_of_maintenance_and_says_so(live: Live) -> None:
    with live.client() as client:
        entry = client.calendar.plan_maintenance(start_s=time.time() + 30.0, for_s=60.0)
        long = client.submit(
            "OPENQASM 2.0;include 'qelib1.inc';qreg q[24];creg c[24];"
            + "".join(f"ry(0.{k}) q;cx q[{k % 23}],q[{k % 23 + 1}];" for k in range(1, 3000))
            + "measure q->c;",
            shots=10,
        )
        short = client.submit(QASM, shots=10)
        assert sum(short.result(timeout_s=PATIENCE_S).counts.values()) == 10
        (reason,) = [each.reason for each in client.queue()[1] if each.id == long.id]
        assert reason.startswith("maintenance begins in ")
        client.calendar.remove(entry.id)
        until(lambda: str(long.state) == "RUNNING", PATIENCE_S)
        long.cancel()
        long.wait(timeout_s=PATIENCE_S)


@pytest.mark.parametrize("is_named", [False, True])
def test_node_that_is_used_again_in_its_maintenance_stays_so(live: Live, is_named: bool) -> None:
    with live.client() as client:
        (node,) = client.nodes()
        entry = client.calendar.plan_maintenance(
            start_s=time.time(), for_s=600.0, every_s=DAY_S, node=node if is_named else ""
        )
        until(lambda: client.nodes()[node].state == "drained", PATIENCE_S)
        waiting = client.submit(QASM, shots=10)
        until(lambda: waiting.expected_start is not None, PATIENCE_S)
        assert waiting.expected_start == pytest.approx(entry.begin_s + 600.0, abs=60.0)
        client.undrain(node)
        waiting.result(timeout_s=PATIENCE_S)
    live.crash()
    live.up()
    with live.client() as client:
        assert client.nodes()[node].state == "up"
        client.submit(QASM, shots=10).result(timeout_s=PATIENCE_S)
        client.calendar.remove(entry.id)


def test_node_that_is_drained_in_its_maintenance_stays_so(live: Live) -> None:
    with live.client() as client:
        (node,) = client.nodes()
        client.calendar.plan_maintenance(start_s=time.time(), for_s=1.5)
        until(lambda: client.nodes()[node].state == "drained", PATIENCE_S)
        client.drain(node, "broken disk")
        until(lambda: not list(client.calendar), PATIENCE_S)
        assert client.nodes()[node].reason == "broken disk"
        client.undrain(node)


def test_calendar_survives_a_restart_and_numbers_are_not_used_twice(live: Live) -> None:
    with live.client() as client:
        plan, later_s = client.calendar.plan_maintenance, time.time() + DAY_S
        kept = plan(start_s=later_s, for_s=60.0, every_s=7 * DAY_S)
        gone = plan(start_s=later_s, for_s=60.0)
        client.calendar.remove(gone.id)
    live.crash()
    live.up()
    with live.client() as client:
        assert list(client.calendar) == [kept]
        assert client.calendar.plan_maintenance(start_s=later_s, for_s=60.0).id > gone.id
        for each in client.calendar:
            client.calendar.remove(each.id)


def test_planned_reservation_is_made_at_its_time(live: Live) -> None:
    with live.client() as client:
        entry = client.reserve("main", count=2, qubits=2, for_s=60.0, start_s=time.time() + 0.5)
        assert isinstance(entry, CalendarEntry)
        assert entry.kind == "reservation"
        assert client.reservations() == []
        until(lambda: bool(client.reservations()), PATIENCE_S)
        (found,) = client.reservations()
        assert (found.device, found.state) == ("main", "active")
        assert list(client.calendar) == []
        client.reservation(found.id).release()


def passed(live: Live) -> None:
    """Wait until the service has looked at all entries that were there before."""
    with live.client() as client:
        client.reserve("main", count=1, qubits=2, for_s=60.0, start_s=time.time())
        until(lambda: any(each.state == "active" for each in client.reservations()), PATIENCE_S)
        for each in client.reservations():
            if each.state == "active":
                client.reservation(each.id).release()


def test_released_occurrence_is_not_made_again_after_a_restart(live: Live) -> None:
    with live.client() as client:
        entry = client.reserve(
            "main", count=2, qubits=2, for_s=600.0, start_s=time.time(), every_s=3_600.0
        )

        def made() -> list[int]:
            source = "calendar", str(entry.id)
            return [each.id for each in client.reservations() if source in each.metadata]

        first = until(made, PATIENCE_S)
        client.reservation(first[0]).release()
    live.crash()
    live.up()
    passed(live)
    with live.client() as client:
        assert made() == first
        events = client.history.events(kinds=["reservation.missed"])
        assert [each for each in events if f"entry {entry.id} " in each.message] == []
        client.calendar.remove(entry.id)


def test_occurrence_for_which_there_was_no_service_is_an_event(live: Live) -> None:
    begun_s = time.time() - 7_200.0
    with live.client() as client:
        entry = client.reserve(
            "main", count=2, qubits=2, for_s=600.0, start_s=begun_s, every_s=3_605.0
        )
        assert entry.decided_s == pytest.approx(time.time(), abs=60.0)
    pid = live.service().pid
    live.kill_service()
    live.wait_dead(pid)
    missed = msgspec.structs.replace(entry, decided_s=begun_s + 1.0)
    db = sqlite3.connect(live.home / "journal.db")
    db.execute(*next(iter(tables.calendar_statements({entry.id: missed}, entry.id + 1))))
    db.commit()
    db.close()
    live.up()
    with live.client() as client:
        (event,) = until(lambda: list(client.history.events(kinds=["reservation.missed"])))
        assert f"entry {entry.id} " in event.message
        client.calendar.remove(entry.id)


def test_reservations_of_one_owner_are_bounded_and_end_with_the_owner() -> None:
    calendar = Calendar()
    for number in range(1, MAX_OWNED + 1):
        calendar.add(CalendarEntry(1.0, 1.0, ask=ReservationRequest(), owner="ana", id=number))
    more = CalendarEntry(1.0, 1.0, ask=ReservationRequest(), owner="ana", id=99)
    fails(LimitExceededError, "'ana' has planned 50 reservations", calendar.add, more)
    calendar.add(msgspec.structs.replace(more, owner="ben"))
    calendar.remove_owned("ana")
    assert [entry.owner for entry in calendar.entries.values()] == ["ben"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"start_s": 1.0}, OptionError),
        ({"start_s": time.time(), "for_s": 0.0}, OptionError),
        ({"start_s": time.time(), "every_s": 1.0}, OptionError),
        ({"start_s": time.time(), "for_s": 90.0, "every_s": 61.0}, OptionError),
        ({"start_s": time.time() + 9e9}, OptionError),
        ({"node": "nowhere"}, NotFoundError),
        ({"zone": "Mars/Base"}, OptionError),
        ({"zone": "../passwd"}, OptionError),
    ],
)
def test_wrong_entries_are_refused(
    live: Live, fields: dict[str, Any], error: type[Exception]
) -> None:
    given = {"start_s": time.time() + DAY_S, "for_s": 60.0, **fields}
    with live.client() as client:
        fails(error, "", client.calendar.plan_maintenance, **given)
        fails(NotFoundError, "", client.calendar.remove, 999)
        assert list(client.calendar) == []


def test_wrong_planned_reservations_are_refused(live: Live) -> None:
    with live.client() as client:
        for node, ask in (
            ("n1\0", ReservationRequest(device="main")),
            ("", ReservationRequest(device="main", job="j" * 16_000)),
            ("", ReservationRequest(device="nothing")),
        ):
            entry = CalendarEntry(time.time() + DAY_S, 60.0, node=node, ask=ask)
            fails(SimenvError, "", client.session.request, admin.AddCalendarEntry(0, entry=entry))
