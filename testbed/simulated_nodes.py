"""Simulated nodes of a site: agents and workers that speak the real protocol and compute nothing.

A few processes act for all nodes. Each has one ROUTER with a connection for each agent and each
worker, with the keys and names that real ones have: CurveZMQ over TCP, joins, chunks, results and
heartbeats, which agents send for their workers, are those of the protocol. Simulated: the batch
system, whose commands put each script into a folder, from which a process takes it and becomes that
node; the work, for each task has the same result, at once; and all that a worker does besides
messages to the service.
"""

from __future__ import annotations

import heapq
import math
import multiprocessing
import os
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from simenv._version import __version__
from simenv.errors import SimenvError
from simenv.model import Origin, TaskState
from simenv.node_agent import BEAT_S, BEATS
from simenv.sandbox.die_with_parent import bind_to_parent
from simenv.service.workers.endpoints import raise_descriptor_limit
from simenv.wire import codec
from simenv.wire.keyfiles import KeyPair, new_pair
from simenv.wire.messages import client as m, nodes

POLL_MS = 20
RUN_US = 12  # of a task, as its result says
RSS_BYTES = 120 * 2**20
MEMORY_BYTES = 64 * 2**30
LOOK_S = 0.02  # between two looks for new jobs
JOINS_A_LOOK = 4
_DONE = m.STATES.index(TaskState.DONE)
SBATCH = """#!/bin/sh
read -r n < {folder}/count
n=$((n + 1))
echo "$n" > {folder}/count
while read -r line; do case "$line" in {{*) echo "$line" > {folder}/new ;; esac; done
: > "{folder}/jobs/$n"
mv {folder}/new "{folder}/tokens/$n"
echo "$n"
"""
SQUEUE = """#!/bin/sh
cd {folder}/jobs || exit 1
for job in *; do echo "$job|RUNNING|None"; done
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do rm -f "{folder}/jobs/$job" "{folder}/tokens/$job"; done
"""


class _Worker(NamedTuple):
    """One start of a worker on a simulated node."""

    node: str
    name: str
    start: int
    work: bytes  # name of its connection
    origin: Origin
    beat: bytes  # its heartbeat


