"""Doors and connections: one suite over streams, ZeroMQ and their twin in memory."""

import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import repeat
from pathlib import Path

import pytest
import zmq
from failing import fails
from memory_transport import MemoryListener

from simenv.errors import LimitExceededError, NoServiceError, ProtocolError
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages.client import MAX_MESSAGE_BYTES
from simenv.wire.rights import LOCAL, LOCAL_WORKER, Identity
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.unix_streams import SEND_QUEUE_MESSAGES, UnixConnection
from simenv.wire.transport.zmq_transport import (
    CLIENT_SOCKET,
    CLIENT_STREAM,
    SOCKET_PATH_BYTES,
    WORKER_STREAM,
    Connection,
    Listener,
    ZmqConnection,
    ZmqListener,
    endpoint,
)  # fmt: skip

PATIENCE_S = 60.0
SERVER = new_pair()


def connected(path: Path, identity: bytes = b"ana") -> ZmqConnection:
    return ZmqConnection(endpoint(path, must_exist=True), SERVER.public, new_pair(), identity)


@contextmanager
def router_at(path: Path) -> Iterator[tuple[zmq.Socket[bytes], ZmqConnection]]:
    """A socket with the service's keys that is not a listener of ours, and a client of it."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 0)
        router.set(zmq.CURVE_SERVER, 1)
        router.set(zmq.CURVE_SECRETKEY, SERVER.secret.encode())
        router.set(zmq.RCVHWM, 1)
        router.bind(endpoint(path))
        with closing(connected(path)) as client:
            yield router, client


class House:
    """Doors of one kind, and connections to them that are closed at the end."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.folder = folder
        self._kind = kind
        is_memory = kind == "memory"
        self.listener: Listener = MemoryListener() if is_memory else ZmqListener(folder, SERVER)
        self._opened: list[Connection] = []

    def connect(self, identity: bytes, door: PeerKind = PeerKind.CLIENT) -> Connection:
        if isinstance(self.listener, MemoryListener):
            connection: Connection = self.listener.connect(door, identity)
        elif self._kind == "zmq" and door is PeerKind.CLIENT:
            connection = connected(self.folder / CLIENT_SOCKET, identity)
        else:
            name = CLIENT_STREAM if door is PeerKind.CLIENT else WORKER_STREAM
            connection = UnixConnection(self.folder / name, identity)
        self._opened.append(connection)
        return connection

    def receive(self) -> tuple[PeerKind, bytes, bytes, Identity]:
        assert self.listener.wait(PATIENCE_S)
        received = self.listener.receive()
        assert received is not None
        return received

    def close(self) -> None:
        for connection in self._opened:
            connection.close()
        self.listener.close()


