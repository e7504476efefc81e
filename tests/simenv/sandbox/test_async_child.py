"""A child process of an event loop: frames of any size in both directions, and its end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest

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
        child = await AsyncChild.start(argv, os.environ, subprocess.DEVNULL, 2**24)
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
        sending = [asyncio.create_task(child.send(body[:1], body[1:])) for body in bodies]
        assert {await child.receive() for _ in bodies} == bodies
        await asyncio.gather(*sending)

    run(loop, ECHO, use)


@pytest.mark.parametrize("loop", LOOPS)
def test_ended_child_is_seen_by_receiver_and_frees_senders(loop: str) -> None:
    async def use(child: AsyncChild) -> None:
        sending = asyncio.create_task(child.send(bytes(2**24)))  # which nobody reads
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(EOFError):
            await child.receive()
        await sending
        await child.send(b"late")

    run(loop, "import signal; signal.pause()", use)


def test_frame_above_the_limit_is_refused() -> None:
    async def use(child: AsyncChild) -> None:
        with pytest.raises(FrameError, match="the limit is 16777216"):
            await child.receive()

    run("asyncio", "import os; os.write(1, b'\\xff' * 8); os.read(0, 1)", use)


def test_child_that_ends_by_itself_is_not_killed() -> None:
    async def use(child: AsyncChild) -> None:
        await child.end(PATIENCE_S)
        assert child._process.returncode == 0

    run("asyncio", ECHO, use)
