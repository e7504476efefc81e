"""Endpoints, keys and resources of workers."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from service import NODE, ServiceHarness

from launcher.base import Node
from simenv.config import EnvironmentPaths, convert, listen_parts
from simenv.errors import ConfigError, NoServiceError
from simenv.service.workers import endpoints
from simenv.service.workers.endpoints import WorkerEndpoint, address_for, open_listener, resolved
from simenv.service.workers.worker_keys import WorkerKeys
from simenv.wire import codec
from simenv.wire.auth import Identity, Role
from simenv.wire.keyfiles import KEYS_FORMAT, new_pair, write_private
from simenv.wire.messages import client as m
from simenv.wire.transport import worker_endpoint
from simenv.wire.transport.tcp_listener import ListenerOptions, TcpListener
from simenv.wire.transport.worker_endpoint import WorkerBootstrap
from simenv.wire.transport.zmq_transport import PeerKind, ZmqListener
from simenv.worker.result_files import unavailable_reason

HERE = Node(os.uname().nodename, 2, 2**30)
OTHER = Node("127.0.0.2", 2, 2**30)


@pytest.fixture
def paths() -> Iterator[EnvironmentPaths]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "results").mkdir()
        yield EnvironmentPaths(path, path)


def meet(
    paths: EnvironmentPaths, *nodes: Node, interface: str = "", epoch: int = 3
) -> WorkerEndpoint:
    sockets, keys = paths.home / "s", new_pair()
    return WorkerEndpoint(paths, sockets, paths.results, nodes, interface, epoch, keys)


def listening() -> set[int]:
    """Ports this process listens on."""
    result = psutil.Process().net_connections("tcp")
    return {each.laddr.port for each in result if each.status == psutil.CONN_LISTEN}


def test_environment_of_one_node_opens_no_port_and_creates_no_keys(
    paths: EnvironmentPaths,
) -> None:
    before = listening()
    meeting = meet(paths, HERE)
    file = worker_endpoint.read(paths.joining)
    assert (meeting.listener, meeting.owner_endpoint, meeting.address) == (None, None, "")
    assert (file.address, file.secret_key, file.epoch) == ("", "", 3)
    assert listening() == before


def test_worker_listener_of_several_nodes_binds_one_address(paths: EnvironmentPaths) -> None:
    meeting = meet(paths, HERE, OTHER, interface="127.0.0.1")
    assert meeting.listener is not None
    try:
        entries = [
            each.laddr.ip
            for each in psutil.Process().net_connections("tcp")
            if each.status == psutil.CONN_LISTEN and each.laddr.port == meeting.listener.port
        ]
        assert entries == ["127.0.0.1"]
        assert (
            worker_endpoint.read(paths.joining).address
            == f"tcp://127.0.0.1:{meeting.listener.port}"
        )
    finally:
        meeting.listener.close()


def test_each_service_start_has_its_own_keys(paths: EnvironmentPaths) -> None:
    keys = []
    for _ in range(2):
        meeting = meet(paths, HERE, OTHER, interface="127.0.0.1")
        file = worker_endpoint.read(paths.joining)
        assert meeting.listener is not None
        assert meeting.owner_endpoint is not None
        meeting.listener.close()
        keys += [file.server_key, meeting.owner_endpoint.public]
        assert (file.public_key, file.secret_key) == ("", "")  # a worker's own is elsewhere
    assert len(set(keys)) == 4


def test_bootstrap_file_is_private_and_removed_with_the_service(
    paths: EnvironmentPaths,
) -> None:
    meeting = meet(paths, HERE)
    assert paths.joining.stat().st_mode & 0o777 == 0o600
    meeting.leave()
    assert not paths.joining.exists()


def test_bootstrap_file_of_next_service_is_not_removed(paths: EnvironmentPaths) -> None:
    first = meet(paths, HERE)
    meet(paths, HERE, epoch=4)
    first.leave()
    assert worker_endpoint.read(paths.joining).epoch == 4


@pytest.mark.parametrize("everywhere", ["*", "0.0.0.0", "::"])
def test_worker_listener_on_every_interface_is_refused(everywhere: str) -> None:
    with pytest.raises(ConfigError, match="every interface"):
        address_for("127.0.0.2", everywhere)


def test_interface_is_resolved_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_for("127.0.0.2", "lo") == "127.0.0.1"
    with pytest.raises(ConfigError, match=r"launcher\.interface: 'eth99'"):
        address_for("127.0.0.2", "eth99")


@pytest.fixture
def named_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """This node's name means 127.0.0.1, as Debian has it."""
    getaddrinfo = socket.getaddrinfo

    def told(host: object, *rest: object, **more: object) -> object:
        return getaddrinfo("127.0.0.1" if host == HERE.name else host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", told)


@pytest.mark.usefixtures("named_loopback")
def test_address_of_route_is_used_when_host_name_means_loopback() -> None:
    assert address_for("127.0.0.2", "") == "127.0.0.1"  # from where 127.0.0.2 is reached


@pytest.mark.usefixtures("named_loopback")
def test_unknown_host_name_and_unreachable_node_have_different_errors() -> None:
    with pytest.raises(ConfigError, match=r"host name 'no-such-host\.invalid' is not") as caught:
        address_for("no-such-host.invalid", "")
    assert "--hosts" in caught.value.hint
    with pytest.raises(ConfigError, match=r"no route to node '255\.255\.255\.255'") as caught:
        address_for("255.255.255.255", "")
    assert "interface" in caught.value.hint


def test_results_folder_of_another_service_is_detected(
    paths: EnvironmentPaths, tmp_path: Path
) -> None:
    meet(paths, HERE)
    token = worker_endpoint.read(paths.joining).token
    assert unavailable_reason(paths.results, token) == ""
    assert "cannot be seen from" in unavailable_reason(tmp_path / "absent", token)
    (tmp_path / worker_endpoint.TOKEN).write_text("of another start")
    assert "is not the service's" in unavailable_reason(tmp_path, token)


@pytest.mark.parametrize(
    "host",
    [
        *("*", "0.0.0.0", "::", "[::]", "0", "0x0", "0.0", "00.0", "0x0.0", "[::0]"),
        *("[0:0:0:0:0:0:0:0]", "[::ffff:0.0.0.0]", "[::%lo]"),
    ],
)
def test_wildcard_listen_address_is_refused_with_hint(host: str) -> None:
    with pytest.raises(ConfigError, match="every interface") as caught:
        convert({"listen": f"tcp://{host}:7000"})
    assert "tcp://everywhere:7000" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["tcp://", "tcp://host", "tcp://:7000", "udp://host:1", "ipc:///tmp/x", "host:7000", "tcp://h:-1",
     "tcp://h:70000", "tcp://h:7e3", "tcp://h:", "tcp://h:\u0667"],
)  # fmt: skip
def test_invalid_listen_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        convert({"listen": text})


