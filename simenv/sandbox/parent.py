"""Frames from and to the parent process: the side of the child process.

Invariant: nothing but frames reaches the parent's pipe: what a library prints goes to the log. Nor
does a library, or a program that it starts, read from it: standard input is empty.
"""

from __future__ import annotations

import os
import select
import threading

from simenv.sandbox.frames import frame, read_frame, write_some


class ParentChannel:
    """Frames over standard input and output, which it takes over. Frames are sent by any thread,
    and received by one. Opened once, by the main function of the process."""

    def __init__(self) -> None:
        self._source = os.fdopen(os.dup(0), "rb")
        self._answers = os.dup(1)
        empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(empty, 0)
        os.close(empty)
        os.dup2(2, 1)
        self._writing = threading.Lock()

    def receive(self) -> bytes | None:
        """Wait for the next frame; None: the parent process has ended, or closed its end."""
        return read_frame(self._source)

    def send(self, *parts: bytes) -> None:
        """Send a frame, whose body are these parts. Raises OSError."""
        with self._writing:
            left = frame(*parts)
            while left:
                left = write_some(self._answers, left)

    def has_ended(self, timeout_s: float | None = None) -> bool:
        """Return whether the parent process has ended, or closed its end; wait for that, by default
        for ever. Frames stay unread."""
        watch = select.poll()
        watch.register(self._source, 0)  # nothing but the end of the other side
        return bool(watch.poll(None if timeout_s is None else timeout_s * 1e3))

    def end_with_parent(self) -> None:
        """End this process with its parent from now on, also amid work that takes for ever."""
        threading.Thread(target=self._end, name="end-with-parent", daemon=True).start()

    def _end(self) -> None:
        self.has_ended()
        os._exit(1)
