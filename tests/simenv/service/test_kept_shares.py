"""Kept results by owner: a limit each, the largest share gives first, a reserve of the disk."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from memory_transport import MemoryConnection
from reservation_harness import ReservationHarness
from service import program, result_of, spec
from waiting import until

from simenv.model import task_name
from simenv.service.results import retention as event_retention
from simenv.service.results.retention import (
    GIB,
    SMALL_BYTES,
    SPARE_BYTES,
    SPARE_NAME,
    DiskReserve,
)  # fmt: skip
from simenv.wire.messages import client as m
from simenv.wire.messages.accounting import GetLimits, OwnerReports, SetLimits
from simenv.wire.messages.admin import Release


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., ReservationHarness]]:
    """A service with a worker, and a thread for results, with these options."""
    with ExitStack() as stack:

        def start(**options: object) -> ReservationHarness:
            office = ReservationHarness(tmp_path, **options)
            office.join()
            office.loop.result_requests.start()
            stack.callback(lambda: office.loop.result_requests.stop())
            return office

        yield start


@pytest.fixture
def office(made: Callable[..., ReservationHarness]) -> ReservationHarness:
    return made()


def end(office: ReservationHarness, peer: MemoryConnection, count: int, size: int) -> list[int]:
    """So many tasks of one client end with a result of that size, each in a message of its own."""
    entries = []
    for seed in range(count):
        entries.append(office.submit(spec(seed), key=f"~{seed}-{size}", peer=peer).first)
        office.finish(office.assigned(), payload=result_of(size))
    return entries


def kept(office: ReservationHarness) -> dict[str, int]:
    reports = office.get(OwnerReports, GetLimits(1)).owners
    return {report.owner: report.use.kept_bytes for report in reports}


def has(office: ReservationHarness, number: int) -> bool:
    return bool(office.get(m.Queue, m.GetTasks(1, [number])).tasks)


def test_results_above_limit_of_owner_are_removed_oldest_first(office: ReservationHarness) -> None:
    hers = end(office, office.ana, 5, 10_000)
    his = end(office, office.ben, 5, 20_000)
    office.get(OwnerReports, SetLimits(1, "ana", {"max_kept_bytes": 25_000}), office.ops)
    assert office.collected(dry=True).freed.tasks == 3
    assert all(has(office, number) for number in hers), "a dry run removes nothing"
    office.collected()
    assert [has(office, number) for number in hers] == [False] * 3 + [True] * 2
    assert all(has(office, number) for number in his)
    assert kept(office)["ana"] < 25_000 < 100_000 < kept(office)["ben"]


def test_results_of_owner_with_largest_use_are_removed_first(
    made: Callable[..., ReservationHarness],
) -> None:
    office = made(results={"keep_gib": 0.001})
    result = end(office, office.peer, 3, 20_000)
    his = end(office, office.ben, 3, 20_000)
    hers = end(office, office.ana, 12, 100_000)
    office.collected()
    assert all(has(office, number) for number in result + his)
    assert not has(office, hers[0])


def test_stored_submissions_count_and_evict_no_others(
    made: Callable[..., ReservationHarness],
) -> None:
    """Tasks that were cancelled at once have hardly a result, but their programs are kept."""
    office = made(results={"keep_gib": 0.0025})
    hers = end(office, office.ana, 10, 40_000)
    large = program(3000).packed()
    for number in range(60):
        accepted = office.submit(spec(program=large), key=f"~b{number}", peer=office.ben)
        office.say(m.Cancel(6, [accepted.first]), office.ben)
    before = kept(office)
    assert before["ben"] > 60 * len(large)
    office.collected()
    assert all(has(office, number) for number in hers)
    after = kept(office)
    assert after["ana"] == before["ana"]
    assert 500_000 < after["ben"] < before["ben"]
    office.begin_again()
    assert kept(office) == after


def test_submission_that_was_not_stored_does_not_count(office: ReservationHarness) -> None:
    before = kept(office).get("ben")
    fault = sqlite3.OperationalError("database or disk is full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(office.journal._rows, "statements", raising(fault))
        assert isinstance(office.submit(peer=office.ben), m.Refused)
    office.step()
    assert kept(office).get("ben") == before


def raising(error: Exception) -> Callable[[], None]:
    def fails() -> None:
        raise error

    return fails


def swept_events(office: ReservationHarness, before_s: float = 0.0) -> None:
    old = event_retention.EventRemoval(office.journal)
    old.begin(before_s)
    while old.step():
        pass


def test_audit_entries_stay(office: ReservationHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    before = office.events("audit")
    assert before
    monkeypatch.setattr(event_retention, "MAX_EVENTS", 0)
    swept_events(office, time.time() + 1)
    assert office.events("audit") == before
    assert len(office.events()) == len(before) + 1  # and the newest of all


def test_audit_log_is_bounded(office: ReservationHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_retention, "MAX_AUDIT_EVENTS", 3)
    for number in range(6):
        office.get(OwnerReports, SetLimits(1, "ana", {"max_priority": number}), office.ops)
    swept_events(office)
    texts = [each.message.partition(";")[0] for each in office.events("audit")]
    assert texts == [f"max_priority = {number}" for number in (3, 4, 5)]


def test_events_are_bounded(office: ReservationHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing else is removed: no task has ended yet."""
    others = [e for e in office.events() if not e.is_of(["reservation"])]
    monkeypatch.setattr(event_retention, "MAX_OWNER_EVENTS", 5)
    for _ in range(10):
        result = office.reserve(peer=office.ana)
        office.say(Release(1, result.reservation), office.ana)
    office.reserve(peer=office.ben)
    assert len(office.events("reservation")) > 15
    retention = office.loop.result_requests._retention
    retention._next_poll_ns = 0
    office.loop.run_once(timeout_s=0.0)
    while retention._forgetting:
        office.loop.run_once(timeout_s=0.0)
    assert [e for e in office.events() if e in others] == others
    owners = [row[0] for row in office.journal.records.rows("select owner from event")]
    assert (owners.count("ana"), owners.count("ben")) == (5, 1)
    monkeypatch.setattr(event_retention, "MAX_OWNERS_EVENTS", 4)  # of all users together
    swept_events(office)
    owners = [row[0] for row in office.journal.records.rows("select owner from event")]
    assert (owners.count("ana"), owners.count("ben")) == (2, 1)


