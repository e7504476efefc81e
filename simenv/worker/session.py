"""Session of a worker with its service: join, receive chunks, return results."""

from __future__ import annotations

import os
import secrets
import time
import zlib
from collections.abc import Callable

import msgspec

from simenv._version import __version__
from simenv.model import Origin
from simenv.process import resident_bytes
from simenv.wire import codec
from simenv.wire.messages.client import (
    MAX_MESSAGE_BYTES,
    AssignChunk,
    AttemptResult,
    AttemptResults,
    Failure,
    Join,
    NoiseDocument,
    Started,
    StopWorker,
)
from simenv.wire.messages.queries import DeviceDescribed
from simenv.wire.transport.worker_endpoint import WorkerBootstrap, connect
from simenv.worker.hardware import HardwareSession
from simenv.worker.heartbeat import HeartbeatThread, RunningTask
from simenv.worker.process import exit_process
from simenv.worker.ranks.leader import Leader
from simenv.worker.runner import ENDED_EARLY, FAILED, Runner

FLUSH_NS = 2_000_000  # results are sent when this time has passed, before the end of their chunk
FOREVER_S = 3_600.0
IDLE_S = 1.0
EXPIRY_S = 0.01  # after the time of a kept state
ANSWER_BYTES = MAX_MESSAGE_BYTES - 2**20  # leaves space for data that the service adds


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
    ) -> None:
        """`leader`: controls the other ranks; None: there are none. `hardware`: the worker's
        machine; None: it has none."""
        self._name = name
        self._start = start
        self._epoch = service.epoch
        self._runner = runner
        self._leader = leader
        self._hardware = hardware
        self._ending = False
        self._call: Callable[[], None] = _no_idle_work
        self._poll_timeout_s = FOREVER_S
        self._current = RunningTask(runner)
        nodes = (os.uname().nodename,) if leader is None else leader.nodes
        node_names = ",".join(dict.fromkeys(nodes))
        self._origin = Origin(name, node_names, os.getpid(), __version__, len(nodes))
        # Unique, also if another worker was started by mistake or is left from an earlier service.
        identity = f"{name}.{start}.{secrets.token_hex(4)}"
        self._work = connect(service, identity.encode())
        self._control = connect(service, f"{identity}!".encode())

    def join(self, lease_s: float, parent: int) -> None:
        """Join the service, and start the heartbeat thread."""
        self._describe()
        name, start, epoch, origin = self._name, self._start, self._epoch, self._origin
        join = Join(__version__, name, origin.pid, origin.node, epoch, (), start, origin.ranks)
        self._work.send(codec.encode(join))
        memory, end = resident_bytes, None
        if self._leader is not None:
            memory, end = self._leader.rss_bytes, self._end
        HeartbeatThread(
            self._control, self._current, name, start, epoch, lease_s, parent, memory, end
        ).start()

    def _describe(self) -> None:
        """Send the description of the machine, if there is one and it is new or has changed."""
        device = None if self._hardware is None else self._hardware.changed_info()
        if device is not None:
            self._runner.forget_plans()
            output = DeviceDescribed(self._name, self._epoch, self._start, device)
            self._work.send(codec.encode(output))

    def _end(self) -> None:
        """Request the end of all ranks; called by the heartbeat thread."""
        self._ending = True
        self._work.wake()

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
        if isinstance(message, StopWorker):
            exit_process(0, message.reason)
        if isinstance(message, NoiseDocument):
            if self._leader is not None:
                self._leader.forward(body)
            self._runner.receive_noise(message)
        elif isinstance(message, AssignChunk):
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
        return None

    def _run(self, chunk: AssignChunk, arrived_ns: int) -> None:
        current, runner, terms = self._current, self._runner, chunk.terms
        runner.limit_states(chunk.kept_bytes)
        results: list[AttemptResult] = []
        mark_ns = arrived_ns
        for index, assigned in enumerate(chunk.tasks):
            reason = current.begin(assigned.task, assigned.attempt)
            if reason:
                results.append(_skipped(assigned.task, assigned.attempt, reason))
                continue
            if chunk.announce:
                self._work.send(codec.encode(Started(assigned.task, assigned.attempt)))
            if self._leader is not None:
                self._leader.begin(index)
            results.append(runner.run(assigned, terms[assigned.terms], chunk, arrived_ns))
            now_ns = time.perf_counter_ns()
            if now_ns - mark_ns > FLUSH_NS:
                self._answer(chunk, results)
                results, mark_ns = [], now_ns
        current.end()
        if results:
            self._answer(chunk, results)

    def _answer(self, chunk: AssignChunk, results: list[AttemptResult]) -> None:
        for body in packed(self._origin, chunk, results):
            self._work.send(body)


def _no_idle_work() -> None:
    """Do nothing: there is no work left for an idle worker."""


def packed(origin: Origin, chunk: AssignChunk, results: list[AttemptResult]) -> list[bytes]:
    """Return the AttemptResults messages for these results. A result that is too large for one
    message becomes a Failure."""
    body = codec.encode(AttemptResults(origin, chunk.engine, chunk.route, chunk.slots, results))
    if len(body) <= ANSWER_BYTES:
        return [body]
    if len(results) > 1:
        half = len(results) // 2
        return packed(origin, chunk, results[:half]) + packed(origin, chunk, results[half:])
    failure = Failure(
        "limit",
        f"its result is {len(results[0].payload)} bytes; the limit is {ANSWER_BYTES}",
        "ask for fewer outputs or fewer shots",
    )
    payload = codec.encode(failure)
    failed = msgspec.structs.replace(
        results[0], state=FAILED, payload=payload, checksum=zlib.crc32(payload)
    )
    return packed(origin, chunk, [failed])


def _skipped(task: int, attempt: int, reason: str) -> AttemptResult:
    """Return the result of a task that was stopped before it began."""
    payload = codec.encode(Failure(reason, "stopped before it ran"))
    return AttemptResult(task, attempt, ENDED_EARLY[reason], payload, zlib.crc32(payload))
