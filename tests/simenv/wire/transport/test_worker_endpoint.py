"""How a worker finds its service, and what the door for other nodes lets in."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from failing import fails

from simenv.errors import ConfigError, NoServiceError
from simenv.wire import keyfiles, rights
from simenv.wire.transport import zmq_transport
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.tcp_listener import ListenerOptions, TcpListener
from simenv.wire.transport.zmq_transport import CurveConnection, WorkerTcpConnection, ZmqListener

WAIT_S = 60.0
HERE = os.uname().nodename
WORKER, OWN, SERVER = keyfiles.new_pair(), keyfiles.new_pair(), keyfiles.new_pair()


class Meeting:
    """Doors on this machine with one for workers of other nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        options = ListenerOptions(prefix=b"node/", workers=True, bounds=None)
        tcp_listener = TcpListener("127.0.0.1", 0, SERVER, options=options)
        tcp_listener.admit({WORKER.public: rights.LOCAL_WORKER, OWN.public: rights.LOCAL}, b"")
        self.clients = TcpListener("127.0.0.1", 0, SERVER)
        self.clients.admit({}, b"")
        self.listener = ZmqListener(folder, SERVER, self.clients, tcp_listener)
        self.address = f"tcp://127.0.0.1:{tcp_listener.port}"

    def file(
        self, node: str = "elsewhere", keys: keyfiles.KeyPair = WORKER
    ) -> keyfiles.WorkerBootstrap:
        public, secret = keys.public, keys.secret
        folder = str(self.folder)
        return keyfiles.WorkerBootstrap(
            keyfiles.KEYS_FORMAT, node, folder, "token", self.address, SERVER.public, public, secret
        )

    def heard(self) -> tuple[PeerKind, bytes, bytes]:
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            self.listener.wait(0.2)
            received = self.listener.receive()
            if received is not None:
                return received[:3]
        raise AssertionError("nothing came")

    def hears_nothing(self, seconds: float = 1.0) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.listener.wait(0.1)
            if self.listener.receive() is not None:
                return False
        return True


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    with tempfile.TemporaryDirectory() as folder:
        outcome = Meeting(Path(folder))
        yield outcome
        outcome.listener.close()


@pytest.fixture
def open_later() -> Iterator[Callable[..., CurveConnection]]:
    entries = []

    def connect(address: str, keys: keyfiles.KeyPair) -> CurveConnection:
        entries.append(CurveConnection(address, SERVER.public, keys, b"client"))
        return entries[-1]

    yield connect
    for connection in entries:
        connection.close()


def test_worker_on_node_of_service_connects_through_local_socket(meeting: Meeting) -> None:
    worker = zmq_transport.connect_worker(meeting.file(HERE), b"main-0.1")
    worker.send(b"hello")
    assert meeting.heard() == (PeerKind.WORKER, b"main-0.1", b"hello")
    worker.close()


def test_remote_worker_without_listener_or_key_raises_no_service_error(meeting: Meeting) -> None:
    connect = zmq_transport.connect_worker
    file = keyfiles.WorkerBootstrap(keyfiles.KEYS_FORMAT, "elsewhere", "/tmp/none", "token")
    fails(NoServiceError, "does not listen for others", connect, file, b"main-0.1")
    keyless = meeting.file(keys=keyfiles.KeyPair("", ""))
    fails(NoServiceError, "this worker has no key", connect, keyless, b"main-0.1")


def test_worker_key_no_client(meeting: Meeting, open_later: Callable[..., CurveConnection]) -> None:
    by_node_door = open_later(meeting.address, WORKER)
    by_node_door.send(b"submit")
    assert meeting.heard()[0] is PeerKind.WORKER  # where a Submit is no message at all
    by_client_door = open_later(f"tcp://127.0.0.1:{meeting.clients.port}", WORKER)
    by_client_door.send(b"submit")
    assert meeting.hears_nothing()


def test_client_key_no_worker(meeting: Meeting, open_later: Callable[..., CurveConnection]) -> None:
    guest = keyfiles.new_pair()
    meeting.listener.admit({guest.public: rights.LOCAL}, b"")
    open_later(meeting.address, guest).send(b"join")
    assert meeting.hears_nothing()
    open_later(f"tcp://127.0.0.1:{meeting.clients.port}", guest).send(b"hello")
    assert meeting.heard()[0] is PeerKind.CLIENT
    open_later(meeting.address, OWN).send(b"join")  # the key of the service's own user
    assert meeting.heard()[0] is PeerKind.CLIENT


def test_reconnecting_worker_replaces_its_dead_connection(meeting: Meeting) -> None:
    first = zmq_transport.connect_worker(meeting.file(), b"main-0.1")
    first.send(b"one")
    meeting.heard()
    second = zmq_transport.connect_worker(meeting.file(), b"main-0.1")  # the first was cut off
    second.send(b"two")
    assert isinstance(second, WorkerTcpConnection)
    value, peer, body = meeting.heard()
    assert (value, body) == (PeerKind.WORKER, b"two")
    assert meeting.listener.send(PeerKind.WORKER, peer, b"work")
    assert second.receive(WAIT_S) == b"work"
    first.close()
    second.close()


def test_bootstrap_file_readable_by_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "worker.json"
    bootstrap = keyfiles.WorkerBootstrap(keyfiles.KEYS_FORMAT, HERE, str(tmp_path), "token")
    keyfiles.write_private(path, bootstrap)
    assert keyfiles.read_bootstrap(path).token == "token"
    path.chmod(0o644)
    fails(ConfigError, "can be opened by others", keyfiles.read_bootstrap, path)