def test_listen_address_is_split_into_host_and_port() -> None:
    assert listen_parts("tcp://10.0.0.1:0") == ("10.0.0.1", 0)
    assert listen_parts("tcp://[fe80::1]:7000") == ("fe80::1", 7000)
    assert listen_parts("tcp://everywhere:7000") == ("everywhere", 7000)


def test_a_name_that_resolves_to_the_unspecified_address_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lookup(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]

    monkeypatch.setattr(endpoints.socket, "getaddrinfo", lookup)
    with pytest.raises(ConfigError, match="every interface"):
        resolved("zero.example")


def test_listen_host_is_resolved_from_interface_or_host_name() -> None:
    assert resolved("lo") == "127.0.0.1"
    assert resolved("localhost") in ("127.0.0.1", "::1")
    with pytest.raises(ConfigError, match="neither an interface nor a host") as caught:
        resolved("no-such-host.invalid")
    assert "lo" in caught.value.hint


def test_port_and_keys_are_the_same_after_restart(tmp_path: Path) -> None:
    path = tmp_path / "server-key.json"
    value, result = open_listener("tcp://lo:0", path, "node")
    value.close()
    assert result.address == f"tcp://127.0.0.1:{value.port}"
    again, same = open_listener("tcp://lo:0", path, "node")
    again.close()
    assert same == result
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_port_that_is_in_use_is_replaced_unless_configured(tmp_path: Path) -> None:
    path = tmp_path / "server-key.json"
    value, result = open_listener("tcp://127.0.0.1:0", path, "node")
    value.close()
    with socket.create_server(("127.0.0.1", value.port)):
        other, now = open_listener("tcp://127.0.0.1:0", path, "node")
        other.close()
        with pytest.raises(ConfigError, match=f":{value.port}"):
            open_listener(result.address, path, "node")
    assert now.address != result.address
    assert now.public_key == result.public_key


def test_everywhere_binds_all_interfaces_and_publishes_node_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound: list[str] = []

    class Noted:
        port = 7000

        def __init__(self, host: str, *_: object) -> None:
            bound.append(host)

    monkeypatch.setattr(endpoints, "TcpListener", Noted)
    _, told = open_listener("tcp://everywhere:7000", tmp_path / "server-key.json", "node-7")
    assert (bound, told.address) == (["0.0.0.0"], "tcp://node-7:7000")


WAIT_S = 60.0
SERVER = new_pair()
MAIN = Identity("main-0", Role.WORKER)


