"""Latency of one small circuit by each way in: client, TCP, HTTP, QPM."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from threading import Event, Thread

import numpy as np
import zmq
from qiskit import qasm2

import simenv
from bench.circuits import four_qubit_circuit
from bench.harness import (
    SEED,
    Report,
    Times,
    benchmark,
    in_rounds,
    installed,
    medians,
    repeated_s,
    timed,
)  # fmt: skip
from bench.harness.environments import (
    HttpConnection,
    address_of,
    qpm_plugin,
    served,
    service_process,
    threads_cpu_s,
)  # fmt: skip
from bench.peers.libraries import simulator as aer_simulator
from simenv.client.client import Client
from testbed.keys import remote_key

LEVELS = ("accepted", "process", "power")
SHOTS = 1_024
BODY = b"x" * 300  # of a message of the lower bound
STREAMS, STREAMS_OF_ONE = 50, 10  # of one user; the bound is 16
REQUESTS_A_MINUTE, CONNECTIONS = 10_000, 16
NULL_PLUGIN = Path(__file__).with_name("null_plugin")
CIRCUIT = (  # ANGLE is another one in each call: a text that was parsed once is kept
    'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[4];\ncreg c[4];\n'
    + "".join(f"h q[{k}];\nrz(ANGLE) q[{k}];\n" for k in range(4))
    + "cx q[0],q[1];\ncx q[1],q[2];\ncx q[2],q[3];\nh q[0];\nh q[1];\nmeasure q -> c;\n"
)
Counts = Callable[[object, int], dict[str, int]]  # of a circuit and a seed


def _median_s(counts: Counts, seeds: Iterator[int], circuits: Sequence[object]) -> float:
    """Return the median seconds of `counts` of some circuits."""
    times = []
    for circuit in circuits:
        seconds, result = timed(partial(counts, circuit, next(seeds)))
        assert sum(result.values()) == SHOTS
        times.append(seconds)
    return statistics.median(times)


def _new(seeds: Iterator[int], number: int) -> list[object]:
    return [four_qubit_circuit(next(seeds)) for _ in range(number)]


def _counts(client: Client, circuit: object, seed: int) -> dict[str, int]:
    return client.submit(circuit, shots=SHOTS, seed=seed).result().counts


def _aer_counts(circuit: object, seed: int) -> dict[str, int]:
    simulator = aer_simulator()
    return simulator.run(circuit, shots=SHOTS, seed_simulator=seed).result().get_counts()


@benchmark(rounds=(8, 2), circuits=(200, 50), seed=SEED)
def latency(report: Report, options: Namespace) -> None:
    """Latency of one small circuit from `submit` to its counts, and its lower bounds.

    The whole path: client, service and worker processes, ZeroMQ, journal. Every circuit is new (4
    qubits, 26 gates, 1,024 shots); the clock runs from the QuantumCircuit to the dict of counts.
    The durability levels, Aer in this process, and the lower bounds run in the same rounds: four
    hops without work, and an fsync of 4 KiB on the journal's disk; their sum is the round's floor.
    CPU times are those of the quietest round: other programs can only add to them.
    """
    seeds = count(options.seed)
    cpu: Times = defaultdict(list)  # of a task, in service and client
    with ExitStack() as stack:
        clients = {level: stack.enter_context(simenv.local(workers=2, durability=level))
                   for level in LEVELS}  # fmt: skip
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        socket = stack.enter_context(_hops())
        service = service_process(clients["accepted"])

        def level_s(level: str, turn: int) -> float:
            circuits = _new(seeds, options.circuits if turn >= 0 else 50)
            before = threads_cpu_s(service), time.process_time()
            seconds = _median_s(partial(_counts, clients[level]), seeds, circuits)
            after = threads_cpu_s(service), time.process_time()
            if level == "accepted" and turn >= 0:
                for name, begin, end in zip(("service", "client"), before, after, strict=True):
                    cpu[name].append((end - begin) / options.circuits)
            return seconds

        calls: dict[str, Callable[[int], float]]
        calls = {level: partial(level_s, level) for level in LEVELS}
        calls["4 hops"] = lambda _: _round_trip_s(socket, options.circuits)
        calls["fsync"] = lambda _: _fsync_s(folder, options.circuits)
        if installed("qiskit_aer"):
            calls["aer"] = lambda _: _median_s(_aer_counts, seeds, _new(seeds, 50))
        times = in_rounds(calls, options.rounds)
    for name, each in times.items():
        p50, best = statistics.median(each), min(each)
        print(f"{name:10s} p50 {p50 * 1e6:6.0f} us, best round {best * 1e6:6.0f} us")
    for level in ("accepted", "process"):
        report.seconds(f"{level}_p50_ms", times[level])
    floors = np.add(times["4 hops"], times["fsync"])
    ratio = float(np.median(np.divide(times["accepted"], floors)))
    report.at_most("accepted_of_floor", ratio)
    for name, each in cpu.items():
        report.seconds(f"{name}_cpu_ms", min(each))


@benchmark(rounds=(8, 2), circuits=(200, 50), seed=SEED)
def latency_tcp(report: Report, options: Namespace) -> None:
    """What TCP with CURVE adds to the latency of one small circuit.

    One environment (durability process) through its socket and over the loopback interface.
    """
    seeds = count(options.seed)
    with (
        simenv.local(workers=2, durability="process", listen="tcp://127.0.0.1:0") as near,
        tempfile.TemporaryDirectory() as folder,
        simenv.connect(service=remote_key(near, "bench", folder)[0]) as far,
    ):
        calls = {
            name: lambda _, client=client: _median_s(
                partial(_counts, client), seeds, _new(seeds, options.circuits)
            )
            for name, client in (("ipc", near), ("tcp", far))
        }
        times = in_rounds(calls, options.rounds)
    print(", ".join(f"{name}: p50 {1e3 * each:.3f} ms" for name, each in medians(times).items()))
    report.seconds("extra_ms", np.subtract(times["tcp"], times["ipc"]))


@contextmanager
def _hops() -> Iterator[zmq.Socket[bytes]]:
    """Yield a client's socket; a message goes from client to router, worker, router and back."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="simenv-floor-") as folder:
        address = f"ipc://{folder}/s"
        processes = [context.Process(target=each, args=(address,)) for each in (_router, _worker)]
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


