"""Child processes that get and send frames: the side of the parent process.

Invariant: neither a write nor a read blocks beyond the caller's limit of time, whatever the child
does. Its standard input is for frames to it, its standard output for those from it. It ends when
its input ends, however the parent process ends: see `simenv.sandbox.parent`.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic

from simenv.sandbox.frames import MAX_FRAME_BYTES, FrameBuffer, FrameError, frame, write_some
from simenv.sandbox.process_tree import kill_tree

READ_BYTES = 2**16  # what a pipe holds
KILLED_S = 1.0  # for a killed process to be gone; one that hangs in the kernel stays


def start(
    argv: Sequence[str], environ: Mapping[str, str], log: int, cwd: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a program with pipes for frames, in a process group of its own: signals of a terminal
    are for the parent. No session of its own, whose scheduling group (sched(7), autogroup) would
    make each exchange of frames a quarter slower. `log`: descriptor of its error output, or
    subprocess.DEVNULL. Raises OSError."""
    return subprocess.Popen(
        argv,
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        bufsize=0,
        process_group=0,
    )


class Child:
    """A child process with frames. Once it has ended, `has_ended` is True and no frames come. For
    one thread at a time."""

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        log: int = subprocess.DEVNULL,
        most_bytes: int = MAX_FRAME_BYTES,
        cwd: str | None = None,
    ) -> None:
        """Start the process. `most_bytes`: of one frame from it. Raises OSError."""
        self._process = start(argv, environ, log, cwd)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        os.set_blocking(self._out.fileno(), False)
        self._unsent: list[memoryview] = []
        self._buffer = FrameBuffer(most_bytes)
        self._frames: deque[bytes] = deque()
        self.has_ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None: the process runs."""
        return self._process.poll()

    def send(self, *parts: bytes) -> None:
        """Queue a frame, whose body are these parts, and write what the pipe takes now."""
        self._unsent += frame(*parts)
        self._write()

    def received(self) -> list[bytes]:
        """Return the frames since the last call; never wait. Raises FrameError for one above the
        limit."""
        self._write()
        while self._read():
            pass
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def receive(self, timeout_s: float) -> bytes:
        """Wait for the next frame, while what is queued is written. Raises TimeoutError, FrameError
        if the process ends."""
        end_s = monotonic() + timeout_s
        while not self._frames:
            if self.has_ended:
                raise FrameError("the process has ended")
            poll = select.poll()  # select.select takes no descriptor above 1023
            poll.register(self._out, select.POLLIN)
            if self._unsent:
                poll.register(self._in, select.POLLOUT)
            if not poll.poll(max(0.0, end_s - monotonic()) * 1e3):
                raise TimeoutError(f"no frame within {timeout_s:g} s")
            self._write()
            self._read()
        return self._frames.popleft()

    def end(self, patience_s: float = 0.0) -> None:
        """End the process: close its input, kill it after `patience_s`. Idempotent."""
        self._unsent.clear()
        self._in.close()
        with suppress(subprocess.TimeoutExpired):
            if patience_s:
                self._process.wait(patience_s)
        self._process.kill()  # without an effect if it has been waited for
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILLED_S)
        self._out.close()
        self.has_ended = True

    def kill_tree(self) -> None:
        """Kill the process, which has not been waited for, with all that it has started."""
        if self._process.poll() is None:
            kill_tree(self._process.pid)

    def _write(self) -> None:
        """Write what the pipe takes. What a process that has ended does not read is dropped."""
        try:
            while self._unsent:
                self._unsent = write_some(self._in.fileno(), self._unsent)
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._unsent.clear()

    def _read(self) -> bool:
        """Read one piece; return whether there may be more."""
        if self.has_ended:
            return False
        try:
            data = os.read(self._out.fileno(), READ_BYTES)
        except BlockingIOError:
            return False
        self.has_ended = not data
        self._frames.extend(self._buffer.feed(data))
        return bool(data)
