"""Streams on the service's node: framing, bounds, and peers that are not believed."""

import errno
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from failing import fails

from simenv import files
from simenv.errors import NoServiceError
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages.client import MAX_MESSAGE_BYTES
from simenv.wire.rights import LOCAL, LOCAL_WORKER
from simenv.wire.transport import unix_streams
from simenv.wire.transport.sockets import LOCAL_BOUNDS, PeerKind
from simenv.wire.transport.unix_streams import MAX_NAME_BYTES, UnixConnection
from simenv.wire.transport.zmq_transport import CLIENT_STREAM, WORKER_STREAM, ZmqListener

PATIENCE_S = 60.0
NAME = b"\x03\0\0\0ana"
Connect = Callable[..., UnixConnection]


@pytest.fixture
def listener() -> Iterator[ZmqListener]:
    with TemporaryDirectory(prefix="s") as name:
        built = ZmqListener(Path(name), new_pair())
        yield built
        built.close()


@pytest.fixture
def connect(listener: ZmqListener) -> Iterator[Connect]:
    opened: list[UnixConnection] = []

    def make(
        name: bytes = b"ana", socket_name: str = CLIENT_STREAM, pid: int = 0
    ) -> UnixConnection:
        opened.append(UnixConnection(path_of(listener, socket_name), name, pid))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


def path_of(listener: ZmqListener, name: str = CLIENT_STREAM) -> Path:
    return listener._folder / name


def raw(listener: ZmqListener, sent: bytes) -> socket.socket:
    """A connection that has sent these bytes."""
    result = socket.socket(socket.AF_UNIX)
    result.settimeout(PATIENCE_S)
    result.connect(str(path_of(listener)))
    result.sendall(sent)
    return result


def is_cut_off(listener: ZmqListener, peer: socket.socket) -> bool:
    """Whether the listener closes the connection, after it has read what was sent."""
    while not select.select([peer], [], [], 0.0)[0]:
        assert not listener.wait(0.01)
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


def received(listener: ZmqListener) -> tuple[object, ...]:
    while (found := listener.receive()) is None:
        assert listener.wait(PATIENCE_S) or listener.wait(PATIENCE_S)
    return found


def test_message_larger_than_buffers_arrives_whole_in_both_directions(
    listener: ZmqListener, connect: Connect
) -> None:
    client, body = connect(), random.Random(1).randbytes(3 * unix_streams.BUFFER_BYTES)
    client.send(b"")
    client.send(body)
    client.send(b"last")
    entries: list[bytes] = []
    while len(entries) < 3:
        client.receive(0.0)  # which sends what waits
        listener.wait(0.01)
        if (found := listener.receive()) is not None:
            assert found[1] == b"ana"
            entries.append(found[2])
    assert entries == [b"", body, b"last"]
    for part in entries:
        assert listener.send(PeerKind.CLIENT, b"ana", part)
    thread = threading.Thread(
        target=lambda: entries.extend(client.receive(PATIENCE_S) or b"none" for _ in range(2))
    )
    assert client.receive(PATIENCE_S) == b""
    thread.start()
    while thread.is_alive():
        listener.wait(0.01)
    assert entries[3:] == [body, b"last"]


