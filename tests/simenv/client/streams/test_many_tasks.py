"""Streams of 10,000 real tasks with random durations, and a worker killed among them."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from collections.abc import Iterator

import psutil
import pytest
from qiskit import QuantumCircuit

import simenv
from simenv.client.streams.queues import StreamCompletions, StreamEvents
from simenv.client.streams.stream import Stream
from simenv.client.streams.stream_task import StreamTask

TASKS = 10_000
WARM = 2_000  # deliveries after which the memory of the client's process may grow no more
GROWTH_BYTES = 32 << 20
WAIT_S = 240.0


@pytest.fixture(scope="module")
def env() -> Iterator[simenv.Client]:
    with simenv.local(workers=2) as client:
        yield client


def circuit(chance: random.Random) -> QuantumCircuit:
    """2 to 16 qubits: the widest take a hundred times as long."""
    size = chance.choice([2, 2, 3, 4, 8, 12, 16])
    quantum_circuit = QuantumCircuit(size)
    for _ in range(4):
        quantum_circuit.rx(chance.random(), range(size))
        for qubit in range(size - 1):
            quantum_circuit.cx(qubit, qubit + 1)
    return quantum_circuit


def submitted(stream: Stream, circuits: list[QuantumCircuit], number: int) -> str:
    """Submit a circuit of the type that its number says."""
    chosen = circuits[number % len(circuits)]
    if number % 10 == 3:
        pool = "nowhere" if number % 100 == 3 else None
        stream.submit(chosen, observables="Z" * chosen.num_qubits, shots=None, pool=pool)
        return "expectation" if pool is None else "failed"
    stream.submit(chosen.measure_all(inplace=False), shots=20, seed=number)
    return "counts"


class Reader(threading.Thread):
    """Reads a queue to its end; of each completion it keeps the number alone."""

    def __init__(self, queue: StreamCompletions) -> None:
        super().__init__()
        self.queue = queue
        self.numbers: list[int] = []
        self.grown_bytes = 0
        self.start()

    def run(self) -> None:
        process = psutil.Process()
        before = 0
        for task in self.queue:
            self.numbers.append(task.number)
            if len(self.numbers) == WARM:
                before = process.memory_info().rss
        self.grown_bytes = process.memory_info().rss - before


@pytest.mark.slow
@pytest.mark.parametrize("order", ["ordered", "parallel"])
def test_each_of_many_tasks_is_delivered_once_by_its_type_though_a_worker_is_killed(
    env: simenv.Client, order: str
) -> None:
    chance = random.Random(3)
    circuits = [circuit(chance) for _ in range(200)]
    types = ("counts", "expectation", "failed")
    readers = {each: Reader(StreamCompletions(each)) for each in types}
    every, events = Reader(StreamCompletions()), StreamEvents("failure")
    expected: dict[str, list[int]] = {each: [] for each in types}
    with Stream(env, order=order) as stream:
        for reader in (*readers.values(), every):
            stream.bind(reader.queue)
        stream.bind(events)
        for number in range(TASKS):
            if number == TASKS // 3:
                os.kill(env.workers()[0].pid, signal.SIGKILL)
            expected[submitted(stream, circuits, number)].append(number)
        assert events.get(WAIT_S).kind == "worker.lost"
        assert stream.wait(WAIT_S)
    for reader in (*readers.values(), every):
        reader.join(WAIT_S)
    settle = list if order == "ordered" else sorted
    assert settle(every.numbers) == list(range(TASKS))
    for each, reader in readers.items():
        assert settle(reader.numbers) == expected[each], each
    assert every.grown_bytes < GROWTH_BYTES
    gc.collect()
    assert not any(isinstance(each, StreamTask) for each in gc.get_objects())
