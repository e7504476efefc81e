"""Sockets of the service's node: the service proves its key, at every reconnect too."""

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import zmq
from failing import fails
from waiting import until

from simenv.errors import ConfigError
from simenv.wire.keyfiles import KeyPair, new_pair
from simenv.wire.rights import LOCAL, LOCAL_WORKER
from simenv.wire.transport import zmq_transport
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.unix_streams import UnixConnection

PATIENCE_S = 60.0
IMPOSTOR_S = 1.5  # time in which the client connects to it: it tries every 0.1 to 1 s
SERVER = new_pair()
SECRET, ANSWER = b"a circuit of the victim", b"an answer of somebody else"
# Greetings of RFC 23 (mechanism NULL, and as the peer of the first two versions of the protocol).
NULL_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x01" + bytes(31)
GREETINGS = {
    "NULL": NULL_GREETING,
    "PLAIN": NULL_GREETING.replace(b"NULL\0", b"PLAIN"),
    "ZMTP 1.0": b"\x01\x00",
    "ZMTP 2.0": b"\xff" + bytes(8) + b"\x7f\x01\x06\x00\x00",
}


def connect(path: Path, identity: bytes = b"ana") -> zmq_transport.ZmqConnection:
    return zmq_transport.ZmqConnection(
        zmq_transport.endpoint(path), SERVER.public, new_pair(), identity
    )


@contextmanager
def raw_peer(path: Path, greeting: bytes) -> Iterator[list[bytes]]:
    """A peer that sends this greeting and an answer to every connection; the bytes that it got."""
    received: list[bytes] = []
    path.unlink()  # of the service: libzmq leaves it
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        listening.settimeout(0.05)
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                with suppress(OSError):
                    accepted, _ = listening.accept()
                    received.append(b"")  # libzmq may come once only
                    with accepted:
                        accepted.settimeout(0.2)
                        ready = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"
                        frame = b"\x00" + bytes([len(ANSWER)]) + ANSWER
                        accepted.sendall(greeting)
                        with suppress(OSError):
                            received.append(accepted.recv(4096))
                            accepted.sendall(ready + frame)
                            received.append(accepted.recv(4096))

        thread = threading.Thread(target=serve)
        thread.start()
        yield received
        ending.set()
        thread.join()
    path.unlink()


