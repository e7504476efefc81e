"""A client with a key that means harm: the service lives, within bounds, and serves the others."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil
import pytest
from failing import fails
from small_disk import small_disk

import simenv
from simenv.client.administration import keys
from simenv.client.client import Client
from simenv.client.environments import read
from simenv.errors import InsufficientError, KeyRefusedError
from simenv.wire import codec
from simenv.wire.keyfiles import UserKeyFile, create_private, read_private
from simenv.wire.messages import client as m
from testbed import attacks

SECONDS = 2.0
MOST_BYTES = 2 * 2**30
TYPED = {"limit", "option", "program", "protocol", "queue_full", "scope_limit"}
SILENT = {"never_reads"}  # reads no refusal
MIB = 2**20
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as result:
        yield result


@pytest.fixture(scope="module")
def prey(env: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[attacks.Prey, UserKeyFile]:
    file = tmp_path_factory.mktemp("keys") / "mallory"
    keys.issue_key(env.keys, "mallory", "client", file)
    with simenv.connect(service=file) as client:
        return attacks.prepare(client), read_private(file, UserKeyFile)


class Peak(threading.Thread):
    """The most memory a process had while this ran."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self._process, self._ending = process, threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self._ending.wait(0.02):
            self.bytes = max(self.bytes, self._process.memory_info().rss)

    def end(self) -> int:
        self._ending.set()
        self.join()
        return self.bytes


@pytest.mark.parametrize("name", [n for n in attacks.ATTACKS if n not in attacks.ON_SMALL_DISK])
def test_service_survives_attack_by_keyed_client_within_memory_limit(
    env: Client, prey: tuple[attacks.Prey, UserKeyFile], tmp_path: Path, name: str
) -> None:
    service = psutil.Process(read(Path(env.service)).pid)
    env.set_limits("mallory", {"max_queued_tasks": 1_000})  # reached sooner than the default
    file = tmp_path / "ben"
    keys.issue_key(env.keys, f"ben-{name.replace('_', '-')}", "client", file)
    peak = Peak(service)
    peak.start()
    with simenv.connect(service=file) as ben:
        codes = attacks.ATTACKS[name](prey[1], SECONDS, prey[0])
        if not codes and name not in SILENT:  # on a busy machine it did not come to a refusal
            codes = attacks.ATTACKS[name](prey[1], 5 * SECONDS, prey[0])
        assert ben.submit(attacks.BELL, shots=10).result(120).counts
    assert peak.end() < MOST_BYTES
    assert service.is_running()
    assert set(codes) <= TYPED
    assert codes or name in SILENT


def _forward(source: socket.socket, target: socket.socket, record: bytearray) -> None:
    with suppress(OSError):
        while part := source.recv(2**16):
            record += part
            target.sendall(part)


def test_recorded_session_cannot_be_replayed(env: Client, tmp_path: Path) -> None:
    """Somebody on the network records what a client with a key sends, and sends it again."""
    file = tmp_path / "dora"
    keys.issue_key(env.keys, "dora", "client", file)
    private = read_private(file, UserKeyFile)
    host, _, port = private.address.removeprefix("tcp://").rpartition(":")
    record = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as recorder:
        here = f"tcp://127.0.0.1:{recorder.getsockname()[1]}"
        create_private(tmp_path / "via", msgspec.structs.replace(private, address=here))

        def record_one() -> None:
            near, _ = recorder.accept()
            with near, socket.create_connection((host, int(port))) as far:
                back = threading.Thread(target=_forward, args=(far, near, bytearray()))
                back.start()
                _forward(near, far, record)
                far.shutdown(socket.SHUT_RDWR)
                back.join()

        proxy = threading.Thread(target=record_one)
        proxy.start()
        with simenv.connect(service=tmp_path / "via") as dora:
            assert dora.submit(attacks.BELL, shots=10).result(PATIENCE_S).counts
        proxy.join()
    assert len(record) > 500
    with simenv.connect(service=file) as dora:
        for _ in range(3):
            with socket.create_connection((host, int(port))) as again:
                again.settimeout(5.0)
                again.sendall(record)
                with suppress(OSError):
                    while again.recv(2**16):
                        pass
        assert dora.submit(attacks.BELL, shots=10).result(PATIENCE_S).counts
        assert len(list(dora.history.tasks())) == 2  # one of each client, none of the replays


def test_service_above_its_memory_limit_refuses_tasks_and_goes_on() -> None:
    with simenv.local(workers=1, max_service_bytes=MIB) as env:
        with pytest.raises(InsufficientError, match=r"MiB of memory; above 1\.0 MiB") as refused:
            env.submit(attacks.BELL, shots=10)
        assert refused.value.retry_after_s > 0
        assert env.status().name
        assert any(event.kind == "service.memory_full" for event in env.events())


def test_key_can_be_revoked_while_its_connections_flood_service(
    env: Client, prey: tuple[attacks.Prey, UserKeyFile], tmp_path: Path
) -> None:
    """While as many connections as it may have ask without end."""
    file = tmp_path / "mallory"
    create_private(file, prey[1])
    entries = [codec.encode(m.GetQueue(3, done=True, limit=10_000))]
    with attacks.connections(prey[1], 250) as sockets:
        attack = threading.Thread(
            target=attacks.flood, args=(sockets, entries, SECONDS), kwargs={"reads": False}
        )
        attack.start()
        env.keys.revoke("mallory")
        attack.join()
    fails(KeyRefusedError, "", simenv.connect, service=file)
    assert env.status().name


def test_client_that_fills_disk_is_refused_and_revoke_and_gc_still_work(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 160 * MIB) as disk,
        simenv.local(
            workers=1,
            listen="tcp://127.0.0.1:0",
            state_dir=str(disk),
            results={"keep_free_gib": 0.1},
        ) as env,
    ):
        for name in ("mallory", "ben"):
            keys.issue_key(env.keys, name, "client", tmp_path / name)
        private = read_private(tmp_path / "mallory", UserKeyFile)
        codes = attacks.fills_disk(private, SECONDS, attacks.Prey(0, 0, "", b""))
        assert codes
        assert set(codes) <= {"insufficient", "journal"}
        assert env.status().name
        env.keys.revoke("mallory")
        fails(KeyRefusedError, "", simenv.connect, service=tmp_path / "mallory")
        env.cancel([task.id for task in env.queue(limit=10_000)[1]])
        deadline = time.monotonic() + 60
        while env.prune(0.0).left.file_bytes or env.status().running:
            assert time.monotonic() < deadline
        with simenv.connect(service=tmp_path / "ben") as ben:
            assert ben.submit(attacks.BELL, shots=10).result(120).counts
