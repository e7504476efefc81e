"""The store of jobs keeps what was accepted, forgets the oldest, and stays within its bounds."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from simenv.config import GatewaySettings
from simenv.errors import ConfigError, NotFoundError, QueueFullError
from simenv.gateway.context import Caller
from simenv.gateway.ibm import store
from simenv.gateway.ibm.job_messages import RunJob
from simenv.gateway.ibm.processes import JobProcesses, UserJobs
from simenv.gateway.ibm.store import Job, JobQuery, JobStore, SessionRecord
from simenv.model import ReservationState
from simenv.model.views import DeviceInfo, DeviceKind


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobStore]:
    opened = JobStore(tmp_path / "jobs.sqlite", 30.0)
    yield opened
    opened.close()


def job(number: str, user: str = "ana", **fields: Any) -> Job:
    values = {"account": "", "program": "sampler", "backend": "emu", "created_s": time(), **fields}
    return Job(number, user, **values)


def test_blobs_are_read_part_by_part(jobs: JobStore) -> None:
    params = bytes(range(256)) * 1_000
    jobs.add(job("a"), memoryview(params))
    assert jobs.size("a", "params") == len(params)
    assert jobs.read("a", "params", 1, 1) == params[store.PART_BYTES : 2 * store.PART_BYTES]
    assert jobs.read("a", "params", 4, 9) == b""
    assert jobs.blob("a", "params") == params


def test_result_arrives_in_pieces_and_counts_as_a_whole(jobs: JobStore) -> None:
    jobs.add(job("a"), b"{}")
    jobs.append("a", "measurements", b"lost")
    jobs.forget_result("a")
    for _ in range(3):
        jobs.append("a", "measurements", b"x" * 100_000)
    parts = {"measurements": b"yz", "measurement_counts": b"[]"}
    assert jobs.change("a", parts, status=store.COMPLETED, ended_s=time()) is not None
    assert jobs.blob("a", "measurements") == b"x" * 300_000 + b"yz"
    assert jobs.blob("a", "measurement_counts") == b"[]"
    jobs.append("a", "measurements", b"late")
    (size,) = jobs._rows("SELECT bytes FROM jobs")[0]
    assert size == 300_002 + 2 + 2
    jobs.remove("a", "measurements")
    (size,) = jobs._rows("SELECT bytes FROM jobs")[0]
    assert size == 4


def test_result_without_room_fails_its_job_and_is_forgotten(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "USER_BYTES", 1_000)
    jobs.add(job("a"), b"{}")
    jobs.append("a", "result", b"x" * 2_000)
    ended = jobs.change("a", b"end", status=store.COMPLETED, ended_s=time())
    assert ended is not None
    assert ended.status == store.FAILED
    assert b"no room" in jobs.blob("a", "result")


def test_places_of_processes_are_shared_by_user(tmp_path: Path) -> None:
    class Settings:
        settings, folder = GatewaySettings(max_processes=4), tmp_path

    async def served() -> list[str]:
        owner = JobProcesses(cast("Any", Settings()), cast("Any", None), AsyncMock())
        got: list[str] = []

        async def acquire(user: str, reservation: int) -> UserJobs:
            jobs = UserJobs(owner, Caller(user, "", "client", "1", reservation))
            await owner.acquire(jobs)
            got.append(user)
            return jobs

        many = [asyncio.create_task(acquire("ana", number)) for number in range(4)]
        first = await many[0]
        await many[1]
        ben = asyncio.create_task(acquire("ben", 0))
        await ben
        assert got == ["ana", "ana", "ben"]
        assert owner.is_wanted(first)  # by two of the same user
        assert not owner.is_wanted(ben.result())
        owner.release(first)
        await asyncio.wait_for(many[2], 10.0)
        await acquire("cay", 0)
        many[3].cancel()
        await asyncio.gather(*many, return_exceptions=True)
        return got

    assert asyncio.run(served()) == ["ana", "ana", "ben", "ana", "cay"]


def test_jobs_survive_the_end_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    first = JobStore(path, 30.0)
    first.add(job("a", tags=("x", "y")), b"{}")
    first.change("a", tasks=(("t-1", 0), ("t-2", 3)))
    first.close()
    again = JobStore(path, 30.0)
    assert again.pending("ana")[0].tasks == (("t-1", 0), ("t-2", 3))
    assert again.blob("a", "params") == b"{}"
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    JobStore(path, 30.0).close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(ConfigError, match="format 99"):
        JobStore(path, 30.0)


def test_an_ended_job_changes_no_more_but_for_its_tags(jobs: JobStore) -> None:
    jobs.add(job("a"), b"{}")
    assert jobs.change("a", b"result", status=store.COMPLETED, ended_s=1.0) is not None
    assert jobs.change("a", status=store.CANCELLED) is None
    assert jobs.change("a", tags=("kept",)) is not None
    assert jobs.blob("a", "result") == b"result"
    assert jobs.jobs(JobQuery("ana", tags=("kept",)))[0] == 1


def test_listings_have_filters_pages_and_one_user(jobs: JobStore) -> None:
    for number in range(6):
        backend, tags = ("emu", "main")[number % 2], ("even",) if number % 2 == 0 else ()
        jobs.add(job(str(number), created_s=100.0 + number, backend=backend, tags=tags), b"")
    jobs.add(job("other", user="ben"), b"")
    jobs.change("5", status=store.FAILED, ended_s=200.0)
    count, page = jobs.jobs(JobQuery("ana", limit=2, offset=1))
    assert (count, [each.id for each in page]) == (6, ["4", "3"])

    def found(**fields: Any) -> list[str]:
        return [each.id for each in jobs.jobs(JobQuery("ana", ascending=True, **fields))[1]]

    assert found(backend="main") == ["1", "3", "5"]
    assert found(pending=False) == ["5"]
    assert found(pending=True, tags=("even",)) == ["0", "2", "4"]
    assert found(after_s=102.0, before_s=103.0) == ["2", "3"]
    assert jobs.tags("ana", "ev") == ["even"]
    with pytest.raises(NotFoundError):
        jobs.job("other", "ana")


def test_a_private_jobs_parameters_go_at_its_end(jobs: JobStore) -> None:
    jobs.add(job("a", private=True), b"secret")
    jobs.change("a", b"result", status=store.COMPLETED, ended_s=1.0)
    assert jobs.blob("a", "params") == b""


def test_the_oldest_ended_jobs_make_room(jobs: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "USER_BYTES", 100)
    for number in range(3):
        jobs.add(job(str(number)), b"x" * 30)
        jobs.change(str(number), b"", status=store.COMPLETED, ended_s=1.0 + number)
    jobs.add(job("new"), b"x" * 60)
    assert [each.id for each in jobs.jobs(JobQuery("ana", ascending=True))[1]] == ["2", "new"]
    with pytest.raises(QueueFullError, match="exceed the limit of 100"):
        jobs.add(job("more"), b"x" * 50)


def test_unfinished_jobs_of_a_user_are_bounded(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "USER_PENDING", 2)
    jobs.add(job("a"), b"")
    jobs.add(job("b"), b"")
    with pytest.raises(QueueFullError, match="2 jobs of this user"):
        jobs.add(job("c"), b"")
    jobs.add(job("d", user="ben"), b"")


def test_old_jobs_are_removed(jobs: JobStore) -> None:
    jobs.add(job("a"), b"")
    jobs.change("a", b"", status=store.COMPLETED, ended_s=time() - 31 * 86_400)
    jobs._pruned_s = 0.0
    jobs.add(job("b"), b"")
    assert jobs.jobs(JobQuery("ana"))[0] == 1


def test_calibrations_are_found_by_id_and_time(jobs: JobStore) -> None:
    def info(number: str, calibrated_s: float) -> DeviceInfo:
        fields = ("emu", DeviceKind.EMULATED, "", "", "", "", 1, 1, (), False)
        return DeviceInfo(*fields, calibration_id=number, calibrated_s=calibrated_s, dt_ns=1.0)

    jobs.record("emu", info("one", 100.0))
    jobs.record("emu", info("two", 200.0))
    jobs.record("emu", info("", 300.0))
    for before_s, expected in ((150.0, "one"), (200.0, "two"), (999.0, "two")):
        found = jobs.calibration("emu", "", before_s)
        assert found is not None
        assert found.calibration_id == expected
    assert jobs.calibration("emu", "", 50.0) is None
    assert jobs.calibration("emu", "one", 0.0) == info("one", 100.0)
    assert jobs.calibration("main", "one", 0.0) is None


def session(number: str, **fields: Any) -> SessionRecord:
    values = {"created_s": time(), "max_ttl_s": 3_600, **fields}
    return SessionRecord(number, "ana", "", "emu", "batch", **values)


def test_a_session_that_is_open_or_has_jobs_is_not_forgotten(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "USER_SESSIONS", 3)
    jobs._pruned_s = time()
    jobs.put_session(session("open", created_s=1.0, max_ttl_s=10**10))
    jobs.put_session(session("waited for", created_s=2.0))
    jobs.put_session(session("done", created_s=3.0))
    jobs.add(job("a", session="waited for"), b"{}")
    jobs.put_session(session("new"))
    with pytest.raises(NotFoundError):
        jobs.session("done", "ana")
    with pytest.raises(QueueFullError, match="3 sessions"):
        jobs.put_session(session("more"))
    jobs._pruned_s = 0.0
    jobs.add(job("b"), b"{}")
    assert [jobs.session(each, "ana").id for each in ("open", "waited for")]


def test_a_job_whose_session_is_gone_fails_alone(jobs: JobStore) -> None:
    async def no_matter(*_: object) -> None: ...

    gateway = cast("Any", SimpleNamespace(settings=GatewaySettings(), folder=Path()))
    owner = JobProcesses(gateway, jobs, no_matter)
    jobs.add(job("a", session="gone"), b"{}")
    caller = Caller("ana", "", "client", "1")
    assert asyncio.run(owner.work_of(jobs.job("a", "ana"), caller)) is None
    assert jobs.job("a", "ana").status == store.FAILED
    assert "Session not found" in jobs.job("a", "ana").reason


def test_a_result_makes_room_or_fails_its_job(
    jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "USER_BYTES", 100)
    for number in ("old", "a", "b"):
        jobs.add(job(number), b"x" * 30)
    jobs.change("old", b"", status=store.COMPLETED, ended_s=1.0)
    jobs.change("a", b"y" * 30, status=store.COMPLETED, ended_s=2.0)
    with pytest.raises(NotFoundError):
        jobs.job("old", "ana")
    failed = jobs.change("b", b"z" * 80, status=store.COMPLETED, ended_s=3.0)
    assert failed is not None
    assert (failed.status, failed.ended_s) == (store.FAILED, 3.0)
    assert "no room for its result" in failed.reason
    assert jobs.blob("a", "result") == b"y" * 30


def test_a_job_that_does_not_end_fails_after_the_days_that_jobs_are_kept(jobs: JobStore) -> None:
    jobs.add(job("a", created_s=time() - 31 * 86_400), b"")
    jobs._pruned_s = 0.0
    jobs.add(job("b"), b"")
    assert jobs.job("a", "ana").status == store.FAILED
    assert "30 days" in jobs.job("a", "ana").reason
    assert [each.id for each in jobs.pending("ana")] == ["b"]


def test_the_file_gets_smaller_when_old_jobs_go(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    opened = JobStore(path, 30.0)
    opened.add(job("a"), bytes(4 * 2**20))
    opened.change("a", b"", status=store.COMPLETED, ended_s=time() - 31 * 86_400)
    opened._pruned_s = 0.0
    opened.add(job("b"), b"")
    opened.close()
    assert path.stat().st_size < 2**20


def test_jobs_of_a_reservation_are_left_to_its_token_and_fail_after_its_end(
    jobs: JobStore, tmp_path: Path
) -> None:
    for number, reservation in (("free", 0), ("own", 7), ("other", 8), ("over", 9)):
        jobs.add(job(number, reservation=reservation), b"{}")
    ended: list[str] = []

    class Reserving:
        """A gateway; reservation 9 is over."""

        settings, folder = GatewaySettings(), tmp_path

        async def call(self, *_: object) -> list[Any]:
            states = {7: "active", 8: "active", 9: "released"}
            return [SimpleNamespace(id=n, state=ReservationState(s)) for n, s in states.items()]

    async def on_end(failed: Job, _caller: Caller) -> None:
        ended.append(failed.id)

    async def served() -> None:
        owner = JobProcesses(cast("Any", Reserving()), jobs, on_end)
        sent: dict[str, list[str]] = {}
        for token, reservation in (("all", 0), ("bound", 7)):
            caller = Caller("ana", "", "client", token, reservation)
            await owner.fail_orphans(caller)
            user = UserJobs(owner, caller)
            user.process = cast("Any", SimpleNamespace())  # it is there already
            user._send = AsyncMock()  # type: ignore[method-assign]
            await user._dispatched()
            messages = [call.args[0] for call in user._send.call_args_list]
            sent[token] = [each.work.job for each in messages if isinstance(each, RunJob)]
        assert sent == {"all": ["free"], "bound": ["own"]}

    asyncio.run(served())
    assert ended == ["over"]
    assert "reservation 9 is over" in jobs.job("over", None).reason
    assert jobs.job("other", None).status == store.QUEUED
