"""One worker over several MPI ranks: its sockets, and who leads and who follows."""

from __future__ import annotations

import math
import os
import socket as sockets
import threading
import time
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import msgspec
import zmq
from zmq.utils import z85

from simenv.errors import NoServiceError
from simenv.process import exit_process, log_line, resident_bytes
from simenv.sandbox.progress import ProgressDeadline
from simenv.wire import codec
from simenv.wire.keyfiles import KeyPair, WorkerBootstrap
from simenv.wire.messages.client import EXIT_ORPHAN, EXIT_RANK, AssignChunk, NoiseDocument
from simenv.worker import mpi_process
from simenv.worker.runner import Runner

if TYPE_CHECKING:
    from mpi4py import MPI

# Sockets between the ranks of a worker, created once at the start.
#
# Each rank but the first receives work on a PULL socket of its own, which rank 0 feeds; a pair of
# ROUTER and DEALER sockets carries heartbeats. All use TCP with CurveZMQ, on the loopback interface
# if all ranks are on one node. Invariant: the key pair is created for these ranks and distributed
# by MPI; no file, argument or variable contains it. A peer without the public key cannot connect.

LOOPBACK = "127.0.0.1"
HANDSHAKE_MS = 5_000
_KEY_BYTES = 40  # in base 85
_CARD_BYTES = 512


@dataclass(frozen=True, slots=True)
class RankSockets:
    """Sockets of one rank. `work`: one PUSH socket for each other rank in rank 0, one PULL socket
    in the others."""

    rank: int
    nodes: tuple[str, ...]  # of each rank
    work: tuple[zmq.Socket[bytes], ...]
    watch: zmq.Socket[bytes]
    reports: zmq.Socket[bytes] | None  # of the others: a second DEALER, for the main thread


def connect(comm: MPI.Intracomm, service: WorkerBootstrap) -> RankSockets:
    """Connect the ranks; all of them call this. Raises NoServiceError if they are on several nodes
    without a network address in common with the service."""
    rank = comm.rank
    nodes = _all_gather(comm, os.uname().nodename)
    address = LOOPBACK if len(set(nodes)) == 1 else own_address(service)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    keys = _shared_keys(comm)
    own_socket = _socket(context, zmq.PULL if rank else zmq.ROUTER, keys)
    own_socket.set(zmq.CURVE_SERVER, 1)
    port = own_socket.bind_to_random_port(f"tcp://{address}")
    url_host = f"[{address}]" if ":" in address else address
    addresses = _all_gather(comm, f"tcp://{url_host}:{port}")
    if not rank:
        work = tuple(
            _connected(context, zmq.PUSH, keys, rank_address) for rank_address in addresses[1:]
        )
        return RankSockets(rank, nodes, work, own_socket, None)
    monitor, reports = (
        _connected(context, zmq.DEALER, keys, addresses[0], name)
        for name in (b"%d" % rank, b"%d!" % rank)
    )
    return RankSockets(rank, nodes, (own_socket,), monitor, reports)


def _shared_keys(comm: MPI.Intracomm) -> KeyPair:
    """Return a new key pair, which the first rank creates and broadcasts."""
    both = bytearray(2 * _KEY_BYTES)
    if not comm.rank:
        public, secret = zmq.curve_keypair()
        both[:] = public + secret
    comm.Bcast(both, 0)
    return KeyPair(both[:_KEY_BYTES].decode(), both[_KEY_BYTES:].decode())


def _all_gather(comm: MPI.Intracomm, text: str) -> tuple[str, ...]:
    """Return the texts of all ranks, by rank; each at most _CARD_BYTES when packed."""
    card = msgspec.msgpack.encode(text)
    result = bytearray(_CARD_BYTES * comm.size)
    comm.Allgather(card.ljust(_CARD_BYTES, b"\0"), result)
    cards = [result[at : at + _CARD_BYTES] for at in range(0, len(result), _CARD_BYTES)]
    return tuple(_unpad(bytes(card)) for card in cards)


def _unpad(card: bytes) -> str:
    length = card.rstrip(b"\0")
    return msgspec.msgpack.decode(length, type=str)


