"""Heartbeat thread of a worker, and the state that it shares with the main thread.

The thread renews the lease, receives cancellations, and ends the process when the service has not
answered for the length of the lease, when the parent process has ended, or on request. All state
of a worker is stored elsewhere, so it may end at any time.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable

from simenv.process import resident_bytes
from simenv.wire import codec
from simenv.wire.messages.client import (
    EXIT_LEASE,
    EXIT_ORPHAN,
    Heartbeat,
    LeaseRenewed,
    SetTaskThreads,
    StopTask,
    StopWorker,
)
from simenv.wire.transport.zmq_transport import Connection
from simenv.worker.process import exit_process, log_line
from simenv.worker.runner import Runner
from simulators.compiler.kernel_time import busy_ns

MAX_STOPS = 4_096


class RunningTask:
    """Identity of the running task, shared by two threads: the main thread begins and ends tasks,
    the heartbeat thread asks to stop them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._stops: dict[tuple[int, int], str] = {}  # reasons of stops before the task began
        self.running: tuple[int, int] = (0, 0)  # (task, attempt); read without the lock
        self.waiting = False  # the main thread waits for a chunk; read without the lock

    def begin(self, task: int, attempt: int) -> str:
        """Begin a task. Returns the reason if it was stopped before, so that it must not run; else
        ""."""
        with self._lock:
            self.running = (task, attempt)
            self._runner.control.clear()
            self._runner.stop_reason = ""
            return self._stops.pop((task, attempt), "")

    @property
    def passes(self) -> tuple[int, int]:
        """Completed and total passes of the running task."""
        return self._runner.control.passes

    def set_threads(self, task: int, attempt: int, threads: int) -> None:
        """Set the number of threads of a task from its next pass on; without effect if it has
        ended."""
        with self._lock:
            if self.running == (task, attempt):
                self._runner.control.threads = threads

    def end(self) -> None:
        self.running = (0, 0)

    def stop(self, task: int, attempt: int, reason: str) -> None:
        """Stop the task if it runs; else let `begin` return the reason, so that it does not run."""
        with self._lock:
            if self.running == (task, attempt):
                self._runner.stop_reason = reason
                self._runner.control.stop()
            else:
                if len(self._stops) >= MAX_STOPS:  # they came too late: their tasks have ended
                    self._stops.clear()
                self._stops[task, attempt] = reason


BEAT_S = 1.0
IDLE_BEATS = 7.5  # heartbeats of an idle worker in one lease; BEAT_S remains the shortest interval
COMPILING_NS = 300_000_000  # loading a kernel from disk takes less
# Part of the lease: after a longer pause of this thread the process was stopped.
SUSPENDED_PART = 0.5
END_S = 2.0  # for several ranks to end together, if the first is not busy


class HeartbeatThread:
    """Thread that sends heartbeats and receives control messages. It owns the control
    connection."""

    def __init__(
        self,
        connection: Connection,
        current: RunningTask,
        name: str,
        start: int,
        epoch: int,
        lease_s: float,
        parent: int,
        memory: Callable[[], int] = resident_bytes,
        end: Callable[[], None] | None = None,
    ) -> None:
        """`memory`: returns the resident bytes. `end`: asks the main thread to end all ranks in
        order, which it does if it is idle; None: the process ends at once."""
        self._connection = connection
        self._current = current
        self._name = name
        self._start = start
        self._epoch = epoch
        self._lease_s = lease_s
        self._parent = parent
        self._memory = memory
        self._end = end
        self._last_s = math.inf  # time at which the process ends, whatever the main thread does
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        received = time.monotonic()
        next_beat = 0.0
        while True:
            now = time.monotonic()
            if now >= next_beat:
                task, attempt = self._current.running
                waiting = self._current.waiting
                next_beat = now + (BEAT_S if task else max(BEAT_S, self._lease_s / IDLE_BEATS))
                memory, passes = self._memory(), self._current.passes if task else (0, 0)
                beat = Heartbeat(
                    self._name, self._epoch, task, attempt, memory, self._start, *passes, waiting,
                    busy_ns() > COMPILING_NS,
                )  # fmt: skip
                self._connection.send(codec.encode(beat))
            body = self._connection.receive(max(0.0, next_beat - time.monotonic()))
            if time.monotonic() - now > self._lease_s * SUSPENDED_PART:
                received = time.monotonic()  # this thread did not run in the meantime, so it could
                # not receive an answer: the lease begins anew
            if body is not None:
                received = time.monotonic()
                self._handle(body)
            if os.getppid() != self._parent:
                exit_process(EXIT_ORPHAN, "the process that started this one has ended")
            if time.monotonic() > self._last_s:
                exit_process(0, "on request, while busy")
            if time.monotonic() - received > self._lease_s:
                exit_process(EXIT_LEASE, f"no message from the service for {self._lease_s:g} s")

    def _handle(self, body: bytes) -> None:
        message = codec.to_worker(body)
        if isinstance(message, StopTask):
            self._current.stop(message.task, message.attempt, message.reason)
        elif isinstance(message, SetTaskThreads):
            self._current.set_threads(message.task, message.attempt, message.threads)
        elif isinstance(message, StopWorker):
            if self._end is None:
                exit_process(0, message.reason)
            log_line(f"ending: {message.reason}")
            self._last_s = min(self._last_s, time.monotonic() + END_S)
            self._end()
        elif not isinstance(message, LeaseRenewed):
            log_line(f"unexpected {type(message).__name__}")
