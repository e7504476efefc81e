"""Messages of a client with a key that the service refuses, one kind for each path of a message."""

from __future__ import annotations

import time
from collections.abc import Callable

import psutil
import zmq
from hostile import connections, noise_document

from simenv.model import TaskOptions, TaskSpec
from simenv.wire import codec
from simenv.wire.keyfiles import UserKeyFile
from simenv.wire.messages import client as m
from simenv.wire.messages.queries import Explain, StoreNoise

BODY_BYTES = 7 * 2**20
WARM_UP_MESSAGES = 4
ANSWER_S = 60.0

GARBAGE = b"\xa1" * BODY_BYTES
BODIES: dict[str, Callable[[int], m.FromClient]] = {
    "large_noise": lambda number: StoreNoise(number, noise_document("numbers", BODY_BYTES)),
    "noise": lambda number: StoreNoise(number, noise_document("numbers", 2**20 - 1_000)),
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


def growth_bytes(service: psutil.Process, person: UserKeyFile, name: str, count: int) -> int:
    """Have `count` messages of a kind refused. Return the growth of the service's memory since the
    first WARM_UP_MESSAGES."""
    with connections(person, 1) as (socket,):
        for number in range(WARM_UP_MESSAGES):
            _refused(socket, BODIES[name](number + 1))
        before: int = service.memory_info().rss
        for number in range(count):
            _refused(socket, BODIES[name](number + 10))
        return int(service.memory_info().rss) - before


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
