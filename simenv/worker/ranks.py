"""One worker over several MPI ranks."""

from __future__ import annotations

import math
import os
import socket as sockets
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import zmq
from zmq.utils import z85

from simenv.errors import NoServiceError
from simenv.process import exit_process, log_line, resident_bytes
from simenv.wire import codec
from simenv.wire.keyfiles import KeyPair, WorkerBootstrap
from simenv.wire.messages import client as messages
from simenv.wire.messages.client import EXIT_ORPHAN, EXIT_RANK, AssignChunk, NoiseDocument
from simenv.worker.runner import Runner
from simulators import catalog
from simulators.compiler import warmup

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
        raise NoServiceError(
            "the ranks are on several nodes, and the service does not listen for other nodes",
            hint="it was started for one node; start it again inside the allocation",
        )
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, _, _, target = sockets.getaddrinfo(host, int(port), type=sockets.SOCK_DGRAM)[
            0
        ]
        with sockets.socket(family, kind) as probe:
            probe.connect(target)  # sends nothing: the kernel chooses the route
            return str(probe.getsockname()[0])
    except OSError as error:
        raise NoServiceError(
            f"no route from {os.uname().nodename} to {service.address}: {error}"
        ) from error


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


# MPI in the ranks of a worker: initialised once, used for numerics alone, finalised together.
#
# No rank waits for work in MPI, which would keep a core busy. Only the main thread calls MPI.