class Site:
    """A service's port for workers of other nodes, and the file that tells of it."""

    def __init__(self, folder: Path) -> None:
        options = ListenerOptions(prefix=b"node/", handover=True, workers=True, bounds=None)
        self.port = TcpListener("127.0.0.1", 0, SERVER, options=options)
        self.listener = ZmqListener(folder, SERVER, None, self.port)
        self.service = folder / "worker.json"
        address = f"tcp://127.0.0.1:{self.port.port}"
        worker_bootstrap = WorkerBootstrap(
            KEYS_FORMAT, "elsewhere", str(folder), "token", address, SERVER.public
        )
        write_private(self.service, worker_bootstrap)
        self.keys = WorkerKeys(self.service, self.port)

    def heard(self, within_s: float = WAIT_S) -> tuple[bytes, bytes, Identity] | None:
        """(peer, message, sender) of the next message."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self.listener.wait(0.1)
            received = self.listener.receive()
            if received is not None:
                return received[1:]
        return None


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        outcome = Site(Path(folder))
        yield outcome
        outcome.listener.close()


def test_each_start_of_a_worker_has_a_key_pair_of_its_own(site: Site) -> None:
    starts = [("main-0", 1), ("main-0", 2), ("main-1", 3)]
    for worker, start in starts:
        site.keys.make(worker, start)
    entries = [worker_endpoint.read(site.service, *each) for each in starts]
    assert len({item.secret_key for item in entries}) == 3
    for worker, start in starts:
        path = worker_endpoint.key_path(site.service, worker, start)
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
    assert worker_endpoint.read(site.service).secret_key == ""


def test_worker_key_authenticates_its_worker_until_it_has_ended(site: Site) -> None:
    site.keys.make("main-0", 1)
    result = worker_endpoint.read(site.service, "main-0", 1)
    worker = worker_endpoint.connect(result, b"main-0.1")
    worker.send(b"hello")
    received = site.heard()
    assert received is not None
    assert received[1:] == (b"hello", MAIN)
    assert site.listener.send(PeerKind.WORKER, received[0], b"work")
    assert worker.receive(WAIT_S) == b"work"
    site.keys.remove("main-0", 1)
    farewell = worker.receive(WAIT_S)
    assert farewell is not None
    assert isinstance(codec.to_worker(farewell), m.StopWorker)
    assert not worker_endpoint.key_path(site.service, "main-0", 1).exists()
    again = worker_endpoint.connect(result, b"main-0.1")
    again.send(b"hello")
    assert site.heard(within_s=1.0) is None
    for connection in (worker, again):
        connection.close()
    with pytest.raises(NoServiceError, match="has no key"):
        worker_endpoint.connect(worker_endpoint.read(site.service, "main-0", 1), b"main-0.1")


def test_keys_of_an_earlier_service_are_removed(site: Site) -> None:
    site.keys.make("main-0", 1)
    WorkerKeys(site.service, None)
    assert not worker_endpoint.key_path(site.service, "main-0", 1).exists()


def test_a_key_is_made_for_a_start_and_removed_when_that_has_ended(
    site: Site, tmp_path: Path
) -> None:
    bench = ServiceHarness(tmp_path)
    bench.loop.workers._keys = site.keys
    bench.paper.kill("main-0")  # started before there were keys
    until_started(bench)
    first = bench.paper.commands["main-0"].start
    assert worker_endpoint.key_path(site.service, "main-0", first).exists()
    bench.paper.kill("main-0")
    until_started(bench)
    assert list(site.keys._public) == [("main-0", bench.paper.commands["main-0"].start)]
    assert not worker_endpoint.key_path(site.service, "main-0", first).exists()
    bench.paper.fails = "no such node"
    bench.paper.kill("main-0")
    bench.step()
    assert not site.keys._public
    assert not list(worker_endpoint.keys_folder(site.service).iterdir())


def until_started(bench: ServiceHarness) -> None:
    """A worker that ended at once is started again after a pause."""
    deadline = time.monotonic() + WAIT_S
    while "main-0" not in bench.paper.commands or bench.paper.gone:
        bench.step()
        assert time.monotonic() < deadline


def test_worker_cannot_join_or_send_heartbeats_as_another_worker(tmp_path: Path) -> None:
    bench = ServiceHarness(tmp_path)
    start, epoch = bench.paper.commands["main-0"].start, bench.journal.epoch
    other = bench.listener.connect(PeerKind.WORKER, b"other")
    other.sender = Identity("main-1", Role.WORKER)
    join = codec.encode(m.Join("test", "main-0", 1, NODE, epoch, (), start))
    other.send(join)
    other.send(codec.encode(m.Heartbeat("main-0", epoch, 0, 0, 1, start)))
    bench.step()
    assert other.receive(0.0) is None
    assert bench.loop.workers.work_peer("main-0") == b""
    assert bench.loop.workers.control_peer("main-0") == b""
    other.sender = MAIN
    other.send(join)
    bench.step()
    assert bench.loop.workers.work_peer("main-0") == b"other"
