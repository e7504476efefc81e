"""Memory of the service and of its workers, and answers to others while a client fills it."""

import re
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bare import interpreter
from failing import fails
from third_party_engine import LEAKED_MIB, leaky
from waiting import until

import simenv
from simenv.client.administration import keys
from simenv.client.client import Client
from simenv.client.environments import read
from simenv.client.submission.prepare import prepare_one
from simenv.client.submission.send import send
from simenv.errors import InsufficientError, TaskFailedError
from simenv.wire.keyfiles import UserKeyFile, read_private
from testbed import attacks

# By kind, of 7 MiB each but for `noise` of 1 MiB: a leak of their bodies is above the bound.
# `python -m bench run refused_messages` sends 200.
MESSAGES = {name: 100 if name == "noise" else 30 for name in attacks.BODIES}
GROWTH_BYTES = 64 * 2**20
FLOOD_S = 3.0
PATIENCE_S = 120.0
FULL_BYTES = 288 * 2**20
BEGIN = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[2]; '
PAUSE_S = 0.005


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as result:
        yield result


@pytest.fixture(scope="module")
def mallory(env: Client, tmp_path_factory: pytest.TempPathFactory) -> UserKeyFile:
    file = tmp_path_factory.mktemp("keys") / "mallory"
    keys.issue_key(env.keys, "mallory", "client", file)
    return read_private(file, UserKeyFile)


@pytest.mark.parametrize("name", MESSAGES)
def test_refused_messages_take_no_memory(env: Client, mallory: UserKeyFile, name: str) -> None:
    service = psutil.Process(read(Path(env.service)).pid)
    assert attacks.growth_bytes(service, mallory, name, MESSAGES[name]) <= GROWTH_BYTES


@pytest.mark.parametrize("attack", [attacks.noise_documents, attacks.large_programs])
def test_another_client_is_answered_within_a_second_during_a_flood_of_large_messages(
    env: Client, mallory: UserKeyFile, tmp_path: Path, attack: attacks.Attack
) -> None:
    file = tmp_path / "ben"
    keys.issue_key(env.keys, f"ben-{attack.__name__.replace('_', '-')}", "client", file)
    flood = threading.Thread(target=attack, args=(mallory, FLOOD_S, attacks.Prey(0, 0, "", b"")))
    times_s = []
    with simenv.connect(service=file) as ben:
        flood.start()
        while flood.is_alive():
            begin = time.monotonic()
            ben.cancel(["t-0"])
            times_s.append(time.monotonic() - begin)
            time.sleep(PAUSE_S)
    assert statistics.median(times_s) <= 1.0
    assert sum(each > 1.0 for each in times_s) <= len(times_s) // 100


def test_engine_that_leaks_is_ended_long_before_its_node_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It holds less than the most that libraries may take: its worker's own memory counts."""
    monkeypatch.setattr(sys, "executable", str(interpreter(tmp_path, leaky())))
    with simenv.local(workers=1) as env:
        task = env.submit(attacks.BELL, shots=10, engine="leaky")
        failed = fails(TaskFailedError, "", task.result, PATIENCE_S)
        assert failed.reason == "poison"
        found = re.search(r"used (\d+)\.\d MiB of memory where (\d+)\.\d MiB", str(failed))
        assert found is not None, failed
        used_mib, granted_mib = map(int, found.groups())
        assert LEAKED_MIB < used_mib < LEAKED_MIB + granted_mib
        assert granted_mib < 384, "256 MiB above it is less than what was held"
        assert env.run(attacks.BELL, shots=10).counts


def test_service_full_of_waiting_work_refuses_tasks_until_it_has_shrunk() -> None:
    """Programs of 1.2 MiB wait on a drained node; the limit is far above an idle service."""
    text = BEGIN + "rx(0.1) q[0]; " * 120_000 + "measure q -> c;"
    order = prepare_one(text, {"shots": 1})
    with simenv.local(workers=1, max_service_bytes=FULL_BYTES) as env:
        service = psutil.Process(read(Path(env.service)).pid)
        assert service.memory_info().rss < FULL_BYTES * 2 // 3
        env.drain(next(iter(env.nodes())), "maintenance")
        waiting: list[str] = []

        def fill() -> None:
            while len(waiting) < 1_000:
                waiting.extend(task.id for task in send(env.session, order, None))

        assert fails(InsufficientError, r"above 288\.0 MiB it accepts no", fill).retry_after_s > 0
        assert len(waiting) > 50, "it held these tasks"
        assert service.memory_info().rss > FULL_BYTES
        assert env.status().queued == len(waiting), "queries and accepted tasks go on"
        assert len(env.cancel(waiting)) == len(waiting)
        until(lambda: env.status() and service.memory_info().rss < FULL_BYTES)
        env.undrain(next(iter(env.nodes())))
        until(lambda: is_accepted(env))
        kinds = [event.kind for event in env.events()]
        assert kinds.index("service.memory_full") < kinds.index("service.memory_freed")


def is_accepted(env: Client) -> bool:
    try:
        return bool(env.submit(attacks.BELL, shots=1).result(PATIENCE_S).counts)
    except InsufficientError:
        return False
