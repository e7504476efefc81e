"""Latency of one small circuit from `submit` to its counts, and its lower bounds.

The whole path is measured: client, service and worker processes, ZeroMQ, journal. Every circuit is
new (4 qubits, 26 gates, 4 measurements, 1,024 shots, a seed of its own); the clock runs from the
QuantumCircuit to the dict of counts. The three durability levels run in interleaved rounds, since
the machine's speed drifts. qiskit-aer runs in this process in the same rounds: no service, no
journal, no other process, transpilation not timed. The two lower bounds of the path run in them
too: four hops without work, and an fsync of 4 KiB in a file on the journal's disk. Their sum in a
round is the floor of that round. CPU times are those of the quietest round: another program on the
same cores can only add to them.

With `--tcp` instead: the same environment (durability process) through its socket and over TCP with
CURVE on the loopback interface, interleaved; their difference is the verdict.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import zmq

import simenv
from bench.circuits import four_qubit_circuit
from bench.harness import SEED, Option, Report, Times, installed, repeated_s, rounds, timed
from bench.harness.environments import remote_key, service_process, threads_cpu_s
from bench.peers import aer as aer_peer
from simenv.client.client import Client

LEVELS = ("accepted", "process", "power")
SHOTS = 1_024
BODY = b"x" * 300  # of a message of the lower bound
OPTIONS = (
    rounds(8, quick=2),
    Option("--circuits", default=200, help="a round and contender", quick=50),
    Option("--tcp", action="store_true", help="what TCP and CURVE add, only"),
    SEED,
)


def run(options: Namespace) -> Report:
    seeds = itertools.count(options.seed)
    if options.tcp:
        return _tcp_latency(options.rounds, options.circuits, seeds)
    report = Report("latency", "latency: 4 qubits, 26 gates + 4 measurements, 1,024 shots")
    times: Times = defaultdict(list)  # of each contender, the median of each round
    cpu: Times = defaultdict(list)  # of a task, in service and client
    with contextlib.ExitStack() as stack:
        clients = {
            level: stack.enter_context(simenv.local(workers=2, durability=level))
            for level in LEVELS
        }
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        socket = stack.enter_context(_hops())
        for client in clients.values():
            _median_s(partial(_counts, client), 50, seeds)  # warm-up
        service = service_process(clients["accepted"])
        for _ in range(options.rounds):
            for level, client in clients.items():
                circuits = [four_qubit_circuit(next(seeds)) for _ in range(options.circuits)]
                before = threads_cpu_s(service), time.process_time()
                times[level].append(_median_s(partial(_counts, client), circuits, seeds))
                if level == "accepted":
                    after = threads_cpu_s(service), time.process_time()
                    for name, begin, end in zip(("service", "client"), before, after, strict=True):
                        cpu[name].append((end - begin) / options.circuits)
            times["4 hops"].append(_round_trip_s(socket, options.circuits))
            times["fsync"].append(_fsync_s(folder, options.circuits))
            if installed("qiskit_aer"):
                times["aer"].append(_median_s(_aer_counts, options.circuits // 4, seeds))
    for name, each in times.items():
        p50, best = statistics.median(each), min(each)
        print(f"{name:10s} p50 {p50 * 1e6:6.0f} us, best round {best * 1e6:6.0f} us")
    print()
    for goal, level in (("accepted_p50_ms", "accepted"), ("process_p50_ms", "process")):
        p50 = statistics.median(times[level]) * 1e3
        report.at_most(goal, p50, f"p50 submit to counts, durability={level}, ms")
    floors = np.add(times["4 hops"], times["fsync"])
    ratio = float(np.median(np.divide(times["accepted"], floors)))
    report.at_most("accepted_of_floor", ratio, "p50 accepted, of 4 hops and an fsync together")
    report.at_most("service_cpu_ms", min(cpu["service"]) * 1e3, "CPU of the service, a task, ms")
    report.at_most("client_cpu_ms", min(cpu["client"]) * 1e3, "CPU of the client, a task, ms")
    return report


def _tcp_latency(rounds: int, circuits: int, seeds: Iterator[int]) -> Report:
    report = Report("latency_tcp", "latency: what TCP with CURVE adds to one submit-to-counts")
    with contextlib.ExitStack() as stack:
        local_client = stack.enter_context(
            simenv.local(workers=2, durability="process", listen="tcp://127.0.0.1:0")
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        file, _ = remote_key(local_client, "bench", folder)
        clients = (local_client, stack.enter_context(simenv.connect(service=file)))
        times = [
            [_median_s(partial(_counts, client), circuits, seeds) for client in clients]
            for _ in range(rounds + 1)
        ]
    ipc, tcp = 1e3 * np.array(times[1:]).T  # the first round warms up
    print(f"ipc: p50 {np.median(ipc):.3f} ms   tcp: p50 {np.median(tcp):.3f} ms")
    extra = float(np.median(tcp - ipc))
    report.at_most("extra_ms", extra, "p50 over TCP with CURVE, more than over ipc, ms")
    return report


def _median_s(
    counts: Callable[..., dict[str, int]], circuits: int | list[object], seeds: Iterator[int]
) -> float:
    """Return the median seconds of `counts` of some circuits. A number: new ones, built before."""
    if isinstance(circuits, int):
        circuits = [four_qubit_circuit(next(seeds)) for _ in range(circuits)]
    times = []
    for circuit in circuits:
        seconds, result = timed(partial(counts, circuit, next(seeds)))
        assert sum(result.values()) == SHOTS
        times.append(seconds)
    return statistics.median(times)


def _counts(client: Client, circuit: object, seed: int) -> dict[str, int]:
    return client.submit(circuit, shots=SHOTS, seed=seed).result().counts


def _aer_counts(circuit: object, seed: int) -> dict[str, int]:
    simulator = aer_peer.simulator()
    return simulator.run(circuit, shots=SHOTS, seed_simulator=seed).result().get_counts()


@contextlib.contextmanager
def _hops() -> Iterator[zmq.Socket[bytes]]:
    """Yield a client's socket; a message goes from client to router, worker, router and back."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="simenv-floor-") as folder:
        address = f"ipc://{folder}/s"
        processes = [
            context.Process(target=target, args=(address,)) for target in (_router, _worker)
        ]
        for process in processes:
            process.start()
        socket = zmq.Context.instance().socket(zmq.DEALER)
        socket.set(zmq.IDENTITY, b"client")
        socket.connect(address)
        try:
            for _ in range(200):  # wait for the worker, then warm up
                while not socket.poll(50):
                    socket.send(BODY)
                socket.recv()
            while socket.poll(100):
                socket.recv()
            yield socket
        finally:
            for process in processes:
                process.terminate()
                process.join()
            socket.close(0)


def _round_trip_s(socket: zmq.Socket[bytes], count: int) -> float:
    """Return the median time of `count` round trips in seconds."""
    return statistics.median(repeated_s(lambda: (socket.send(BODY), socket.recv()), count))


def _fsync_s(folder: Path, count: int) -> float:
    """Return the median time to write 4 KiB and force them to disk, in seconds. The blocks are
    allocated before, like those of the journal's log, so that the floor is the lowest."""
    body = b"x" * 4096
    with (folder / "fsync").open("wb", buffering=0) as file:
        file.write(body * count)
        os.fsync(file.fileno())
        file.seek(0)
        write = lambda: (file.write(body), os.fdatasync(file.fileno()))  # noqa: E731
        return statistics.median(repeated_s(write, count))


def _router(address: str) -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        peer, body = socket.recv_multipart()
        if body != b"hello":
            socket.send_multipart((b"worker" if peer == b"client" else b"client", body))


def _worker(address: str) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.set(zmq.IDENTITY, b"worker")
    socket.connect(address)
    socket.send(b"hello")
    while True:
        socket.send(socket.recv())
