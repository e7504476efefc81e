"""Jobs in the journal survive, belong to one owner, change in order, and stay within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from time import time
from typing import Any, cast

import msgspec
import postgres_journal
import pytest
from failing import fails
from stored_jobs import StoredJobs

from simenv.client.jobs import JobRecords
from simenv.errors import (
    InsufficientError,
    KeyConflictError,
    NotAllowedError,
    NotFoundError,
    OptionError,
    ProtocolError,
    QueueFullError,
)  # fmt: skip
from simenv.model.jobs import BLOB_PART_BYTES, MAX_METADATA_BYTES, JobRecord, JobSelector
from simenv.service.jobs import store as stores
from simenv.service.journal.pruning import JournalPruner
from simenv.service.journal.tables import JOB_BLOB
from simenv.wire import codec
from simenv.wire.messages.jobs import Jobs, ListJobs
from simenv.wire.rights import Identity, Role

DAY_S = 86_400.0


@pytest.fixture(params=["sqlite", "postgresql"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoredJobs]:
    with ExitStack() as stack:
        is_file = request.param == "sqlite"
        place = tmp_path / "j.db" if is_file else stack.enter_context(postgres_journal.new_place())
        yield stack.enter_context(closing(StoredJobs(place)))


@pytest.fixture
def jobs(stored: StoredJobs) -> JobRecords:
    return stored.of("ana")


def job(number: str, **fields: Any) -> JobRecord:
    return JobRecord(number, fields.pop("kind", "ibm"), **fields)


NOW_S = time()


def end(
    jobs: JobRecords, number: str, ended_s: float = NOW_S, removed: tuple[str, ...] = ()
) -> None:
    jobs.change(number, lambda old: msgspec.structs.replace(old, ended_s=ended_s), removed)


def ids(jobs: JobRecords, **fields: Any) -> list[str]:
    return [each.id for each in jobs.listed(JobSelector(("ibm",), **fields))[0]]


def total(stored: StoredJobs) -> int:
    """Bytes of all jobs, as counted and as summed, which are equal."""
    rows = stored.journal.records.rows
    query = "select count(*), coalesce(sum(bytes), 0) from job"
    heads = "select coalesce(sum(length(tasks) + length(metadata)), 0), 0 from job"
    blobs = "select coalesce(sum(length(data)), 0), count(distinct job) from job_blob"
    asked = stored.call(lambda: [next(rows(each)) for each in (query, heads, blobs)])
    (count, size), (head_bytes, _), (blob_bytes, with_data) = asked
    assert size == head_bytes + blob_bytes
    assert with_data <= count
    counted = stored.journal.job_bytes, sum(size for _, size in stored.jobs._use.values())
    assert counted == (size, size)
    assert sum(count for count, _ in stored.jobs._use.values()) == count
    return int(size)


@pytest.mark.parametrize(
    "size", [0, 100, BLOB_PART_BYTES, BLOB_PART_BYTES + 1, 3 * BLOB_PART_BYTES + 7]
)
def test_a_job_and_its_data_survive_a_crash(stored: StoredJobs, size: int) -> None:
    params = bytes(range(256)) * (size // 256) + bytes(size % 256)
    tasks = ("t-1", 0), ("t-2", 3)
    made = stored.of().add(
        job("a", labels=("tag=x",), tasks=tasks, metadata=b"meta"),
        {"params": memoryview(params), "noise": b"document"},
    )
    stored.restart()
    found = stored.of().get("a")
    assert found == made
    assert (found.labels, found.tasks, found.metadata) == (("tag=x",), tasks, b"meta")
    assert stored.of().data("a", "params") == params
    assert stored.of().data("a", "noise") == b"document"
    assert stored.of().data("a", "other") == b""
    assert ids(stored.of()) == ["a"]


def test_no_other_owner_finds_changes_or_counts_a_job(stored: StoredJobs) -> None:
    ana, ben, own = (stored.of(user) for user in ("ana", "ben", ""))
    ana.add(job("a", metadata=b"mine"), {"params": b"secret"})
    for other in (ben, own):
        fails(NotFoundError, "", other.get, "a")
        fails(NotFoundError, "", other.data, "a", "params")
        fails(NotFoundError, "", other.append, "a", "params", b"more")
        other.remove("a")
        assert ids(other) == []
    ben.add(job("a", metadata=b"another"), {})
    assert [each.get("a").metadata for each in (ana, ben)] == [b"mine", b"another"]
    assert ana.data("a", "params") == b"secret"


def test_a_repeated_message_has_no_effect(jobs: JobRecords, stored: StoredJobs) -> None:
    """As after the loss of an answer."""
    first = jobs.add(job("a", metadata=b"m"), {"params": b"1"})
    assert jobs.add(job("a", metadata=b"m"), {"params": b"1"}) == first
    assert jobs.data("a", "params") == b"1"
    jobs._append_from("a", "result", b"xy", 0, 0)
    jobs._append_from("a", "result", b"xy", 0, 0)
    assert jobs.data("a", "result") == b"xy"
    fails(OptionError, "the end of result", jobs._append_from, "a", "result", b"z", 0, 7)
    fails(KeyConflictError, "", jobs.add, job("a", metadata=b"other"), {})
    jobs.remove("a")
    jobs.remove("a")
    assert total(stored) == 0


def test_a_change_of_an_outdated_job_is_made_again(jobs: JobRecords) -> None:
    jobs.add(job("a"), {})
    seen = []

    def change(old: JobRecord) -> JobRecord:
        seen.append(old.version)
        if len(seen) == 1:
            jobs.change("a", lambda each: msgspec.structs.replace(each, labels=("tag=x",)))
        return msgspec.structs.replace(old, metadata=b"changed")

    changed = jobs.change("a", change)
    assert (seen, changed.labels, changed.metadata) == ([1, 2], ("tag=x",), b"changed")
    assert jobs.change("a", lambda _: None) is None
    fails(NotFoundError, "", jobs.change, "b", change)


def test_rights_bound_to_a_reservation_change_no_job_under_others(stored: StoredJobs) -> None:
    free, bound = stored.of("ana"), stored.of("ana", reservation=7)
    free.add(job("free", metadata=b"m"), {})
    made = bound.add(job("bound", metadata=b"m", reservation=0), {})
    assert made.reservation == 7
    assert stored.of("ana", reservation=7).get("free").id == "free"

    def other(old: JobRecord) -> JobRecord:
        return msgspec.structs.replace(old, metadata=b"other", reservation=0)

    for sender, number in ((bound, "free"), (stored.of("ana", reservation=8), "bound")):
        fails(NotAllowedError, "is not under reservation", sender.change, number, other)
        fails(NotAllowedError, "", sender.append, number, "params", b"x")
        fails(NotAllowedError, "", sender.remove, number)
        sender.change(number, lambda old: msgspec.structs.replace(old, labels=("tag=x",)))
        for fields in ({"metadata": b"done"}, {"tasks": (("t-9", 0),)}, {"kind": "iqm"}):
            other_end = partial(msgspec.structs.replace, ended_s=NOW_S, **fields)
            fails(NotAllowedError, "", sender.change, number, other_end)
        result = {"result": b"x"}
        ended = partial(msgspec.structs.replace, ended_s=NOW_S)
        fails(NotAllowedError, "", sender.change, number, ended, (), result)
        end(sender, number)  # as tasks of the user may be cancelled
        fails(NotAllowedError, "", sender.change, number, other)
        fails(NotAllowedError, "", end, sender, number, NOW_S, ("params",))
        fails(NotAllowedError, "", sender.remove, number)
    assert bound.get("bound").reservation == 7
    bound.remove("bound")


def test_an_ended_job_neither_begins_again_nor_gets_data(jobs: JobRecords) -> None:
    jobs.add(job("a"), {})
    jobs.change("a", lambda old: msgspec.structs.replace(old, ended_s=NOW_S), (), {"result": b"1"})
    for later in (0.0, NOW_S + DAY_S):
        fails(KeyConflictError, "does not begin again", end, jobs, "a", later)
    fails(KeyConflictError, "data do not change", jobs.change, "a", lambda a: a, (), {"x": b"1"})
    assert (jobs.get("a").ended_s, jobs.data("a", "result")) == (NOW_S, b"1")


def test_a_repeated_change_has_no_effect(jobs: JobRecords) -> None:
    """As after the loss of an answer; another change of the same job is refused."""
    made = jobs.add(job("a", metadata=b"m"), {"params": b"1", "noise": b"2"})
    ended = msgspec.structs.replace(made, ended_s=NOW_S, labels=("tag=x",))
    stored = jobs._put(ended, {"result": b"r"}, ("params",))
    assert jobs._put(ended, {"result": b"r"}, ("params",)) == stored
    assert jobs.data("a", "result") == b"r"
    fails(KeyConflictError, "", jobs._put, ended, {"result": b"s"}, ("params",))
    fails(KeyConflictError, "", jobs._put, ended, {"result": b"r"}, ("noise",))
    other = msgspec.structs.replace(ended, ended_s=NOW_S - 1.0)
    fails(KeyConflictError, "", jobs._put, other, {"result": b"r"}, ("params",))


def test_a_job_that_ends_is_not_the_one_that_makes_room(
    stored: StoredJobs, jobs: JobRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its data lay under a number that the next job of another owner had."""
    monkeypatch.setattr(stores, "OWNER_BYTES", 1_000)
    jobs.add(job("a"), {"params": b"p" * 900})
    ended = partial(msgspec.structs.replace, ended_s=NOW_S)
    result = {"result": b"secret" * 20}
    fails(QueueFullError, "", jobs.change, "a", ended, (), result)
    assert (jobs.get("a").ended_s, jobs.data("a", "result")) == (0.0, b"")
    ben = stored.of("ben")
    ben.add(job("b"), {})
    assert ben.data("b", "result") == b""
    assert total(stored) == 902
    more = partial(msgspec.structs.replace, ended_s=NOW_S, metadata=b"m" * 200)
    assert jobs.change("a", more) is not None  # an end without data needs no room


