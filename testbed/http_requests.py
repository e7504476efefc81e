"""Hostile requests to a gateway: every route with mutated paths, queries, headers and bodies.

The test that asserts survival and the benchmark that measures other clients send the same ones.
Routes are those of the application itself, so that a new one is attacked without a change here.
"""

from __future__ import annotations

import base64
import io
import json
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from qiskit import QuantumCircuit, qasm2, qasm3, qpy

from simenv.client.circuits import load
from simenv.config import GatewaySettings
from simenv.gateway.__main__ import all_routes
from simenv.gateway.app import create_app

ANSWER_S = 30.0
MOST_FAILURES = 10  # after which the others tell nothing new
PART_S = 0.1  # for an answer to a request that is not whole
STREAM_S = 0.02  # of a stream of events that is read
ODD = (
    "", "0", "-1", "1e309", "NaN", "9" * 40, "true", "null", "\x00", "../../etc/passwd", "é" * 60,
    "%", "a" * 5_000, "t-1.2.3", "[]", "{}", "\u2028", "²",
)  # fmt: skip
QUERY = (
    "wait", "limit", "first", "cursor", "state", "kind", "since", "since_s", "until_s", "until",
    "step", "name", "owner", "pool", "run_name", "status", "ended", "cancel", "reason", "by",
    "token", "calibration_id", "updated_before", "tags", "search", "sort", "pending", "offset",
    "created_after", "created_before", "backend", "program", "session_id", "exclude_params",
    "timeout_seconds", "wait_until_terminal", "use_timeslot", "tag", "shots", "outputs", "device",
)  # fmt: skip
HEADERS = (
    "Last-Event-ID", "Idempotency-Key", "Accept", "traceparent", "Service-CRN", "Origin", "Range",
    "X-Forwarded-For", "If-None-Match", "Accept-Encoding", "Cookie", "IBM-API-Version",
)  # fmt: skip
TYPES = (
    "application/json", "text/plain", "application/x-qpy", "application/x-simenv-program",
    "multipart/form-data; boundary=x", "multipart/form-data", "application/octet-stream",
    "application/x-www-form-urlencoded", "image/png", "", "application/json; charset=utf-7",
)  # fmt: skip


class Route(NamedTuple):
    """A route of the gateway. `path`: with `{name}` for each parameter."""

    method: str
    path: str

    @property
    def is_stream(self) -> bool:
        return self.path.endswith(("/live", "/stream"))


class Request(NamedTuple):
    """`is_whole`: the gateway need not wait for more of it."""

    route: Route
    data: bytes
    is_whole: bool = True


def routes(folder: Path) -> list[Route]:
    """Return all routes of the application. `folder`: for a store that nobody uses."""
    gateway: Any = SimpleNamespace(
        environment="none", settings=GatewaySettings(), folder=folder, url="",
        on_close=[],
        observer=lambda: SimpleNamespace(metrics=list),
    )  # fmt: skip
    found = []
    for route in create_app(gateway, *all_routes(gateway)).routes:
        path = "/".join(
            f"{{{part[1:-1].partition(':')[0]}}}" if part.startswith("{") else part
            for part in route.path.split("/")
        )
        methods: Any = getattr(route, "methods", ())
        found += [Route(method, path) for method in sorted(methods)]
    return found


def filled(path: str, values: Callable[[str], str]) -> str:
    """Return a path with `values(name)` for each parameter."""
    return "/".join(values(each[1:-1]) if each[:1] == "{" else each for each in path.split("/"))


def bell() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.measure_all()
    return circuit


def bodies() -> list[bytes]:
    """Return valid bodies of all kinds, to be mutated."""
    circuit, file = bell(), io.BytesIO()
    qpy.dump(circuit, file)
    text, text3 = str(qasm2.dumps(circuit)), qasm3.dumps(circuit)
    encoded = base64.b64encode(file.getvalue()).decode()
    locus = {"name": "measure", "locus": ["QB1"], "args": {"key": "m"}}
    objects: list[dict[str, Any]] = [
        {"program": text, "shots": 10},
        {"program": text3, "shots": 10, "outputs": ["counts"], "seed": 3},
        {"qpy": encoded, "shots": 10},
        {"program": text, "shots": 10, "device": "lima"},
        {"program": text3, "parameter_values": [[0.1], [0.2]], "shots": 10},
        {"pool": "main", "for_s": 1},
        {"for_s": 1},
        {"reason": "none"},
        {"program_id": "sampler", "backend": "main", "params": {"pubs": [[text3]], "version": 2}},
        {"program_id": "executor", "backend": "main", "params": {"quantum_program": {}}},
        {"mode": "batch", "backend": "main", "max_ttl": 1},
        {"accepting_jobs": False},
        {"tags": ["x"]},
        {"circuits": [{"name": "c", "instructions": [locus]}], "shots": 10},
    ]
    form = (
        b'--x\r\nContent-Disposition: form-data; name="program"; filename="c.qpy"\r\n\r\n'
        + file.getvalue()
        + b'\r\n--x\r\nContent-Disposition: form-data; name="options"\r\n\r\n{"shots": 10}\r\n'
        + b"--x--\r\n"
    )
    packed = load(circuit).packed
    return [*(json.dumps(each).encode() for each in objects), file.getvalue(), form, packed, b""]


