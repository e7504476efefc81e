"""A worker's conversation with its service: join, take chunks, answer them."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import msgspec

from simenv import __version__
from simenv.model import Origin
from simenv.wire import codec
from simenv.wire.connection import ZmqConnection
from simenv.wire.messages import (
    MAX_MESSAGE_BYTES,
    Assign,
    Done,
    Failure,
    Finished,
    Join,
    Started,
    StopWorker,
)
from simenv.worker.current import Current
from simenv.worker.heartbeat import Heartbeat, leave
from simenv.worker.runner import ENDED_EARLY, FAILED, Runner
from simenv.worker.shelf import Shelf
from simulators import warm

FLUSH_NS = 2_000_000  # results never wait longer than this for the end of their chunk
FOREVER_S = 3_600.0
ANSWER_BYTES = MAX_MESSAGE_BYTES - 2**20  # room for what the service adds on the way on


class Session:
    """Used from the main thread; the heartbeat has a thread and a connection of its own."""

    def __init__(self, socket: Path, name: str, epoch: int, shelf: Shelf) -> None:
        self._name = name
        self._epoch = epoch
        self._runner = Runner(shelf)
        self._current = Current(self._runner)
        node = os.uname().nodename
        self._origin = Origin(name, node, os.getpid(), __version__)
        identity = f"{name}.{os.getpid()}"
        self._work = ZmqConnection(socket, identity.encode())
        self._control = ZmqConnection(socket, f"{identity}!".encode())

    def load(self, engine: str, kernels: Path) -> None:
        """Everything a first task would have to wait for; compiled code is kept in `kernels`."""
        warm.warm_up(kernels, engine)
        self._runner.engine(engine)

    def join(self, lease_s: float, parent: int) -> None:
        """Tell the service we are ready; from here on the heartbeat watches over us."""
        origin = self._origin
        self._work.send(
            codec.encode(Join(__version__, origin.worker, origin.pid, origin.node, self._epoch, ()))
        )
        Heartbeat(self._control, self._current, self._name, self._epoch, lease_s, parent).start()

    def work(self) -> None:
        """Wait for one chunk and run it."""
        body = self._work.receive(FOREVER_S)
        if body is None:
            return
        message = codec.to_worker(body)
        if isinstance(message, StopWorker):
            leave(0, message.reason)
        if isinstance(message, Assign):
            self._run(message, time.perf_counter_ns())

    def _run(self, chunk: Assign, arrived_ns: int) -> None:
        current, runner, terms = self._current, self._runner, chunk.terms
        results: list[Finished] = []
        mark_ns = arrived_ns
        for assigned in chunk.tasks:
            reason = current.begin(assigned.task, assigned.attempt)
            if reason:
                results.append(_skipped(assigned.task, assigned.attempt, reason))
                continue
            if chunk.announce:
                self._work.send(codec.encode(Started(assigned.task, assigned.attempt)))
            results.append(runner.run(assigned, terms[assigned.terms], chunk, arrived_ns))
            now_ns = time.perf_counter_ns()
            if now_ns - mark_ns > FLUSH_NS:
                self._answer(chunk, results)
                results, mark_ns = [], now_ns
        current.end()
        if results:
            self._answer(chunk, results)

    def _answer(self, chunk: Assign, results: list[Finished]) -> None:
        for body in packed(self._origin, chunk, results):
            self._work.send(body)


def packed(origin: Origin, chunk: Assign, results: list[Finished]) -> list[bytes]:
    """The Done messages that carry these results; one too large for any becomes a Failure."""
    body = codec.encode(Done(origin, chunk.engine, chunk.route, chunk.slots, results))
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


def _skipped(task: int, attempt: int, reason: str) -> Finished:
    """A task that was stopped before it began."""
    payload = codec.encode(Failure(reason, "stopped before it ran"))
    return Finished(task, attempt, ENDED_EARLY[reason], payload, zlib.crc32(payload))
