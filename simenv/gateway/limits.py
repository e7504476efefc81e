"""Bounds of what HTTP clients may take: connections, time, bytes, requests; and the audit log.

`BoundedProtocol` bounds a connection before its request has arrived; `BoundedApplication` wraps the
application and bounds requests. Invariants: a connection whose request is not complete ends after
a fixed time, and is the first to be closed when there are too many; no body is read beyond its
bound; each refusal is one line in the audit log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextvars import ContextVar
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simenv.config import GatewaySettings
from simenv.errors import (
    LimitExceededError,
    NoServiceError,
    QueueFullError,
    SimenvError,
    TimedOutError,
)
from simenv.gateway.problems import MEDIA_TYPE, problem_of

HEAD_S = 10.0  # from the first byte of a request, or the begin of its connection, to its headers
HEAD_BYTES = 32 * 2**10  # of the request line and all headers
IDLE_S = 15.0  # between two requests of a connection
BODY_S, BODY_BYTES_PER_S = 20.0, 16 * 2**10  # a body has the time, and more for its size
WRITE_S = 60.0  # in which a client reads something of an answer that waits for it
LEAST_OF_ADDRESS = 16  # connections; else a quarter of all
BURST_S = 10.0  # of the requests of a caller
FAILURES, FAILURES_PER_S = 20.0, 0.2  # of unknown credentials from one address
GUESSES, GUESSES_PER_S = 10.0, 0.1  # of keys that one address could not exchange
MAX_BUCKETS = 10_000
MAX_ADDRESSES = 1_000  # whose network is known without parsing them again
UNKNOWN_BYTES = 16 * 2**10  # of a body without a credential: that of a login
BODIES = 8  # bodies of the largest size that are held at once, or more smaller ones
AUDITED = (401, 403, 404, 408, 413, 429, 431)
CHARS = 200  # of a value in the audit log
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        b"form-action 'self'; frame-ancestors 'none'",
    ),
)
HSTS = (b"strict-transport-security", b"max-age=31536000")

audit_log = logging.getLogger("simenv.gateway.audit")
# Seconds after which an unknown credential of this request's address is looked up again.
locked_s: ContextVar[float] = ContextVar("locked_s", default=0.0)


class TokenBuckets:
    """Token buckets by key, of which the newest MAX_BUCKETS are kept. Pure: times come in."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str, now_s: float) -> float:
        """Return the seconds until a token can be taken; 0: now."""
        left = self._left(key, now_s)
        return 0.0 if left >= 1.0 else (1.0 - left) / self._rate_per_s

    def take(self, key: str, now_s: float) -> float:
        """Take one token, if there is one. Returns the seconds until there is one; 0: it was
        taken."""
        wait_s = self.wait_s(key, now_s)
        self._buckets[key] = self._left(key, now_s) - (not wait_s), now_s
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait_s

    def _left(self, key: str, now_s: float) -> float:
        left, before_s = self._buckets.get(key, (self._burst, now_s))
        return min(self._burst, left + (now_s - before_s) * self._rate_per_s)


class ConnectionTable:
    """Connections of one listener, by address. `waiting`: those without a complete request, in the
    order in which they began to wait."""

    def __init__(self, most: int, most_of_address: int) -> None:
        self.most = most
        self.most_of_address = most_of_address
        self._waiting: dict[BoundedProtocol, None] = {}
        self._by_address: dict[str, dict[BoundedProtocol, None]] = {}
        self._count = 0

    def add(self, connection: BoundedProtocol, address: str) -> bool:
        """Add a connection. If there are too many, the one that waits for longest is closed;
        returns False if none waits."""
        same = self._by_address.get(address, {})
        if len(same) >= self.most_of_address:
            victim = next((each for each in same if each in self._waiting), None)
        elif self._count >= self.most:
            victim = next(iter(self._waiting), None)
        else:
            victim = connection
        if victim is None:
            return False
        if victim is not connection:
            self.remove(victim, victim.address)
            victim.transport.abort()
        self._by_address.setdefault(address, {})[connection] = None
        self._count += 1
        self.waits(connection)
        return True

    def waits(self, connection: BoundedProtocol) -> None:
        """Record that a connection waits for a request."""
        self._waiting.setdefault(connection)

    def runs(self, connection: BoundedProtocol) -> None:
        """Record that the request of a connection is complete."""
        self._waiting.pop(connection, None)

    def remove(self, connection: BoundedProtocol, address: str) -> None:
        """Remove a connection; idempotent."""
        self._waiting.pop(connection, None)
        same = self._by_address.get(address, {})
        if connection in same:
            del same[connection]
            self._count -= 1
            if not same:
                del self._by_address[address]