def test_the_number_of_a_removed_job_is_not_used_again(
    stored: StoredJobs, jobs: JobRecords
) -> None:
    def numbers() -> list[int]:
        return stored.call(lambda: [row[0] for row in stored.jobs._rows("select number from job")])

    jobs.add(job("a"), {})
    before = numbers()
    jobs.remove("a")
    stored.restart()
    stored.of("ben").add(job("b"), {})
    assert numbers() == [before[0] + 1]


def test_data_without_a_job_go_at_the_start(stored: StoredJobs, jobs: JobRecords) -> None:
    jobs.add(job("a"), {"params": b"x"})

    def leave() -> None:
        with stored.journal.transaction("NORMAL") as db:
            db.execute(*JOB_BLOB.put(99, "result", 0, b"of nobody"))

    stored.call(leave)
    stored.restart()
    assert total(stored) == 2
    assert jobs.data("a", "params") == b"x"


def test_a_listing_has_no_job_of_another_owner_that_came_meanwhile(
    stored: StoredJobs, jobs: JobRecords
) -> None:
    jobs.add(job("a"), {})
    message = ListJobs(0, JobSelector(("ibm",)))
    steps = stored.jobs.listed(Identity("ana", Role.CLIENT), message)
    assert stored.call(next, steps) is None

    def give() -> None:
        with stored.journal.transaction("NORMAL") as db:
            db.execute("update job set owner = 'ben'")

    stored.call(give)
    *_, packed = stored.call(list, steps)
    assert packed is not None
    answer = codec.to_client(packed)
    assert isinstance(answer, Jobs)
    assert answer.jobs == []


