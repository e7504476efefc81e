"""A child process of an event loop: frames of any size in both directions, and its end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import psutil
import pytest
from waiting import until

from simenv.sandbox.async_child import AsyncChild
from simenv.sandbox.frames import FrameError

ECHO = """
from simenv.sandbox.parent import ParentChannel
channel = ParentChannel()
while (body := channel.receive()) is not None:
    print("not a frame", flush=True)
    channel.send(body)
"""
PATIENCE_S = 30.0
LOOPS = ["asyncio", "uvloop"]


def run(loop: str, program: str, use: Callable[[AsyncChild], Awaitable[None]]) -> None:
    async def used() -> None:
        argv = [sys.executable, "-c", program]
        child = await AsyncChild.start(argv, os.environ, subprocess.DEVNULL, most_bytes=2**24)
        try:
            await use(child)
        finally:
            await child.end()
            await child.end()

    runner = pytest.importorskip("uvloop").run if loop == "uvloop" else asyncio.run
    runner(asyncio.wait_for(used(), PATIENCE_S))


@pytest.mark.parametrize("loop", LOOPS)
def test_frames_of_many_senders_come_back_whole(loop: str) -> None:
    bodies = {bytes([k]) * size for k, size in enumerate((0, 1, 2**16, 2**20, 2**23))}

    async def use(child: AsyncChild) -> None:
        sending = [
            asyncio.create_task(child.send(body[:1], body[1:], timeout_s=PATIENCE_S))
            for body in bodies
        ]
        assert {await child.receive() for _ in bodies} == bodies
        await asyncio.gather(*sending)
        await child.end(PATIENCE_S)
        assert child._process.returncode == 0, "it ends by itself"

    run(loop, ECHO, use)


@pytest.mark.parametrize("loop", LOOPS)
def test_ended_child_is_seen_by_receiver_and_frees_senders(loop: str) -> None:
    async def use(child: AsyncChild) -> None:
        unread = child.send(bytes(2**24), timeout_s=PATIENCE_S)
        sending = asyncio.create_task(unread)
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EOFError):
            await child.receive()
        await sending
        await child.send(b"late", timeout_s=PATIENCE_S)

    run(loop, "import signal; signal.pause()", use)


def test_frame_above_the_limit_is_refused() -> None:
    async def use(child: AsyncChild) -> None:
        with pytest.raises(FrameError, match="the limit is 16777216"):
            await child.receive()

    run("asyncio", "import os; os.write(1, b'\\xff' * 8); os.read(0, 1)", use)


def test_child_that_does_not_read_is_killed_in_time() -> None:
    async def use(child: AsyncChild) -> None:
        with pytest.raises(TimeoutError, match=r"has not read a frame within 0\.05 s"):
            await child.send(bytes(2**20), timeout_s=0.05)
        with pytest.raises(EOFError):
            await child.receive()

    run("asyncio", "import signal; signal.pause()", use)


FORKED = """
import os, signal
if os.fork():
    os.write(1, (4).to_bytes(8, "big") + b"last")
    os._exit(7)
signal.pause()
"""


@pytest.mark.parametrize("loop", LOOPS)
def test_child_that_left_a_process_has_ended_and_takes_it_along(loop: str) -> None:
    left: list[psutil.Process] = []

    async def use(child: AsyncChild) -> None:
        assert await child.receive() == b"last"
        with pytest.raises(EOFError, match="has ended"):
            await child.receive()
        left.extend(each for each in psutil.process_iter() if group_of(each.pid) == child.pid)

    run(loop, FORKED, use)
    assert len(left) == 2  # with the child, which is not waited for before `end`
    until(lambda: not any(map(psutil.Process.is_running, left)))


def group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


LOOP = """
import asyncio, os, subprocess, sys
from simenv.sandbox.async_child import AsyncChild
HOLD = "import os, re; os.write(1, bytes(8)); re.match(r'(a+)+$', 'a' * 64 + 'b')"
async def hold():
    argv = [sys.executable, "-c", HOLD]
    child = await AsyncChild.start(argv, os.environ, subprocess.DEVNULL, most_bytes=9)
    await child.receive()
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(hold())
"""


def test_child_that_holds_the_interpreters_lock_ends_with_a_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE)
    with parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not psutil.pid_exists(pid), message="the child outlives its parent")


def test_start_that_fails_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        loop = asyncio.get_running_loop()

        async def connect(*_: object) -> None:
            raise OSError("no pipe")

        monkeypatch.setattr(loop, "connect_write_pipe", connect)
        argv = [sys.executable, "-c", "import signal; signal.pause()"]
        with pytest.raises(OSError, match="no pipe"):
            await AsyncChild.start(argv, os.environ, subprocess.DEVNULL, most_bytes=1)

    others = psutil.Process().children()  # of tests before: multiprocessing's resource tracker
    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(fail())
    assert psutil.Process().children() == others
    assert len(os.listdir("/proc/self/fd")) == before
