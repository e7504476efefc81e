"""Session of a worker with its service, and its heartbeat.

Heartbeat thread of a worker, and the state that it shares with the main thread. The thread renews
the lease, receives cancellations, and ends the process when the service has not answered for the
length of the lease, when the parent process has ended, or on request. All state of a worker is
stored elsewhere, so it may end at any time.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
import zlib
from collections.abc import Callable

import msgspec

from simenv._version import __version__
from simenv.model import Origin, ProgressInfo
from simenv.process import exit_process, log_line, node_load, resident_bytes
from simenv.wire import codec
from simenv.wire.keyfiles import WorkerBootstrap
from simenv.wire.messages import client as m, queries
from simenv.wire.transport import zmq_transport
from simenv.wire.transport.unix_streams import UnixConnection
from simenv.worker.hardware import HardwareSession
from simenv.worker.ranks import Leader
from simenv.worker.runner import ENDED_EARLY, FAILED, PREEMPTED, Runner
from simulators.compiler.kernel_time import busy_ns

MAX_STOPS = 4_096  # more than twice the tasks that a worker is sent before it answers


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
    def progress(self) -> ProgressInfo | None:
        """Progress of the running task; None if its engine does not report it."""
        progress = self._runner.control.progress
        return ProgressInfo(*progress) if progress.unit else None

    @property
    def loaded_bytes(self) -> int:
        """Resident memory of the process when it had loaded an engine; 0: it has loaded none."""
        return self._runner.loaded_bytes

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
                control = self._runner.control
                (control.preempt if reason == PREEMPTED else control.stop)()
            else:
                if len(self._stops) >= MAX_STOPS:  # the oldest came too late: its task has ended
                    del self._stops[next(iter(self._stops))]
                self._stops[task, attempt] = reason


BEAT_S = 1.0
IDLE_BEATS = 7.5  # heartbeats of an idle worker in one lease; BEAT_S remains the shortest interval
LEAST_BEATS = 3  # in one lease, however many workers the service has
COMPILING_NS = 300_000_000  # loading a kernel from disk takes less
# Part of the lease: after a longer pause of this thread the process was stopped.
SUSPENDED_PART = 0.5
END_S = 2.0  # for several ranks to end together, if the first is not busy


class HeartbeatThread:
    """Thread that sends heartbeats and receives control messages. It owns the control
    connection."""

    def __init__(
        self,
        connection: zmq_transport.Connection,
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
        self._idle_bytes = 0  # resident memory of this process at its last heartbeat without a task
        self._least_s, self._longest_s = 0.0, math.inf  # between two heartbeats
        self._grants = 0  # of the newest answer
        self._last_s = math.inf  # time at which the process ends, whatever the main thread does
        self.answered = threading.Event()  # the control connection is open
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self._beat()
        except Exception as error:  # noqa: BLE001 - without heartbeats the worker would be lost in silence
            exit_process(m.EXIT_LEASE, f"the heartbeat failed: {error!r:.500}")

    def _beat(self) -> None:
        received = time.monotonic()
        next_beat = sent = 0.0
        while True:
            now = time.monotonic()
            if now >= next_beat:
                task, attempt = self._current.running
                waiting = self._current.waiting
                memory, progress = self._memory(), self._current.progress if task else None
                if not task:
                    self._idle_bytes = resident_bytes()
                base = max(self._idle_bytes, self._current.loaded_bytes)
                beat = m.Heartbeat(
                    self._name, self._epoch, task, attempt, memory, self._start, progress, waiting,
                    busy_ns() > COMPILING_NS, time.process_time_ns() // 1_000_000, *node_load(),
                    base, self._grants,
                )  # fmt: skip
                self._connection.send(codec.encode(beat))
                sent = now
            next_beat = sent + self._pause_s()
            body = self._connection.receive(max(0.0, next_beat - time.monotonic()))
            if time.monotonic() - now > self._lease_s * SUSPENDED_PART:
                received = time.monotonic()  # this thread did not run in the meantime, so it could
                # not receive an answer: the lease begins anew
            if body is not None:
                received = time.monotonic()
                self.answered.set()
                self._handle(body)
            if os.getppid() != self._parent:
                exit_process(m.EXIT_ORPHAN, "the process that started this one has ended")
            if time.monotonic() > self._last_s:
                exit_process(0, "on request, while busy")
            if time.monotonic() - received > self._lease_s:
                exit_process(m.EXIT_LEASE, f"no message from the service for {self._lease_s:g} s")

    def _pause_s(self) -> float:
        """Return the seconds between two heartbeats."""
        idle_s = 0.0 if self._current.running[0] else self._lease_s / IDLE_BEATS
        return max(BEAT_S, min(max(self._least_s, idle_s), self._longest_s))

    def _handle(self, body: bytes) -> None:
        message = codec.to_worker(body)
        if isinstance(message, m.StopTask):
            self._current.stop(message.task, message.attempt, message.reason)
        elif isinstance(message, m.SetTaskThreads):
            self._current.set_threads(message.task, message.attempt, message.threads)
        elif isinstance(message, m.StopWorker):
            if self._end is None:
                exit_process(0, message.reason)
            log_line(f"ending: {message.reason}")
            self._last_s = min(self._last_s, time.monotonic() + END_S)
            self._end()
        elif isinstance(message, m.LeaseRenewed):
            self._least_s = min(message.interval_s, self._lease_s / LEAST_BEATS)
            self._longest_s = message.longest_s
            self._grants = message.grants
        else:
            log_line(f"unexpected {type(message).__name__}")


FOREVER_S = 3_600.0
IDLE_S = 1.0
EXPIRY_S = 0.01  # after the time of a kept state
ANSWER_BYTES = m.MAX_MESSAGE_BYTES - 2**20  # leaves space for data that the service adds


class Session:
    """Work connection of a worker. Used from the main thread; the heartbeat has a thread and a
    connection of its own."""

    def __init__(
        self,
        service: WorkerBootstrap,
        name: str,
        start: int,
        runner: Runner,
        leader: Leader | None = None,
        hardware: HardwareSession | None = None,
        pid: int = 0,
    ) -> None:
        """`leader`: controls the other ranks; None: there are none. `hardware`: the worker's
        machine; None: it has none. `pid`: as the service sees this process; 0: as it sees
        itself."""
        self._name = name
        self._start = start
        self._epoch = service.epoch
        self._runner = runner
        self._leader = leader
        self._hardware = hardware
        self._ending = False
        self._call: Callable[[], None] = _no_idle_work
        self._before_tasks: Callable[[], None] | None = None
        self._heartbeat: HeartbeatThread | None = None
        self._poll_timeout_s = FOREVER_S
        self._current = RunningTask(runner)
        nodes = (os.uname().nodename,) if leader is None else leader.nodes
        node_names = ",".join(dict.fromkeys(nodes))
        self._origin = Origin(name, node_names, pid or os.getpid(), __version__, len(nodes))
        # Unique, also if another worker was started by mistake or is left from an earlier service.
        identity = f"{name}.{start}.{secrets.token_hex(4)}"
        self._work = zmq_transport.connect_worker(service, identity.encode())
        self._control = zmq_transport.connect_worker(service.control, f"{identity}!".encode())

    def join(self, lease_s: float, parent: int) -> None:
        """Join the service, and start the heartbeat thread."""
        self._describe()
        name, start, epoch, origin = self._name, self._start, self._epoch, self._origin
        join = m.Join(__version__, name, origin.pid, origin.node, epoch, (), start, origin.ranks)
        self._work.send(codec.encode(join))
        memory, end = self._runner.used_bytes, None
        if self._leader is not None:
            memory, end = self._leader.rss_bytes, self._end
        self._heartbeat = HeartbeatThread(
            self._control, self._current, name, start, epoch, lease_s, parent, memory, end
        )
        self._heartbeat.start()

    def _describe(self) -> None:
        """Send the description of the machine, if there is one and it is new or has changed."""
        device = None if self._hardware is None else self._hardware.changed_info()
        if device is not None:
            self._runner.forget_plans()
            output = queries.DeviceDescribed(self._name, self._epoch, self._start, device)
            self._work.send(codec.encode(output))

    def _end(self) -> None:
        """Request the end of all ranks; called by the heartbeat thread."""
        self._ending = True
        self._work.wake()

    def before_tasks(self, call: Callable[[], None]) -> None:
        """Let `work` call this once, before the first chunk, when both connections are open."""
        self._before_tasks = call

    def when_idle(self, call: Callable[[], None]) -> None:
        """Let `work` call this once, after IDLE_S without a message."""
        self._call, self._poll_timeout_s = call, IDLE_S

    def work(self) -> bool:
        """Wait for one message and handle it; run a chunk. Returns False if all ranks of the worker
        must end."""
        self._current.waiting = True
        body = self._receive()
        self._current.waiting = False
        if self._ending:
            assert self._leader is not None
            self._leader.end()
            return False
        if body is None:
            self._poll_timeout_s = FOREVER_S
            self._call()
            self._call = _no_idle_work
            return True
        message = codec.to_worker(body)
        if isinstance(message, m.StopWorker):
            exit_process(0, message.reason)
        if isinstance(message, m.NoiseDocument):
            if self._leader is not None:
                self._leader.forward(body)
            self._runner.receive_noise(message)
        elif isinstance(message, m.AssignChunk):
            if self._before_tasks is not None:
                assert self._heartbeat is not None
                self._heartbeat.answered.wait()  # the heartbeat ends the process after its lease
                self._before_tasks()
                self._before_tasks = None
            if self._leader is not None:
                self._leader.forward(body)
            self._run(message, time.perf_counter_ns())
            self._describe()
        return True

    def _receive(self) -> bytes | None:
        """Return the next message, or None after `_poll_timeout_s`. Drops expired states while it
        waits."""
        until_s = time.monotonic() + self._poll_timeout_s
        while (left_s := until_s - time.monotonic()) > 0.0:
            body = self._work.receive(min(left_s, self._runner.expire_states() + EXPIRY_S))
            if body is not None or self._ending:
                return body
            if isinstance(self._work, UnixConnection) and self._work.is_lost:
                exit_process(m.EXIT_LEASE, "the service has closed the connection")
        return None

    def _run(self, chunk: m.AssignChunk, arrived_ns: int) -> None:
        current, runner, terms = self._current, self._runner, chunk.terms
        runner.limit_states(chunk.kept_bytes)
        results: list[m.AttemptResult] = []
        mark_ns = arrived_ns
        for index, assigned in enumerate(chunk.tasks):
            reason = current.begin(assigned.task, assigned.attempt)
            if reason:
                results.append(_skipped(assigned.task, assigned.attempt, reason))
                continue
            if chunk.announce:
                self._work.send(codec.encode(m.Started(assigned.task, assigned.attempt)))
            if self._leader is not None:
                self._leader.begin(index)
            results.append(runner.run(assigned, terms[assigned.terms], chunk, arrived_ns))
            now_ns = time.perf_counter_ns()
            if now_ns - mark_ns > m.FLUSH_NS:
                self._answer(results)
                results, mark_ns = [], now_ns
        current.end()
        if results:
            self._answer(results)

    def _answer(self, results: list[m.AttemptResult]) -> None:
        for body in packed(results):
            self._work.send(body)


def _no_idle_work() -> None:
    """Do nothing: there is no work left for an idle worker."""


def packed(results: list[m.AttemptResult]) -> list[bytes]:
    """Return the AttemptResults messages for these results. A result that is too large for one
    message becomes a Failure."""
    body = codec.encode(m.AttemptResults(results))
    if len(body) <= ANSWER_BYTES:
        return [body]
    if len(results) > 1:
        half = len(results) // 2
        return packed(results[:half]) + packed(results[half:])
    failure = m.Failure(
        "limit",
        f"its result is {len(results[0].payload)} bytes; the limit is {ANSWER_BYTES}",
        "ask for fewer outputs or fewer shots",
    )
    payload = codec.encode(failure)
    failed = msgspec.structs.replace(
        results[0], state=FAILED, payload=payload, checksum=zlib.crc32(payload)
    )
    return packed([failed])


def _skipped(task: int, attempt: int, reason: str) -> m.AttemptResult:
    """Return the result of a task that was stopped before it began."""
    payload = codec.encode(m.Failure(reason, "stopped before it ran"))
    return m.AttemptResult(task, attempt, ENDED_EARLY[reason], payload, zlib.crc32(payload))
