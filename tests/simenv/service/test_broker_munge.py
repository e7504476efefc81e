"""The credential broker with MUNGE: a real munged proves users, and credentials are used once."""

import os
import pwd
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
from brokers import ADDRESS, NAME, SERVER_KEY, PlayedService, played, short_folder
from failing import fails
from munged import munged, skip_without_munge
from other_user import UID
from waiting import until

from simenv.client.connection.broker import BrokerAddress
from simenv.errors import KeyRefusedError, NoServiceError
from simenv.service import broker
from simenv.service.broker import MAX_CONNECTIONS, MAX_OF_ONE, MUNGE_CALLS, MUNGE_S, PATIENCE_S
from simenv.wire import munge
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages import identity
from simenv.wire.messages.identity import CertificateRequest, Denial, UserCertificate

OWNER = os.geteuid()
KEY = bytes(range(128))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def short() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def daemon(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    skip_without_munge()
    with munged(short, key=KEY) as path:
        monkeypatch.setenv("SIMENV_MUNGE_SOCKET", str(path))
        yield path


@pytest.fixture
def service(daemon: Path, short: Path) -> Iterator[PlayedService]:
    with played(short, use="munge", listen=f"tcp://127.0.0.1:{free_port()}") as result:
        yield result


def port_of(service: PlayedService) -> int:
    return int(service.broker._tcp.getsockname()[1])


def address(service: PlayedService, owner: int = OWNER) -> BrokerAddress:
    return BrokerAddress(f"munge:{owner}@127.0.0.1:{port_of(service)}/{NAME}")


def credential(reader: int = OWNER, **changes: object) -> bytes:
    request = CertificateRequest(1, NAME, "k" * 40, os.urandom(16).hex())
    return munge.encode(identity.line(msgspec.structs.replace(request, **changes)), reader)


def answer(service: PlayedService, line: bytes) -> UserCertificate | Denial:
    with socket.create_connection(("127.0.0.1", port_of(service)), PATIENCE_S + 5.0) as peer:
        peer.sendall(line + b"\n")
        received = b""
        while part := peer.recv(65_536):
            received += part
    body = received[:-1]
    if body.startswith(munge.PREFIX):
        body = munge.decode(body).payload
    reply: UserCertificate | Denial = identity.reply_of(body)
    return reply


def connect(service: PlayedService, stack: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    """A connection from an address of this host, until the end of `stack`."""
    source, place = (host, 0), ("127.0.0.1", port_of(service))
    return stack.enter_context(socket.create_connection(place, 30.0, source))


def read_reply(peer: socket.socket) -> UserCertificate | Denial:
    """The next answer, which is no credential."""
    reply: UserCertificate | Denial = identity.reply_of(peer.makefile("rb").readline())
    return reply


def test_munge_names_the_user_to_the_service(service: PlayedService) -> None:
    certificate = address(service)._request(new_pair().public)
    assert (certificate.address, certificate.server_key) == (ADDRESS, SERVER_KEY)
    (asked,) = service.asked
    assert (asked.uid, asked.user) == (OWNER, pwd.getpwuid(OWNER).pw_name)
    assert asked.origin == "127.0.0.1"


def test_replayed_credential_is_refused(service: PlayedService) -> None:
    line = credential()
    assert isinstance(answer(service, line), UserCertificate)
    reply = answer(service, line)
    assert reply.code == "key_refused"
    assert "replayed" in reply.message.lower()
    assert len(service.asked) == 1


def test_replay_is_refused_though_munged_has_forgotten_it(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_munge()
    monkeypatch.setenv("SIMENV_MUNGE_SOCKET", str(short / "munge.socket"))
    with munged(short, key=KEY):
        line = credential()
    with (
        munged(short, key=KEY),
        played(short, use="munge", listen=f"tcp://127.0.0.1:{free_port()}") as service,
    ):
        assert isinstance(answer(service, line), UserCertificate)
        with munged(short, name="second", key=KEY) as second:
            (short / "munge.socket").unlink()
            (short / "munge.socket").symlink_to(second)
            reply = answer(service, line)
    assert "was used before" in reply.message
    assert len(service.asked) == 1


def test_forged_credentials_are_refused(service: PlayedService, short: Path) -> None:
    line = credential()
    middle = len(line) // 2
    flipped = line[:middle] + (b"A" if line[middle : middle + 1] != b"A" else b"B")
    forged = [flipped + line[middle + 1 :], b"MUNGE:AwQFAAA=:", b"MUNGE:", b"x" * 300, b"{}"]
    with munged(short, name="other") as other, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMENV_MUNGE_SOCKET", str(other))
        forged.append(credential())  # of another site
    for each in forged:
        reply = answer(service, each)
        assert isinstance(reply, Denial), each
        assert reply.code == "key_refused"
    assert service.asked == []
    assert address(service)._request(new_pair().public).user


def test_payload_that_is_no_request_is_refused(service: PlayedService) -> None:
    for line in (credential(format=2), credential(environment="other"), munge.encode(b"", OWNER)):
        assert isinstance(answer(service, line), Denial)
    assert service.asked == []


def test_credential_for_another_reader_cannot_be_decoded(daemon: Path) -> None:
    fails(KeyRefusedError, "MUNGE refuses", munge.decode, credential(reader=UID))


def test_old_credential_is_refused_whatever_time_its_sender_chose(
    daemon: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = credential()
    monkeypatch.setattr(munge, "TTL_S", -1)
    fails(KeyRefusedError, "the limit is -1 s", munge.decode, line)


def test_missing_munged_is_named(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMENV_MUNGE_SOCKET", str(short / "none"))
    error = fails(NoServiceError, "there is no socket of munged", munge.encode, b"x", OWNER)
    assert "SIMENV_MUNGE_SOCKET" in error.hint


@pytest.mark.parametrize("is_sealed", [True, False])
def test_answer_that_is_not_of_the_owner_is_not_believed(daemon: Path, is_sealed: bool) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def play() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65_536)
            reply = UserCertificate(1, NAME, "n", "ana", "client", ADDRESS, SERVER_KEY, 900.0)
            body = identity.line(reply)
            peer.sendall((munge.encode(body, OWNER) if is_sealed else body) + b"\n")

    thread = threading.Thread(target=play)
    thread.start()
    try:
        port = listener.getsockname()[1]
        target = BrokerAddress(f"munge:{OWNER + 1}@127.0.0.1:{port}/{NAME}")
        text = "not believed"
        fails(NoServiceError, text, target._request, new_pair().public, tries=1)
    finally:
        thread.join()
        listener.close()


def test_silent_connections_from_a_host_do_not_shut_out_its_other_users(
    service: PlayedService,
) -> None:
    place = ("127.0.0.1", port_of(service))
    peers = [socket.create_connection(place, PATIENCE_S) for _ in range(MAX_OF_ONE + 1)]
    assert address(service)._request(new_pair().public).user
    assert peers[0].recv(1) == b""  # the oldest made room
    for peer in peers:
        peer.close()


@contextmanager
def stopped(short: Path) -> Iterator[None]:
    """Stop the process of munged, whose socket still accepts connections."""
    process_id = int((short / "munge.pid").read_text())
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


def test_local_users_and_checks_do_not_wait_for_munged_that_hangs(
    daemon: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMENV_BROKERS", str(short))
    listen = f"tcp://127.0.0.1:{free_port()}"
    with played(short, use=["local", "munge"], listen=listen) as service, ExitStack() as stack:
        local = BrokerAddress(f"local:{OWNER}/{NAME}")
        local._request(new_pair().public)
        lines = [credential() for _ in range(MUNGE_CALLS + 2)]
        with stopped(short):
            begin_s = time.monotonic()
            peers = [connect(service, stack) for _ in lines]
            for peer, line in zip(peers, lines, strict=True):
                peer.sendall(line + b"\n")
            local._request(new_pair().public)
            service.broker.send(identity.CheckUsers([OWNER]))
            until(lambda: service.members, 30.0)
            assert time.monotonic() - begin_s < MUNGE_S / 2
            replies = [read_reply(peer) for peer in peers]
            assert time.monotonic() - begin_s < PATIENCE_S  # of a client
        for reply in replies:
            assert reply.code == NoServiceError.code
            assert reply.message.startswith("munged of the service's host does not answer within")
            assert "is munged of that host running?" in reply.hint
        assert len(service.asked) == 2
        assert address(service)._request(new_pair().public).user  # it answers again


def test_answer_not_encoded_by_munged_is_a_refusal(service: PlayedService, short: Path) -> None:
    service.answers = False
    with socket.create_connection(("127.0.0.1", port_of(service)), 30.0) as peer:
        peer.sendall(credential() + b"\n")
        until(lambda: service.asked, 30.0)
        with stopped(short):
            denial = Denial("key_refused", "no")
            service.broker.send(identity.UserAnswer(service.asked[0].number, denial))
            reply = read_reply(peer)
    assert reply.code == NoServiceError.code


def test_silent_connections_do_not_close_those_with_a_request(service: PlayedService) -> None:
    service.answers = False
    with ExitStack() as stack:
        peer = connect(service, stack)
        peer.sendall(credential() + b"\n")
        until(lambda: service.asked, 30.0)
        hosts = [f"127.0.0.{2 + k // MAX_OF_ONE}" for k in range(MAX_CONNECTIONS)]
        first, *_ = [connect(service, stack, host) for host in hosts]
        assert first.recv(1) == b""  # the oldest of them made room
        service.broker.send(identity.UserAnswer(service.asked[0].number, Denial("full", "no")))
        assert peer.recv(65_536).startswith(munge.PREFIX)


def test_newest_credential_of_each_host_has_its_turn_first(
    service: PlayedService, short: Path
) -> None:
    keys = [f"{number:040}" for number in range(MAX_OF_ONE)]
    lines = [credential(public_key=key) for key in keys]
    with ExitStack() as stack:
        with stopped(short):
            peers = [connect(service, stack) for _ in lines[:-1]]
            peers.append(connect(service, stack, "127.0.0.2"))
            for peer, line in zip(peers, lines, strict=True):
                peer.sendall(line + b"\n")
            for turn in range(len(lines)):  # more passes than the broker needs to read them all
                service.broker.send(identity.CheckUsers([OWNER]))
                until(lambda turn=turn: len(service.members) > turn, 30.0)  # type: ignore[misc]
        until(lambda: len(service.asked) == len(lines), 30.0)
    order = [keys.index(each.request.public_key) for each in service.asked]
    early = order[: 3 * MUNGE_CALLS]
    assert {len(lines) - 1, len(lines) - 2} <= {*early}  # the one of another host, the newest
    assert order[-1] < len(lines) // 2


def test_credentials_of_closed_connections_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    ending, (ours, _theirs) = threading.Event(), socket.socketpair()
    monkeypatch.setattr(munge, "decode", lambda _line: ending.wait(30.0))
    running = broker.Broker(NAME, ours)
    pool: dict[broker.Connection, None] = {}
    with ExitStack() as stack:
        for number in range(MAX_OF_ONE):
            peer, _ = ends = socket.socketpair()
            for end in ends:
                stack.enter_context(end)
            connection = broker.Connection(peer, pool, f"10.0.0.{number % 2}", "", False)
            pool[connection] = None
            running._of_source[connection.source] += 1
            running._call_munge(connection, running._request_of_credential, munge.decode, b"")
        assert sum(map(len, running._munge_queue.values())) == MAX_OF_ONE - MUNGE_CALLS
        for connection in list(pool):
            running._close(connection)
        assert running._munge_queue == running._munge_calls == {}
        ending.set()
        running._munge_threads.shutdown()
        running._receive_munge_results()
        assert running._munge_running == 0
        running._selector.close()
        os.close(running._wakeup_fd)
        ours.close()
        _theirs.close()
