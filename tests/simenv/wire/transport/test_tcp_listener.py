"""The listener for other nodes: keys, strangers, and who is cut when too many come."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import zmq
from failing import fails
from tcp_peers import PATIENCE_S, ListenerThread, Wiretap, is_closed, plain_dealer, way_becomes

from simenv.errors import ConfigError
from simenv.service.workers.endpoints import raise_descriptor_limit
from simenv.wire.keyfiles import new_pair
from simenv.wire.rights import LOCAL, Identity, Role
from simenv.wire.transport import tcp_listener
from simenv.wire.transport.connection_limiter import (
    MAX_AUTHENTICATED,
    MAX_PER_KEY,
    MAX_UNAUTHENTICATED,
    ConnectionLimiter,
)  # fmt: skip
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.tcp_listener import TcpListener
from simenv.wire.transport.zmq_transport import (
    CLIENT_SOCKET,
    CurveConnection,
    HandshakeState,
    ZmqConnection,
    endpoint,
)  # fmt: skip

ANA = Identity("ana", Role.CLIENT)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ListenerThread]:
    with closing(ListenerThread(tmp_path)) as built:
        yield built


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListenerThread]:
    """A house whose door is narrow and soon loses its patience."""
    monkeypatch.setattr(tcp_listener, "HANDSHAKE_MS", 300)
    options = tcp_listener.ListenerOptions(message_bytes=1_000)
    with closing(ListenerThread(tmp_path, options)) as built:
        yield built


@pytest.fixture
def patient(house: ListenerThread, monkeypatch: pytest.MonkeyPatch) -> ListenerThread:
    """A house that waits for a handshake as long as it takes."""
    monkeypatch.setattr(tcp_listener, "HANDSHAKE_MS", 600_000)
    return house


def still_serves(house: ListenerThread, word: bytes = b"still here") -> bool:
    """A good client gets in, and is heard as who she is."""
    house.connect("ana", b"good " + word).send(word)
    return house.of(word)[3] == ANA


@pytest.mark.parametrize("name", ["ana", "ops", ""])
def test_message_has_identity_of_its_key_and_answer(
    house: ListenerThread, tmp_path: Path, name: str
) -> None:
    """A client of this node is the own user, whatever its route."""
    path = endpoint(tmp_path / CLIENT_SOCKET)
    near = None if name else ZmqConnection(path, house.server.public, new_pair(), b"ana")
    connection = near or house.connect(name)
    connection.send(b"question")
    received = house.of(b"question")
    assert received[0] is PeerKind.CLIENT
    assert received[3] == (house.key_commands[house.keys[name].public] if name else LOCAL)
    assert house.do(lambda: house.listener.send(PeerKind.CLIENT, received[1], b"answer"))
    assert connection.receive(PATIENCE_S) == b"answer"
    connection.close()


def test_worker_key_no_client(house: ListenerThread) -> None:
    assert house.key_commands[house.keys["hand"].public].role is Role.WORKER
    hand = house.connect("hand")
    hand.send(b"a result")
    assert way_becomes(hand, HandshakeState.REFUSED)
    assert still_serves(house)
    assert all(body != b"a result" for _, _, body, _ in house.heard)


def test_unknown_key_is_refused(house: ListenerThread) -> None:
    client = house.connect(new_pair())
    client.send(b"let me in")
    assert way_becomes(client, HandshakeState.REFUSED)
    assert set(house.complaints) == {"a key that is not known was refused, from 127.0.0.1"}
    assert still_serves(house)
    assert all(body != b"let me in" for _, _, body, _ in house.heard)


def test_client_does_not_connect_to_server_with_another_key(house: ListenerThread) -> None:
    lost = house.connect("ana", server=new_pair().public)
    lost.send(b"a secret for somebody else")
    assert way_becomes(lost, HandshakeState.ABORTED)
    assert still_serves(house)
    assert len(house.heard) == 1


def test_missing_listener_is_distinguished_from_refused_key(house: ListenerThread) -> None:
    port = TcpListener("127.0.0.1", 0, house.server)
    address = f"tcp://127.0.0.1:{port.port}"
    port.close()
    lost = CurveConnection(address, house.server.public, house.keys["ana"], b"x")
    assert way_becomes(lost, HandshakeState.NOBODY)
    lost.close()


@pytest.mark.parametrize("mechanism", ["null", "plain"])
def test_connection_without_curve_key_is_refused(house: ListenerThread, mechanism: str) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    result = plain_dealer(house.address, context, mechanism)
    assert still_serves(house)
    assert len(house.heard) == 1
    result.close()
    context.term()


def test_connection_of_revoked_key_is_closed_and_others_continue(house: ListenerThread) -> None:
    """Also where another key of that name takes its place."""
    ana, ben, new = house.connect("ana", b"a"), house.connect("ben", b"b"), new_pair()
    ana.send(b"one")
    ben.send(b"two")
    peer = house.of(b"one")[1]
    house.of(b"two")
    left = {key: who for key, who in house.key_commands.items() if who.owner != "ana"}
    house.do(lambda: house.listener.admit({**left, new.public: ANA}, b"farewell"))
    assert not house.do(lambda: house.listener.send(PeerKind.CLIENT, peer, b"a result"))
    ana.send(b"three")
    assert ana.receive(PATIENCE_S) == b"farewell"
    assert way_becomes(ana, HandshakeState.REFUSED)
    house.connect(new, b"c").send(b"new")
    assert house.of(b"new")[3] == ANA
    ben.send(b"four")
    house.of(b"four")
    assert all(body != b"three" for _, _, body, _ in house.heard)


def test_messages_of_closed_connection_reach_no_new_one(house: ListenerThread) -> None:
    ana = house.connect("ana", b"the same route")
    ana.send(b"mine")
    peer = house.of(b"mine")[1]
    ana.close()
    thief = house.connect("ben", b"the same route")
    while not any(body == b"mine too" for _, _, body, _ in house.heard):
        thief.send(b"mine too")  # not taken before the first connection is seen to be gone
        thief.receive(0.02)
    assert house.of(b"mine too")[1] != peer
    assert not house.do(lambda: house.listener.send(PeerKind.CLIENT, peer, b"for ana alone"))
    assert thief.receive(0.1) is None


def test_connection_with_the_route_of_one_that_has_just_ended_is_served() -> None:
    assert any(_serves_same_route() for _ in range(6))  # libzmq may still open it too early


def _serves_same_route() -> bool:
    """Return whether a connection is served whose key comes before the router was asked since the
    end of another one with its route."""
    server, ana = new_pair(), new_pair()
    listener = TcpListener("127.0.0.1", 0, server)
    listener.admit({ana.public: ANA}, b"")
    router, zap = listener.sockets[:2]
    address = f"tcp://127.0.0.1:{listener.port}"

    def receives(body: bytes, limit_s: float) -> bool:
        deadline_s = time.monotonic() + limit_s
        while time.monotonic() < deadline_s:
            listener.process_events()
            if router.poll(20):
                received = listener.receive()
                return received is not None and received[2] == body
        return False

    try:
        with closing(CurveConnection(address, server.public, ana, b"the same route")) as first:
            first.send(b"first")
            assert receives(b"first", PATIENCE_S)
        with closing(CurveConnection(address, server.public, ana, b"the same route")) as second:
            second.send(b"second")
            assert zap.poll(1000 * PATIENCE_S)
            listener.process_events()
            assert way_becomes(second, HandshakeState.OPEN)
            return receives(b"second", 1.0)
    finally:
        listener.close()


def test_random_bytes_instead_of_handshake_do_not_disturb_listener(house: ListenerThread) -> None:
    rng = random.Random(5)
    greeting = b"\xff\0\0\0\0\0\0\0\1\x7f\3\0CURVE"
    for k in range(60):
        first = rng.randbytes(rng.randrange(1, 400)) if k % 2 else greeting
        with house.raw(first) as raw, suppress(ConnectionError):
            raw.sendall(rng.randbytes(300 if k % 3 else 1))
    assert still_serves(house)
    assert len(house.heard) == 1


def test_silent_unauthenticated_peers_do_not_block_clients(patient: ListenerThread) -> None:
    raise_descriptor_limit()
    with ExitStack() as stack:
        crowd = [stack.enter_context(patient.raw()) for _ in range(MAX_UNAUTHENTICATED + 40)]
        assert still_serves(patient)
        assert is_closed(crowd[0])


def test_connections_without_timely_handshake_are_closed(hasty: ListenerThread) -> None:
    with hasty.raw(b"\xff") as silent, hasty.raw(b"\xff\0\0\0") as slow:
        assert is_closed(silent)
        assert is_closed(slow)
    assert still_serves(hasty)


def test_oversized_frame_is_not_received(hasty: ListenerThread) -> None:
    ana = hasty.connect("ana", b"large")
    ana.send(bytes(2_000))
    assert still_serves(hasty)
    assert all(len(body) < 1_000 for _, _, body, _ in hasty.heard)


def test_several_frames_are_received_as_empty(house: ListenerThread) -> None:
    ana = house.connect("ana", b"many")
    ana._socket.send_multipart([b"a", b"b", b"c"])
    assert house.of(b"")[3] == ANA
    assert still_serves(house)


def test_replayed_session_is_refused(house: ListenerThread) -> None:
    tap = Wiretap(house.far.port)
    ana = CurveConnection(tap.address, house.server.public, house.keys["ana"], b"tapped")
    ana.send(b"a secret order")
    house.of(b"a secret order")
    ana.close()
    tap.close()
    assert b"a secret order" not in bytes(tap.sent)
    for recorded in (tap.sent, tap.received):  # the second: its own words, sent back to it
        with house.raw(bytes(recorded)) as raw:
            assert is_closed(raw)
    assert still_serves(house)
    assert [body for _, _, body, _ in house.heard].count(b"a secret order") == 1


def test_corrupted_handshake_is_refused(house: ListenerThread) -> None:
    tap = Wiretap(house.far.port)
    ana = CurveConnection(tap.address, house.server.public, house.keys["ana"], b"tapped")
    ana.send(b"order")
    house.of(b"order")
    ana.close()
    tap.close()
    rng = random.Random(6)
    for _ in range(200):
        mutated = bytearray(tap.sent)
        for _ in range(rng.randrange(1, 6)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        with house.raw(bytes(mutated[: rng.randrange(1, len(mutated) + 1)])):
            pass
    assert still_serves(house)
    assert len(house.heard) == 2


def test_closed_connections_leak_no_file_descriptors(house: ListenerThread) -> None:
    assert still_serves(house, b"before")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        with house.raw(b"\xff\0"):
            pass
    assert still_serves(house, b"after")
    house.do(lambda: None)
    assert len(os.listdir("/proc/self/fd")) <= before + 12  # the second client's own


def test_port_in_use_raises_config_error_with_its_number(house: ListenerThread) -> None:
    fails(ConfigError, str(house.far.port), TcpListener, "127.0.0.1", house.far.port, house.server)


def test_unauthenticated_connections_give_way_first() -> None:
    guard = ConnectionLimiter()
    cut = [guard.accepted(fd) for fd in range(3 * MAX_UNAUTHENTICATED)]
    assert cut == [None] * MAX_UNAUTHENTICATED + list(range(2 * MAX_UNAUTHENTICATED))
    assert len(guard) == MAX_UNAUTHENTICATED
    guard = ConnectionLimiter()
    guard.accepted(1)
    assert guard.authenticate(1, "ana")
    assert 1 not in [guard.accepted(fd) for fd in range(2, 4 * MAX_UNAUTHENTICATED)]


def test_connections_are_limited_by_key_and_in_total() -> None:
    guard = ConnectionLimiter()
    entries = []
    for fd in range(MAX_PER_KEY + 5):
        guard.accepted(fd)
        entries.append(guard.authenticate(fd, "ana"))
    assert entries == [True] * MAX_PER_KEY + [False] * 5
    guard.accepted(9_999)
    assert guard.authenticate(9_999, "ben")
    guard = ConnectionLimiter()
    entries = []
    for fd in range(MAX_AUTHENTICATED + 3):
        guard.accepted(fd)
        entries.append(guard.authenticate(fd, f"key{fd // MAX_PER_KEY}"))
    assert entries.count(False) == 3


def test_closed_connections_no_longer_count() -> None:
    guard = ConnectionLimiter()
    for fd in range(10 * MAX_PER_KEY):
        guard.accepted(fd)
        assert guard.authenticate(fd, "ana")
        guard.remove(fd)
    assert len(guard) == 0
    guard = ConnectionLimiter()
    guard.accepted(7)
    assert guard.authenticate(7, "ana")
    guard.accepted(7)  # its end was not heard of
    assert guard.authenticate(7, "ben")
    assert len(guard) == 1
    assert all(guard.authenticate(fd, "ana") for fd in range(100, 100 + MAX_PER_KEY))


def test_revoked_key_that_has_left_costs_no_later_connection(
    house: ListenerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_listener, "LINGER_S", 0.3)
    pair = new_pair()
    house.do(lambda: house.listener.admit_key(pair.public, Identity("guest", Role.CLIENT)))
    guest = house.connect(pair, b"guest")
    guest.send(b"one")
    house.of(b"one")
    house.do(lambda: house.listener.revoke_key(pair.public, b""))
    guest.close()
    others = []
    for number in range(10):  # one of them gets the guest's descriptor
        others.append(house.connect("ana", b"a%d" % number))
        others[-1].send(b"hello %d" % number)
        house.of(b"hello %d" % number)
    peers = [house.of(b"hello %d" % number)[1] for number in range(10)]
    assert others[0].receive(0.5) is None  # longer than the guest's connection would have lasted
    assert all(house.do(lambda p=p: house.listener.send(PeerKind.CLIENT, p, b"yes")) for p in peers)
    assert [each.receive(PATIENCE_S) for each in others] == [b"yes"] * 10