class _Deadline:
    """A time after which a connection is closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None

    def start(self, timeout_s: float) -> None:
        """Close the connection in `timeout_s`, unless the time runs already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(timeout_s, self._transport.abort)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds for headers, and for clients that are too slow. `table`: set
    by `bounded_protocol`."""

    table: ConnectionTable
    address = ""
    _head: _Deadline
    _write: _Deadline
    _head_bytes = 0
    _reads_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._write = _Deadline(transport), _Deadline(transport)
        self.address = network_of(self.client[0] if self.client else "")
        if not self.table.add(self, self.address):
            transport.abort()
            return
        self._head.start(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._write.stop()
        self.table.remove(self, self.address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._reads_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or not self._reads_head:
            return
        cycle: Any = self.cycle  # None before the first request
        is_answered = cycle is None or cycle.response_complete
        if self._head_bytes > HEAD_BYTES:
            self._refuse_head()
        elif is_answered:
            self._head.start(HEAD_S)

    def on_headers_complete(self) -> None:
        self._reads_head, self._head_bytes = False, 0
        self._head.stop()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reads_head = True
        self.table.runs(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not (self.transport.is_closing() or self.pipeline):
            self.table.waits(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write.start(WRITE_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write.stop()

    def _refuse_head(self) -> None:
        _audit(431, self.address, detail=f"more than {HEAD_BYTES} bytes of headers")
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()


def bounded_protocol(settings: GatewaySettings) -> type[BoundedProtocol]:
    """Return the protocol for `uvicorn.Config(http=)`, with a table of its own."""
    most = settings.max_connections
    # Behind proxies all connections have their few addresses.
    of_address = most if settings.proxies else max(LEAST_OF_ADDRESS, most // 4)
    table = ConnectionTable(most, of_address)
    return type("BoundedProtocol", (BoundedProtocol,), {"table": table})


@lru_cache(MAX_ADDRESSES)
def network_of(address: str) -> str:
    """Return what counts as one address: a host of IPv4, a network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network(f"{address.partition('%')[0]}/64", strict=False))


class CallerRates:
    """Requests of each user. Used from the event loop's thread."""

    def __init__(self, requests_per_s: float) -> None:
        self._buckets = TokenBuckets(requests_per_s, max(1.0, BURST_S * requests_per_s))
        self._requests_per_s = requests_per_s

    def check(self, user: str) -> None:
        """Count one request. Raises QueueFullError above the rate; 0: there is none."""
        wait_s = self._buckets.take(user, time.monotonic()) if self._requests_per_s else 0.0
        if wait_s:
            raise QueueFullError(
                f"more than {self._requests_per_s:g} requests a second of {user or 'the own user'}",
                hint="requests_per_s of the table [gateway] is the limit",
                retry_after_s=wait_s,
            )


class BoundedApplication:
    """The application with bounds for bodies and failed logins, headers of security, and the audit
    log."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._max_bytes = settings.max_request_bytes
        self._logs_all = settings.access_log
        self._bodies = BodyBudget(BODIES * settings.max_request_bytes)
        self._failures = TokenBuckets(FAILURES_PER_S, FAILURES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._max_bytes, self._bodies)
        address = network_of(exchange.address)
        locked_s.set(self._failures.wait_s(address, time.monotonic()))
        length = exchange.header(b"content-length")
        try:
            if length.isdecimal() and int(length) > exchange.max_bytes:
                await exchange.refuse(_too_large(exchange.max_bytes))
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:  # by uvicorn, when the gateway ends
            if exchange.status:
                raise
            hint = "send it again, with the same Idempotency-Key if it has one"
            await exchange.refuse(NoServiceError("the gateway ended before the answer", hint=hint))
        finally:
            exchange.release()
        if exchange.status == HTTPStatus.UNAUTHORIZED:
            self._failures.take(address, time.monotonic())
        if self._logs_all or exchange.status in AUDITED:
            exchange.audit()


class BodyBudget:
    """Bytes of all bodies that are held at once. Used from the event loop's thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0

    def take(self, size: int) -> None:
        """Count bytes that have arrived. Raises QueueFullError above the bound."""
        if self._held_bytes + size > self._max_bytes:
            raise QueueFullError(
                f"bodies of requests hold {self._held_bytes} bytes; the limit is {self._max_bytes}",
                hint="wait for other requests",
                retry_after_s=1.0,
            )
        self._held_bytes += size

    def release(self, size: int) -> None:
        self._held_bytes -= size