def test_events_older_than_history_are_removed_but_the_newest(office: ReservationHarness) -> None:
    number = office.loop.executor.next_event
    office.loop.executor.record_event("a.kind", "subject", "the newest: its number stays")
    office.step()
    swept_events(office, time.time() + 1)
    assert [e.seq for e in office.events() if not e.is_of(["audit"])] == [number]


def reserve(free: float, kept_free: float = -1.0, total: float = 100.0) -> DiskReserve:
    sizes = round(total * GIB), round(free * GIB)
    return DiskReserve(Path("/nowhere"), kept_free, lambda _: sizes)


@pytest.mark.parametrize(
    ("total", "free", "lacking"),
    [(100.0, 6.0, 0.0), (100.0, 4.0, 1.0), (10.0, 0.75, 0.25), (2_000.0, 60.0, 40.0)],
)
def test_reserve_is_a_twentieth_or_a_gib(total: float, free: float, lacking: float) -> None:
    assert reserve(free, total=total).lacking_bytes() == round(lacking * GIB)


def test_owner_with_large_use_is_refused_first_below_disk_reserve_as_the_warning_says() -> None:
    low = reserve(4.0)
    assert low.refusal("", 10 * GIB) is None
    assert low.refusal("ben", SMALL_BYTES) is None
    result = low.refusal("ana", 2 * GIB)
    for each in ("4.0 GiB", "5.0 GiB", "'ana' keeps 2.0 GiB"):
        assert each in result.message
    assert "simenv prune" in result.hint
    assert reserve(1.0).refusal("ben", 0) is not None
    assert reserve(1.0).refusal("", 0) is None
    assert reserve(6.0).refusal("ana", 90 * GIB) is None
    assert reserve(1.0, kept_free=0.0).refusal("ana", GIB) is None
    for free, has_users, words in (
        (4.0, True, "the disk of /nowhere has 4.0 GiB free, 5.0 GiB are kept free"),
        (4.0, True, "new tasks of users who store more than 256.0 MiB are refused"),
        (1.0, True, "new tasks of all users are refused"),
        (0.01, False, "new tasks are refused when it is full"),
        (0.01, False, "simenv prune"),
    ):
        assert words in reserve(free).problem(has_users=has_users)
    assert reserve(6.0).problem(has_users=True) == reserve(1.0).problem(has_users=False) == ""


def test_half_of_the_spare_file_is_for_removals_only(tmp_path: Path) -> None:
    sizes = [100 * GIB, 50 * GIB]
    disk = DiskReserve(tmp_path, -1.0, lambda _: (sizes[0], sizes[1]))
    disk.start()
    spare = tmp_path / SPARE_NAME
    assert spare.stat().st_size == 2 * SPARE_BYTES
    assert [disk.release() for _ in range(2)] == [True, False]
    assert (spare.stat().st_size, disk.spent) == (SPARE_BYTES, True)
    assert [disk.release(for_removal=True) for _ in range(2)] == [True, False]
    assert not spare.exists()
    disk.restore()
    assert (spare.stat().st_size, disk.spent) == (2 * SPARE_BYTES, False)


def test_checkpoints_count_as_results_of_their_owner(office: ReservationHarness) -> None:
    number = office.submit(peer=office.ana).first
    submitted = kept(office)["ana"]
    folder = office.loop.result_requests.root / "kept" / task_name(number)
    folder.mkdir(parents=True)
    (folder / "rank0").write_bytes(bytes(70_000))
    office.loop.result_requests._next_poll_ns = 0
    taken = 512 * (folder / "rank0").stat().st_blocks  # on the disk
    run_once, wanted = office.loop.run_once, taken + submitted
    until(lambda: run_once(timeout_s=0.002) or kept(office)["ana"] == wanted)