class Requests:
    """Mutated requests. `values`: existing names and ids; `secrets`: bearer tokens."""

    def __init__(self, seed: int, targets: list[Route], values: list[str], secrets: list[str]):
        self._random = Random(seed)
        # Its own token would end, and nothing behind it be reached.
        self._targets = [each for each in targets if each.path != "/logout"]
        self._values, self._secrets, self._bodies = values, secrets, bodies()

    def __iter__(self) -> Iterator[Request]:
        """Yield requests without end."""
        while True:
            yield self._one()

    def _one(self) -> Request:
        pick, chance = self._random.choice, self._random.random
        route = pick(self._targets)
        path = filled(
            route.path, lambda _: quote(self._value(), safe="" if chance() < 0.9 else "/")
        )
        query = [(pick(QUERY), self._value()) for _ in range(pick((0, 0, 1, 1, 2, 5)))]
        # A valid wait would only take time.
        query = [(name, "0" if name == "wait" and text.isdigit() else text) for name, text in query]
        target = f"{path}?{urlencode(query)}" if query else path
        method = route.method if chance() < 0.95 else pick(("PUT", "DELETE", "HEAD", "TRACE", "X"))
        body = (
            self._mutated(pick(self._bodies)) if route.method != "GET" or chance() < 0.05 else b""
        )
        lines = [f"{method} {target} HTTP/1.1", "Host: localhost"]
        lines.append(f"Content-Type: {pick(TYPES)}" if body else "X-Nothing: 1")
        lines.append(self._credential())
        lines += [f"{pick(HEADERS)}: {self._header()}" for _ in range(pick((0, 0, 1, 3)))]
        is_whole = True
        if chance() < 0.05:
            lines.append("Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            is_whole = chance() < 0.7
            body = body if is_whole else self._mutated(body)
        else:
            length = len(body) + (pick((-1, 10**9)) if chance() < 0.01 else 0)
            lines.append(f"Content-Length: {length}")
        head = "\r\n".join(lines).encode("latin-1", "replace")
        return Request(route, head + b"\r\n\r\n" + body, is_whole)

    def _value(self) -> str:
        return self._random.choice(self._values if self._random.random() < 0.6 else ODD)

    def _header(self) -> str:
        return "".join(each if each.isprintable() else "?" for each in self._value())[:2_000]

    def _credential(self) -> str:
        if self._random.random() < 0.97:
            return f"Authorization: Bearer {self._random.choice(self._secrets)}"
        return f"Authorization: {self._random.choice(('Bearer', 'apikey', 'Basic', ''))} a.b.c"

    def _mutated(self, body: bytes) -> bytes:
        kind, data = self._random.randrange(8), bytearray(body)
        at = self._random.randrange(len(data) + 1)
        if kind == 0:
            return body
        if kind == 1:
            return body[:at]
        if kind == 2:
            return body[:at] + b"[" * 20_000 + body[at:]
        if kind == 3:
            return body[:at] + self._value().encode() + body[at:]
        if kind == 4 and body[:1] == b"{":
            return self._other_value(body)
        if kind == 5:
            return body + body[at:]
        for _ in range(self._random.choice((1, 1, 4, 32))):
            if data:
                data[self._random.randrange(len(data))] = self._random.randrange(256)
        return bytes(data)

    def _other_value(self, body: bytes) -> bytes:
        """Replace or add a member of an object, or of one within it."""
        try:
            found = json.loads(body)
        except ValueError:
            return body
        odd: list[Any] = [None, -1, 0, 2**63, 1e308, "", [], {}, [[]], "\ud800", "x" * 10_000]
        inner: Any = found
        while isinstance(inner, dict) and inner:
            name = self._random.choice(list(inner))
            if not isinstance(inner[name], dict) or self._random.random() < 0.5:
                inner[name] = self._random.choice(odd)
                break
            inner = inner[name]
        return json.dumps(found).encode()


def answered(address: tuple[str, int], request: Request) -> int:
    """Send a request over a new connection; return the status of the answer. 0: the gateway closed
    the connection; -1: it did not answer in time."""
    data = b""
    with socket.create_connection(address, ANSWER_S if request.is_whole else PART_S) as connection:
        try:
            connection.sendall(request.data)
            while b"\r\n\r\n" not in data:
                part = connection.recv(65_536)
                if not part:
                    return 0
                data += part
            status = int(data.split(b" ", 2)[1])
            if request.route.is_stream and status == 200:
                connection.settimeout(STREAM_S)
                connection.recv(65_536)
        except TimeoutError:
            return int(data.split(b" ", 2)[1]) if data else -1
        except ConnectionError:
            return 0
    return status


def attack(
    address: tuple[str, int], requests: Requests, count: int
) -> tuple[Counter[int], list[tuple[int, Request]]]:
    """Send `count` requests; return how often each status came, and the failures: what was answered
    500, 502 or 503 (the service is lost), or not at all in time though it was whole."""
    statuses: Counter[int] = Counter()
    failures = []
    for request in islice(requests, count):
        status = answered(address, request)
        statuses[status] += 1
        if status in (500, 502, 503) or (status == -1 and request.is_whole):
            failures.append((status, request))
            if len(failures) == MOST_FAILURES:
                break
    return statuses, failures