class _Exchange:
    """One request and its answer."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, max_bytes: int, budget: BodyBudget
    ) -> None:
        self.status = 0
        client = scope.get("client")
        self.address = client[0] if client else ""
        self._scope: Any = scope
        self._receive = receive
        self._send = send
        is_known = self.header(b"authorization") or self.header(b"cookie")
        self.max_bytes = max_bytes if is_known else min(max_bytes, UNKNOWN_BYTES)
        self._budget = budget
        self._read_bytes = self._held_bytes = 0
        self._complete = False  # the body was read
        self._begun_s = time.monotonic()

    def header(self, name: bytes) -> str:
        """Return a header of the request; "" if it has none."""
        return next(
            (value.decode("latin-1") for key, value in self._scope["headers"] if key == name), ""
        )

    async def receive(self) -> Any:
        """Return the next part of the body. Raises LimitExceededError, TimedOutError."""
        if self._complete:
            return await self._receive()
        deadline_s = self._begun_s + BODY_S + self._read_bytes / BODY_BYTES_PER_S
        try:
            async with asyncio.timeout(deadline_s - time.monotonic()):
                message: Any = await self._receive()
        except TimeoutError as error:
            text = f"the body of the request did not arrive: {self._read_bytes} bytes until now"
            raise _SlowBody(text, hint=f"at least {BODY_BYTES_PER_S} bytes a second") from error
        size = len(message.get("body", b""))
        self._read_bytes += size
        self._complete = not message.get("more_body", False)
        if self._read_bytes > self.max_bytes:
            raise _too_large(self.max_bytes)
        self._budget.take(size)
        self._held_bytes += size
        return message

    def release(self) -> None:
        """Give back what the body of the request held."""
        self._budget.release(self._held_bytes)
        self._held_bytes = 0

    async def send(self, message: Message) -> None:
        """Send a part of the answer; to its headers those of security are added."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers: Any = message.setdefault("headers", [])
            message["headers"] = [*headers, *self._headers({name.lower() for name, _ in headers})]
        await self._send(message)

    def _headers(self, present: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        yield from (each for each in HEADERS if each[0] not in present)
        if self._scope["scheme"] == "https":
            yield HSTS
        if not self._complete and self._scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            yield b"connection", b"close"  # what is left of the body is not read

    async def refuse(self, error: SimenvError) -> None:
        """Answer with a problem document."""
        problem = problem_of(error)
        headers = [(b"content-type", MEDIA_TYPE.encode())]
        start: Any = {"type": "http.response.start", "status": problem.status, "headers": headers}
        await self.send(start)
        body: Any = {"type": "http.response.body", "body": msgspec.json.encode(problem)}
        await self._send(body)

    def audit(self) -> None:
        """Write the line of the audit log."""
        caller = self._scope.get("state", {}).get("caller")
        names = {} if caller is None else {"user": caller.user, "token": caller.token}
        _audit(
            self.status,
            self.address,
            method=self._scope["method"],
            path=self._scope["path"],
            **names,
        )


def _audit(status: int, address: str, **details: str) -> None:
    """Write a line of the audit log: JSON, without the query of the address, which may hold a
    secret."""
    entry = {"status": status, "address": address, **details}
    entry = {
        key: value[:CHARS] if isinstance(value, str) else value for key, value in entry.items()
    }
    audit_log.info("%s", json.dumps(entry))


class _SlowBody(TimedOutError):
    """A body that arrives too slowly."""


def _too_large(max_bytes: int) -> LimitExceededError:
    return LimitExceededError(
        f"the body of the request has more than {max_bytes} bytes, which is the limit",
        hint="send less at once; max_request_bytes of the table [gateway] is the limit",
    )