_RANKS = ("PMIX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


class NoMpi(Exception):
    """MPI cannot be initialised with the requested ranks; the message is one line for the log."""


def rank_from_environ(environ: Mapping[str, str]) -> int:
    """Return the rank of this process from the launcher's variables, for use before MPI is
    initialised; 0 if there are none."""
    arguments = next((environ[name] for name in _RANKS if environ.get(name, "").isdigit()), "0")
    return int(arguments)


def begin(ranks: int) -> MPI.Intracomm:
    """Initialise MPI and return the communicator of all ranks of this worker. Raises NoMpi."""
    try:
        import mpi4py

        mpi4py.rc.thread_level = "serialized"
        mpi4py.rc.finalize = False  # not at exit: a rank that fails must not wait for the others
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise NoMpi(f"no MPI, and {ranks} ranks were requested: {error}") from error
    mpi_run = MPI.COMM_WORLD
    if mpi_run.size != ranks:
        library = MPI.Get_library_version().partition("\n")[0].partition(",")[0]
        raise NoMpi(
            f"COMM_WORLD has size {mpi_run.size}, {ranks} were requested: the launcher's MPI "
            f"and mpi4py's ({library}) are different"
        )
    return mpi_run


def end() -> None:
    """Finalise MPI. Called by all ranks if none has failed: without it the launcher takes the exit
    of a rank for a failure."""
    from mpi4py import MPI

    MPI.Finalize()


# Coordination of the ranks of one worker: rank 0 talks to the service, the others follow.
#
# Rank 0 forwards each chunk unchanged and announces each task before it begins. A rank without a
# task waits on a ZeroMQ socket without using the processor; MPI is used for numerics alone. Tasks
# are numbered from 1, equally in all ranks. A second thread exchanges heartbeats, between rank 0
# and each other rank, and ends the process when a rank is silent. It also decides about errors: an
# error that all ranks raise is the task's; an error that only some ranks raise ends the worker.

BEATS = 3  # heartbeats within the time after which a rank is lost
GRACE_S = 2.5  # time within which all ranks that share an error report it
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
        self._since: dict[int, float] = {}  # time of the first report, by number of the task
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
            if self._change.wait_for(lambda: self._all_failed(number), GRACE_S):
                self._since.pop(number, None)
                self._failed.pop(number, None)
                self._failed_task = 0
                return
        self._exit_on_disagreement(number, {0: _trace_end(error)})

    def _all_failed(self, number: int) -> bool:
        return len(self._failed.get(number, ())) == len(self._other_ranks)

    def _run(self) -> None:
        received = dict.fromkeys(self._other_ranks, time.monotonic())
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
                received[rank] = now = time.monotonic()
                self._record_message(rank, body)
                if not rank and next_beat - now < pause_s / 2:
                    next_beat = now  # answer the first rank's heartbeat while this thread is awake
            self._check_ranks(received)

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
            self._since.setdefault(number, time.monotonic())
            self._change.notify()

    def _check_ranks(self, received: dict[int, float]) -> None:
        now = time.monotonic()
        for rank, moment in received.items():
            if now - moment > self._silence_limit_s:
                exit_process(
                    EXIT_RANK, f"no message from rank {rank} for {self._silence_limit_s:g} s"
                )
        if os.getppid() != self._parent:
            exit_process(EXIT_ORPHAN, "the process that started this one has ended")
        for number, since in self._since.copy().items():
            if now - since > GRACE_S and number != self._failed_task:
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
        end()

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
                end()
                return

    def _run(self, index: int) -> None:
        assert self._chunk is not None
        self._number += 1
        assigned = self._chunk.tasks[index]
        try:
            self._runner.follow(assigned, self._chunk.terms[assigned.terms], self._chunk)
        except Exception as error:  # noqa: BLE001  # the first rank must get every error
            report(self._reports, self._number, error)


# Run one task without a service in the processes that mpirun or srun has started.
#
# Rank 0 broadcasts its input, all ranks run the task, and rank 0 has the result. No rank blocks in
# MPI: it polls and sleeps between two polls. Invariant: a rank that fails alone ends all of them.

PATIENCE_S = 10.0  # for the other ranks to end after this one has failed
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
_PAUSES_S = (100e-6, 5e-3)
_PIECE_BYTES = 2**30


class RankInfo(msgspec.Struct, frozen=True, array_like=True):
    """Node of one rank, the memory and slots of that node, and the cores that the rank may use."""

    node: str
    memory_bytes: int
    slots: int
    cores: tuple[int, ...]


def size_from_environ(environ: Mapping[str, str]) -> int:
    """Return the number of processes from the launcher's variables; 1 if there are none."""
    return max([1, *(int(environ[name]) for name in _SIZES if environ.get(name, "").isdigit())])


class MpiRun:
    """The ranks of one mpirun. `comm` None: this process is the only one, and needs no MPI."""

    def __init__(self, comm: MPI.Intracomm | None) -> None:
        self.comm = comm
        self._ending = None if comm is None else comm.Dup()
        self.rank = 0 if comm is None else int(comm.Get_rank())
        self.size = 1 if comm is None else int(comm.Get_size())

    @classmethod
    def begin(cls, environ: Mapping[str, str]) -> MpiRun:
        """Connect the ranks of which the launcher's variables state the number. Raises NoMpi."""
        size = size_from_environ(environ)
        return cls(None if size == 1 else begin(size))

    def broadcast(self, data: bytes | None) -> bytes | None:
        """Return the data of the first rank in all ranks; None if it has none: then all end."""
        if self.comm is None:
            return data
        import numpy as np

        size = np.array([-1 if data is None else len(data)], np.int64)
        self._poll_until_done(self.comm.Ibcast(size, 0))
        if size[0] < 0:
            return None
        buffer = np.frombuffer(data, np.uint8) if data is not None else np.empty(size[0], np.uint8)
        for at in range(0, len(buffer), _PIECE_BYTES):
            self.comm.Bcast(buffer[at : at + _PIECE_BYTES], 0)
        return data if data is not None else buffer.tobytes()

    def gather_ranks(self, own_info: RankInfo) -> list[RankInfo]:
        """Return the RankInfo of all ranks, by rank, in each of them."""
        if self.comm is None:
            return [own_info]
        import numpy as np

        packed = msgspec.msgpack.encode(own_info)
        sizes = np.empty(self.size, np.int64)
        self.comm.Allgather(np.array([len(packed)], np.int64), sizes)
        longest = int(sizes.max())
        all_ = np.empty((self.size, longest), np.uint8)
        padded = np.frombuffer(packed.ljust(longest, b"\0"), np.uint8)
        self.comm.Allgather(padded, all_)
        return [
            msgspec.msgpack.decode(row[:size].tobytes(), type=RankInfo)
            for row, size in zip(all_, sizes.tolist(), strict=True)
        ]

    def end(self, failure: str = "", code: int = 1) -> None:
        """Wait until all ranks have ended their work, then finalise MPI.

        A rank with a `failure` waits for PATIENCE_S only, because the others may be blocked in a
        collective call that it has left. Then it aborts all ranks with exit code `code`.
        """
        if self.comm is None or self._ending is None:
            return
        if not self._poll_until_done(self._ending.Ibarrier(), PATIENCE_S if failure else None):
            log_line(f"rank {self.rank} of {self.size} failed alone, so all are ended: {failure}")
            self.comm.Abort(code)
        end()

    def _poll_until_done(self, request: Any, timeout_s: float | None = None) -> bool:
        """Poll a request until it is done. Returns False after `timeout_s`; None: no limit."""
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        pause_s, longest_s = _PAUSES_S
        while not request.Test():
            if until_s is not None and time.monotonic() > until_s:
                return False
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)
        return True


