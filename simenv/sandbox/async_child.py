"""Child processes that get and send frames, for an event loop of asyncio."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from simenv.sandbox.child import start
from simenv.sandbox.frames import MAX_FRAME_BYTES, frame, read_frame_async

_BUFFER_BYTES = 2**20  # read ahead of `receive`


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

    @classmethod
    async def start(
        cls,
        argv: Sequence[str],
        environ: Mapping[str, str],
        log: int,
        most_bytes: int = MAX_FRAME_BYTES,
    ) -> AsyncChild:
        """Start a process; see `simenv.sandbox.child.start`. `most_bytes`: of one frame from it.
        Raises OSError."""
        loop, process = asyncio.get_running_loop(), start(argv, environ, log)
        reader = asyncio.StreamReader(_BUFFER_BYTES)
        protocol = asyncio.StreamReaderProtocol(reader)
        flow = asyncio.StreamReaderProtocol(asyncio.StreamReader())  # of the other direction alone
        try:
            source, _ = await loop.connect_read_pipe(lambda: protocol, process.stdout)
            sink, _ = await loop.connect_write_pipe(lambda: flow, process.stdin)
        except BaseException:
            process.kill()
            raise
        writer = asyncio.StreamWriter(sink, flow, None, loop)
        return cls(process, reader, source, writer, most_bytes)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def send(self, *parts: bytes) -> None:
        """Send a frame, whose body are these parts, as the process reads. A process that has ended
        gets nothing: `receive` says so."""
        if self._writer.is_closing():
            return
        with suppress(ConnectionError):
            self._writer.writelines(frame(*parts))
            await self._writer.drain()

    async def receive(self) -> bytes:
        """Wait for the next frame. Raises FrameError for one above the limit, EOFError if the
        process has ended."""
        return await read_frame_async(self._reader, self._most_bytes)

    def kill(self) -> None:
        """Kill the process; without an effect if it has been waited for."""
        self._process.kill()

    async def end(self, patience_s: float = 0.0) -> None:
        """End the process: close its input, kill it after `patience_s`. Idempotent."""
        self._writer.close()
        if patience_s:
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._process.wait, patience_s)
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        self._source.close()
