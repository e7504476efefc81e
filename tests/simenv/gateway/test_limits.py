"""Bounds of connections, heads, bodies and rates, without a service."""

import ast
import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from litestar import Litestar, Request, get, post
from waiting import until

from simenv import gateway
from simenv.config import GatewaySettings
from simenv.errors import QueueFullError
from simenv.gateway import limits
from simenv.gateway.__main__ import _uvicorn
from simenv.gateway.limits import BoundedApplication, CallerRates, ConnectionTable, TokenBuckets
from simenv.gateway.problems import EXCEPTION_HANDLERS
from simenv.wire.transport.sockets import open_socket


@get("/hello")
async def hello() -> str:
    return "hello"


@post("/size", status_code=200)
async def size(request: Request[Any, Any, Any]) -> dict[str, int]:
    return {"size": len(await request.body())}


@get("/slow")
async def slow() -> str:
    await asyncio.sleep(1.0)
    return "slow"


@get("/endless")
async def endless() -> str:
    await asyncio.Event().wait()
    return "never"


@get("/large")
async def large() -> bytes:
    return b"x" * (64 * 2**20)


@contextmanager
def served(**settings: Any) -> Iterator[int]:
    """Serve an application behind the bounds; yield its port."""
    configured = GatewaySettings(**settings)
    app = Litestar(
        [hello, size, slow, endless, large], exception_handlers=EXCEPTION_HANDLERS,
        openapi_config=None, logging_config=None, request_max_body_size=None,
    )  # fmt: skip
    config = _uvicorn(BoundedApplication(app, configured), configured)
    server, listener = uvicorn.Server(config), open_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), name="bounded")
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30.0)
        listener.close()


