"""Bounds of connections, heads, bodies and rates, without a service."""

import ast
import asyncio
import os
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
from failing import fails
from litestar import Litestar, Request, get, post
from waiting import until

from simenv import gateway
from simenv.config import GatewaySettings
from simenv.errors import QueueFullError
from simenv.gateway import limits, peers
from simenv.gateway.__main__ import _uvicorn
from simenv.gateway.limits import BoundedApplication, CallerRates, ConnectionTable
from simenv.gateway.peers import network_of, owner_of
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


LARGE = 32 * 2**20  # bytes
BODY = b"x" * LARGE


@get("/large")
async def large() -> bytes:
    return BODY


@get("/text")
async def text() -> str:
    return "x" * 2**20


@contextmanager
def served(**settings: Any) -> Iterator[int]:
    """Serve an application behind the bounds; yield its port."""
    configured = GatewaySettings(**settings)
    app = Litestar(
        [hello, size, slow, endless, large, text], exception_handlers=EXCEPTION_HANDLERS,
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
def test_connection_without_request_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 0.3)
    with served() as port, connections(port, 1, sent) as (slow,):
        assert received(slow) == b""


def test_second_request_of_a_connection_has_its_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEAD_S", 2.0)
    with served() as port, connections(port, 1, HEAD + b"\r\n") as (slow,):
        assert slow.recv(65_536).startswith(b"HTTP/1.1 200")
        slow.sendall(b"GET /hel")
        assert received(slow) == b""


def test_request_cut_off_by_the_end_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert httpx.post(url, content=b"x" * 100_000, headers=known).json() == {"size": 100_000}
        small = httpx.post(url, content=b"x" * limits.UNKNOWN_BYTES)
        assert small.json() == {"size": limits.UNKNOWN_BYTES}
        assert httpx.post(url, content=b"x" * (limits.UNKNOWN_BYTES + 1)).status_code == 413


def test_bytes_are_bounded_by_owner_and_in_all() -> None:
    budget = limits.ByteBudget("bodies", 1_000, 600)
    ana, ben = ("user", "ana"), ("user", "ben")
    budget.take(ana, 500)
    fails(QueueFullError, "this user hold 500 bytes", budget.take, ana, 101)
    budget.take(ben, 500)
    fails(QueueFullError, "hold 1000 bytes", budget.take, ana, 1)
    budget.release(ana, 500)
    budget.take(ben, 100)
    assert budget._held == {ben: 600}


def test_bodies_that_were_read_are_given_back() -> None:
    with served(max_request_bytes=1_000) as port:
        url, known = f"http://127.0.0.1:{port}/size", {"Authorization": "Bearer x"}
        for _ in range(3 * limits.BODIES):
            assert httpx.post(url, content=b"x" * 1_000, headers=known).json() == {"size": 1_000}


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
        assert len(received(client)) < LARGE


class PlayedTransport:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


class PlayedConnection:
    def __init__(self) -> None:
        self.transport = PlayedTransport()


def played(count: int) -> list[Any]:
    return [PlayedConnection() for _ in range(count)]


def closed(found: list[Any]) -> list[bool]:
    return [each.transport.aborted for each in found]


A, B, C = (("uid", name) for name in "abc")


def test_oldest_idle_connection_of_an_owner_makes_room() -> None:
    table = ConnectionTable(10, 2)
    first, second, third, fourth = played(4)
    assert table.add(first, A)
    assert table.add(second, A)
    table.works(first)
    assert table.add(third, A)
    assert closed([first, second, third]) == [False, True, False]
    table.works(third)
    assert table.add(fourth, B)
    table.idles(third)  # its client does not read
    assert table.add(second, A)
    assert closed([first, third, fourth]) == [False, True, False]
    table.works(second)
    assert table.add(third, A)  # nothing is idle: the oldest goes, whose token is not known
    assert closed([first, fourth]) == [True, False]
    for each in (second, third, fourth):
        table.remove(each)
    assert (table._owners, table._owner_of) == ({}, {})


def test_owner_with_most_connections_makes_room_for_others() -> None:
    table = ConnectionTable(5, 4)
    many, few = played(4), played(1)
    assert all(table.add(each, A) for each in many)
    assert table.add(few[0], B)
    table.works(many[0])
    newcomer, second = played(2)
    assert table.add(newcomer, C)
    assert closed([*many, *few, newcomer]) == [False, True, False, False, False, False]
    for each in (*many, newcomer):  # none is idle but the one of B, who has fewer
        table.works(each)
    assert table.add(second, C)
    assert closed([*many, *few, newcomer]) == [True, True, False, False, False, False]
    table.works(second)
    assert not table.add(played(1)[0], A)  # it has as many as any other


