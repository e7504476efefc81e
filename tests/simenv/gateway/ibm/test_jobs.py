"""Jobs of vendors' clients, as the service stores them: they end once, and keep their form."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from failing import fails
from stored_jobs import StoredJobs

from simenv.config import GatewaySettings
from simenv.errors import KeyConflictError, NotAllowedError, NotFoundError, StoreError
from simenv.gateway.context import Caller
from simenv.gateway.ibm import jobs
from simenv.gateway.ibm.job_messages import RunJob
from simenv.gateway.ibm.jobs import Job, SessionRecord
from simenv.gateway.ibm.processes import JobProcesses, UserJobs
from simenv.gateway.ibm.service import ComputeService
from simenv.model import ReservationState
from simenv.model.jobs import BLOB_PART_BYTES, JobRecord, JobSelector
from simenv.service.jobs import store as stores

DAY_S = 86_400.0


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[StoredJobs]:
    opened = StoredJobs(tmp_path / "j.db")
    yield opened
    opened.close()


@pytest.fixture
def client(stored: StoredJobs) -> Any:
    """Of ana. Reservations that were released are in `released`."""
    released: list[int] = []
    made = SimpleNamespace(jobs=stored.of("ana"), released=released)
    made.reservation = lambda number: SimpleNamespace(release=lambda: released.append(number))
    return made


def job(number: str, **fields: Any) -> Job:
    return Job(number, "ana", "", fields.pop("program", "sampler"), "emu", **fields)


def completed(client: Any, made: Job, result: bytes = b"result") -> Job | None:
    return jobs.end(client, made, {"result": result}, status=jobs.COMPLETED, ended_s=time())


def test_a_job_has_the_same_fields_after_a_restart(stored: StoredJobs, client: Any) -> None:
    tasks = ("t-1", 0), ("t-2", 3)
    made = jobs.add(client, job("a", tags=("x", "y=z"), session="s", cost=7), b"{}", b"noise")
    assert time() - made.created_s < 60.0
    assert jobs.change(client, "a", tasks=tasks, attempts=1) is not None
    stored.restart()
    found = jobs.find(client, "a")
    assert (found.tags, found.session, found.cost) == (("x", "y=z"), "s", 7)
    assert (found.tasks, found.attempts, found.created_s) == (tasks, 1, made.created_s)
    assert jobs.pending(client) == [found]
    assert jobs.pending(client, "other") == []


def test_an_ended_job_changes_no_more_but_for_its_tags(client: Any) -> None:
    made = jobs.add(client, job("a"), b"{}")
    assert completed(client, made) is not None
    assert completed(client, made, b"another") is None
    assert jobs.fail(client, made, jobs.INVALID, "late") is None
    assert jobs.change(client, "a", status=jobs.CANCELLED) is None
    assert jobs.change(client, "a", tags=("kept",)) is not None
    assert client.jobs.data("a", "result") == b"result"
    assert jobs.listed(client, JobSelector(jobs.KINDS, ("tag=kept",)))[0] == 1
    assert jobs.find(client, "a").status == jobs.COMPLETED


def test_a_job_that_cannot_keep_its_result_ends(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = jobs.add(client, job("a"), b"p" * 900)
    used = 900 + len(client.jobs.get("a").metadata)
    for room in (60, 1):  # more, and less, than the reason has
        monkeypatch.setattr(stores, "OWNER_BYTES", used + room)
        if room == 1:
            client.jobs.remove("a")
            made = jobs.add(client, job("a"), b"p" * 900)
        ended = completed(client, made, b"r" * 200)
        assert ended is not None
        assert ended.status == jobs.FAILED
        assert "there is no room for its result" in jobs.find(client, "a").reason
        assert client.jobs.data("a", "result") == b""


def test_any_token_of_the_user_cancels_a_job(client: Any, stored: StoredJobs) -> None:
    made = jobs.add(client, job("a", tags=("x",), private=True), b"{}")
    bound: Any = SimpleNamespace(jobs=stored.of("ana", reservation=7))
    fails(NotAllowedError, "", completed, bound, made)
    at_s = time()
    ended = jobs.end(bound, made, status=jobs.CANCELLED, ended_s=at_s)
    assert ended is not None
    found = jobs.find(client, "a")
    assert (ended, found.status, found.ended_s) == (found, jobs.CANCELLED, at_s)
    assert jobs.pending(client) == []
    assert client.jobs.data("a", "params") == b""
    assert jobs.change(bound, "a", tags=("y",)) is not None
    assert (jobs.find(client, "a").tags, jobs.find(client, "a").status) == (("y",), jobs.CANCELLED)


def test_the_tasks_of_a_cancelled_job_are_cancelled_again(client: Any) -> None:
    """What stored its end may have ended before."""
    cancelled: list[str] = []
    client.cancel = cancelled.extend
    made = jobs.add(client, job("a"), b"{}")
    made = jobs.change(client, "a", tasks=(("t-1", 0), ("t-2", 3))) or made

    async def call(_: Any, function: Any, *arguments: Any, **fields: Any) -> Any:
        return function(client, *arguments, **fields)

    settings = GatewaySettings()
    gateway: Any = SimpleNamespace(on_close=[], call=call, folder=None, settings=settings)
    service, caller = ComputeService(gateway), cast("Any", None)
    jobs.cancel_tasks(client, "a")
    assert cancelled == []  # it runs
    jobs.end(client, made, status=jobs.CANCELLED, ended_s=time())
    with pytest.raises(KeyConflictError):
        asyncio.run(service.cancel(caller, "a"))
    assert cancelled == ["t-1", "t-2"]
    asyncio.run(service.delete(caller, "a"))
    assert cancelled == ["t-1", "t-2"] * 2


def test_the_end_of_a_deleted_job_is_no_error(client: Any) -> None:
    made = jobs.add(client, job("a"), b"{}")
    client.jobs.remove("a")
    assert completed(client, made) is None
    assert jobs.fail(client, made, jobs.INVALID, "late") is None
    jobs.remove_result(client, "a")
    fails(NotFoundError, "Job not found: a", jobs.find, client, "a")


def test_a_private_job_has_no_parameters_after_its_end(client: Any) -> None:
    completed(client, jobs.add(client, job("a", private=True), b"secret"))
    assert client.jobs.data("a", "params") == b""
    jobs.remove_result(client, "a")
    assert client.jobs.data("a", "result") == b""


def test_a_result_without_room_fails_its_job(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = jobs.add(client, job("a"), b"{}")
    monkeypatch.setattr(stores, "OWNER_BYTES", 1_000)
    ended = completed(client, made, b"x" * 2_000)
    assert ended is not None
    assert (ended.status, ended.reason_code) == (jobs.FAILED, jobs.RUN_FAILED)
    assert "there is no room for its result: this user's jobs keep" in ended.reason
    assert client.jobs.data("a", "result") == b""


@pytest.mark.parametrize("size", [0, 1, BLOB_PART_BYTES, BLOB_PART_BYTES + 1, 2 * BLOB_PART_BYTES])
def test_results_of_any_size_are_stored_with_the_end(client: Any, size: int) -> None:
    made = jobs.add(client, job("a"), b"{}")
    results = {"measurements": b"x" * size, "measurement_counts": b"[]"}
    assert jobs.end(client, made, results, status=jobs.COMPLETED, ended_s=time()) is not None
    assert {name: client.jobs.data("a", name) for name in results} == results


def test_tags_are_found_by_a_part(client: Any) -> None:
    for number, tags in (("a", ("even", "nightly")), ("b", ("event",)), ("c", ())):
        jobs.add(client, job(number, tags=tags), b"")
    assert jobs.tags(client, "ev") == ["even", "event"]
    assert jobs.tags(client, "") == ["even", "event", "nightly"]


def test_metadata_of_another_program_are_named(client: Any) -> None:
    client.jobs.add(JobRecord("a", "ibm", metadata=b"\xff"), {})
    fails(StoreError, "job a cannot be read", jobs.find, client, "a")


def session(number: str, **fields: Any) -> SessionRecord:
    values: dict[str, Any] = {"created_s": time(), "max_ttl_s": 3_600, **fields}
    return SessionRecord(number, "ana", "", "emu", "dedicated", **values)


def test_a_session_closes_with_its_last_job_and_releases_its_reservation(client: Any) -> None:
    jobs.put_session(client, session("s", reservation=7))
    made = [jobs.add(client, job(number, session="s"), b"") for number in "ab"]
    completed(client, made[0])
    jobs.change_session(client, "s", accepting=False)
    jobs.close_if_done(client, "s")
    assert not jobs.session(client, "s").closed_s
    completed(client, made[1])
    found = jobs.session(client, "s")
    assert (found.closed_s > 0.0, found.job_ended_s > 0.0) == (True, True)
    jobs.close_session(client, found)
    assert client.released == [7]
    fails(NotFoundError, "Session not found: a", jobs.session, client, "a")
    fails(NotFoundError, "Job not found: s", jobs.find, client, "s")


def test_open_session_stays_though_others_go(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "OWNER_JOBS", 2)
    jobs.put_session(client, session("open"))
    jobs.put_session(client, session("over", created_s=time() - 7_200))
    jobs.put_session(client, session("new"))
    assert [jobs.session(client, each).id for each in ("open", "new")] == ["open", "new"]
    fails(NotFoundError, "", jobs.session, client, "over")


def test_places_of_processes_are_shared_by_user(tmp_path: Path) -> None:
    class Settings:
        settings, folder = GatewaySettings(max_processes=4), tmp_path

    async def served() -> list[str]:
        owner = JobProcesses(cast("Any", Settings()))
        got: list[str] = []

        async def acquire(user: str, reservation: int) -> UserJobs:
            made = UserJobs(owner, Caller(user, "", "client", "1", reservation))
            await owner.acquire(made)
            got.append(user)
            return made

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


def test_jobs_that_nobody_can_run_fail_and_those_of_a_reservation_are_left_to_its_token(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "time", lambda: time() - 31 * DAY_S)
    jobs.add(client, job("old"), b"{}")
    monkeypatch.setattr(stores, "time", time)
    for number, reservation in (("free", 0), ("own", 7), ("other", 8), ("over", 9)):
        jobs.add(client, job(number, reservation=reservation), b"{}")
    states = {7: "active", 8: "active", 9: "released"}
    client.reservations = lambda: [
        SimpleNamespace(id=n, state=ReservationState(s)) for n, s in states.items()
    ]

    class Reserving:
        """A gateway; reservation 9 is over."""

        settings, folder = GatewaySettings(), tmp_path

        async def call(self, _caller: object, function: Any, *given: Any, **fields: Any) -> Any:
            if getattr(function, "__name__", "") == "reservations":
                return client.reservations()
            return function(client, *given, **fields)

    async def served() -> None:
        owner = JobProcesses(cast("Any", Reserving()))
        sent: dict[str, list[str]] = {}
        for token, reservation in (("all", 0), ("bound", 7)):
            caller = Caller("ana", "", "client", token, reservation)
            await owner.fail_orphans(caller)
            user = UserJobs(owner, caller)
            user.process = cast("Any", SimpleNamespace())  # it is there already
            user._send = AsyncMock()  # type: ignore[method-assign]
            await user._dispatched()
            messages = [call.args[0] for call in user._send.call_args_list]
            sent[token] = [each.job for each in messages if isinstance(each, RunJob)]
        assert sent == {"all": ["free"], "bound": ["own"]}

    asyncio.run(served())
    reasons = {each: jobs.find(client, each).reason for each in ("over", "old", "other")}
    assert reasons["over"] == "reservation 9 is over"
    assert reasons["old"] == "it has not ended within 30 days"
    assert jobs.find(client, "other").status == jobs.QUEUED
