"""Connection files: which one is meant, and which are not believed."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from failing import fails
from other_user import UID, skip_without_second_user

import simenv
from simenv.client import launch
from simenv.client.connection import address
from simenv.config import ConnectionFile, OwnerEndpoint
from simenv.errors import ConfigError, NoServiceError
from simenv.process import START_TIME
from simenv.text import elapsed
from simenv.wire.keyfiles import KEYS_FORMAT, UserKeyFile, new_pair, read_private, write_private
from simenv.wire.transport.unix_streams import UnixConnection
from simenv.wire.transport.zmq_transport import CLIENT_SOCKET, CLIENT_STREAM, CurveConnection


def write(path: Path, **changes: object) -> Path:
    node, key = os.uname().nodename, OWN.server_key
    file = ConnectionFile(1, "played", "0.1.0", os.getpid(), node, 1, "/nowhere", key)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(file, **changes)))
    path.chmod(0o600)
    return path


def test_file_found_by_argument_or_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIMENV_HOME", str(tmp_path))
    assert address.find().path == tmp_path / "default" / "connection.json"
    assert address.find("other").path == tmp_path / "other" / "connection.json"
    monkeypatch.setenv("SIMENV_SERVICE", str(tmp_path / "named.json"))
    assert address.find().path == tmp_path / "named.json"
    assert address.find("other").path == tmp_path / "other" / "connection.json"
    assert address.find(file=tmp_path / "given").path == tmp_path / "given"


@pytest.mark.parametrize("name", ["../x", "Upper", "a b", "a\n", "x" * 65])
def test_invalid_environment_names_are_refused(name: str) -> None:
    fails(ConfigError, "", simenv.connect, name)


def test_missing_connection_file_is_named_in_error(tmp_path: Path) -> None:
    path = tmp_path / "nope"
    fails(NoServiceError, f"there is no connection file {path}", address.read, path)


def test_connect_without_environment_hints_at_up_command() -> None:
    error = fails(NoServiceError, "no environment 'nobody' is up", simenv.connect, "nobody")
    assert error.hint == "start one: simenv up --name nobody"


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_connection_file_writable_by_others_is_refused(mode: int, tmp_path: Path) -> None:
    path = write(tmp_path / "connection.json")
    path.chmod(mode)
    assert f"chmod 600 {path}" in fails(NoServiceError, "not believed", address.read, path).hint


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'{"format": 1}', b"\xff", b"[" * 60_000])
def test_malformed_connection_file_is_refused(body: bytes, tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    path.write_bytes(body)
    path.chmod(0o600)
    fails(NoServiceError, "is not a connection file", address.read, path)


def test_connection_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NoServiceError, match=r"format 9 \(simenv 2\.0\), this client reads 1"):
        address.read(write(tmp_path / "connection.json", format=9, version="2.0"))
    fails(NoServiceError, "cannot read", address.read, tmp_path)


def test_connect_to_ended_service_fails_with_its_last_log_line(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = write(tmp_path / "env" / "connection.json", pid=ended.pid)
    path.with_name("service.log").write_text("first\nSIGTERM from \x1b[31mslurmstepd\n\n")
    with pytest.raises(NoServiceError, match=rf"process {ended.pid} on \S+ has ended") as caught:
        simenv.connect(service=path)
    assert "last sign of life 0:0" in caught.value.message
    assert "(last line: SIGTERM from ?[31mslurmstepd)" in caught.value.hint
    assert caught.value.hint.endswith("start again: simenv up --name played")


def test_pid_of_another_process_ends_a_service_on_this_node_only(tmp_path: Path) -> None:
    file = address.read(write(tmp_path / "connection.json", pid=os.getppid()))
    assert address.ended(file)
    file = address.read(write(tmp_path / "connection.json", pid=2**22 + 1, node="elsewhere"))
    assert not address.ended(file)


def test_service_that_moved_is_detected_by_its_connection_file(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", "simenv.service"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        running.stdout.readline()  # until then /proc may still show the command line of the parent
        path = write(tmp_path / "connection.json", pid=running.pid, sockets="/first")
        where = address.FileAddress(path)
        fails(NoServiceError, "no such socket", where.open, b"me")
        where._file = address.read(path)
        assert not where.moved()
        write(path, pid=running.pid, sockets="/second")
        assert where.moved()
        path.unlink()
        assert not where.moved()
    finally:
        running.communicate(b"\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (-3, "0:00"), (191, "3:11"), (3_600, "1:00:00"), (93_784, "1-02:03:04")],
)
def test_elapsed_time_is_formatted_with_hours_and_days(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text


OWN = OwnerEndpoint("tcp://127.0.0.1:9", *(letter * 40 for letter in "abc"))


def test_connection_file_without_the_key_of_the_service_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "connection.json")
    document = msgspec.json.decode(path.read_bytes())
    del document["socket_key"]
    path.write_bytes(msgspec.json.encode(document))
    fails(
        NoServiceError,
        "is not a connection file.*socket_key",
        address.FileAddress(path).open,
        b"me",
    )


def test_service_on_another_node_without_listener_is_refused_with_hint(tmp_path: Path) -> None:
    path = write(tmp_path / "connection.json", node="elsewhere")
    with pytest.raises(NoServiceError, match=r"runs on elsewhere.*listens for no other") as caught:
        address.FileAddress(path).open(b"me")
    assert "--listen tcp://INTERFACE:0" in caught.value.hint


def test_service_on_another_node_is_connected_through_owner_endpoint(tmp_path: Path) -> None:
    pair = new_pair()
    own = OwnerEndpoint("tcp://127.0.0.1:9", pair.public, pair.public, pair.secret)
    where = address.FileAddress(write(tmp_path / "connection.json", node="elsewhere", own=own))
    connection = where.open(b"me")
    try:
        assert isinstance(connection, CurveConnection)
        assert not where.moved()
        assert "out of reach: " in where.diagnose()[0]
        assert "tcp://127.0.0.1:9" in where.diagnose()[0]
        write(where.path, node="elsewhere", own=OWN)
        assert where.moved()
    finally:
        connection.close()


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_connection_file_with_secret_open_to_others_is_refused(mode: int, tmp_path: Path) -> None:
    path = write(tmp_path / "connection.json", own=OWN)
    address.read(path)
    path.chmod(mode)
    fails(NoServiceError, "holds a secret key and can be opened by others", address.read, path)


@pytest.fixture
def listening() -> Iterator[Path]:
    """The folder of a socket on which something listens."""
    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as service:
        folder = Path(name)
        service.bind(str(folder / CLIENT_SOCKET))
        service.listen()
        yield folder


def test_lost_stream_of_a_service_that_runs_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, listening: Path
) -> None:
    monkeypatch.setattr(address, "SERVICE", _own_title())  # we are the service
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(listening / CLIENT_STREAM))
        service.listen()
        path = write(tmp_path / "connection.json", sockets=str(listening), pid=os.getpid())
        where = address.FileAddress(path)
        with closing(where.open(b"me")) as connection:
            assert isinstance(connection, UnixConnection)
            assert not where.moved()
            assert where.refusal() is None
            service.accept()[0].close()
            assert connection.receive(1.0) is None
            assert where.moved()


def far_file(tmp_path: Path, sockets: Path, **changes: object) -> Path:
    pair = new_pair()
    own = OwnerEndpoint("tcp://127.0.0.1:9", pair.public, pair.public, pair.secret)
    table = {"node": "elsewhere", "own": own, "sockets": str(sockets), "socket_key": pair.public}
    return write(tmp_path / "home" / "connection.json", **{**table, **changes})


def opened(path: Path) -> str:
    """The kind of address that is connected to."""
    with closing(address.FileAddress(path).open(b"me")) as connection:
        assert isinstance(connection, CurveConnection)
        return connection.address.partition(":")[0]


def test_own_socket_is_used_when_file_names_another_node(tmp_path: Path, listening: Path) -> None:
    assert opened(far_file(tmp_path, listening)) == "ipc"


def test_socket_in_folder_writable_by_others_is_not_used(tmp_path: Path, listening: Path) -> None:
    listening.chmod(0o777)
    assert opened(far_file(tmp_path, listening)) == "tcp"
    result = far_file(tmp_path, listening, node=os.uname().nodename, own=None, pid=os.getpid())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(address, "SERVICE", _own_title())  # we are the service
        fails(NoServiceError, "others can write its folder: not used", opened, result)


def test_socket_in_folder_of_another_user_is_not_used(tmp_path: Path, listening: Path) -> None:
    skip_without_second_user()
    os.chown(listening, UID, UID)
    assert opened(far_file(tmp_path, listening)) == "tcp"


def test_socket_of_listening_process_of_another_user_is_not_used(tmp_path: Path) -> None:
    skip_without_second_user()
    folder = tmp_path / "sockets"
    folder.mkdir(mode=0o700)
    source = (
        "import os, socket, sys\n"
        "own = socket.socket(socket.AF_UNIX); own.bind(sys.argv[1])\n"
        f"os.setresuid({UID}, {UID}, {UID}); own.listen()\n"
        "print('listens', flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", source, str(folder / CLIENT_SOCKET)]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as decoy:
        assert (decoy.stdout.readline(), opened(far_file(tmp_path, folder))) == ("listens\n", "tcp")
        decoy.communicate()


def test_process_of_another_user_is_not_taken_for_service() -> None:
    skip_without_second_user()
    source = (
        f"import os, sys; os.setresuid({UID}, {UID}, {UID})\n"
        "print('simenv.service', flush=True); sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", source, "simenv.service"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as decoy:
        decoy.stdout.readline()
        assert not launch.runs(decoy.pid, launch.SERVICE)
        decoy.communicate()


def test_later_process_with_pid_of_service_is_not_taken_for_it(tmp_path: Path) -> None:
    source = "import sys; print('runs', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", source, "simenv.service"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True) as later:
        later.stdout.readline()
        stat = Path(f"/proc/{later.pid}/stat").read_text()
        ticks = stat.rpartition(")")[2].split()[START_TIME]
        for value, is_gone in (("", False), (ticks, False), ("1", True)):
            path = write(tmp_path / "connection.json", pid=later.pid, start_ticks=value)
            assert address.ended(address.read(path)) is is_gone
        launch.force(later.pid, 0.0, "1")
        assert later.poll() is None
        later.communicate()


def _own_title() -> bytes:
    """What this process is called, whatever its runner calls it."""
    return Path("/proc/self/cmdline").read_bytes().split(b"\0")[0]


def test_addresses_of_a_key_file_take_turns_while_the_service_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "user.simenv"
    addresses = [f"tcp://127.0.0.1:{port}" for port in (1, 2, 3)]
    key_file(path, *addresses)
    key, now_s = address.KeyFileAddress(path), 100.0
    monkeypatch.setattr(address.time, "monotonic", lambda: now_s)
    tried = []
    for _ in range(4):
        with closing(key.open(b"~x")) as connection:
            tried.append(connection.address)
            while not key.moved():  # the channel looks every 0.25 s
                now_s += 0.25
    assert tried == [*addresses, addresses[0]]
    assert key.patience_s > 3 * address.NEXT_S  # each is tried before the service is lost
    now_s += 60.0  # it answered meanwhile
    assert not key.moved()


def key_file(path: Path, address_: str, *standbys: str) -> UserKeyFile:
    pair = new_pair()
    file = UserKeyFile(
        *(KEYS_FORMAT, "lab", address_, new_pair().public, "user", "client"),
        *(pair.public, pair.secret, standbys),
    )
    write_private(path, file)
    return file


def test_standbys_that_the_service_names_are_kept_in_the_key_file(tmp_path: Path) -> None:
    path, first = tmp_path / "user.simenv", "tcp://127.0.0.1:1"
    file = key_file(path, first)
    key = address.KeyFileAddress(path)
    with closing(key.open(b"~x")):
        assert key.patience_s == 0.0
        key.learn((first,))
        assert read_private(path, UserKeyFile) == file
        key.learn(("tcp://127.0.0.1:2",))
        assert key.patience_s == address.TAKEOVER_S
        assert not key.moved()
    assert read_private(path, UserKeyFile).standbys == ("tcp://127.0.0.1:2",)
    other = address.KeyFileAddress(path)
    with closing(other.open(b"~y")):
        other.learn(("tcp://127.0.0.1:3", first))
        other.learn(())
    assert other.standbys == ("tcp://127.0.0.1:3", "tcp://127.0.0.1:2")


def test_key_that_was_rotated_meanwhile_is_not_overwritten_by_standbys(tmp_path: Path) -> None:
    path = tmp_path / "user.simenv"
    key_file(path, "tcp://127.0.0.1:1")
    key = address.KeyFileAddress(path)
    with closing(key.open(b"~x")):
        rotated = key_file(path, "tcp://127.0.0.1:1")
        key.learn(("tcp://127.0.0.1:2",))
        assert read_private(path, UserKeyFile) == rotated
        assert key.moved()