def _round_trip_s(socket: zmq.Socket[bytes], number: int) -> float:
    return statistics.median(repeated_s(lambda: (socket.send(BODY), socket.recv()), number))


def _fsync_s(folder: Path, number: int) -> float:
    """Return the median time to write 4 KiB and force them to disk. The blocks are allocated
    before, like those of the journal's log, so that the floor is the lowest."""
    body = b"x" * 4096
    with (folder / "fsync").open("wb", buffering=0) as file:
        file.write(body * number)
        os.fsync(file.fileno())
        file.seek(0)
        write = lambda: (file.write(body), os.fdatasync(file.fileno()))  # noqa: E731
        return statistics.median(repeated_s(write, number))


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


# --- HTTP -----------------------------------------------------------------------------------------


@benchmark(rounds=(6, 2), circuits=(200, 40), requests=(10_000, 1_000))
def gateway(report: Report, options: Namespace) -> None:
    """The gateway: latency and rate of HTTP requests, and what its load costs other clients.

    A 4-qubit circuit from its text to the counts, over HTTP on the loopback interface and with the
    client, in interleaved rounds; then requests for one task a second, from connections that are
    kept open; then the 99th percentile of the client's own latency, without load and with 50 open
    streams of events and 10,000 requests a minute. The load shares the machine's cores.
    """
    texts = [_text(k) for k in range(options.circuits)]
    users = 1 + STREAMS // STREAMS_OF_ONE
    with served(users) as (client, url, tokens):
        http = HttpConnection(url, tokens[0])

        def over_http(text: str, seed: int) -> dict[str, int]:
            body = json.dumps({"program": text, "shots": SHOTS, "seed": seed}).encode()
            counts: dict[str, int] = json.loads(http.request("POST", "/api/v1/tasks?wait=30", body))
            return counts["counts"]  # type: ignore[return-value]

        def new(turn: int) -> list[object]:
            first = options.circuits * (turn + 1)
            return [_text(first + k) for k in range(options.circuits)]

        ways = {"client": partial(_counts, client), "http": over_http}
        seeds = count(1)
        calls = {name: lambda turn, way=way: _median_s(way, seeds, new(turn))
                 for name, way in ways.items()}  # fmt: skip
        times = in_rounds(calls, options.rounds)
        report.seconds("extra_ms", np.subtract(times["http"], times["client"]))
        body = json.dumps({"program": texts[0], "shots": SHOTS}).encode()
        task = json.loads(http.request("POST", "/api/v1/tasks?wait=30", body))["task"]
        load = [sys.executable, "-m", "bench.service.latency", url, f"/tasks/{task}"]
        environ = {**os.environ, "TOKEN": tokens[0]}
        done = subprocess.run(
            [*load, str(options.requests)], env=environ, capture_output=True, check=True
        )
        report.at_least("requests_s", float(done.stdout))
        _neighbours(report, partial(_counts, client), texts, url, tokens, options.rounds)
        http.close()