def own_address(service: WorkerBootstrap) -> str:
    """Return the address of this machine from which it reaches the service's remote endpoint.
    Raises NoServiceError."""
    host, _, port = service.address.removeprefix("tcp://").rpartition(":")
    if not host:
        text = "the ranks are on several nodes, and the service does not listen for other nodes"
        hint = "it was started for one node; start it again inside the allocation"
        raise NoServiceError(text, hint=hint)
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, _, _, target = sockets.getaddrinfo(host, int(port), type=sockets.SOCK_DGRAM)[
            0
        ]
        with sockets.socket(family, kind) as probe:
            probe.connect(target)  # sends nothing: the kernel chooses the route
            return str(probe.getsockname()[0])
    except OSError as error:
        text = f"no route from {os.uname().nodename} to {service.address}: {error}"
        raise NoServiceError(text) from error


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, keys: KeyPair) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.set(zmq.CURVE_PUBLICKEY, z85.decode(keys.public))
    socket.set(zmq.CURVE_SECRETKEY, z85.decode(keys.secret))
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.LINGER, 200)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.IPV6, 1)
    return socket


def _connected(
    context: zmq.Context[zmq.Socket[bytes]],
    kind: int,
    keys: KeyPair,
    address: str,
    identity: bytes = b"",
) -> zmq.Socket[bytes]:
    socket = _socket(context, kind, keys)
    socket.set(zmq.CURVE_SERVERKEY, z85.decode(keys.public))
    if identity:
        socket.set(zmq.IDENTITY, identity)
    socket.connect(address)
    return socket


# Coordination of the ranks of one worker: rank 0 talks to the service, the others follow.
#
# Rank 0 forwards each chunk unchanged and announces each task before it begins. A rank without a
# task waits on a ZeroMQ socket without using the processor; MPI is used for numerics alone. Tasks
# are numbered from 1, equally in all ranks. A second thread exchanges heartbeats, between rank 0
# and each other rank, and ends the process when a rank is silent. It also decides about errors: an
# error that all ranks raise is the task's; an error that only some ranks raise ends the worker.

BEATS = 3  # heartbeats within the time after which a rank is lost
GRACE_S = 2.5  # within which all ranks that share an error report it, on a machine that is idle
TRACE_CHARS = 4_000
_POLL_S = 0.5
_BEAT, _FAILED = b"b", b"f"