def test_connection_counts_for_the_user_of_its_token() -> None:
    table = ConnectionTable(10, 2)
    first, second, third, fourth = played(4)
    user = ("user", "ana")
    for each in (first, second):
        assert table.add(each, A)
        table.works(each)
        assert table.move(each, user)
    assert table.add(third, A)
    table.works(third)
    assert not table.move(third, user)
    table.idles(second)
    assert table.move(third, user)
    assert closed([first, second, third]) == [False, True, False]
    assert table.add(fourth, A)
    assert len(table._owners[A].all) == 1


PIPELINED = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n" * 60


def test_unread_answers_make_room() -> None:
    # 50 of one owner; each of them asks 60 times, and reads nothing.
    with served(max_connections=200) as port, connections(port, 60, PIPELINED):
        for _ in range(20):
            assert httpx.get(f"http://127.0.0.1:{port}/hello", timeout=5.0).text == "hello"


def test_requests_behind_the_next_one_are_not_answered() -> None:
    request = b"GET /hello HTTP/1.1\r\nHost: here\r\n\r\n"
    with served() as port, connections(port, 1, request * 60) as (client,):
        answer = received(client)
        assert answer.count(b"HTTP/1.1 200") == 2
        assert answer.count(b"connection: close") == 1


def test_large_answer_is_compressed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    compressed = limits.HttpExchange._compressed

    def recorded(self: limits.HttpExchange, part: Any, more: bool) -> bytes:
        assert threading.current_thread().name != "server"
        sizes.append(len(part))
        return compressed(self, part, more)

    monkeypatch.setattr(limits.HttpExchange, "_compressed", recorded)
    with served() as port:
        answer = httpx.get(f"http://127.0.0.1:{port}/text", timeout=30.0)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.text == "x" * 2**20
        assert max(sizes) <= limits.PART_BYTES
        plain = httpx.get(f"http://127.0.0.1:{port}/text", headers={"Accept-Encoding": "identity"})
        assert plain.headers["content-length"] == str(2**20)
        assert "content-encoding" not in httpx.get(f"http://127.0.0.1:{port}/hello").headers


def test_answers_are_bounded_by_owner() -> None:
    request = b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n"
    with served() as port, connections(port, 1, request) as (client,):
        client.recv(1)  # it is under way
        refused = httpx.get(f"http://127.0.0.1:{port}/large")
        assert refused.status_code == 429
        assert f"hold {LARGE} bytes" in refused.text
        client.close()
        until(lambda: httpx.get(f"http://127.0.0.1:{port}/large").status_code == 200, 10.0)


def test_held_answers_of_a_user_are_bounded() -> None:
    held = limits.HeldAnswers()
    with ExitStack() as stack:
        for _ in range(limits.MAX_HELD):
            stack.enter_context(held.hold("ana"))
        with pytest.raises(QueueFullError), held.hold("ana"):
            pass
        with held.hold("ben"):
            pass
    with held.hold("ana"):
        assert held._count == {"ana": 1}


def test_rate_0_is_no_bound() -> None:
    rates = CallerRates(0.0)
    for _ in range(10_000):
        rates.check("ana")
    rates = CallerRates(0.1)
    rates.check("ana")
    assert 0.0 < fails(QueueFullError, "", rates.check, "ana").retry_after_s <= 10.0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_owner_of_loopback_connection_is_user(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Transport:
        def __init__(self, accepted: socket.socket) -> None:
            self.infos = {
                "socket": accepted,
                "peername": accepted.getpeername(),
                "sockname": accepted.getsockname(),
            }

        def get_extra_info(self, name: str) -> Any:
            return self.infos[name]

    expected = "uid", str(os.getuid())
    with open_socket(host, 0) as listener, socket.create_connection(listener.getsockname()[:2]):
        accepted, _ = listener.accept()
        with accepted:
            transport: Any = Transport(accepted)
            assert owner_of(transport) == expected
            monkeypatch.setattr(peers, "_BY_FAMILY", 0)  # as without sock_diag: by /proc/net/tcp
            assert owner_of(transport) == expected
    ends = socket.socketpair(socket.AF_UNIX)
    with ends[0], ends[1]:
        of_unix: Any = Transport(ends[0])
        assert owner_of(of_unix) == expected


def test_network_of_ipv6_counts_as_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::2:3")
    assert network_of("2001:db8:0:1::1") != network_of("2001:db8::1")
    assert network_of("fe80::1%eth0") == "fe80::/64"
    assert network_of("10.0.0.1") == "10.0.0.1"
    assert network_of("") == ""


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
