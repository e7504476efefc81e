"""Clients' connections by TCP, addresses for workers, and queues inside a process."""

from __future__ import annotations

import enum
import os
import threading
from collections import deque
from pathlib import Path

import msgspec
import zmq

from simenv import files
from simenv.errors import NoServiceError
from simenv.wire.keyfiles import KeyPair, new_pair, read_private
from simenv.wire.transport import sockets as transport_sockets, zmq_transport

# A client's connection; it reports why a service does not answer.

RETRY_MS, RETRY_MAX_MS = 100, 2_000
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


class HandshakeState(enum.Enum):
    """Progress of the last attempt to connect."""

    UNKNOWN = enum.auto()  # no answer to the first packet yet
    NOBODY = enum.auto()  # nothing listens at the address
    CONNECTED = enum.auto()  # the handshake has not ended
    ABORTED = enum.auto()  # the service closed the connection during the handshake
    REFUSED = enum.auto()  # the service has the expected key, and does not accept ours
    OPEN = enum.auto()


_STATE_OF_EVENT = {
    int(zmq.EVENT_CLOSED): HandshakeState.NOBODY,
    int(zmq.EVENT_CONNECTED): HandshakeState.CONNECTED,
    int(zmq.EVENT_HANDSHAKE_SUCCEEDED): HandshakeState.OPEN,
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH): HandshakeState.REFUSED,
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): HandshakeState.ABORTED,
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): HandshakeState.ABORTED,
}


class CurveConnection(zmq_transport.ZmqConnection):
    """A `ZmqConnection` that watches its handshakes."""

    def __init__(self, address: str, server_key: str, keys: KeyPair, identity: bytes) -> None:
        self.address = address
        self._handshake_state = HandshakeState.UNKNOWN
        self.hang_ups = 0  # consecutive handshakes that the service broke off
        super().__init__(address, server_key, keys, identity)

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        socket.monitor("inproc://way", int(_EVENTS))
        self._monitor = self._context.socket(zmq.PAIR)
        self._monitor.set(zmq.RCVHWM, 0)  # a full queue would stop the I/O thread
        self._monitor.connect("inproc://way")

    def handshake_state(self) -> HandshakeState:
        """Return the state of the last attempt. Called by the thread that receives."""
        while not self._socket.closed and transport_sockets.readable(self._monitor):
            event = self._monitor.recv_multipart(int(zmq.NOBLOCK))[0]
            result = _STATE_OF_EVENT[int.from_bytes(event[:2], "little")]
            if result is HandshakeState.ABORTED:
                self.hang_ups += 1
            elif result is not HandshakeState.CONNECTED:
                self.hang_ups = 0
            # After a refusal or a broken handshake the next attempt begins with CONNECTED, which
            # must not hide that outcome: it stays until the new attempt ends.
            if result is not HandshakeState.CONNECTED or self._handshake_state in (
                HandshakeState.UNKNOWN,
                HandshakeState.NOBODY,
                HandshakeState.OPEN,
            ):
                self._handshake_state = result
        return self._handshake_state

    def close(self) -> None:
        if not self._socket.closed:
            self._monitor.close()
        super().close()


# Address of the service for its workers: `worker.json` in the environment's home, mode 0600.
#
# A folder next to it has a key pair for each start of a worker on another node.
# Invariant: the files belong to one start of the service. A key pair is accepted by the workers'
# endpoint only, and only until its worker has ended.

TOKEN = ".token"  # name of the file in the results folder that contains `WorkerBootstrap.token`


class WorkerBootstrap(msgspec.Struct, frozen=True):
    """Contents of `worker.json`: address and keys of the service for its workers."""

    format: int
    node: str  # of the service
    sockets: str  # folder of worker.sock there
    token: str  # also in a file of the results folder
    address: str = ""  # for workers of other nodes: tcp://HOST:PORT; "": there are none
    server_key: str = ""  # public key of this start of the service, in ZeroMQ's base 85
    public_key: str = ""  # of one start of a worker, which reads them from a file of its own
    secret_key: str = ""
    epoch: int = 0  # of the service's start

    @property
    def keys(self) -> KeyPair:
        return KeyPair(self.public_key, self.secret_key)

    def __repr__(self) -> str:
        return f"WorkerBootstrap({self.node}, {self.sockets}, {self.address})"


class WorkerKey(msgspec.Struct, frozen=True):
    """The key pair of one start of a worker."""

    format: int
    worker: str
    start: int
    public_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"WorkerKey({self.worker}, {self.start}, {self.public_key})"


def keys_folder(service: Path) -> Path:
    """Folder of the workers' keys, next to the service's `worker.json`."""
    return service.with_name("worker-keys")


def key_path(service: Path, worker: str, start: int) -> Path:
    """Path of the file with the key pair of one start of a worker."""
    return keys_folder(service) / f"{worker}.{start}.json"


def read(path: Path, worker: str = "", start: int = 0) -> WorkerBootstrap:
    """Read the service's `worker.json`, with the key pair of that start of a worker if there is
    one. Raises ConfigError if the file is missing or other users can open it."""
    reason = read_private(path, WorkerBootstrap)
    own = key_path(path, worker, start)
    if not (worker and reason.address and own.exists()):
        return reason
    key = read_private(own, WorkerKey)
    return msgspec.structs.replace(reason, public_key=key.public_key, secret_key=key.secret_key)


def connect(service: WorkerBootstrap, identity: bytes) -> zmq_transport.ZmqConnection:
    """Connect to the service's endpoint for workers: through the socket on the service's node, else
    over TCP. Raises NoServiceError if there is no such way."""
    path = Path(service.sockets) / zmq_transport.WORKER_SOCKET
    node = os.uname().nodename
    if node == service.node and path.exists() and files.weakness(path.parent) is None:
        address = zmq_transport.endpoint(path)
        return zmq_transport.ZmqConnection(address, service.server_key, new_pair(), identity)
    if not service.address:
        raise NoServiceError(
            f"{node} cannot reach the service on {service.node}, which does not listen for others",
            hint="it was started for one node; start it again inside the allocation",
        )
    if not service.secret_key:
        raise NoServiceError(
            f"{node} cannot reach the service on {service.node}: this worker has no key",
            hint="was it started by that service? its keys are in worker-keys next to worker.json",
        )
    return WorkerTcpConnection(service.address, service.server_key, service.keys, identity)


class WorkerTcpConnection(zmq_transport.ZmqConnection):
    """A worker's DEALER over TCP with CurveZMQ; a dead connection is detected and reopened."""

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        transport_sockets.WORKER_KEEPALIVE.set_on(socket)


# A queue of messages within this process, on which a thread can wait.


class Inbox:
    """Receiving half of a `zmq_transport.Connection`. Thread-safe."""

    def __init__(self) -> None:
        self._arrived = threading.Condition()
        self._bodies: deque[bytes] = deque()
        self._woken = False

    def __len__(self) -> int:
        return len(self._bodies)

    def put(self, *bodies: bytes) -> None:
        """Append messages, in order."""
        with self._arrived:
            self._bodies.extend(bodies)
            self._arrived.notify_all()

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next message; None after `timeout_s`, or when `wake` was called."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._bodies or self._woken, timeout_s)
            if self._woken or not self._bodies:
                self._woken = False
                return None
            return self._bodies.popleft()

    def wake(self) -> None:
        """Let the present `receive`, or else the next one, return None."""
        with self._arrived:
            self._woken = True
            self._arrived.notify_all()