def _text(seed: int) -> str:
    return str(qasm2.dumps(four_qubit_circuit(seed)))


def _neighbours(
    report: Report, counts: Counts, texts: list[str], url: str, tokens: list[str], rounds: int
) -> None:
    seconds: Times = {"idle": [], "loaded": []}
    for turn in range(rounds + 1):
        for name in seconds:
            with _load(url, tokens) if name == "loaded" else ExitStack():
                each = [timed(partial(counts, text, 1))[0] for text in texts]
            seconds[name] += each if turn else []
    idle, loaded = (statistics.quantiles(each, n=100)[98] for each in seconds.values())
    print(f"p99 of the client: {1e3 * idle:.3f} ms, with load {1e3 * loaded:.3f} ms")
    report.at_most("p99_ratio", loaded / idle)


@contextmanager
def _load(url: str, tokens: list[str]) -> Iterator[None]:
    """Keep streams of events open, and send requests in even intervals."""
    ended = Event()
    streams = [HttpConnection(url, tokens[1 + k // STREAMS_OF_ONE]) for k in range(STREAMS)]
    for stream in streams:
        stream.send("GET", "/api/v1/events/stream?status=true")
        stream.read()
    http = HttpConnection(url, tokens[0])

    def send() -> None:
        due_s = time.perf_counter()
        while not ended.wait(max(0.0, due_s - time.perf_counter())):
            http.request("GET", "/api/v1/pools")
            due_s += 60.0 / REQUESTS_A_MINUTE

    thread = Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for each in (http, *streams):
            each.close()


async def _hammer(url: str, path: str, requests: int) -> float:
    head = f"GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {os.environ['TOKEN']}"

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*address_of(url))
        for _ in range(requests // CONNECTIONS):
            writer.write(f"{head}\r\n\r\n".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 200"), answer
            size = answer.partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(size))
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return requests / (time.perf_counter() - begun)


# --- QPM ------------------------------------------------------------------------------------------


@benchmark(rounds=(5, 2), circuits=(100, 20))
def qpm_overhead(report: Report, options: Namespace) -> None:
    """Overhead of the service package for DEFw for one small circuit, above a plugin without work.

    Both run behind the stand-in of the conformance kit, a process of its own with YAML on a socket,
    in either revision, and lead to one environment of one worker; 13 gates, 1,024 shots.
    """
    seeds = count(1)
    with simenv.local(workers=1) as client, ExitStack() as stack:
        own = {"SIMENV_SERVICE": client.service, "SIMENV_QPM_RESERVATIONS": "optional"}
        calls: dict[str, Callable[[int], float]] = {}
        for revision in (1, 2):
            for name, folder, environ in (("defw", None, own), ("null", NULL_PLUGIN, {})):
                methods = stack.enter_context(qpm_plugin(folder, revision, **environ))
                counts = partial(_qpm_counts, methods.sync_run, revision == 1)
                call = partial(_median_s, counts, seeds, [None] * options.circuits)
                calls[f"{name} {revision}"] = lambda _, call=call: 1e3 * call()
        p50s = in_rounds(calls, options.rounds)
    print(", ".join(f"{name} p50 {each:.3f} ms" for name, each in medians(p50s).items()))
    for revision in (1, 2):
        shares = np.subtract(p50s[f"defw {revision}"], p50s[f"null {revision}"])
        report.at_most(f"share{revision}_p50_ms", float(np.median(shares)))


def _qpm_counts(
    sync_run: Callable[..., object], first: bool, _: object, seed: int
) -> dict[str, int]:
    """Call a plugin as a host does. `first`: of revision 1, which the one without work is told."""
    text = CIRCUIT.replace("ANGLE", f"{1 + seed * 1e-6:.6f}")
    info = {"num_qubits": 4, "num_shots": SHOTS, "qasm": text, "seed": seed}
    answer: dict[str, dict[str, dict[str, int]]] = sync_run(
        info | ({"revision1": True} if first else {})
    )  # type: ignore[assignment]
    # The counts of a record of revision 1, or of the record in an envelope of revision 2.
    return answer["result"] if first else answer["result"]["result"]["counts"]  # type: ignore[return-value]


if __name__ == "__main__":  # the load generator
    print(asyncio.run(_hammer(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
