"""Address of the service for its workers: `worker.json` in the environment's home, mode 0600.

A folder next to it has a key pair for each start of a worker on another node.
Invariant: the files belong to one start of the service. A key pair is accepted by the workers'
endpoint only, and only until its worker has ended.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import zmq

from simenv import files
from simenv.errors import NoServiceError
from simenv.wire.keyfiles import KeyPair, new_pair, read_private
from simenv.wire.transport.sockets import WORKER_KEEPALIVE
from simenv.wire.transport.zmq_transport import WORKER_SOCKET, ZmqConnection, endpoint

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


def connect(service: WorkerBootstrap, identity: bytes) -> ZmqConnection:
    """Connect to the service's endpoint for workers: through the socket on the service's node, else
    over TCP. Raises NoServiceError if there is no such way."""
    path = Path(service.sockets) / WORKER_SOCKET
    node = os.uname().nodename
    if node == service.node and path.exists() and files.weakness(path.parent) is None:
        address = endpoint(path)
        return ZmqConnection(address, service.server_key, new_pair(), identity)
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


class WorkerTcpConnection(ZmqConnection):
    """A worker's DEALER over TCP with CurveZMQ; a dead connection is detected and reopened."""

    def _prepare(self, socket: zmq.Socket[bytes]) -> None:
        WORKER_KEEPALIVE.set_on(socket)