@pytest.mark.parametrize(
    "sent",
    [
        (MAX_NAME_BYTES + 1).to_bytes(4, "little"),
        bytes(4),
        NAME + (MAX_MESSAGE_BYTES + 1).to_bytes(4, "little"),
        NAME + b"\xff" * 4,
        b"\x07\0\0\0far/k/r\x02\0\0\0hi",  # the name of a remote peer
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_peer_that_breaks_rules_is_cut(
    sent: bytes, listener: ZmqListener, connect: Connect
) -> None:
    with closing(raw(listener, sent)) as peer:
        assert is_cut_off(listener, peer)
    connect().send(b"question")
    assert received(listener) == (PeerKind.CLIENT, b"ana", b"question", LOCAL)


def test_message_cut_at_any_byte_is_not_received_and_leaves_nothing(listener: ZmqListener) -> None:
    whole = NAME + b"\x05\0\0\0whole"
    for cut in range(len(whole)):
        peer = raw(listener, whole[:cut])
        listener.wait(0.0)
        peer.close()
        while listener._streams._peers:
            assert not listener.wait(0.01)
    assert not any(listener._streams._by_name)
    raw(listener, whole).close()  # the last message of a peer that has gone counts
    assert received(listener)[2] == b"whole"


def test_bytes_one_by_one_make_messages(listener: ZmqListener) -> None:
    with closing(raw(listener, b"")) as peer:
        for byte in NAME + b"\x02\0\0\0ab" + b"\x01\0\0\0c":
            peer.sendall(bytes([byte]))
            listener.wait(0.0)
        assert [received(listener)[2] for _ in range(2)] == [b"ab", b"c"]


def test_name_in_use_is_not_given_away(listener: ZmqListener, connect: Connect) -> None:
    first = connect()
    first.send(b"first")
    assert received(listener)[2] == b"first"
    with closing(raw(listener, NAME + b"\x05\0\0\0other")) as second:
        assert is_cut_off(listener, second)
    assert listener.send(PeerKind.CLIENT, b"ana", b"answer")
    assert first.receive(PATIENCE_S) == b"answer"
    connect(b"ana", WORKER_STREAM).send(b"worker")
    assert received(listener) == (PeerKind.WORKER, b"ana", b"worker", LOCAL_WORKER)


@pytest.mark.parametrize("is_unmapped", [False, True])
def test_process_of_another_user_is_neither_believed_nor_heard(
    listener: ZmqListener, connect: Connect, monkeypatch: pytest.MonkeyPatch, is_unmapped: bool
) -> None:
    """Nor anybody where this user has the number of all unmapped ones."""
    with closing(raw(listener, NAME + b"\x05\0\0\0whole")) as client:
        assert unix_streams.peer_of(client) == (os.getpid(), os.geteuid())
        if is_unmapped:
            monkeypatch.setattr(files, "_unmapped_uid", os.geteuid)
        else:
            monkeypatch.setattr(unix_streams, "peer_of", lambda _: (os.getpid(), os.geteuid() + 1))
        assert is_cut_off(listener, client)
    fails(NoServiceError, "not used", connect)


def test_another_process_than_the_one_of_the_connection_file_is_not_used(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one outside of the namespace, whose number is 0."""
    connect(pid=os.getpid())
    fails(NoServiceError, "not used", connect, pid=os.getppid())
    monkeypatch.setattr(unix_streams, "peer_of", lambda _: (0, os.geteuid()))
    fails(NoServiceError, "not used", connect, pid=os.getpid())


class Hooked:
    """A socket one of whose methods runs differently."""

    def __init__(self, real: socket.socket, name: str, method: Callable[..., object]) -> None:
        self._real = real
        setattr(self, name, method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("method", ["recv", "send", "sendmsg"])
def test_stream_whose_call_was_interrupted_is_not_used_further(
    method: str, listener: ZmqListener, connect: Connect
) -> None:
    client = connect()
    client.send(b"hello")
    assert received(listener)[2] == b"hello"
    assert listener.send(PeerKind.CLIENT, b"ana", b"answer")
    real = client._stream.socket

    def interrupted(*arguments: Any) -> None:
        getattr(real, method)(*arguments)
        raise KeyboardInterrupt  # the kernel gave or took bytes, and nobody knows how many

    client._stream.socket = Hooked(real, method, interrupted)  # type: ignore[assignment]

    def used() -> None:
        client.send(bytes(4 * unix_streams.BUFFER_BYTES if method == "sendmsg" else 4))
        client.receive(PATIENCE_S)

    with pytest.raises(KeyboardInterrupt):
        used()
    client._stream.socket = real
    client.send(b"next")
    assert client.is_lost
    assert client.receive(0.0) is None
    client.close()
    left = []
    while listener._streams._peers or listener._streams.has_messages:
        listener.wait(0.01)
        if (found := listener.receive()) is not None:
            left.append(found[2])
    assert left == ([] if method == "sendmsg" else [bytes(4)])


def answered(listener: ZmqListener, connect: Connect) -> UnixConnection:
    """A client that has not read its answer yet."""
    client = connect()
    client.send(b"hello")
    received(listener)
    assert listener.send(PeerKind.CLIENT, b"ana", b"answer")
    return client


def test_message_before_a_wake_is_not_forgotten(listener: ZmqListener, connect: Connect) -> None:
    client = answered(listener, connect)
    assert select.select([client], [], [], PATIENCE_S)[0]
    client.wake()
    entries = []
    while select.select([client], [], [], 0.0)[0]:  # as an event loop does
        while (body := client.receive(0.0)) is not None:
            entries.append(body)
    assert entries == [b"answer"]


def test_arrived_answer_outlives_an_unread_message(listener: ZmqListener, connect: Connect) -> None:
    client = answered(listener, connect)
    listener._streams.close()
    listener._streams = unix_streams.UnixListener()
    client.send(b"nobody reads this")
    assert client.is_lost
    assert client.receive(PATIENCE_S) == b"answer"
    assert client.receive(0.01) is None


def test_send_to_a_closed_stream_raises_no_signal(listener: ZmqListener, connect: Connect) -> None:
    clients = connect(), connect(b"ben")
    listener._streams.close()
    listener._streams = unix_streams.UnixListener()
    child = os.fork()
    if not child:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        clients[0].send(b"nobody reads this")
        clients[1].send(bytes(unix_streams.READ_BYTES))
        os._exit(not all(client.is_lost for client in clients))
    assert os.waitpid(child, 0)[1] == 0


def test_lack_of_descriptors_is_waited_out(listener: ZmqListener, connect: Connect) -> None:
    streams, calls = listener._streams, 0
    real = dict(streams._listening)

    def refused() -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.EMFILE, "no descriptor is left")

    for descriptor, (listening, kind) in real.items():
        streams._listening[descriptor] = Hooked(listening, "accept", refused), kind  # type: ignore[assignment]
    connect().send(b"hello")
    began_s = time.monotonic()
    while time.monotonic() - began_s < 3 * unix_streams.PAUSE_S:
        assert not listener.wait(0.01)
    assert 1 < calls < 6
    streams._listening.update(real)
    assert received(listener)[2] == b"hello"


def test_removed_socket_is_bound_again_without_leak(
    listener: ZmqListener, connect: Connect
) -> None:
    early = connect()
    path_of(listener).unlink()
    listener.keep_sockets()
    assert len(listener._streams._listening) == 2
    early.send(b"early")
    assert received(listener)[2] == b"early"
    connect(b"ben").send(b"late")
    assert received(listener)[2] == b"late"


def test_end_of_service_is_seen_and_blocks_nobody(listener: ZmqListener, connect: Connect) -> None:
    client = connect()
    client.send(b"hello")
    assert received(listener)[2] == b"hello"
    assert listener.send(PeerKind.CLIENT, b"ana", b"last words")
    listener._streams.close()
    assert client.receive(PATIENCE_S) == b"last words"
    assert client.receive(0.01) is None
    assert client.is_lost
    client.send(b"nobody reads this")
    client.wake()
    assert client.receive(PATIENCE_S) is None
    fails(NoServiceError, "no service at", connect)
    listener._streams = unix_streams.UnixListener()


def test_bytes_that_wait_for_a_client_are_bounded(
    listener: ZmqListener, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, body = connect(), bytes(unix_streams.BUFFER_BYTES)
    client.send(b"hello")
    received(listener)
    assert listener.can_send(b"ana")
    bounds = type(LOCAL_BOUNDS)(peer_bytes=8 * len(body), owner_bytes=2**40, mark_bytes=0)
    monkeypatch.setattr(unix_streams, "LOCAL_BOUNDS", bounds)
    sent = 0
    while listener.send(PeerKind.CLIENT, b"ana", body):
        sent += 1
    assert sent <= 8 + 4  # with what the kernel holds
    thread = threading.Thread(target=lambda: [client.receive(PATIENCE_S) for _ in range(sent)])
    thread.start()
    while thread.is_alive():
        listener.wait(0.01)
    assert listener.can_send(b"ana")
    client.close()
    while listener.send(PeerKind.CLIENT, b"ana", body):
        listener.wait(0.01)
    assert listener.can_send(b"ana")  # it is gone


def test_forked_child_leaves_stream_of_parent_alone(
    listener: ZmqListener, connect: Connect
) -> None:
    client = connect()
    client.send(bytes(4 * unix_streams.BUFFER_BYTES))  # a part of it waits
    child = os.fork()
    if not child:
        client.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    client.send(b"next")
    entries: list[bytes] = []
    while len(entries) < 2:
        client.receive(0.0)
        listener.wait(0.01)
        if (found := listener.receive()) is not None:
            entries.append(found[2])
    assert list(map(len, entries)) == [4 * unix_streams.BUFFER_BYTES, 4]


def test_connections_without_a_name_make_room_and_leave_descriptors(
    listener: ZmqListener, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = connect()
    named.send(b"hello")
    assert received(listener)[2] == b"hello"
    monkeypatch.setattr(unix_streams.resource, "getrlimit", lambda _: (8, 8))
    silent = [raw(listener, b"") for _ in range(40)]
    for _ in range(40):
        assert not listener.wait(0.0)
    assert len(listener._streams._peers) == 4
    connect(b"ben").send(b"late")
    assert received(listener) == (PeerKind.CLIENT, b"ben", b"late", LOCAL)
    connect(b"worker", WORKER_STREAM).send(b"one more")
    assert received(listener) == (PeerKind.WORKER, b"worker", b"one more", LOCAL_WORKER)
    assert listener.send(PeerKind.CLIENT, b"ana", b"answer")
    assert named.receive(PATIENCE_S) == b"answer"
    for peer in silent:
        peer.close()


def test_connections_with_names_are_bounded_too(
    listener: ZmqListener, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_streams.resource, "getrlimit", lambda _: (8, 8))
    for name in (b"a", b"b", b"c", b"d"):
        connect(name).send(name)
        assert received(listener)[2] == name
    late = connect(b"e")
    while not late.is_lost:
        assert not listener.wait(0.0)
        assert late.receive(0.01) is None
    assert len(listener._streams._peers) == 4


def test_parts_of_messages_are_bounded_and_whole_ones_pass(
    listener: ZmqListener, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_streams, "ALL_BYTES", 2**20)
    head = (2**19 + 2).to_bytes(4, "little")
    peers = [raw(listener, (1).to_bytes(4, "little") + bytes([k])) for k in range(6)]
    half = threading.Thread(
        target=lambda: [peer.sendall(head + bytes(2**19)) for peer in peers[:3]]
    )
    half.start()
    while half.is_alive() or len(listener._streams._peers) > 5:
        assert not listener.wait(0.01)
    assert listener._streams._read_bytes <= 2**20 + 2**17
    whole = b"whole" * 2**16  # shorter than the parts: the peer that has sent most is closed
    sender = threading.Thread(
        target=lambda: [
            peer.sendall(len(whole).to_bytes(4, "little") + whole) for peer in peers[3:]
        ]
    )
    sender.start()
    assert [received(listener)[2] for _ in range(3)] == [whole] * 3
    sender.join()
    for peer in peers:
        peer.close()
    while listener._streams._peers:
        listener.wait(0.01)
    assert listener._streams._read_bytes == 0


def test_service_that_accepts_nothing_does_not_hold_a_client(
    listener: ZmqListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_streams, "BACKLOG", 1)
    monkeypatch.setattr(unix_streams, "CONNECT_S", 1)
    path = path_of(listener, "full.sock")
    listener._streams.bind(path, PeerKind.CLIENT)
    waiting = [UnixConnection(path, bytes([k + 1])) for k in range(2)]
    fails(NoServiceError, "no service at", UnixConnection, path, b"late")
    for connection in waiting:
        connection.close()


def test_bytes_that_wait_for_all_are_bounded_and_one_that_reads_is_served(
    listener: ZmqListener, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix_streams, "ALL_UNSENT_BYTES", 4 * 2**20)
    clients, body = {name: connect(name) for name in (b"ana", b"ben", b"eve")}, bytes(2**20)
    for name, client in clients.items():
        client.send(name)
        assert received(listener)[2] == name
    for name in (b"ana", b"ben"):
        while listener.can_send(name) and listener.send(PeerKind.CLIENT, name, body):
            assert listener._streams._unsent_bytes < 8 * 2**20
    assert not listener.send(PeerKind.CLIENT, b"ana", b"more")
    assert listener.can_send(b"eve")
    assert listener.send(PeerKind.CLIENT, b"eve", b"answer")
    assert clients[b"eve"].receive(PATIENCE_S) == b"answer"
    for client in clients.values():
        client.close()
    while listener._streams._peers:
        listener.wait(0.01)
    assert listener._streams._unsent_bytes == 0
