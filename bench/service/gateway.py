"""The gateway: latency and rate of HTTP requests, and what its load costs other clients.

A 4-qubit circuit from its text to the counts, over HTTP on the loopback interface (`POST
/api/v1/tasks?wait=`) and with the client, in interleaved rounds; the difference of the medians is
the verdict. Then requests for one task per second, from connections that are kept open. Then the
99th percentile of the client's own latency, without load and with 50 open streams of events and
10,000 requests a minute, interleaved. The load generator shares the machine's cores.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from time import perf_counter

import simenv
from bench.circuits import four_qubit_circuit
from bench.harness import Option, Report, rounds, timed
from bench.harness.environments import home, simenv as command
from simenv.client.client import Client

SHOTS = 1_024
STREAMS = 50
STREAMS_OF_ONE = 10  # of one user; the bound is 16
REQUESTS_A_MINUTE = 10_000
OPTIONS = (
    rounds(6, quick=2),
    Option("--circuits", default=200, help="a round and contender", quick=40),
    Option("--requests", default=10_000, help="for the rate", quick=1_000),
)


class Connection:
    """An HTTP connection that is kept open."""

    def __init__(self, url: str, token: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = f"HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"

    def send(self, method: str, path: str, body: bytes = b"") -> None:
        head = f"{method} /api/v1{path} {self._head}Content-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Return the body of the answer. Raises SystemExit for a refusal."""
        self.send(method, path, body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.read()
        head, _, data = data.partition(b"\r\n\r\n")
        fields = [line.lower().partition(b":") for line in head.split(b"\r\n")]
        size = int(next(value for name, _, value in fields if name == b"content-length"))
        while len(data) < size:
            data += self.read()
        if not head.startswith(b"HTTP/1.1 2"):
            raise SystemExit(f"{method} {path}: {head.decode()}\n{data.decode()}")
        return data

    def read(self) -> bytes:
        part = self._socket.recv(65_536)
        if not part:
            raise SystemExit("the gateway hung up")
        return part

    def close(self) -> None:
        self._socket.close()


def run(options: Namespace) -> Report:
    report = Report("gateway", "gateway: 4 qubits, 26 gates + 4 measurements, 1,024 shots")
    with ExitStack() as stack:
        stack.enter_context(home())
        url, tokens = stack.enter_context(served(1 + STREAMS // STREAMS_OF_ONE))
        client = stack.enter_context(simenv.connect("bench"))
        http = Connection(url, tokens[0])
        stack.callback(http.close)
        _latency(report, client, http, options)
        _rate(report, http, url, tokens[0], options.requests)
        _neighbours(report, client, url, tokens, options)
    return report


@contextmanager
def served(users: int, *pools: str) -> Iterator[tuple[str, list[str]]]:
    """Start an environment with a gateway; yield its URL and tokens, one for each user. `pools`: as
    for --pool, in place of two workers."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "simenv.toml"
        config.write_text('[gateway]\nlisten = "127.0.0.1:0"\ntls = false\nrequests_per_s = 0\n')
        workers = [word for pool in pools for word in ("--pool", pool)] or ["--workers", "2"]
        command(["up", "--name", "bench", *workers, "--config", str(config)])
        try:
            status = json.loads(command(["gateway", "status", "--name", "bench", "--json"]))
            tokens = []
            for number in range(users):
                words = ["gateway", "tokens", "add", "--name", "bench", "--json"]
                answer = json.loads(command([*words, "--user", f"user{number}"]))
                tokens.append(answer["secret"])
            yield status["url"], tokens
        finally:
            command(["down", "--name", "bench"])


def _text(seed: int) -> str:
    from qiskit import qasm2

    return str(qasm2.dumps(four_qubit_circuit(seed)))


def _through_client(client: Client, text: str) -> None:
    assert sum(client.submit(text, shots=SHOTS, seed=1).result().counts.values()) == SHOTS


def _through_http(http: Connection, text: str) -> None:
    body = json.dumps({"program": text, "shots": SHOTS, "seed": 1}).encode()
    counts = json.loads(http.request("POST", "/tasks?wait=30", body))["counts"]
    assert sum(counts.values()) == SHOTS


def _latency(report: Report, client: Client, http: Connection, options: Namespace) -> None:
    extra: list[float] = []
    for number in range(options.rounds + 1):
        texts = [_text(options.circuits * number + k) for k in range(options.circuits)]
        direct = [timed(lambda text=text: _through_client(client, text))[0] for text in texts]
        over = [timed(lambda text=text: _through_http(http, text))[0] for text in texts]
        if number:  # the first round warms up
            extra.append(1e3 * (statistics.median(over) - statistics.median(direct)))
    report.at_most("extra_ms", statistics.median(extra), "p50 of HTTP above the client's, ms")


def _rate(report: Report, http: Connection, url: str, token: str, requests: int) -> None:
    body = json.dumps({"program": _text(0), "shots": SHOTS}).encode()
    task = json.loads(http.request("POST", "/tasks?wait=30", body))["task"]
    load = [sys.executable, "-m", "bench.service.gateway", url, f"/tasks/{task}", str(requests)]
    done = subprocess.run(load, env={**os.environ, "TOKEN": token}, capture_output=True, check=True)
    report.at_least("requests_s", float(done.stdout), "requests for a task per second")


def _neighbours(
    report: Report, client: Client, url: str, tokens: list[str], options: Namespace
) -> None:
    texts = [_text(k) for k in range(options.circuits)]
    idle: list[float] = []
    loaded: list[float] = []
    for number in range(options.rounds + 1):
        quiet = [timed(lambda text=text: _through_client(client, text))[0] for text in texts]
        with _load(url, tokens):
            busy = [timed(lambda text=text: _through_client(client, text))[0] for text in texts]
        if number:
            idle += quiet
            loaded += busy
    p99 = [statistics.quantiles(each, n=100)[98] for each in (idle, loaded)]
    print(f"p99 of the client: {1e3 * p99[0]:.3f} ms, with load {1e3 * p99[1]:.3f} ms")
    report.at_most("p99_ratio", p99[1] / p99[0], "p99 of the client with load, relative to without")


@contextmanager
def _load(url: str, tokens: list[str]) -> Iterator[None]:
    """Keep streams of events open, and send requests in even intervals."""
    ended = Event()
    streams = [Connection(url, tokens[1 + k // STREAMS_OF_ONE]) for k in range(STREAMS)]
    for stream in streams:
        stream.send("GET", "/events/stream?status=true")
        stream.read()
    http = Connection(url, tokens[0])

    def send() -> None:
        interval_s, due_s = 60.0 / REQUESTS_A_MINUTE, perf_counter()
        while not ended.wait(max(0.0, due_s - perf_counter())):
            http.request("GET", "/pools")
            due_s += interval_s

    thread = Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for each in (http, *streams):
            each.close()


async def _hammer(url: str, path: str, requests: int, connections: int = 16) -> float:
    """Return requests per second over some connections."""
    host, _, port = url.removeprefix("http://").partition(":")
    head = f"GET /api/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {os.environ['TOKEN']}"

    async def one() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for _ in range(requests // connections):
            writer.write(f"{head}\r\n\r\n".encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 200"), answer
            size = answer.partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(size))
        writer.close()

    begun = perf_counter()
    await asyncio.gather(*(one() for _ in range(connections)))
    return requests / (perf_counter() - begun)


if __name__ == "__main__":  # the load generator
    print(asyncio.run(_hammer(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