@contextmanager
def zmq_peer(path: Path, keys: KeyPair | None) -> Iterator[list[bytes]]:
    """A ROUTER with other keys than the service's, or none, that answers what it gets."""
    received: list[bytes] = []
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 0)
        if keys is not None:
            router.set(zmq.CURVE_SERVER, 1)
            router.set(zmq.CURVE_SECRETKEY, keys.secret.encode())
        monitor = router.get_monitor_socket(zmq.EVENT_ACCEPTED)
        router.bind(zmq_transport.endpoint(path))
        ending = threading.Event()

        def serve() -> None:
            while not ending.is_set():
                if monitor.poll(0):
                    monitor.recv_multipart()
                    received.append(b"")
                if router.poll(20):
                    peer, *frames = router.recv_multipart()
                    received.extend(frames)
                    router.send_multipart([peer, ANSWER])

        thread = threading.Thread(target=serve)
        thread.start()
        yield received
        ending.set()
        thread.join()
        monitor.close()
        router.disable_monitor()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path."""
    with TemporaryDirectory(prefix="s") as name:
        yield Path(name)


IMPOSTORS: dict[str, Callable[[Path], object]] = {
    "no keys": lambda path: zmq_peer(path, None),
    "other keys": lambda path: zmq_peer(path, new_pair()),
    **{
        name: lambda path, greeting=greeting: raw_peer(path, greeting)
        for name, greeting in GREETINGS.items()
    },
}


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_reconnected_peer_trusts_no_impostor(impostor: str, tmp_path: Path) -> None:
    listener = zmq_transport.ZmqListener(tmp_path, SERVER)
    path = tmp_path / zmq_transport.CLIENT_SOCKET
    with ExitStack() as stack:
        peer = stack.enter_context(closing(connect(path)))
        peer.send(b"hello")
        assert listener.wait(PATIENCE_S)
        assert listener.receive() is not None
        listener.close()
        received = stack.enter_context(IMPOSTORS[impostor](path))
        peer.send(SECRET)
        until(lambda: bool(received), message="it never connects to the impostor")
        assert peer.receive(IMPOSTOR_S) is None
    assert not any(SECRET in part for part in received)


def test_a_name_of_a_remote_peer_is_not_heard(tmp_path: Path) -> None:
    with (
        closing(zmq_transport.ZmqListener(tmp_path, SERVER)) as listener,
        closing(connect(tmp_path / zmq_transport.CLIENT_SOCKET, b"node/1")) as pretender,
        closing(connect(tmp_path / zmq_transport.CLIENT_SOCKET)) as client,
    ):
        for text in (b"first", b"second"):
            pretender.send(text)
            assert listener.wait(PATIENCE_S)
            assert listener.receive() is None
        client.send(b"question")
        assert listener.wait(PATIENCE_S)
        assert listener.receive() is not None


def test_peer_without_keys_is_not_heard_on_socket_with_keys(tmp_path: Path) -> None:
    with (
        closing(zmq_transport.ZmqListener(tmp_path, SERVER)) as listener,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as peer,
    ):
        peer.set(zmq.LINGER, 0)
        peer.connect(zmq_transport.endpoint(tmp_path / zmq_transport.CLIENT_SOCKET))
        peer.send(b"question")
        assert not listener.wait(0.5)


def test_removed_sockets_are_bound_again_and_open_connections_go_on(folder: Path) -> None:
    with (
        closing(zmq_transport.ZmqListener(folder, SERVER)) as listener,
        closing(connect(folder / zmq_transport.CLIENT_SOCKET)) as early,
    ):
        early.send(b"before")
        assert listener.wait(PATIENCE_S)
        assert listener.receive() is not None
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        listener.keep_sockets()
        identity = {
            zmq_transport.CLIENT_SOCKET: LOCAL,
            zmq_transport.CLIENT_STREAM: LOCAL,
            zmq_transport.WORKER_STREAM: LOCAL_WORKER,
        }
        for name, expected in identity.items():
            open_ = connect if name == zmq_transport.CLIENT_SOCKET else UnixConnection
            with closing(open_(folder / name, b"ben")) as late:
                late.send(b"after")
                assert listener.wait(PATIENCE_S)
                received = listener.receive()
                assert received[2:] == (b"after", expected)
        early.send(b"still")
        assert listener.wait(PATIENCE_S)
        received = listener.receive()
        assert received[2] == b"still"


def test_times_of_socket_files_are_renewed(folder: Path) -> None:
    with closing(zmq_transport.ZmqListener(folder, SERVER)) as listener:
        for path in folder.iterdir():
            os.utime(path, (1, 1))
        listener.keep_sockets()
        assert all(path.stat().st_mtime > 1 for path in folder.iterdir())


def test_sockets_are_not_bound_again_in_a_folder_of_somebody_else(folder: Path) -> None:
    with closing(zmq_transport.ZmqListener(folder, SERVER)) as listener:
        for path in folder.iterdir():
            path.unlink()
        folder.chmod(0o777)
        fails(ConfigError, "can be written by others", listener.keep_sockets)
        assert list(folder.iterdir()) == []


@contextmanager
def proxy(path: Path, target: Path) -> Iterator[list[bytes]]:
    """Somebody between a peer and the service, who passes on all bytes; those of the peer."""
    sent: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as service:
        listening.bind(str(path))
        listening.listen()
        service.connect(str(target))

        def relay(source: socket.socket, sink: socket.socket, record: list[bytes]) -> None:
            with suppress(OSError):
                while data := source.recv(65_536):
                    record.append(data)
                    sink.sendall(data)

        def serve() -> None:
            accepted, _ = listening.accept()
            with accepted:
                back = threading.Thread(target=relay, args=(service, accepted, []))
                back.start()
                relay(accepted, service, sent)
                service.shutdown(socket.SHUT_RDWR)
                back.join()

        thread = threading.Thread(target=serve)
        thread.start()
        yield sent
        thread.join()


def test_recorded_connection_cannot_be_read_or_replayed(folder: Path) -> None:
    with closing(zmq_transport.ZmqListener(folder, SERVER)) as listener:
        with (
            proxy(folder / "between", folder / zmq_transport.CLIENT_SOCKET) as sent,
            closing(connect(folder / "between")) as connection,
        ):
            connection.send(SECRET)
            assert listener.wait(PATIENCE_S)
            assert listener.receive()[2] == SECRET
            assert listener.send(PeerKind.CLIENT, b"ana", SECRET)
            assert connection.receive(PATIENCE_S) == SECRET
        recorded = b"".join(sent)
        assert SECRET not in recorded
        with socket.socket(socket.AF_UNIX) as again:
            again.connect(str(folder / zmq_transport.CLIENT_SOCKET))
            with suppress(OSError):
                again.sendall(recorded)
            assert not listener.wait(0.5)


def test_each_message_of_zeromq_and_of_streams_is_waited_for_and_read(tmp_path: Path) -> None:
    """The listener waits for descriptors alone while its sockets of ZeroMQ are unused."""
    chance = random.Random(34)
    with ExitStack() as stack:
        listener = stack.enter_context(closing(zmq_transport.ZmqListener(tmp_path, SERVER)))
        peers: dict[bytes, zmq_transport.Connection] = {
            b"far": connect(tmp_path / zmq_transport.CLIENT_SOCKET, b"far"),
            b"near": UnixConnection(tmp_path / zmq_transport.CLIENT_STREAM, b"near"),
        }
        for peer in peers.values():
            stack.enter_context(closing(peer))
        for number in range(400):
            sent = {name: f"{number}".encode() for name in chance.sample(sorted(peers), 2)}
            for name in chance.choice([[], [b"near"], [b"far"]]):  # only one of them
                sent = {name: sent[name]}
            for name, body in sent.items():
                peers[name].send(body)
            read: dict[bytes, bytes] = {}
            while len(read) < len(sent):
                assert listener.wait(PATIENCE_S) or listener.wait(PATIENCE_S)
                while (found := listener.receive()) is not None:
                    read[found[1]] = found[2]
                    if chance.random() < 0.5:  # where the next message may come meanwhile
                        assert listener.send(PeerKind.CLIENT, found[1], found[2])
                        assert peers[found[1]].receive(PATIENCE_S) == found[2]
            assert read == sent
            if chance.random() < 0.2:
                assert not listener.wait(0.0)
