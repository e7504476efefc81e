"""Processes of a user's jobs: a store that fails, and processes that are ended in time: a job holds
the interpreter's lock, or nothing is read."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from simenv.errors import JournalError
from simenv.gateway.context import Caller
from simenv.gateway.ibm import processes
from simenv.gateway.ibm.job_messages import REPORT_BYTES
from simenv.gateway.ibm.processes import JobProcesses, UserJobs
from simenv.sandbox.async_child import AsyncChild

PATIENCE_S = 30.0
HOLDING = """
import re, threading
from simenv.gateway.ibm.job_messages import JobBegun, encode
from simenv.sandbox.parent import ParentChannel
channel = ParentChannel()
def hold():
    channel.send(encode(JobBegun("first", threading.get_native_id())))
    re.match(r'(a+)+$', 'a' * 64 + 'b')
threading.Thread(target=hold, daemon=True).start()
while channel.receive() is not None: pass
"""
DEAF = "import time; time.sleep(600)"
LONG = "x" * 2**20  # more than the pipe and the writer hold


class Owner:
    """Of the processes: the jobs and their ends."""

    def __init__(self, first: str) -> None:
        self.jobs = [SimpleNamespace(id=first, reservation=0)]
        self.charged: dict[str, tuple[bool, bool]] = {}
        self.ended = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        self._tasks.append(asyncio.create_task(work))
        return self._tasks[-1]

    async def fail_orphans(self, _: object) -> None:
        return

    def keep_clients(self, _: object) -> None:
        return

    def connection_of(self, _: object) -> None:
        return

    def is_wanted(self, _: object) -> bool:
        return False

    async def acquire(self, _: object) -> None:
        await asyncio.Event().wait()  # it starts no other process

    def release(self, _: object) -> None:
        self.ended.set()

    async def pending(self, _: object) -> list[Any]:
        return list(self.jobs)

    async def charge(self, job: str, reading: bool, too_long: bool, _: object) -> None:
        self.charged[job] = reading, too_long


async def serve(program: str, *jobs: str) -> dict[str, Any]:
    """Run jobs in a process until it has ended, the second when the first is read; return which
    were charged, and whether each was read and took too long."""
    owner: Any = Owner(jobs[0])
    user = processes.UserJobs(owner, Caller("ana", "", "client", "1"))
    argv = [sys.executable, "-c", program]
    user.process = await AsyncChild.start(
        argv, os.environ, subprocess.DEVNULL, most_bytes=REPORT_BYTES
    )
    owner.spawn(user._read(user.process))
    serving = owner.spawn(user.serve())
    for job in jobs[1:]:
        while not user._threads:
            await asyncio.sleep(0.01)
        owner.jobs.append(SimpleNamespace(id=job, reservation=0))
        user.look()
    await asyncio.wait_for(owner.ended.wait(), PATIENCE_S)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    return dict(owner.charged)


def test_job_that_holds_the_interpreter_is_charged_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "JOB_CPU_S", 0.5)
    charged = asyncio.run(serve(HOLDING, "first", "second"))
    assert charged == {"first": (True, True), "second": (False, False)}


def test_process_that_does_not_read_is_ended_and_its_job_is_not_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "SEND_S", 0.2)
    assert asyncio.run(serve(DEAF, LONG)) == {LONG: (False, False)}


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
    monkeypatch.setattr(processes, "RETRY_S", 0.0)
    monkeypatch.setattr(processes, "_CHECK_S", 0.01)

    class Mended(FullDisk):
        looks = 0

        async def pending(self, _caller: Caller) -> list[Any]:
            self.looks += 1
            if self.looks < 3:
                raise JournalError("database or disk is full")
            mended.set()
            return []

        def keep_clients(self, _: object) -> None:
            return

        def is_wanted(self, _: object) -> bool:
            return False

    async def served() -> None:
        user = user_of(Mended())
        user.task = asyncio.ensure_future(user.serve())
        await asyncio.wait_for(mended.wait(), PATIENCE_S)
        user.task.cancel()
        await asyncio.gather(user.task, return_exceptions=True)

    mended = asyncio.Event()
    asyncio.run(served())