class RankMonitor:
    """Thread for heartbeats and error reports between the ranks, which owns the socket for them.
    The main thread of the first rank calls `await_agreement`."""

    def __init__(
        self, socket: zmq.Socket[bytes], other_ranks: tuple[int, ...], silence_limit_s: float
    ) -> None:
        """`other_ranks`: the ranks whose heartbeats this rank receives: rank 0 for the other ranks,
        all others for rank 0."""
        self._socket = socket
        self._other_ranks = other_ranks
        self._silence_limit_s = silence_limit_s
        self._parent = os.getppid()
        self._change = threading.Condition()
        self._failed: dict[int, dict[int, str]] = {}  # errors by number of the task and rank
        self._since: dict[int, ProgressDeadline] = {}  # from the first report, by number
        self._failed_task = 0  # the task that this rank failed with too
        self._rss_bytes: dict[int, int] = {}
        self._thread = threading.Thread(target=self._run, name="ranks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def rss_bytes(self) -> int:
        """Resident bytes of the other ranks, as they reported last."""
        return sum(list(self._rss_bytes.values()))

    def await_agreement(self, number: int, error: Exception) -> None:
        """Wait for errors of all other ranks with the same task, after this rank failed with it;
        end the process if one of them does not fail."""
        with self._change:
            self._failed_task = number
            deadline = ProgressDeadline(GRACE_S)
            while not self._change.wait_for(lambda: self._all_failed(number), _POLL_S):
                if deadline.is_over:
                    break
            else:
                self._since.pop(number, None)
                self._failed.pop(number, None)
                self._failed_task = 0
                return
        self._exit_on_disagreement(number, {0: _trace_end(error)})

    def _all_failed(self, number: int) -> bool:
        return len(self._failed.get(number, ())) == len(self._other_ranks)

    def _run(self) -> None:
        silences = {rank: ProgressDeadline(self._silence_limit_s) for rank in self._other_ranks}
        pause_s = self._silence_limit_s / BEATS
        next_beat = 0.0
        while True:
            now = time.monotonic()
            if now >= next_beat:
                next_beat = now + pause_s
                self._send(_BEAT + resident_bytes().to_bytes(8, "little"))
            timeout_s = min(_POLL_S, next_beat - now) if self._since else next_beat - now
            if self._socket.poll(max(0, math.ceil(1000 * timeout_s))):
                rank, body = self._receive()
                silences[rank].step()
                now = time.monotonic()
                self._record_message(rank, body)
                if not rank and next_beat - now < pause_s / 2:
                    next_beat = now  # answer the first rank's heartbeat while this thread is awake
            self._check_ranks(silences)

    def _send(self, body: bytes) -> None:
        if self._socket.type == zmq.DEALER:
            self._socket.send(body)
            return
        for rank in self._other_ranks:
            self._socket.send_multipart((b"%d" % rank, body))

    def _receive(self) -> tuple[int, bytes]:
        if self._socket.type == zmq.DEALER:
            return 0, self._socket.recv()
        sender, body = self._socket.recv_multipart()
        return int(sender.rstrip(b"!")), body

    def _record_message(self, rank: int, body: bytes) -> None:
        if body[:1] == _BEAT:
            self._rss_bytes[rank] = int.from_bytes(body[1:], "little")
            return
        number, message = int.from_bytes(body[1:9], "little"), body[9:].decode(errors="replace")
        with self._change:
            self._failed.setdefault(number, {})[rank] = message
            self._since.setdefault(number, ProgressDeadline(GRACE_S))
            self._change.notify()

    def _check_ranks(self, silences: dict[int, ProgressDeadline]) -> None:
        for rank, silence in silences.items():
            if silence.is_over:
                exit_process(
                    EXIT_RANK, f"no message from rank {rank} for {self._silence_limit_s:g} s"
                )
        if os.getppid() != self._parent:
            exit_process(EXIT_ORPHAN, "the process that started this one has ended")
        for number, since in self._since.copy().items():
            if since.is_over and number != self._failed_task:
                self._exit_on_disagreement(number, {})

    def _exit_on_disagreement(self, number: int, own_errors: dict[int, str]) -> NoReturn:
        errors = {**own_errors, **self._failed.get(number, {})}
        for rank, text in sorted(errors.items()):
            log_line(f"rank {rank}: {text}")
        exit_process(
            EXIT_RANK,
            f"only {len(errors)} of {len(self._other_ranks) + 1} ranks failed with a task",
        )


def report(socket: zmq.Socket[bytes], number: int, error: Exception) -> None:
    """Report to the first rank that this one failed with a task."""
    socket.send(_FAILED + number.to_bytes(8, "little") + _trace_end(error).encode())


def _trace_end(error: Exception) -> str:
    """Return the end of the traceback, its most informative part."""
    return "".join(traceback.format_exception(error))[-TRACE_CHARS:]


_CHUNK, _TASK, _END = b"c", b"t", b"e"


class Leader:
    """Control of the other ranks by the first. Used from its main thread."""

    def __init__(self, sockets: RankSockets, monitor: RankMonitor) -> None:
        self.nodes = sockets.nodes
        self._monitor = monitor
        self._followers = sockets.work
        self._number = 0

    def rss_bytes(self) -> int:
        """Resident memory of all ranks."""
        return resident_bytes() + self._monitor.rss_bytes

    def forward(self, chunk: bytes) -> None:
        """Forward a packed chunk, whose tasks begin from now on, or a noise document for it."""
        self._send_to_followers(_CHUNK, chunk)

    def begin(self, index: int) -> None:
        """Let all other ranks run the task at index `index` of the chunk."""
        self._number += 1
        self._send_to_followers(_TASK, index.to_bytes(8, "little"))

    def failed(self, error: Exception) -> None:
        """Handle an error of this rank in the task that began last. Returns if all ranks failed, so
        that the error is the task's; else ends the process."""
        self._monitor.await_agreement(self._number, error)

    def end(self) -> None:
        """End all ranks, which must be idle."""
        self._send_to_followers(_END, b"")
        mpi_process.end()

    def _send_to_followers(self, kind: bytes, body: bytes) -> None:
        for socket in self._followers:
            socket.send_multipart((kind, body))


class Follower:
    """Main loop of a rank other than the first."""

    def __init__(self, sockets: RankSockets, runner: Runner) -> None:
        assert sockets.reports is not None
        self._orders = sockets.work[0]
        self._reports = sockets.reports
        self._runner = runner
        self._chunk: AssignChunk | None = None
        self._number = 0

    def follow(self) -> None:
        """Run the tasks that the first rank announces, until it requests the end."""
        while True:
            kind, body = self._orders.recv_multipart()
            if kind == _CHUNK:
                message = codec.to_worker(body)
                if isinstance(message, NoiseDocument):
                    self._runner.receive_noise(message)
                    continue
                assert isinstance(message, AssignChunk)
                self._chunk = message
            elif kind == _TASK:
                self._run(int.from_bytes(body, "little"))
            else:
                mpi_process.end()
                return

    def _run(self, index: int) -> None:
        assert self._chunk is not None
        self._number += 1
        assigned = self._chunk.tasks[index]
        self._runner.control.clear()  # a run that was preempted has stopped in all ranks
        try:
            self._runner.follow(assigned, self._chunk.terms[assigned.terms], self._chunk)
        except Exception as error:  # noqa: BLE001  # the first rank must get every error
            report(self._reports, self._number, error)