class SimulatedNodes:
    """The nodes of one process. `slots`: of each; `lease_s`: of workers, as the service has it."""

    def __init__(self, payload: bytes, slots: int, lease_s: float) -> None:
        self._payload, self._checksum = payload, zlib.crc32(payload)
        self._slots = slots
        self._idle_s = max(BEAT_S, lease_s / BEATS)
        self._least_s, self._longest_s = 0.0, math.inf  # between two heartbeats, by the last answer
        self._context = zmq.Context(io_threads=1)
        self._router = router = self._context.socket(zmq.ROUTER)
        router.set(zmq.ROUTER_MANDATORY, 1)
        router.set(zmq.SNDHWM, 0)
        router.set(zmq.RCVHWM, 0)
        router.set(zmq.LINGER, 0)
        router.set(zmq.HANDSHAKE_IVL, 30_000)
        router.set(zmq.RECONNECT_IVL_MAX, 1_000)
        self._tokens: dict[str, nodes.JoinToken] = {}
        self._workers: dict[str, dict[str, _Worker]] = {}  # by node and name
        self._beats: list[tuple[float, bytes, nodes.JoinToken]] = []  # a heap: time, connection
        self._handlers: dict[bytes, Callable[[bytes], None]] = {}

    @property
    def count(self) -> int:
        return len(self._tokens)

    def join(self, token: nodes.JoinToken) -> None:
        """Become the node of a job, as its agent does: present the token, then connect with a key
        of its own."""
        own, name = new_pair(), token.node
        join = nodes.JoinNode(
            *(__version__, name, token.epoch, own.public, f"host-{name}", self._slots),
            *(MEMORY_BYTES, 0, (), "simulated job", token.time_s, 0.1),
        )
        self._tokens[name] = token
        # An address of its own tells this connection, which ends, from the others.
        number = int(name.rpartition(":")[2])
        source = f"tcp://127.77.{number >> 8}.{number & 255}:0;"
        endpoint = token.address.replace("tcp://", source)
        route = f"{name}.token".encode()
        keys = KeyPair(token.public_key, token.secret_key)
        self._handlers[route] = lambda body: self._accepted(endpoint, token, own, body)
        self._connect(route, token, keys, endpoint)
        self._send(route, codec.encode(join))

    def _accepted(self, endpoint: str, token: nodes.JoinToken, own: KeyPair, body: bytes) -> None:
        name = token.node
        self._router.disconnect(endpoint)
        del self._handlers[f"{name}.token".encode()]
        answer = codec.to_node(body)
        if not isinstance(answer, nodes.NodeAccepted):
            raise RuntimeError(f"{name} may not join: {answer}")
        route = f"{name}.agent".encode()
        self._handlers[route] = lambda message: self._to_agent(route, token, message)
        self._connect(route, token, own)
        self._workers[name] = {}
        heapq.heappush(self._beats, (0.0, route, token))

    def run_pass(self) -> None:
        """Send the heartbeats that are due, and answer what has arrived."""
        now = time.monotonic()
        while self._beats and self._beats[0][0] <= now:
            _, route, token = heapq.heappop(self._beats)
            if route in self._handlers:
                workers = self._workers[token.node].values()
                # What a worker has told its agent is at most BEAT_S old, half of that on average.
                beats = [nodes.RelayedBeat(round(500 * BEAT_S), each.beat) for each in workers]
                beat = nodes.NodeHeartbeat(token.node, token.epoch, beats)
                self._send(route, codec.encode(beat))
                next_s = now + max(BEAT_S, min(max(self._idle_s, self._least_s), self._longest_s))
                heapq.heappush(self._beats, (next_s, route, token))
        if self._router.poll(POLL_MS):
            for _ in range(1_000):
                try:
                    route, body = self._router.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    return
                if route in self._handlers:
                    self._handlers[route](body)

    def _connect(
        self, route: bytes, token: nodes.JoinToken, keys: KeyPair, endpoint: str = ""
    ) -> None:
        router = self._router
        router.set(zmq.CURVE_SERVERKEY, token.server_key.encode())
        router.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
        router.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        router.set(zmq.IDENTITY, route)
        router.set(zmq.CONNECT_ROUTING_ID, route)
        router.connect(endpoint or token.address)

    def _send(self, route: bytes, body: bytes) -> None:
        with suppress(zmq.Again, zmq.ZMQError):  # the service has cut it off
            self._router.send_multipart((route, body), zmq.NOBLOCK)

    def _to_agent(self, route: bytes, token: nodes.JoinToken, body: bytes) -> None:
        message = codec.to_node(body)
        if isinstance(message, nodes.RunWorker):
            self._start(token, message)
        elif isinstance(message, nodes.SignalWorker):
            self._end(token.node, message.worker, -9, "signal 9 (SIGKILL)")
        elif isinstance(message, nodes.ForwardControl):
            control = codec.to_worker(message.body)
            if isinstance(control, m.StopWorker):
                self._end(token.node, message.worker, 0, control.reason)
        elif isinstance(message, m.LeaseRenewed):
            self._least_s, self._longest_s = message.interval_s, message.longest_s
        elif isinstance(message, nodes.EndNode):
            for name in list(self._workers[token.node]):
                self._end(token.node, name, 0, message.reason)
            self._send(route, codec.encode(nodes.NodeLeaving(token.node, message.reason, True)))
            del self._handlers[route], self._tokens[token.node], self._workers[token.node]

    def _start(self, token: nodes.JoinToken, message: nodes.RunWorker) -> None:
        name, start, epoch = message.worker, message.start, token.epoch
        work = f"{name}.{start}".encode()
        host = f"host-{token.node}"
        origin = Origin(name, host, os.getpid(), __version__, 1)
        beat = codec.encode(m.Heartbeat(name, epoch, 0, 0, RSS_BYTES, start))
        worker = _Worker(token.node, name, start, work, origin, beat)
        self._connect(work, token, KeyPair(message.public_key, message.secret_key))
        self._workers[token.node][name] = worker
        self._handlers[work] = lambda body: self._to_worker(worker, body)
        join = m.Join(__version__, name, os.getpid(), host, epoch, (), start, 1)
        self._send(work, codec.encode(join))

    def _to_worker(self, worker: _Worker, body: bytes) -> None:
        message = codec.to_worker(body)
        if isinstance(message, m.AssignChunk):
            payload, checksum = self._payload, self._checksum
            results = [
                m.AttemptResult(each.task, each.attempt, _DONE, payload, checksum, run_us=RUN_US)
                for each in message.tasks
            ]
            self._send(worker.work, codec.encode(m.AttemptResults(results)))
        elif isinstance(message, m.StopWorker):
            self._end(worker.node, worker.name, 0, message.reason)

    def _end(self, node: str, name: str, code: int, reason: str) -> None:
        worker = self._workers[node].pop(name, None)
        if worker is None:
            return
        del self._handlers[worker.work]
        ended = nodes.WorkerEnded(
            worker.node, worker.name, worker.start, os.getpid(), code, reason, False
        )
        self._send(f"{worker.node}.agent".encode(), codec.encode(ended))


def _serve(folder: Path, most: int, payload: bytes, slots: int, lease_s: float) -> None:
    """Take up to `most` tokens, and serve as these nodes until the end of the parent."""
    bind_to_parent(os.getppid())
    raise_descriptor_limit()
    here = SimulatedNodes(payload, slots, lease_s)
    look_s = 0.0
    while True:
        if here.count < most and time.monotonic() >= look_s:
            look_s = time.monotonic() + LOOK_S
            for path in sorted((folder / "tokens").iterdir())[:JOINS_A_LOOK]:
                mine = folder / f"{path.name}.{os.getpid()}"
                with suppress(FileNotFoundError, SimenvError):
                    path.rename(mine)
                    here.join(msgspec.json.decode(mine.read_bytes(), type=nodes.JoinToken))
                    mine.unlink()
        here.run_pass()


class Site:
    """The simulated site: its processes, of which the last can die with its nodes."""

    def __init__(self, folder: Path, processes: list[BaseProcess]) -> None:
        self.folder = folder
        self.processes = processes

    def lose_last(self) -> None:
        """Stop the last process for good: its nodes send nothing, not even the end of their
        connections, as after a loss of power."""
        pid = self.processes[-1].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)


@contextmanager
def site(
    folder: Path, shares: list[int], payload: bytes, *, slots: int, lease_s: float = 15.0
) -> Iterator[Site]:
    """Run the commands and the processes of a simulated site. `shares`: nodes of each process.
    The commands are found by processes that start within this context."""
    for name in ("tokens", "jobs", "bin"):
        (folder / name).mkdir(parents=True)
    (folder / "count").write_text("0\n")
    for name, script in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        path = folder / "bin" / name
        path.write_text(script.format(folder=folder))
        path.chmod(0o700)
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{before}"
    methods = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = [
        methods.Process(target=_serve, args=(folder, share, payload, slots, lease_s))
        for share in shares
    ]
    try:
        for process in processes:
            process.start()
        yield Site(folder, processes)
    finally:
        os.environ["PATH"] = before
        for process in processes:
            process.kill()
            process.join()