def test_an_end_in_the_far_future_is_refused(
    stored: StoredJobs, jobs: JobRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails(OptionError, "ended_s", jobs.add, job("a", ended_s=9e10), {})
    jobs.add(job("a"), {})
    fails(OptionError, "ended_s", end, jobs, "a", 9e10)
    end(jobs, "a", NOW_S + 300 * DAY_S)
    monkeypatch.setattr(stores, "time", lambda: NOW_S + 299 * DAY_S)
    end(jobs, "a", NOW_S + 600 * DAY_S)  # and so on
    monkeypatch.setattr(stores, "time", lambda: NOW_S + 430 * DAY_S)
    stored.call(stored.jobs.prune)
    assert total(stored) == 0


def test_old_jobs_go_without_new_ones(
    stored: StoredJobs, jobs: JobRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.add(job("a"), {"params": b"x"})
    end(jobs, "a")
    stored.call(stored.jobs.prune)
    assert ids(jobs) == ["a"]
    monkeypatch.setattr(stores, "time", lambda: NOW_S + 31 * DAY_S)
    stored.call(stored.jobs.prune)
    assert (ids(jobs), total(stored)) == ([], 0)


def test_data_of_an_ended_job_do_not_grow(jobs: JobRecords, stored: StoredJobs) -> None:
    jobs.add(job("a", metadata=b"meta"), {"params": b"secret"})
    jobs.append("a", "result", b"x" * (BLOB_PART_BYTES + 5))
    jobs.append("a", "result", b"yz")
    end(jobs, "a", removed=("params",))
    assert jobs.data("a", "result") == b"x" * (BLOB_PART_BYTES + 5) + b"yz"
    assert jobs.data("a", "params") == b""
    fails(KeyConflictError, "has ended", jobs.append, "a", "result", b"late")
    assert total(stored) == BLOB_PART_BYTES + 7 + len(b"meta") + 1  # of no tasks
    stored.restart()
    assert total(stored) == BLOB_PART_BYTES + 12


def test_listings_have_filters_and_pages(jobs: JobRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LISTED_ROWS", 2)
    for number in range(6):
        monkeypatch.setattr(stores, "time", lambda number=number: 100.0 + number)
        labels = f"backend={('emu', 'main')[number % 2]}", *(("tag=even",) * (number % 2 == 0))
        jobs.add(job(str(number), labels=labels), {})
    jobs.add(job("q", kind="iqm"), {})
    end(jobs, "5", 103.0)
    end(jobs, "3", 100.0 + DAY_S)
    page, count = jobs.listed(JobSelector(("ibm",), limit=2, offset=1))
    assert (count, [each.id for each in page]) == (6, ["4", "3"])
    up = {"ascending": True}
    assert ids(jobs, labels=("backend=main",), **up) == ["1", "3", "5"]
    assert ids(jobs, is_open=False) == ["5"]
    assert ids(jobs, is_open=True, labels=("backend=emu", "tag=even"), **up) == ["0", "2", "4"]
    assert ids(jobs, after_s=102.0, before_s=103.0, **up) == ["2", "3"]
    assert ids(jobs, offset=7) == []
    both = JobSelector(("ibm", "iqm"), limit=4)
    assert [each.id for each in jobs.all(both)] == ["q", *"543210"]


def test_a_page_of_large_jobs_is_shorter(jobs: JobRecords, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "PAGE_BYTES", 250)
    for number in range(5):
        jobs.add(job(str(number), metadata=b"m" * 100), {})
    page, count = jobs.listed(JobSelector(("ibm",)))
    assert ([each.id for each in page], count) == (["4", "3"], 5)
    assert [each.id for each in jobs.all(JobSelector(("ibm",)))] == list("43210")


def test_the_oldest_ended_jobs_make_room(
    stored: StoredJobs, jobs: JobRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "OWNER_BYTES", 100)
    for number in range(3):
        jobs.add(job(str(number)), {"params": b"x" * 29})
        end(jobs, str(number), NOW_S - 9 + number)
    jobs.add(job("new"), {"params": b"x" * 59})
    assert ids(jobs, ascending=True) == ["2", "new"]
    more = {"params": b"x" * 61}
    fails(QueueFullError, "61 more exceed the limit of 100", jobs.add, job("more"), more)
    assert ids(jobs, ascending=True) == ["2", "new"]  # what was removed for it is back
    fails(QueueFullError, "", jobs.append, "new", "result", b"x" * 41)
    assert total(stored) == 90
    monkeypatch.setattr(stores, "ALL_BYTES", 120)
    ben, params = stored.of("ben"), {"params": b"x" * 40}
    ben.add(job("a"), params)
    assert ids(jobs) == ["new"]
    fails(QueueFullError, "all users' jobs", ben.add, job("b"), params)


def test_numbers_of_jobs_and_sessions_are_bounded(
    stored: StoredJobs, jobs: JobRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "OWNER_OPEN", 2)
    monkeypatch.setattr(stores, "OWNER_JOBS", 5)
    for number in "ab":
        jobs.add(job(number), {})
        jobs.add(job(f"s{number}", kind="session", ended_s=NOW_S + DAY_S), {})
    fails(QueueFullError, "2 jobs of this user have not ended", jobs.add, job("c"), {})
    session = job("sc", kind="session", ended_s=NOW_S + DAY_S)
    fails(QueueFullError, "2 sessions of this user are open", jobs.add, session, {})
    stored.of("ben").add(job("d"), {})
    end(jobs, "a")
    for number in "ef":  # `a` makes room for the second
        jobs.add(job(number), {})
        end(jobs, number, NOW_S + 0.001)
    assert ids(jobs) == ["f", "e", "b"]
    assert [jobs.get(each).id for each in ("sa", "sb")] == ["sa", "sb"]


def test_old_jobs_and_incomplete_ones_go(
    stored: StoredJobs, jobs: JobRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(days: float) -> None:
        monkeypatch.setattr(stores, "time", lambda: days * DAY_S)

    at(1.0)
    for number in ("ended", "kept", "open"):
        jobs.add(job(number), {"params": b"x"})
    jobs.add(job("draft", kind=""), {"params": b"y"})
    end(jobs, "ended", 2.0 * DAY_S)
    end(jobs, "kept", 20.0 * DAY_S)
    at(33.0)
    jobs.add(job("new"), {})
    assert ids(jobs) == ["new", "open", "kept"]
    fails(NotFoundError, "", jobs.get, "draft")
    at(61.5)
    jobs.add(job("newer"), {})
    assert ids(jobs) == ["newer", "new"]
    stored.restart()
    assert total(stored) == 2  # of no tasks each


def test_jobs_take_no_space_from_results(stored: StoredJobs, jobs: JobRecords) -> None:
    pruner = JournalPruner(stored.journal, cast("Any", None))
    before = stored.call(pruner.total_bytes)
    jobs.add(job("a"), {"params": bytes(4 * BLOB_PART_BYTES)})
    assert stored.call(pruner.total_bytes) - before < BLOB_PART_BYTES // 4  # of pages


def test_a_full_disk_refuses_new_jobs_alone(stored: StoredJobs, jobs: JobRecords) -> None:
    jobs.add(job("a"), {})
    stored.jobs._disk_refusal = lambda owner: InsufficientError(f"no space for {owner}")
    fails(InsufficientError, "no space for ana", jobs.add, job("b"), {})
    jobs.append("a", "result", b"end")
    end(jobs, "a")
    assert ids(jobs) == ["a"]


def test_what_is_too_large_is_no_message(jobs: JobRecords) -> None:
    for made in (
        job("a", metadata=bytes(MAX_METADATA_BYTES + 1)), job(""), job("a", labels=("x" * 1_000,)),
        job("a", labels=("x",) * 100),
    ):  # fmt: skip
        fails(ProtocolError, "", jobs.add, made, {})
