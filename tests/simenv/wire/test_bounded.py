"""What waits for a client, and what one sends ahead of the service, is bounded in bytes."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
import zmq
from tcp_peers import PATIENCE_S, ListenerThread, is_closed
from waiting import until

from simenv.wire.codec import to_client
from simenv.wire.messages import client as m
from simenv.wire.transport import read_ahead, sockets, tcp_listener
from simenv.wire.transport.read_ahead import ReadAhead
from simenv.wire.transport.sockets import PeerKind, RouterSender, SendBufferLimits

MIB = 2**20
Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ListenerThread]:
    with closing(ListenerThread(tmp_path)) as built:
        yield built


@pytest.fixture
def context() -> Iterator[Context]:
    outcome: Context = zmq.Context()
    yield outcome
    outcome.destroy(linger=0)


def deaf(house: ListenerThread, context: Context, name: str, route: bytes) -> bytes:
    """A connection whose client reads nothing; the service's name for it."""
    result = context.socket(zmq.DEALER)
    result.set(zmq.CURVE_SERVERKEY, house.server.public.encode())
    result.set(zmq.CURVE_PUBLICKEY, house.keys[name].public.encode())
    result.set(zmq.CURVE_SECRETKEY, house.keys[name].secret.encode())
    result.set(zmq.IDENTITY, route)
    result.set(zmq.RCVHWM, 1)
    result.set(zmq.RECONNECT_IVL, -1)
    result.set(zmq.LINGER, 0)
    result.connect(house.address)
    house.kept.append(result)
    result.send(b"hello " + route)
    return house.of(b"hello " + route)[1]


def waiting(house: ListenerThread, owner: str) -> int:
    """Bytes that are known to wait for an owner."""
    out = house.far._outgoing
    out.stalled()  # takes off what has gone out
    return out._of_owner.get(owner, 0)


