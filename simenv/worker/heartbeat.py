"""The worker's second thread: says it lives, hears what to stop, and ends the process on its own.

It ends the process when the service has not answered for the length of the lease, when the parent
is gone, or when told to. A worker holds nothing that is not stored elsewhere: it may end at once.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from simenv.wire import codec
from simenv.wire.connection import Connection
from simenv.wire.messages import EXIT_LEASE, EXIT_ORPHAN, Beat, Lease, StopTask, StopWorker
from simenv.worker.current import Current

BEAT_S = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Heartbeat:
    """Owns the control connection."""

    def __init__(
        self,
        connection: Connection,
        current: Current,
        name: str,
        epoch: int,
        lease_s: float,
        parent: int,
    ) -> None:
        self._connection = connection
        self._current = current
        self._name = name
        self._epoch = epoch
        self._lease_s = lease_s
        self._parent = parent
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        heard = time.monotonic()
        next_beat = 0.0
        while True:
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + BEAT_S
                task, attempt = self._current.running
                beat = Beat(self._name, self._epoch, task, attempt, rss_bytes())
                self._connection.send(codec.encode(beat))
            body = self._connection.receive(max(0.0, next_beat - time.monotonic()))
            if body is not None:
                heard = time.monotonic()
                self._hear(body)
            if os.getppid() != self._parent:
                leave(EXIT_ORPHAN, "the service's process is gone")
            if time.monotonic() - heard > self._lease_s:
                leave(EXIT_LEASE, f"no word from the service for {self._lease_s:g} s")

    def _hear(self, body: bytes) -> None:
        message = codec.to_worker(body)
        if isinstance(message, StopTask):
            self._current.stop(message.task, message.attempt, message.reason)
        elif isinstance(message, StopWorker):
            leave(0, message.reason)
        elif not isinstance(message, Lease):
            say(f"unexpected {type(message).__name__}")


def leave(code: int, why: str) -> None:
    """End the process now, with a last line in its log."""
    say(f"leaving: {why}")
    os._exit(code)


def say(line: str) -> None:
    """A line for the worker's log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def rss_bytes() -> int:
    """This process's resident memory; 0 where /proc is missing."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
