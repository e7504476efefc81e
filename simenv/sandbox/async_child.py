"""Child processes that get and send frames, for an event loop of asyncio.

Invariant: a child is killed by the kernel when the thread of its loop ends, however it ends and
whatever the child does (`simenv.sandbox.die_with_parent`), as no other thread starts it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from simenv.sandbox.child import KILLED_S, LOOK_S, start
from simenv.sandbox.die_with_parent import command_line
from simenv.sandbox.frames import frame, read_frame_async
from simenv.sandbox.process_tree import end_tree, exit_code, kill_tree
from simenv.sandbox.progress import ProgressDeadline

_BUFFER_BYTES = 2**20  # read ahead of `receive`
_Result = TypeVar("_Result")


async def before(deadline: ProgressDeadline, awaited: Coroutine[Any, Any, _Result]) -> _Result:
    """Wait for the result until the deadline. Raises TimeoutError."""
    task = asyncio.get_running_loop().create_task(awaited)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
            if deadline.is_over:
                raise TimeoutError(f"not within {deadline.limit_s:g} s")
        return task.result()
    finally:
        task.cancel()


class AsyncChild:
    """A child process with frames; see `simenv.sandbox.child.Child`. Made by `start`. Frames are
    sent by any coroutine, and received by one."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        source: asyncio.ReadTransport,
        writer: asyncio.StreamWriter,
        most_bytes: int,
    ) -> None:
        self._process, self._most_bytes = process, most_bytes
        self._reader, self._source, self._writer = reader, source, writer
        self._next: asyncio.Task[bytes] | None = None  # the frame that comes

    @classmethod
    async def start(
        cls, argv: Sequence[str], environ: Mapping[str, str], log: int, *, most_bytes: int
    ) -> AsyncChild:
        """Start a process; see `simenv.sandbox.child.start`. `most_bytes`: of one frame from it.
        Raises OSError."""
        loop = asyncio.get_running_loop()
        process = start(command_line(os.getpid(), argv), environ, log)
        assert process.stdin is not None
        assert process.stdout is not None
        reader = asyncio.StreamReader(_BUFFER_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        flow = asyncio.StreamReaderProtocol(asyncio.StreamReader())  # of the other direction alone
        source = None
        try:
            source, _ = await loop.connect_read_pipe(lambda: protocol, process.stdout)
            sink, _ = await loop.connect_write_pipe(lambda: flow, process.stdin)
        except BaseException:
            end_tree(process, 0.0, KILLED_S)
            process.stdin.close()
            if source is None:
                process.stdout.close()
            else:
                source.close()
            raise
        writer = asyncio.StreamWriter(sink, flow, None, loop)
        return cls(process, reader, source, writer, most_bytes)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, *parts: bytes, timeout_s: float) -> None:
        """Send a frame, whose body are these parts, as the process reads. A process that has ended
        gets nothing: `receive` says so. `timeout_s`: see `ProgressDeadline`. Raises TimeoutError if
        it does not read, and kills it."""
        if self._writer.is_closing():
            return
        try:
            self._writer.writelines(frame(*parts))
            await before(ProgressDeadline(timeout_s, self.pid), self._writer.drain())
        except ConnectionError:
            pass
        except TimeoutError as error:
            self.kill()
            text = f"the process has not read a frame within {timeout_s:g} s"
            raise TimeoutError(text) from error

    async def receive(self) -> bytes:
        """Wait for the next frame. Raises FrameError for one above the limit, EOFError if the
        process has ended, also while another one holds its pipe."""
        if self._next is None:
            reading = read_frame_async(self._reader, self._most_bytes)
            self._next = asyncio.get_running_loop().create_task(reading)
            self._next.add_done_callback(_retrieve)
        has_ended = False
        while not (await asyncio.wait({self._next}, timeout=KILLED_S if has_ended else LOOK_S))[0]:
            if has_ended:
                raise EOFError("the process has ended")
            has_ended = exit_code(self._process) is not None
        found, self._next = self._next, None
        return found.result()

    def kill(self) -> None:
        """Kill the process with all that it has started; without an effect after `end`."""
        if self._process.returncode is None:
            kill_tree(self._process.pid)

    async def end(self, patience_s: float = 0.0) -> None:
        """End the process: close its input, kill it with all that it has started after
        `patience_s`. Idempotent."""
        self._writer.close()
        if self._process.returncode is None:
            await asyncio.to_thread(end_tree, self._process, patience_s, KILLED_S)
        self._source.close()  # which ends `receive`


def _retrieve(frame_read: asyncio.Task[bytes]) -> None:
    """Take the error of a read for which nobody waits any more, which asyncio would log."""
    if not frame_read.cancelled():
        frame_read.exception()
