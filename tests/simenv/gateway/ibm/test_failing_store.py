"""A store that fails costs a user neither the place for a process nor the jobs that wait."""

import asyncio
from typing import Any, cast

import pytest

from simenv.errors import JournalError
from simenv.gateway.context import Caller
from simenv.gateway.ibm import processes
from simenv.gateway.ibm.processes import JobProcesses, UserJobs


class FullDisk:
    """The owner of a process, whose store fails."""

    waiting: tuple[UserJobs, ...] = ()

    def __init__(self) -> None:
        self.released = 0

    async def charge(self, *_: object) -> None:
        raise JournalError("database or disk is full")

    async def fail_orphans(self, _caller: Caller) -> None:
        pass

    async def pending(self, _caller: Caller) -> None:
        raise JournalError("database or disk is full")

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(work)

    def release(self, _user: UserJobs) -> None:
        self.released += 1


def user_of(owner: FullDisk) -> UserJobs:
    return UserJobs(cast("JobProcesses", owner), Caller("ana", "", "client", "1"))


def test_the_place_of_a_process_is_given_back() -> None:
    async def lost() -> None:
        owner = FullDisk()
        user = user_of(owner)
        user.active.add("job")
        await user._lost()
        assert (owner.released, user.active, user.process) == (1, set(), None)
        assert user.changed.is_set()

    asyncio.run(lost())


def test_jobs_are_looked_at_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async def served() -> None:
        user = user_of(FullDisk())
        user.task = asyncio.ensure_future(user.serve())
        await user.task
        assert not user.is_asleep()
        monkeypatch.setattr(processes, "RETRY_S", 0.0)
        await asyncio.sleep(0.01)
        assert user.is_asleep()

    asyncio.run(served())