def own_rank_info(node: str, memory_bytes: int, slots: int) -> RankInfo:
    """Return the RankInfo of this process; the caller knows the memory and slots of the node."""
    return RankInfo(node, memory_bytes, slots, tuple(sorted(os.sched_getaffinity(0))))


def packed(chunk: AssignChunk, document: NoiseDocument | None) -> bytes:
    """Encode a chunk and its noise document as the `data` of `follow`."""
    body = b"" if document is None else codec.encode(document)
    return msgspec.msgpack.encode((body, codec.encode(chunk)))


def lead(
    mpi_run: MpiRun, chunk: AssignChunk, kernels: Path, document: NoiseDocument | None = None
) -> messages.AttemptResult:
    """Run the only task of a chunk on rank 0, together with the other ranks. An error of the engine
    becomes a failed result; after `run_timeout_s` of its options the run is stopped."""
    divided = _uses_all_ranks(mpi_run, chunk)
    warmup.compile_group(kernels, chunk.engine, ranks=divided)
    assigned = chunk.tasks[0]
    runner = Runner(comm=mpi_run.comm if divided else None)
    if document is not None:
        runner.receive_noise(document)
    terms = chunk.terms[0]

    def stop() -> None:
        runner.stop_reason = "run_timeout"
        runner.control.stop()

    timer = threading.Timer(terms.run_timeout_s, stop)
    if terms.run_timeout_s:
        timer.start()
    try:
        return runner.run(assigned, terms, chunk, time.perf_counter_ns())
    finally:
        timer.cancel()


def follow(mpi_run: MpiRun, data: bytes, kernels: Path) -> None:
    """Run the part of a rank other than 0. Raises the errors of the engine."""
    body, chunk_body = msgspec.msgpack.decode(data, type=tuple[bytes, bytes])
    chunk = codec.to_worker(chunk_body)
    assert isinstance(chunk, AssignChunk)
    if _uses_all_ranks(mpi_run, chunk):
        warmup.compile_group(kernels, chunk.engine, ranks=True)
        runner = Runner(comm=mpi_run.comm)
        if body:
            document = codec.to_worker(body)
            assert isinstance(document, NoiseDocument)
            runner.receive_noise(document)
        runner.follow(chunk.tasks[0], chunk.terms[0], chunk)


def _uses_all_ranks(mpi_run: MpiRun, chunk: AssignChunk) -> bool:
    """Return whether the engine divides a task among all ranks; else rank 0 runs it alone."""
    card = catalog.card(chunk.engine)
    return mpi_run.size > 1 and card is not None and card.parallel.ranks