@contextmanager
def connections(port: int, count: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open connections, each of which sends the same and then nothing."""
    opened = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), 10.0))
            opened[-1].sendall(sent)
        yield opened
    finally:
        for each in opened:
            each.close()


def received(connection: socket.socket) -> bytes:
    """Read until the other end closes."""
    body = b""
    while True:
        try:
            more = connection.recv(65_536)
        except ConnectionResetError:
            return body
        if not more:
            return body
        body += more


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


HEAD = b"GET /hello HTTP/1.1\r\nHost: here\r\n"


def test_slow_heads_leave_others_served_from_the_same_address() -> None:
    # At most 50 of one address.
    with served(max_connections=200) as port, connections(port, 300, HEAD) as slow:
        for _ in range(20):  # none waits until a slow one has used up its time
            answer = httpx.get(f"http://127.0.0.1:{port}/hello", timeout=limits.HEAD_S / 2)
            assert answer.text == "hello"
        until(lambda: sum(map(is_closed, slow)) >= 250, 10.0)


@pytest.mark.parametrize("sent", [b"", b"\r\n", HEAD], ids=["nothing", "lines", "half"])
def test_connection_without_a_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 0.3)
    with served() as port, connections(port, 1, sent) as (slow,):
        assert received(slow) == b""


def test_second_request_of_a_connection_has_its_time_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 0.3)
    with served() as port, connections(port, 1, HEAD + b"\r\n") as (slow,):
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET /hel")
        assert received(slow) == b""


def test_request_that_the_end_of_the_gateway_cuts_off_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("simenv.gateway.__main__.END_S", 0)
    request = b"GET /endless HTTP/1.1\r\nHost: here\r\n\r\n"
    with ExitStack() as stack:
        with served() as port:
            (waiting,) = stack.enter_context(connections(port, 1, request))
            assert httpx.get(f"http://127.0.0.1:{port}/hello").text == "hello"  # it was accepted
        answer = received(waiting)
    assert answer.startswith(b"HTTP/1.1 503")
    assert b'"retryable":true' in answer


def test_slow_answer_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_S", "BODY_S", "WRITE_S"):
        monkeypatch.setattr(limits, name, 0.3)
    with served() as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(2):
            assert client.get("/slow").text == "slow"


def test_client_that_asks_and_never_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WRITE_S", 0.5)
    request = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n"
    with served() as port, connections(port, 1, request) as (client,):
        begun_s = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - begun_s < 10.0:
                client.sendall(b"GET /hello HTTP/1.1\r\n")
                time.sleep(0.05)  # the pace of the client
        assert time.monotonic() - begun_s < 10.0


def test_too_many_headers_are_refused() -> None:
    with served() as port, connections(port, 1, HEAD) as (client,):
        for count in range(200):
            try:
                client.sendall(b"X-%d: %b\r\n" % (count, b"x" * 1_000))
            except OSError:
                break
        assert b" 431 " in received(client) or count < 199


def test_large_body_is_refused_before_it_is_read() -> None:
    head = b"POST /size HTTP/1.1\r\nHost: here\r\nCookie: a=b\r\nContent-Length: %d\r\n"
    with served(max_request_bytes=100_000) as port:
        declared = head % 10**15 + b"Expect: 100-continue\r\n\r\n"
        with connections(port, 1, declared) as (client,):
            answer = received(client)  # nothing of the body was sent
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"100-continue" not in answer.lower()
            assert b"connection: close" in answer
            assert b"more than 100000 bytes" in answer
        url, known = f"http://127.0.0.1:{port}/size", {"Authorization": "Bearer x"}
        fits = httpx.post(url, content=b"x" * 100_000, headers=known)
        assert fits.json() == {"size": 100_000}
        small = httpx.post(url, content=b"x" * limits.UNKNOWN_BYTES)
        assert small.json() == {"size": limits.UNKNOWN_BYTES}
        refused = httpx.post(url, content=b"x" * (limits.UNKNOWN_BYTES + 1))
        assert refused.status_code == 413


def test_bodies_of_all_requests_are_bounded_together() -> None:
    budget = limits.BodyBudget(1_000)
    budget.take(600)
    with pytest.raises(QueueFullError, match="600 bytes"):
        budget.take(401)
    budget.take(400)
    budget.release(1_000)
    budget.take(1_000)


def test_bodies_that_were_read_are_given_back() -> None:
    with served(max_request_bytes=1_000) as port:
        url, known = f"http://127.0.0.1:{port}/size", {"Authorization": "Bearer x"}
        for _ in range(3 * limits.BODIES):
            answer = httpx.post(url, content=b"x" * 1_000, headers=known)
            assert answer.json() == {"size": 1_000}


def test_body_of_unknown_length_is_read_up_to_its_bound() -> None:
    head = b"POST /size HTTP/1.1\r\nHost: here\r\nCookie: a=b\r\nTransfer-Encoding: chunked\r\n\r\n"
    with served(max_request_bytes=100_000) as port, connections(port, 1, head) as (client,):
        sent, chunk = 0, b"%x\r\n%b\r\n" % (50_000, b"x" * 50_000)
        with suppress(OSError):  # reset, or a broken pipe
            while sent < 2_000:
                client.sendall(chunk)
                sent += 1
        assert sent < 500  # what the buffers of two sockets hold


def test_slow_body_ends_its_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_S", 0.3)
    head = b"POST /size HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\nabc"
    with served() as port, connections(port, 1, head) as (client,):
        answer = received(client)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"3 bytes until now" in answer


def test_client_that_reads_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WRITE_S", 0.3)
    request = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n"
    with served() as port, connections(port, 1, request) as (client,):
        time.sleep(1.5)  # the client reads nothing for longer than its time: nothing to wait for
        assert len(received(client)) < 64 * 2**20


class PlayedTransport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class PlayedConnection:
    def __init__(self, address: str) -> None:
        self.address = address
        self.transport = PlayedTransport()


def test_connection_that_waits_for_longest_makes_room() -> None:
    table = ConnectionTable(4, 2)
    first, second, third = (PlayedConnection("a") for _ in range(3))
    other = [PlayedConnection("b"), PlayedConnection("c"), PlayedConnection("d")]
    assert table.add(first, "a")  # type: ignore[arg-type]
    assert table.add(second, "a")  # type: ignore[arg-type]
    table.runs(first)  # type: ignore[arg-type]
    assert table.add(third, "a")  # type: ignore[arg-type]
    assert (first.transport.aborted, second.transport.aborted) == (False, True)
    table.runs(third)  # type: ignore[arg-type]
    assert not table.add(PlayedConnection("a"), "a")  # type: ignore[arg-type]
    for each in other:
        assert table.add(each, each.address)  # type: ignore[arg-type]
    assert [each.transport.aborted for each in other] == [True, False, False]
    for each in (first, second, third, *other):
        table.remove(each, each.address)  # type: ignore[arg-type]
    assert (table._count, table._waiting, table._by_address) == (0, {}, {})


def test_buckets_give_tokens_at_their_rate() -> None:
    buckets = TokenBuckets(2.0, 4.0)
    assert [buckets.take("a", 0.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]
    assert buckets.take("b", 0.0) == 0.0
    assert buckets.take("a", 0.5) == 0.0
    assert buckets.wait_s("a", 0.75) == pytest.approx(0.25)
    assert [buckets.take("a", 100.0) for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.5]


def test_remembered_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BUCKETS", 3)
    buckets = TokenBuckets(1.0, 1.0)
    for key in "abcde":
        buckets.take(key, 0.0)
    assert list(buckets._buckets) == ["c", "d", "e"]


def test_rate_0_is_no_bound() -> None:
    rates = CallerRates(0.0)
    for _ in range(10_000):
        rates.check("ana")
    rates = CallerRates(0.1)
    rates.check("ana")
    with pytest.raises(QueueFullError) as caught:
        rates.check("ana")
    assert 0.0 < caught.value.retry_after_s <= 10.0


def test_network_of_ipv6_counts_as_one_address() -> None:
    assert limits.network_of("2001:db8::1") == limits.network_of("2001:db8::2:3")
    assert limits.network_of("2001:db8:0:1::1") != limits.network_of("2001:db8::1")
    assert limits.network_of("fe80::1%eth0") == "fe80::/64"
    assert limits.network_of("10.0.0.1") == "10.0.0.1"
    assert limits.network_of("") == ""


def test_waiting_calls_of_a_token_are_bounded() -> None:
    from simenv.gateway.clients import MAX_WAITING, THREADS_OF_ONE, Entry
    from simenv.gateway.context import Caller

    class Nothing:
        def close(self) -> None:
            pass

    async def flood() -> int:
        release = threading.Event()
        entry = Entry(Caller("ana", "", "client", "1"), Nothing(), Nothing())  # type: ignore[arg-type]
        calls = [
            asyncio.create_task(entry.call(release.wait))
            for _ in range(THREADS_OF_ONE + MAX_WAITING + 10)
        ]
        await asyncio.sleep(0)
        release.set()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        entry.close()
        return sum(isinstance(each, QueueFullError) for each in outcomes)

    assert asyncio.run(flood()) == 10


def test_gateway_sends_no_requests() -> None:
    clients = {"aiohttp", "ftplib", "http.client", "httpx", "requests", "urllib.request", "urllib3"}
    for path in Path(gateway.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not clients & set(names), path
