"""A client with a key that means harm: the service lives, within bounds, and serves the others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hostile import ATTACKS, Prey, connections, flood, prepare

import simenv
from simenv.client import people
from simenv.client.client import Client
from simenv.client.local import read
from simenv.errors import KeyRefused
from simenv.wire import codec
from simenv.wire import messages as m
from simenv.wire.keyfiles import PersonFile, create_private, read_private

SECONDS = 2.0
MOST_BYTES = 2 * 2**30
TYPED = {"limit", "option", "program", "protocol", "queue_full"}
SILENT = {"never_reads"}  # reads no refusal
BELL = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; h q[0]; cx q[0],q[1]; '
BELL += "measure q -> c;"


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as made:
        yield made


@pytest.fixture(scope="module")
def prey(env: Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prey, PersonFile]:
    file = tmp_path_factory.mktemp("keys") / "mallory"
    people.issue(env.people, "mallory", "client", file)
    with simenv.connect(service=file) as client:
        return prepare(client), read_private(file, PersonFile)


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


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_with_a_key_leaves_the_service_alive_and_within_bounds(
    env: Client, prey: tuple[Prey, PersonFile], tmp_path: Path, name: str
) -> None:
    service = psutil.Process(read(Path(env.service)).pid)
    file = tmp_path / "ben"
    people.issue(env.people, f"ben-{name.replace('_', '-')}", "client", file)
    peak = Peak(service)
    peak.start()
    with simenv.connect(service=file) as ben:
        codes = ATTACKS[name](prey[1], SECONDS, prey[0])
        assert ben.submit(BELL, shots=10).result(120).counts
    assert peak.end() < MOST_BYTES
    assert service.is_running()
    assert set(codes) <= TYPED
    assert codes or name in SILENT


def test_the_key_of_an_attacker_can_be_revoked(
    env: Client, prey: tuple[Prey, PersonFile], tmp_path: Path
) -> None:
    """While as many connections as it may have ask without end."""
    file = tmp_path / "mallory"
    create_private(file, prey[1])
    asked = [codec.encode(m.GetQueue(3, done=True, limit=10_000))]
    with connections(prey[1], 250) as sockets:
        attack = threading.Thread(
            target=flood, args=(sockets, asked, SECONDS), kwargs={"reads": False}
        )
        attack.start()
        env.people.revoke("mallory")
        attack.join()
    with pytest.raises(KeyRefused):
        simenv.connect(service=file)
    assert env.status().name