@pytest.mark.parametrize("size", [100, 5_000, MIB])
def test_bytes_that_wait_for_a_client_that_reads_nothing_are_bounded(
    house: ListenerThread, context: Context, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    limit = 8 * MIB
    out = house.far._outgoing
    monkeypatch.setattr(out, "_peer_bytes", limit)
    peer = deaf(house, context, "ana", b"deaf")
    body = bytes(size)

    def refused() -> bool:
        send = partial(house.listener.send, PeerKind.CLIENT, peer, body)
        return not all(send() for _ in range(200 * MIB // (size + sockets.MESSAGE_BYTES)))

    assert house.do(refused)
    assert house.do(lambda: waiting(house, "ana")) <= limit + max(size, MIB)
    other = house.connect("ben", b"good")
    other.send(b"anybody there")
    house.do(partial(house.listener.send, PeerKind.CLIENT, house.of(b"anybody there")[1], b"yes"))
    assert other.receive(PATIENCE_S) == b"yes"


def test_connections_of_one_owner_share_one_send_limit_and_others_have_theirs(
    house: ListenerThread, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.far._outgoing, "_owner_bytes", 32 * MIB)
    peers = [deaf(house, context, "ana", b"deaf %d" % k) for k in range(4)]
    for peer in peers:
        for _ in range(30):
            house.do(partial(house.listener.send, PeerKind.CLIENT, peer, bytes(MIB)))
    assert 16 * MIB < house.do(lambda: waiting(house, "ana")) <= 33 * MIB  # type: ignore[operator]
    assert not house.do(partial(house.listener.can_send, peers[0]))
    ben = house.connect("ben", b"good")
    ben.send(b"and I")
    peer = house.of(b"and I")[1]
    assert house.do(partial(house.listener.can_send, peer))
    assert house.do(partial(house.listener.send, PeerKind.CLIENT, peer, bytes(MIB)))
    assert ben.receive(PATIENCE_S) == bytes(MIB)


def test_send_capacity_returns_when_client_reads(
    house: ListenerThread, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.far._outgoing, "_peer_bytes", 4 * MIB)
    peer = deaf(house, context, "ana", b"slow")
    sent = 0
    while house.do(partial(house.listener.can_send, peer)):
        assert house.do(partial(house.listener.send, PeerKind.CLIENT, peer, bytes(MIB)))
        sent += 1
        assert sent < 200
    for _ in range(sent):
        assert house.kept[0].recv() == bytes(MIB)
    until(lambda: house.do(partial(house.listener.can_send, peer)))


def test_client_whose_send_queue_stays_full_is_disconnected(
    house: ListenerThread, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "STALL_S", 0.2)
    monkeypatch.setattr(house.far._outgoing, "_peer_bytes", 4 * MIB)
    peer = deaf(house, context, "ana", b"deaf")
    while house.do(partial(house.listener.can_send, peer)):
        house.do(partial(house.listener.send, PeerKind.CLIENT, peer, bytes(MIB)))

    def is_cut_off() -> bool:
        # What the limit held back may still fit into the buffers of TCP, so it is filled again.
        house.do(partial(house.listener.send, PeerKind.CLIENT, peer, bytes(MIB)))
        return any("reads nothing" in each for each in house.complaints)

    until(is_cut_off)
    until(lambda: not house.do(lambda: waiting(house, "ana")))


@pytest.mark.parametrize("fails_at", [1, 2])
def test_failed_send_is_false(context: Context, fails_at: int) -> None:
    with context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        router.set(zmq.ROUTER_MANDATORY, 1)
        dealer.set(zmq.IDENTITY, b"ana")
        port = router.bind_to_random_port("tcp://127.0.0.1")
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(b"hello")
        router.recv_multipart()
        out = RouterSender(router, SendBufferLimits(MIB, MIB, 1_000))
        real, calls = out._send, []

        def send(*given: object, **named: object) -> object:
            calls.append(given)
            if len(calls) == fails_at:
                raise zmq.ZMQError(12)
            return real(*given, **named)

        out._send = send
        assert not out.send(b"ana", b"x" * 5_000)
        assert out.send(b"ana", b"y" * 5_000)
        assert out.send(b"ana", b"z")
        received = [dealer.recv() for _ in range(3 if fails_at == 2 else 2)]
        assert received[-2:] == [b"y" * 5_000, b"z"]


def test_departed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of peers that have gone, that cannot be reached or that have read all."""
    monkeypatch.setattr(sockets, "MAX_UNMARKED", 10)
    monkeypatch.setattr(sockets, "MIN_MAX_LINES", 10)
    with context.socket(zmq.ROUTER) as router:  # which drops what is for nobody
        out = RouterSender(router, SendBufferLimits(MIB, MIB, 1_000))
        for number in range(100):
            out.send(b"%d" % number, b"x")
        assert len(out._unmarked) <= 10
        out = RouterSender(router, SendBufferLimits(MIB, MIB, 1_000))
        for number in range(100):
            out.send(b"%d" % number, b"x" * 5_000)
            until(lambda: all(mark.done for line in out._lines.values() for mark, _ in line.marks))
        assert len(out._lines) <= 10
        assert not out._unmarked
        router.set(zmq.ROUTER_MANDATORY, 1)
        assert not out.send(b"gone", b"x")
        assert not out._unmarked


def test_message_of_exactly_the_remote_size_limit_is_delivered(house: ListenerThread) -> None:
    assert house.far.message_bytes == m.FAR_MESSAGE_BYTES == 8 * MIB
    ana = house.connect("ana")
    ana.send(bytes(m.FAR_MESSAGE_BYTES))  # just fits
    assert len(house.of(bytes(m.FAR_MESSAGE_BYTES))[2]) == 8 * MIB


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("max_per_key", "2 connections with this key are the limit"),
        ("max_authenticated", "2 connections of all users together are the limit"),
    ],
)
def test_connection_beyond_a_limit_is_refused(tmp_path: Path, limit: str, expected: str) -> None:
    house = ListenerThread(tmp_path, tcp_listener.ListenerOptions(**{limit: 2}))  # type: ignore[arg-type]
    for number in range(2):
        house.connect("ana", b"%d" % number).send(b"in %d" % number)
        house.of(b"in %d" % number)
    third = house.connect("ana", b"third")
    third.send(b"me too")
    refused = to_client(third.receive(PATIENCE_S))
    assert (refused.request, refused.refusals[0].code) == (0, "limit")
    # The refusal may be read before the thread that sent it has gone on.
    assert not house.do(lambda: b"third" in house.far._outgoing._unmarked)
    assert refused.refusals[0].message == expected
    house.close()


def greeting(size: int) -> bytes:
    """Of ZMTP with CURVE, and the head of a command frame of that size."""
    start = b"\xff\0\0\0\0\0\0\0\1\x7f\3\1" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
    return start + b"\x06" + struct.pack("!Q", size)


def test_unauthenticated_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_listener, "HANDSHAKE_MS", 600_000)
    monkeypatch.setattr(read_ahead, "UNAUTHENTICATED_BYTES", MIB)
    house = ListenerThread(tmp_path)
    with house.raw(greeting(7 * MIB)) as raw:
        with suppress(OSError):
            raw.sendall(bytes(6 * MIB))
        assert is_closed(raw)
    until(lambda: any("waited to be read" in each for each in house.complaints))
    house.connect("ana").send(b"a good one")
    house.of(b"a good one")
    house.close()


@pytest.mark.parametrize(
    ("bound", "key", "goes"),
    [("KEY_BYTES", "key", 2), ("UNAUTHENTICATED_BYTES", "", 1), ("ALL_BYTES", "key", 1)],
)
def test_read_ahead_limit(monkeypatch: pytest.MonkeyPatch, bound: str, key: str, goes: int) -> None:
    cut: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        pairs = []
        for _ in range(3):
            near = socket.create_connection(server.getsockname())
            pairs.append((near, server.accept()[0]))
        ahead = ReadAhead(cut.append, lambda _: None)
        for number, (near, far) in enumerate(pairs):
            ahead._flows[far.fileno()] = read_ahead._Flow(key)
            size = (1_000, 300_000, 200_000)[number]
            thread = threading.Thread(target=near.sendall, args=(bytes(size),))
            thread.start()
            left = size
            while left:
                left -= len(far.recv(left))
            thread.join()
        assert ahead.close_excess() == 501_000
        monkeypatch.setattr(read_ahead, bound, 400_000)
        sizes = [1_000, 300_000, 200_000]
        assert ahead.close_excess() == 501_000 - sizes[goes]
        assert cut == [pairs[goes][1].fileno()]
        ahead.count_read(pairs[1][1].fileno(), 300_000)  # the service has taken it
        assert ahead.close_excess() == 201_000
        assert len(cut) == 1
        for pair in pairs:
            for each in pair:
                each.close()
    assert ahead.close_excess() == 0
