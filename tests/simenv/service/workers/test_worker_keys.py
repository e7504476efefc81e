"""Key pairs of single starts of workers: made with the start, worth nothing after it."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from failing import fails
from service import NODE, ServiceHarness
from waiting import until

from simenv.errors import NoServiceError
from simenv.service.workers.endpoints import WorkerKeys
from simenv.wire import codec, keyfiles, rights
from simenv.wire.messages import client as m
from simenv.wire.transport import zmq_transport
from simenv.wire.transport.sockets import PeerKind
from simenv.wire.transport.tcp_listener import ListenerOptions, TcpListener
from simenv.wire.transport.zmq_transport import ZmqListener

WAIT_S = 60.0
SERVER = keyfiles.new_pair()
MAIN = rights.Identity("main-0", rights.Role.WORKER)


class Site:
    """A service's port for workers of other nodes, and the file that tells of it."""

    def __init__(self, folder: Path) -> None:
        options = ListenerOptions(prefix=b"node/", workers=True, bounds=None)
        self.port = TcpListener("127.0.0.1", 0, SERVER, options=options)
        self.listener = ZmqListener(folder, SERVER, None, self.port)
        self.service = folder / "worker.json"
        address = f"tcp://127.0.0.1:{self.port.port}"
        worker_bootstrap = keyfiles.WorkerBootstrap(
            keyfiles.KEYS_FORMAT, "elsewhere", str(folder), "token", address, SERVER.public
        )
        keyfiles.write_private(self.service, worker_bootstrap)
        self.keys = WorkerKeys(self.service, self.port)

    def heard(self, within_s: float = WAIT_S) -> tuple[bytes, bytes, rights.Identity] | None:
        """(peer, message, sender) of the next message."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self.listener.wait(0.1)
            received = self.listener.receive()
            if received is not None:
                return received[1:]
        return None


def made(site: Site, worker: str, start: int) -> None:
    """Make the key of a start of a worker, and its file."""
    site.keys.write(worker, start, site.keys.make(worker, start))


@pytest.fixture
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as folder:
        outcome = Site(Path(folder))
        yield outcome
        outcome.listener.close()


def test_each_start_of_a_worker_has_a_key_pair_of_its_own(site: Site) -> None:
    starts = [("main-0", 1), ("main-0", 2), ("main-1", 3)]
    for worker, start in starts:
        made(site, worker, start)
    entries = [keyfiles.read_bootstrap(site.service, *each) for each in starts]
    assert len({item.secret_key for item in entries}) == 3
    for worker, start in starts:
        path = keyfiles.worker_key_path(site.service, worker, start)
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert keyfiles.read_bootstrap(site.service).secret_key == ""


def test_worker_key_authenticates_its_worker_until_it_has_ended(site: Site) -> None:
    made(site, "main-0", 1)
    result = keyfiles.read_bootstrap(site.service, "main-0", 1)
    worker = zmq_transport.connect_worker(result, b"main-0.1")
    worker.send(b"hello")
    received = site.heard()
    assert received[1:] == (b"hello", MAIN)
    assert site.listener.send(PeerKind.WORKER, received[0], b"work")
    assert worker.receive(WAIT_S) == b"work"
    site.keys.remove("main-0", 1)
    assert isinstance(codec.to_worker(worker.receive(WAIT_S)), m.StopWorker)
    assert not keyfiles.worker_key_path(site.service, "main-0", 1).exists()
    again = zmq_transport.connect_worker(result, b"main-0.1")
    again.send(b"hello")
    assert site.heard(within_s=1.0) is None
    for connection in (worker, again):
        connection.close()
    keyless = keyfiles.read_bootstrap(site.service, "main-0", 1)
    fails(NoServiceError, "has no key", zmq_transport.connect_worker, keyless, b"main-0.1")


def test_keys_of_an_earlier_service_are_removed(site: Site) -> None:
    made(site, "main-0", 1)
    WorkerKeys(site.service, None)
    assert not keyfiles.worker_key_path(site.service, "main-0", 1).exists()


def until_started(bench: ServiceHarness) -> int:
    """End the worker, which is started again after a pause; return its start."""
    bench.paper.kill("main-0")
    paper = bench.paper
    until(lambda: bench.step() or ("main-0" in paper.commands and not paper.gone))
    return paper.commands["main-0"].start


def test_key_is_made_for_a_start_and_removed_at_its_end(site: Site, bench: ServiceHarness) -> None:
    bench.loop.workers._keys = site.keys
    first = until_started(bench)  # the one before it was started before there were keys
    assert keyfiles.worker_key_path(site.service, "main-0", first).exists()
    assert list(site.keys._public) == [("main-0", first)]
    second = until_started(bench)
    assert list(site.keys._public) == [("main-0", second)]
    assert not keyfiles.worker_key_path(site.service, "main-0", first).exists()
    bench.paper.fails = "no such node"
    bench.paper.kill("main-0")
    bench.step()
    assert not site.keys._public
    assert not list(keyfiles.worker_keys_folder(site.service).iterdir())


def test_secret_key_of_a_worker_is_in_its_file_alone(site: Site, bench: ServiceHarness) -> None:
    bench.loop.workers._keys = site.keys
    own = keyfiles.read_bootstrap(site.service, "main-0", until_started(bench))
    command = bench.paper.commands["main-0"]
    shown = [*command.argv, *(value for _, value in command.environ)]
    assert own.secret_key
    assert not [text for text in shown if own.secret_key in text]


def test_worker_cannot_join_or_send_heartbeats_as_another_worker(bench: ServiceHarness) -> None:
    start, epoch = bench.paper.commands["main-0"].start, bench.journal.epoch
    other = bench.listener.connect(PeerKind.WORKER, b"other")
    other.sender = rights.Identity("main-1", rights.Role.WORKER)
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