@pytest.fixture(params=["stream", "zmq", "memory"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    with closing(House(request.param, tmp_path)) as built:
        yield built


@pytest.fixture
def zmq_house(tmp_path: Path) -> Iterator[House]:
    with closing(House("zmq", tmp_path)) as built:
        yield built


def test_messages_are_delivered_in_order_with_identity_of_their_peer(house: House) -> None:
    client = house.connect(b"ana")
    client.send(b"question")
    assert house.receive() == (PeerKind.CLIENT, b"ana", b"question", LOCAL)
    assert house.listener.send(PeerKind.CLIENT, b"ana", b"answer")
    assert client.receive(PATIENCE_S) == b"answer"
    for k in range(500):
        client.send(b"%d" % k)
    assert [house.receive()[2] for _ in range(500)] == [b"%d" % k for k in range(500)]
    house.connect(b"same", PeerKind.CLIENT).send(b"from the client")
    worker = house.connect(b"same", PeerKind.WORKER)
    assert house.receive() == (PeerKind.CLIENT, b"same", b"from the client", LOCAL)
    worker.send(b"from the worker")
    assert house.receive() == (PeerKind.WORKER, b"same", b"from the worker", LOCAL_WORKER)


def test_many_client_messages_do_not_block_worker_messages(house: House) -> None:
    client, worker = house.connect(b"ana"), house.connect(b"w", PeerKind.WORKER)
    worker.send(b"hello")
    assert house.receive()[0] is PeerKind.WORKER
    for _ in range(100):
        client.send(b"flood")
    worker.send(b"me too")
    entries = []
    while PeerKind.WORKER not in entries:
        entries.append(house.receive()[0])
    assert entries.count(PeerKind.CLIENT) <= 100


def test_nothing_is_received_from_nobody_nor_sent_to_unknown_peers(house: House) -> None:
    assert not house.listener.wait(0.0)
    assert house.listener.receive() is None
    assert house.connect(b"ana").receive(0.0) is None
    assert not house.listener.send(PeerKind.CLIENT, b"nobody", b"answer")


def test_send_to_peer_that_does_not_read_does_not_block(house: House) -> None:
    client = house.connect(b"ana")
    client.send(b"hello")
    house.receive()
    body = bytes(20_000)  # more than the kernel's buffers hold
    sent = [
        house.listener.send(PeerKind.CLIENT, b"ana", body) for _ in range(4 * SEND_QUEUE_MESSAGES)
    ]
    if isinstance(house.listener, MemoryListener):
        assert sent.count(False) == 3 * SEND_QUEUE_MESSAGES
    received = 0
    while client.receive(0.5) is not None:
        received += 1
        house.listener.wait(0.0)  # which sends more
    assert received == sent.count(True)


def test_message_of_maximum_size_is_delivered_and_no_larger_one(house: House) -> None:
    client = house.connect(b"ana")
    fails(LimitExceededError, str(MAX_MESSAGE_BYTES), client.send, bytes(MAX_MESSAGE_BYTES + 1))
    client.send(b"still here")
    assert house.receive()[2] == b"still here"
    client.send(bytes(MAX_MESSAGE_BYTES))
    rest = threading.Thread(target=client.receive, args=(PATIENCE_S,))  # sends what waits
    rest.start()
    assert len(house.receive()[2]) == MAX_MESSAGE_BYTES
    client.wake()
    rest.join()


def test_wake_from_another_thread_ends_waiting_receive(house: House) -> None:
    client = house.connect(b"ana")
    entries: list[bytes | None] = []
    waiting = threading.Thread(target=lambda: entries.append(client.receive(2 * PATIENCE_S)))
    waiting.start()
    client.wake()
    waiting.join(PATIENCE_S)
    assert entries == [None]


def test_wake_before_receive_is_not_lost_and_loses_no_message(house: House) -> None:
    client = house.connect(b"ana")
    client.wake()
    client.wake()
    begin = time.monotonic()
    assert client.receive(PATIENCE_S) is None
    assert client.receive(0.0) is None
    client.send(b"hello")
    house.receive()
    house.listener.send(PeerKind.CLIENT, b"ana", b"answer")
    client.wake()
    bodies = [client.receive(PATIENCE_S), client.receive(PATIENCE_S)]
    assert time.monotonic() - begin < PATIENCE_S, "it waited to the end"
    assert sorted(bodies, key=str) == sorted([None, b"answer"], key=str)
    client.close()
    client.close()  # twice


Stranger = Callable[[int], "zmq.Socket[bytes]"]


@pytest.fixture
def stranger(zmq_house: House) -> Iterator[Stranger]:
    """Sockets of any type connected to the client door."""
    with zmq.Context() as context, ExitStack() as stack:

        def make(kind: int) -> zmq.Socket[bytes]:
            socket, keys = stack.enter_context(context.socket(kind)), new_pair()
            socket.set(zmq.LINGER, 0)
            socket.set(zmq.CURVE_SERVERKEY, SERVER.public.encode())
            socket.set(zmq.CURVE_PUBLICKEY, keys.public.encode())
            socket.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
            socket.connect(endpoint(zmq_house.folder / CLIENT_SOCKET))
            return socket

        yield make


def test_listener_sockets_have_mode_0600(zmq_house: House) -> None:
    for name in (CLIENT_SOCKET, CLIENT_STREAM, WORKER_STREAM):
        assert stat.S_IMODE((zmq_house.folder / name).stat().st_mode) == 0o600


def test_oversized_frame(zmq_house: House, stranger: Stranger) -> None:
    """A socket of another type is no peer either."""
    stranger(zmq.SUB).subscribe(b"")
    stranger(zmq.DEALER).send(bytes(MAX_MESSAGE_BYTES + 4_096))  # the limit: sealed frames
    client = zmq_house.connect(b"ana")
    client.send(b"question")
    assert zmq_house.receive() == (PeerKind.CLIENT, b"ana", b"question", LOCAL)
    zmq_house.listener.wait(0.2)
    assert zmq_house.listener.receive() is None


def test_several_frames_are_received_as_empty(zmq_house: House, stranger: Stranger) -> None:
    for frames in ([b"a", b"b"], [b"", b"x"], [b"x"] * 50):
        stranger(zmq.DEALER).send_multipart(frames)
        assert zmq_house.receive()[2] == b""


def test_reply_of_several_frames_raises_protocol_error(tmp_path: Path) -> None:
    with router_at(tmp_path / CLIENT_SOCKET) as (router, client):
        client.send(b"hello")
        assert router.recv_multipart() == [b"ana", b"hello"]
        router.send_multipart([b"ana", b"one", b"two", b"three"])
        router.send_multipart([b"ana", b"good"])
        fails(ProtocolError, "3 frames", client.receive, PATIENCE_S)
        assert client.receive(PATIENCE_S) == b"good"


def test_missing_and_too_long_sockets_are_refused(tmp_path: Path) -> None:
    fails(NoServiceError, "no such socket", connected, tmp_path / CLIENT_SOCKET)
    fails(LimitExceededError, "XDG_RUNTIME_DIR", connected, tmp_path / ("x" * SOCKET_PATH_BYTES))


def test_sending_to_service_that_reads_nothing_raises_no_service_error(tmp_path: Path) -> None:
    with (
        router_at(tmp_path / CLIENT_SOCKET) as (_, client),
        pytest.raises(NoServiceError, match="has not read"),
    ):
        deque(map(client.send, repeat(bytes(10_000), 20 * SEND_QUEUE_MESSAGES)), 0)
