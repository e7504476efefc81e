"""Mutated HTTP requests: the gateway answers, lives, does not grow, and serves others."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from gateway_stand_in import GatewayStandIn, gateway_of
from qiskit import QuantumCircuit

from simenv.client.circuits import load
from simenv.client.client import Client
from simenv.gateway.native import routes
from simenv.transpiler.qpy import write_qpy

REQUESTS = 3_000
SLOW_REQUESTS = 50_000
GROWTH_BYTES = 200 * 2**20  # kernels, caches and Qiskit, once
PATIENCE_S = 60.0
BELL = 'OPENQASM 2.0;include "qelib1.inc";qreg q[2];creg c[2];h q[0];cx q[0],q[1];measure q->c;'
QPY = write_qpy(QuantumCircuit.from_qasm_str(BELL))
JSON, FORM = b"application/json", b"multipart/form-data; boundary=x"
_FIELDS = {"program": BELL, "shots": 5, "outputs": ["counts"], "noise": "auto", "after": []}
BODIES: list[tuple[bytes, bytes]] = [
    (JSON, json.dumps(_FIELDS).encode()),
    (JSON, json.dumps({"qpy": base64.b64encode(QPY).decode(), "shots": 5}).encode()),
    (JSON, json.dumps({"packed": base64.b64encode(load(BELL).packed).decode()}).encode()),
    (JSON, json.dumps({**_FIELDS, "parameter_values": [[1.0]], "device": "fez"}).encode()),
    (JSON, b'{"for_s": 1, "workers": 0, "pool": "main"}'),
    (b"application/x-qpy", QPY),
    (b"application/x-simenv-program", load(BELL).packed),
    (b"text/plain", BELL.encode()),
    (
        FORM,
        b'--x\r\nContent-Disposition: form-data; name="program"; filename="a"\r\n\r\n'
        + BELL.encode()
        + b'\r\n--x\r\nContent-Disposition: form-data; name="options"\r\n\r\n{"shots": 5}'
        + b"\r\n--x--\r\n",
    ),
]
PATHS = [
    b"/tasks", b"/tasks?wait=0.01", b"/sweeps", b"/explain", b"/reservations", b"/tasks/t-1/cancel",
    b"/tasks/t-1", b"/tasks/t-1/result?first=0&limit=3", b"/tasks?cursor=kwEBxAgAAAAAAAAAAA==",
    b"/events?since=1&limit=5", b"/events/stream?since=0&kind=task", b"/devices/fez", b"/status",
    b"/usage?by=pool", b"/queue?limit=3", b"/tasks/t-1/circuit", b"/reservations/1",
]  # fmt: skip
METHODS = [b"POST", b"POST", b"POST", b"GET", b"GET", b"DELETE", b"PUT", b"HEAD", b"OPTIONS"]
HEADERS = [
    b"Accept: application/x-npz", b"Accept: */*", b"Idempotency-Key: k", b"Last-Event-ID: 1",
    b"Accept-Encoding: gzip", b"Authorization: Bearer ana", b"Content-Encoding: gzip",
]  # fmt: skip
WORDS = [
    b"\x00", b"\xff" * 8, b"-1", b"9" * 30, b"1e999", b"NaN", b"null", b"{" * 300, b"[" * 300,
    b"%00", b"../../etc/passwd", b"\xed\xa0\x80", b'"', b"\r\n", b"~", b"t-zzzzzzzzzzzzz", b"true",
    b"\\u0000",
]  # fmt: skip


def mutated(draw: random.Random, data: bytes) -> bytes:
    """Change, remove, repeat or insert bytes at a few places."""
    result = bytearray(data)
    for _ in range(draw.choice((0, 1, 1, 2, 8))):
        at = draw.randrange(len(result) + 1)
        match draw.randrange(5):
            case 0 if at < len(result):
                result[at] = draw.randrange(256)
            case 1:
                del result[at : at + draw.choice((1, 4, 40))]
            case 2:
                result[at:at] = draw.choice(WORDS)
            case 3:
                result[at:at] = result[: draw.choice((1, 16, 200))]
            case _:
                del result[at:]
    return bytes(result)


def request_of(draw: random.Random) -> bytes:
    """Return one request, mutated in its path, headers or body."""
    media_type, body = draw.choice(BODIES)
    path, headers = draw.choice(PATHS), draw.sample(HEADERS, draw.randrange(3))
    place = draw.randrange(4)
    if place == 0:
        path = mutated(draw, path).replace(b" ", b"%20")
    if place == 1:
        headers = [mutated(draw, header) for header in headers]
        media_type = mutated(draw, media_type)
    if place >= 2:
        body = mutated(draw, body)
    lines = [b"%s /api/v1%s HTTP/1.1" % (draw.choice(METHODS), path), b"Host: x", *headers]
    lines += [b"Content-Type: " + media_type, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def answer_to(address: tuple[str, int], request: bytes) -> bytes:
    """Send a request on a new connection; return the first line of the answer, b"" of a hang-up."""
    with socket.create_connection(address, timeout=PATIENCE_S) as connection:
        try:
            connection.sendall(request)
            return connection.recv(4096).partition(b"\r\n")[0]
        except ConnectionError:
            return b""


@pytest.fixture(scope="module")
def gateway(env: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayStandIn]:
    with gateway_of(env, tmp_path_factory.mktemp("gateway"), routes) as served:
        yield served


def check(gateway: GatewayStandIn, env: Client, count: int, seed: int) -> None:
    url = httpx.URL(gateway.url)
    address, process, draw = (url.host, url.port or 0), psutil.Process(), random.Random(seed)
    for warmup in BODIES:
        httpx.post(
            f"{gateway.url}/api/v1/tasks", content=warmup[1],
            headers={"content-type": warmup[0].decode()}, timeout=PATIENCE_S,
        )  # fmt: skip
    before = process.memory_info().rss
    statuses: dict[bytes, int] = {}
    for number in range(count):
        request = request_of(draw)
        status = answer_to(address, request)[9:12]
        statuses[status] = statuses.get(status, 0) + 1
        assert status != b"500", (seed, number, request)
    assert process.memory_info().rss - before < GROWTH_BYTES
    assert statuses.get(b"201", 0) + statuses.get(b"200", 0) > count / 20, statuses
    assert statuses[b"400"] > count / 20, statuses
    api = f"{gateway.url}/api/v1"
    bell = {"program": BELL, "shots": 100}
    answer = httpx.post(f"{api}/tasks?wait=60", json=bell, timeout=PATIENCE_S)
    assert sum(answer.json()["counts"].values()) == 100
    assert list(Path(gateway.folder).iterdir()) == []
    assert env.status().pid


def test_no_mutated_request_harms_the_gateway(gateway: GatewayStandIn, env: Client) -> None:
    check(gateway, env, REQUESTS, 1)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_no_mutated_request_of_many_harms_the_gateway(gateway: GatewayStandIn, env: Client) -> None:
    check(gateway, env, SLOW_REQUESTS, int(os.environ.get("SIMENV_FUZZ_SEED", "2")))
