"""The credential broker: whom it names, and what it does with requests of any kind."""

import json
import os
import pwd
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from brokers import ADDRESS, NAME, SERVER_KEY, PlayedService, played, short_folder
from failing import fails
from interpreter import python
from other_user import UID, skip_without_second_user
from waiting import until

from simenv.client.connection.broker import BrokerAddress, find_socket
from simenv.errors import KeyRefusedError, NoServiceError, OptionError
from simenv.service import broker
from simenv.service.broker import MAX_OF_ONE, PATIENCE_S, AccountLookup, Remembered
from simenv.token_buckets import TokenBuckets
from simenv.wire.keyfiles import new_pair
from simenv.wire.messages import identity
from simenv.wire.messages.identity import MAX_REQUEST_BYTES, CertificateRequest

OWNER = os.geteuid()
LISTEN = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
os.setresgid({uid}, {uid}, {uid})
os.setresuid({uid}, {uid}, {uid})
listener.listen()
print(flush=True)
input()
"""


@pytest.fixture
def short() -> Iterator[Path]:
    with short_folder() as path:
        yield path


@pytest.fixture
def service(short: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedService]:
    monkeypatch.setenv("SIMENV_BROKERS", str(short))
    with played(short) as result:
        yield result


def address(name: str = NAME) -> BrokerAddress:
    return BrokerAddress(f"local:{OWNER}/{name}")


def socket_path() -> Path:
    path = find_socket(OWNER, NAME)
    assert path is not None
    return path


def connect() -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(PATIENCE_S + 5.0)
    peer.connect(str(socket_path()))
    return peer


def answer(body: bytes) -> bytes:
    """What the broker answers, to the end of the connection."""
    received = b""
    with connect() as peer:
        peer.sendall(body)
        try:
            while part := peer.recv(65_536):
                received += part
        except ConnectionResetError:
            pass
    return received


def request(**changes: object) -> bytes:
    values = {"format": 1, "environment": NAME, "public_key": "k" * 40, "nonce": "n" * 32}
    return json.dumps({**values, **changes}).encode() + b"\n"


def test_kernel_names_the_user_to_the_service(service: PlayedService) -> None:
    key = new_pair().public
    certificate = address()._request(key)
    assert (certificate.address, certificate.server_key) == (ADDRESS, SERVER_KEY)
    (asked,) = service.asked
    account = pwd.getpwuid(OWNER)
    assert (asked.uid, asked.user, asked.request.public_key) == (OWNER, account.pw_name, key)
    assert set(asked.groups) >= {"root"} if OWNER == 0 else asked.groups
    assert asked.origin == f"process {os.getpid()} of uid {OWNER}"


def test_second_user_is_named_by_the_kernel(service: PlayedService, short: Path) -> None:
    skip_without_second_user()
    code = f"import os,socket,sys; s=socket.socket(socket.AF_UNIX); os.setresuid(*[{UID}]*3); "
    code += "s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode()); print(s.recv(9999))"
    arguments = [str(socket_path()), request().decode()]
    done = python("-I", "-c", code, *arguments)
    assert f"the uid {UID} has no account" in done.stdout
    assert service.asked == []


def test_socket_is_open_to_all_and_its_folder_cannot_be_listed(service: PlayedService) -> None:
    path = socket_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"\n", "no request"), (b"\xff\xfe\n", "no request"), (b"[1]\n", "no request"),
        (b'{"format":' * 300 + b"\n", "no request"), (request(public_key="short"), "no request"),
        (request(nonce=""), "no request"), (request(uid=0), "no request"),
        (request(format=2), "format 2, this broker reads 1"),
        (request(environment="other"), "this broker is that of 'shared'"),
        (request() * 2, "no request"),
    ],
)  # fmt: skip
def test_bad_request_is_refused_and_service_is_not_asked(
    service: PlayedService, body: bytes, text: str
) -> None:
    reply = identity.reply_of(answer(body)[:-1])
    assert text in reply.message
    assert service.asked == []
    assert address()._request(new_pair().public).user


def test_too_long_request_is_cut_off_and_a_silent_connection_closed(
    service: PlayedService,
) -> None:
    assert answer(b"x" * (4 * MAX_REQUEST_BYTES)) == b""
    assert address()._request(new_pair().public).user
    with connect() as peer:
        begun = time.monotonic()
        assert peer.recv(1) == b""
    assert PATIENCE_S * 0.9 < time.monotonic() - begun < PATIENCE_S + 4.0


def test_connections_of_a_user_are_bounded(service: PlayedService) -> None:
    peers = [connect() for _ in range(MAX_OF_ONE)]
    begun = time.monotonic()
    with connect() as one_more:
        assert one_more.recv(1) == b""
    assert time.monotonic() - begun < PATIENCE_S / 2
    for peer in peers:
        peer.close()
    assert address()._request(new_pair().public).user


def test_requests_of_a_user_have_a_rate_and_others_are_served() -> None:
    rates, rate = TokenBuckets(), broker.REQUESTS
    assert sum(not rates.take(1, rate, 10.0) for _ in range(10_000)) == rate.burst
    assert not rates.take(2, rate, 10.0)
    assert sum(not rates.take(1, rate, 11.0) for _ in range(10_000)) == rate.per_s


def test_what_is_remembered_of_users_is_bounded() -> None:
    values: Remembered[int] = Remembered(3)
    for number in range(10):
        values.put(number, number)
    assert [values.get(number) for number in (6, 7, 8, 9)] == [None, 7, 8, 9]


def test_account_of_unmapped_users_is_none() -> None:
    accounts = AccountLookup()
    assert accounts.of(accounts._unmapped_uid).user == ""
    assert accounts.of(OWNER).user == pwd.getpwuid(OWNER).pw_name


def test_accounts_are_told_on_request_and_unknown_names_unanswered(service: PlayedService) -> None:
    name = pwd.getpwuid(OWNER).pw_name
    service.broker.send(identity.CheckUsers([OWNER, "no-such-user", name, 2**31]))
    until(lambda: len(service.members) == 3, 30.0)
    found = [(each.uid, each.user) for each in service.members]
    assert found == [(OWNER, name), (OWNER, name), (2**31, "")]


@pytest.mark.parametrize("is_killed", [True, False])
def test_ended_broker_or_removed_socket_is_replaced(
    service: PlayedService, is_killed: bool
) -> None:
    child = service.broker.child
    if is_killed:
        child.process.kill()
        child.process.wait()
    else:
        socket_path().unlink()
        fails(NoServiceError, "no environment 'shared'", address()._request, new_pair().public)
    child._started_s = 0.0
    service.broker.keep()
    assert address()._request(new_pair().public).user


def test_broker_ends_with_its_service(service: PlayedService) -> None:
    process = service.broker.child.process
    service._ending.set()
    service._thread.join()
    for end in (service.broker._channel, service.broker._inherited):
        end.close()
    assert process.wait(30.0) == 0


def test_broker_holds_no_secret_and_no_more_descriptors(service: PlayedService) -> None:
    address()._request(new_pair().public)
    process = service.broker.child.process
    running = psutil.Process(process.pid)
    assert {name for name in running.environ() if name.startswith("SIMENV_")} == set()
    assert running.open_files() == []
    modules = {Path(line.path).name for line in running.memory_maps()}
    assert not any("zmq" in name or "numpy" in name or "sqlite" in name for name in modules)


def test_socket_of_ended_service_is_replaced(service: PlayedService, short: Path) -> None:
    with played(short) as later:
        address()._request(new_pair().public)
        assert (len(service.asked), len(later.asked)) == (0, 1)


# --- the client's side: whom it believes --------------------------------------------------------


def test_folder_that_others_can_write_is_passed_over(service: PlayedService) -> None:
    socket_path().parent.chmod(0o777)
    assert find_socket(OWNER, NAME) is None
    fails(NoServiceError, "no environment 'shared'", address()._request, new_pair().public)


def test_taken_name_of_folder_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_second_user()
    monkeypatch.setenv("SIMENV_BROKERS", str(short))
    taken = short / f"simenv-broker-{OWNER}"
    taken.mkdir()
    (taken / f"{NAME}.sock").touch()
    os.chown(taken, UID, UID)
    assert find_socket(OWNER, NAME) is None
    with played(short) as service:
        assert address()._request(new_pair().public).user
        assert socket_path().parent.name.startswith(f"simenv-broker-{OWNER}.")
        assert len(service.asked) == 1


def test_answer_of_another_user_in_the_place_of_the_owner_is_not_believed(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_second_user()
    monkeypatch.setenv("SIMENV_BROKERS", str(short))
    folder = short / f"simenv-broker-{OWNER}"
    folder.mkdir(mode=0o711)
    argv = [sys.executable, "-I", "-c", LISTEN.format(uid=UID), str(folder / f"{NAME}.sock")]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as process:
        process.stdout.readline()
        text = f"user {UID} answers .* not believed"
        fails(NoServiceError, text, address()._request, new_pair().public)
        process.communicate("\n")


def test_refusal_of_the_service_is_raised_with_its_type(service: PlayedService) -> None:
    """As at an address whose socket leads to the broker of another environment."""
    (socket_path().parent / "other.sock").symlink_to(socket_path())
    fails(KeyRefusedError, "that of 'shared'", address("other")._ask, new_pair().public)


def test_address_of_another_form_is_refused() -> None:
    for text in ("local:", "local:ana/b/c", "munge:ana/x", "munge:ana@host/x", "munge:@host:1"):
        fails(OptionError, "is no address of a broker", BrokerAddress, text)
    fails(OptionError, "there is no user 'nobody-here'", BrokerAddress, "local:nobody-here/x")


def test_certificate_request_has_no_field_for_a_user() -> None:
    fields = ("format", "environment", "public_key", "nonce")
    assert CertificateRequest.__struct_fields__ == fields
