"""Child processes that get and send frames: the side of the parent process.

Invariants: neither a write nor a read blocks beyond the caller's limit of time, whatever the child
does, and what it has forked, which may hold its pipes. With `end` all that it has started ends, but
for what has moved to another group and lost its parent. Its standard input is for frames to it, its
standard output for those from it. It ends when its input ends, however the parent process ends: see
`simenv.sandbox.parent`.
"""

from __future__ import annotations

import os
import select
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from simenv.sandbox.frames import FrameBuffer, FrameError, frame, write_some
from simenv.sandbox.process_tree import end_tree, exit_code, kill_tree, register
from simenv.sandbox.progress import ProgressDeadline

READ_BYTES = 2**16  # what a pipe holds
READS = 16  # of one call of `received`
BLOCKED_PART = 0.5  # of its time: a process with less CPU time waited for something else
LOOK_S = 0.25  # between two looks whether a process has ended whose pipe is held open
KILLED_S = 1.0  # for a killed process to be gone; one that hangs in the kernel stays

# Variables of its parent that a process gets which decodes what other users send: paths and
# languages, but no credentials and no settings of the parent. Those of Python come with them.
_PATHS = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "SIMENV_HOME", "SIMENV_KERNELS")
_OF_DECODERS = frozenset((*_PATHS, "LANG", "LANGUAGE", "TZ"))


def decoder_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that decodes what other users send: few variables of
    `environ`, and one thread for each call of a library."""
    passed = {
        name: value
        for name, value in environ.items()
        if name in _OF_DECODERS or name.startswith(("PYTHON", "LC_"))
    }
    return {**passed, "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


def start(
    argv: Sequence[str], environ: Mapping[str, str], log: int, cwd: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a program with pipes for frames, in a process group of its own: signals of a terminal
    are for the parent. No session of its own, whose scheduling group (sched(7), autogroup) would
    make each exchange of frames a quarter slower. `log`: descriptor of its error output, or
    subprocess.DEVNULL. Raises OSError."""
    process = subprocess.Popen(
        argv,
        env=dict(environ),
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        bufsize=0,
        process_group=0,
    )
    register(process)
    return process


class BlockedError(TimeoutError):
    """A process had its time, and hardly used it: the cause may be outside of it."""


class Child:
    """A child process with frames. Once it has ended, `has_ended` is True and no frames come. For
    one thread at a time."""

    def __init__(
        self,
        argv: Sequence[str],
        environ: Mapping[str, str],
        log: int = subprocess.DEVNULL,
        *,
        most_bytes: int,
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
        return exit_code(self._process)

    def send(self, *parts: bytes) -> None:
        """Queue a frame, whose body are these parts, and write what the pipe takes now. Dropped for
        a process that has ended."""
        if self.has_ended:
            return
        self._unsent += frame(*parts)
        self._write()

    def received(self) -> list[bytes]:
        """Return frames since the last call, from READS pieces of READ_BYTES at most; never wait.
        Raises FrameError for one above the limit."""
        self._write()
        for _ in range(READS):
            if not self._read():
                break
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def receive(self, timeout_s: float, check: Callable[[], object] | None = None) -> bytes:
        """Wait for the next frame, while what is queued is written. `timeout_s`: of the time that
        the process has, see `ProgressDeadline`. `check`: called every LOOK_S; what it raises ends
        the wait. Raises TimeoutError, BlockedError if the process hardly ran, FrameError if it
        ends."""
        deadline, left_s, now_s = None, timeout_s, monotonic()
        look_s = now_s + min(timeout_s, LOOK_S)
        while not self._frames:
            if self.has_ended:
                raise FrameError("the process has ended")
            if now_s >= look_s:  # not for each piece of a frame: a look takes as long as a call
                if deadline is None:
                    deadline = ProgressDeadline(timeout_s - LOOK_S, self.pid)
                left_s = deadline.look()
                look_s = now_s + min(max(0.0, left_s), LOOK_S)
            poll = select.poll()  # select.select takes no descriptor above 1023
            poll.register(self._out, select.POLLIN)
            if self._unsent:
                poll.register(self._in, select.POLLOUT)
            if check is not None:
                check()
            poll.poll(max(0.0, look_s - now_s) * 1e3)
            self._write()
            self._read()
            if left_s <= 0.0 and not self._frames and not self.has_ended:
                is_blocked = deadline is None or deadline.cpu_s < BLOCKED_PART * timeout_s
                kind = BlockedError if is_blocked else TimeoutError
                raise kind(f"no frame within {timeout_s:g} s")
            now_s = monotonic()
        return self._frames.popleft()

    def end(self, patience_s: float = 0.0) -> None:
        """End the process: close its input, kill it with all that it has started after
        `patience_s`. Idempotent."""
        self._unsent.clear()
        self._in.close()
        end_tree(self._process, patience_s, KILLED_S)
        self._out.close()
        self.has_ended = True

    def kill_tree(self) -> None:
        """Kill the process with all that it has started."""
        if self._process.returncode is None:  # `end` has not waited for it
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
        """Read one piece; return whether there may be more. The end of the process counts as that
        of its pipe, once what it has written is read."""
        if self.has_ended:
            return False
        try:
            data = os.read(self._out.fileno(), READ_BYTES)
        except BlockingIOError:
            if exit_code(self._process) is None:
                return False
            try:
                data = os.read(self._out.fileno(), READ_BYTES)  # from before its end
            except BlockingIOError:
                data = b""
        self.has_ended = not data
        self._frames.extend(self._buffer.feed(data))
        return bool(data)
