"""Memory and answer times of a service whose client with a key has its messages refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import zmq
from hostile import BELL, connections

import simenv
from simenv.client import keys
from simenv.client.client import Client
from simenv.client.environments.named import read
from simenv.model import TaskOptions, TaskSpec
from simenv.wire import codec
from simenv.wire.keyfiles import UserKeyFile, read_private
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import Explain, StoreNoise

MIB = 2**20
BODY_BYTES = 7 * MIB
MESSAGES = 30  # `python -m bench run hostile_client` sends 200
WARM_UP_MESSAGES = 4
GROWTH_BYTES = 64 * MIB
ANSWER_S = 60.0


@pytest.fixture(scope="module")
def env() -> Iterator[Client]:
    with simenv.local(workers=1, listen="tcp://127.0.0.1:0") as result:
        yield result


@pytest.fixture(scope="module")
def mallory(env: Client, tmp_path_factory: pytest.TempPathFactory) -> UserKeyFile:
    file = tmp_path_factory.mktemp("keys") / "mallory"
    keys.issue_key(env.keys, "mallory", "client", file)
    return read_private(file, UserKeyFile)


def _document() -> bytes:
    """A noise document that is parsed to its end and then refused: a key that nobody knows."""
    return json.dumps({"kind": "calibration", "qubits": [], "x": "a" * (BODY_BYTES - 100)}).encode()


GARBAGE = b"\xa1" * BODY_BYTES
BODIES: dict[str, Callable[[int], m.FromClient]] = {
    "noise": lambda number: StoreNoise(number, _document()),
    "submit": lambda number: m.Submit(
        number, f"~r{number}", 0, TaskOptions(), [TaskSpec(GARBAGE, 1, number)]
    ),
    "submit_same_key": lambda number: m.Submit(
        number, "k", 0, TaskOptions(), [TaskSpec(GARBAGE, 1, number)]
    ),
    "explain": lambda number: Explain(number, TaskOptions(), GARBAGE, 1),
    "unknown_device": lambda number: Explain(
        number, TaskOptions(device=f"none-{number}"), GARBAGE, 1
    ),
    "text": lambda number: m.Submit(number, "k" * BODY_BYTES, 0, TaskOptions(), []),
}


def _refused(socket: zmq.Socket[bytes], message: m.FromClient) -> None:
    """Send a message and wait for its refusal; a message that came too fast is sent again."""
    body = codec.encode(message)
    while True:
        socket.send(body)
        assert socket.poll(ANSWER_S * 1000)
        answer = codec.to_client(socket.recv())
        assert isinstance(answer, m.Refused)
        if answer.refusals[0].code != "queue_full":
            return
        time.sleep(answer.refusals[0].retry_after_s)


@pytest.mark.parametrize("name", BODIES)
def test_refused_messages_leave_the_memory_of_the_service(
    env: Client, mallory: UserKeyFile, name: str
) -> None:
    service = psutil.Process(read(Path(env.service)).pid)
    with connections(mallory, 1) as (socket,):
        for number in range(WARM_UP_MESSAGES):
            _refused(socket, BODIES[name](number + 1))
        before = service.memory_info().rss
        for number in range(MESSAGES):
            _refused(socket, BODIES[name](number + 10))
        assert service.memory_info().rss - before <= GROWTH_BYTES
