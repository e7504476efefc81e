"""Bounds of what HTTP clients may take: connections, time, bytes, requests; and the audit log.

`BoundedProtocol` bounds a connection before its request has arrived; `BoundedApplication` wraps the
application and bounds requests and answers. Bounds are those of an owner: the local user or the
address at the other end, and the user once the token is known. Invariants: a connection whose
request is not complete ends after a fixed time; such a connection, and one whose client does not
read, is closed when another one needs its place; no body is read beyond its bound; no answer is
compressed or written in pieces of more than PART_BYTES, nor faster than its client reads it; each
refusal is one line in the audit log.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simenv.config import GatewaySettings
from simenv.errors import (
    LimitExceededError,
    NoServiceError,
    OptionError,
    QueueFullError,
    SimenvError,
    TimedOutError,
)
from simenv.gateway.peers import Owner, network_of, owner_of
from simenv.gateway.problems import MEDIA_TYPE, problem_of
from simenv.token_buckets import Rate, TokenBuckets

HEAD_S = 10.0  # from the first byte of a request, or the begin of its connection, to its headers
HEAD_BYTES = 32 * 2**10  # of the request line and all headers
IDLE_S = 15.0  # between two requests of a connection
BODY_S, BODY_BYTES_PER_S = 20.0, 16 * 2**10  # a body has the time, and more for its size
WRITE_S = 60.0  # in which a client reads something of an answer that waits for it
LEAST_OF_OWNER = 16  # connections; else a quarter of all
MAX_HELD = 16  # answers of one user that wait for a task or job
BURST_S = 10.0  # of the requests of a caller
FAILURES = Rate(0.2, 20.0)  # of unknown credentials from one address
GUESSES = Rate(0.1, 10.0)  # of keys that one address could not exchange
UNKNOWN_BYTES = 16 * 2**10  # of a body without a credential: that of a login
MAX_QUERY_NAMES = 256
BODIES = 2  # bodies of the largest size that are held at once, or more smaller ones
ANSWERS_BYTES, ANSWERS_BYTES_OF_OWNER = 96 * 2**20, 48 * 2**20  # of answers that are not streamed
PART_BYTES = 64 * 2**10  # of an answer: larger ones are sent and compressed in parts
GZIP_BYTES = 1_000  # least size of an answer that is compressed
COMPRESSED = (
    b"application/json", MEDIA_TYPE.encode(), b"application/openmetrics-text", b"text/plain",
    b"text/html", b"text/css", b"text/javascript", b"image/svg+xml",
)  # fmt: skip
_GZIP = 31  # of zlib's wbits: with the header of gzip
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


class _Connections:
    """Connections of one owner, and those of them that may be closed for a newcomer, each in the
    order in which they became so."""

    def __init__(self) -> None:
        self.all: dict[BoundedProtocol, None] = {}
        self.idle: dict[BoundedProtocol, None] = {}


class ConnectionTable:
    """Connections of one gateway by owner: a local user or an address, and from the first request
    with a valid token on the user of that token. Idle are connections without a complete request,
    and those whose client does not read its answer: they make room."""

    def __init__(self, most: int, most_of_owner: int, most_of_user: int = 0) -> None:
        """`most_of_user`: of a user whose token is known; 0: as of any owner."""
        self.most = most
        self.most_of_user = most_of_user or most_of_owner
        self.most_of_owner = most_of_owner
        self._owners: dict[Owner, _Connections] = {}
        self._owner_of: dict[BoundedProtocol, Owner] = {}

    def add(self, connection: BoundedProtocol, owner: Owner) -> bool:
        """Add a connection, which is idle. If there are too many, another one is closed: the oldest
        idle one of the same owner, or of the owner with most; else the oldest, whatever it does:
        its token is not known. Returns False if none can be."""
        own = self._owners.get(owner)
        if own is not None and len(own.all) >= self.most_of_owner:
            self._close(next(iter(own.idle or own.all)))
        if not self._make_room(owner):
            return False
        self._put(connection, owner)
        self.idles(connection)
        return True

    def move(self, connection: BoundedProtocol, owner: Owner) -> bool:
        """Count a connection, whose request has arrived, for another owner. Returns False, and
        leaves it where it is, if that one has too many that are not idle."""
        if self._owner_of.get(connection) in (None, owner):  # None: it was closed meanwhile
            return True
        found = self._owners.get(owner)
        if found is not None and len(found.all) >= self.most_of_user:
            if not found.idle:
                return False
            self._close(next(iter(found.idle)))
        self.remove(connection)
        self._put(connection, owner)
        return True

    def idles(self, connection: BoundedProtocol) -> None:
        """Record that a connection waits for a request, or its client does not read."""
        if (owner := self._owner_of.get(connection)) is not None:
            self._owners[owner].idle.setdefault(connection)

    def works(self, connection: BoundedProtocol) -> None:
        """Record that the request of a connection is complete, or its client reads again."""
        if (owner := self._owner_of.get(connection)) is not None:
            self._owners[owner].idle.pop(connection, None)

    def remove(self, connection: BoundedProtocol) -> None:
        """Remove a connection; idempotent."""
        owner = self._owner_of.pop(connection, None)
        if owner is None:
            return
        found = self._owners[owner]
        found.idle.pop(connection, None)
        del found.all[connection]
        if not found.all:
            del self._owners[owner]

    def _put(self, connection: BoundedProtocol, owner: Owner) -> None:
        self._owners.setdefault(owner, _Connections()).all[connection] = None
        self._owner_of[connection] = owner

    def _make_room(self, owner: Owner) -> bool:
        """Make room within the bound of all; return whether there is."""
        if len(self._owner_of) < self.most:
            return True
        mine = len(self._owners[owner].all) if owner in self._owners else 0
        larger = [each for each in self._owners.values() if len(each.all) > mine]
        larger.sort(key=lambda each: len(each.all), reverse=True)
        candidates = [each.idle for each in larger]
        candidates += [each.all for each in larger[:1]]  # whatever they do: others have a share too
        candidates += [self._owners[owner].idle] if mine else []
        chosen = next((each for each in candidates if each), None)
        if chosen is not None:
            self._close(next(iter(chosen)))
        return chosen is not None

    def _close(self, victim: BoundedProtocol) -> None:
        self.remove(victim)
        victim.transport.abort()


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
    by `bounded_protocol`.

    One request may wait while another one is answered; what a client sends behind it is not read,
    and the connection ends with the answer to the waiting one."""

    table: ConnectionTable
    host_owner: Owner = ("address", "")  # before a token is known
    _head: _Deadline
    _write: _Deadline
    _head_bytes = 0
    _reads_head = True
    _is_idle = True  # no request is under way
    _is_last = False  # nothing is read any more
    _answered: Any = None  # the request before the one that waits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head, self._write = _Deadline(transport), _Deadline(transport)
        self.host_owner = owner_of(transport)
        if not self.table.add(self, self.host_owner):
            transport.abort()
            return
        self._head.start(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._write.stop()
        self.table.remove(self)
        if self._answered is not None:  # uvicorn sees to the newest request alone
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_last:
            return
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

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["connection"] = self

    def on_headers_complete(self) -> None:
        self._reads_head, self._head_bytes = False, 0
        self._head.stop()
        if self.pipeline:
            self._is_last = True
            self.pipeline[0][0].keep_alive = False
            return
        before = self.cycle
        super().on_headers_complete()
        if self.pipeline:
            self._answered = before

    def on_body(self, body: bytes) -> None:
        if not self._is_last:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_last:
            return
        self._reads_head, self._is_idle = True, False
        self.table.works(self)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not (self.transport.is_closing() or self.pipeline):
            self._is_idle = True
            self.table.idles(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write.start(WRITE_S)
        self.table.idles(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write.stop()
        if not self._is_idle:
            self.table.works(self)

    def belongs_to(self, user: str) -> None:
        """Count this connection for the user whose token it has sent. Raises QueueFullError."""
        if not self.table.move(self, ("user", user)):
            most = self.table.most_of_user
            text = f"{most} connections of {user or 'the own user'} wait for answers, the limit"
            raise QueueFullError(text, hint="close some", retry_after_s=1.0)

    def _refuse_head(self) -> None:
        _audit(431, self.host_owner[1], detail=f"more than {HEAD_BYTES} bytes of headers")
        self.transport.write(
            b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
            b"content-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.transport.close()


def bounded_protocol(settings: GatewaySettings) -> type[BoundedProtocol]:
    """Return the protocol for `uvicorn.Config(http=)`, with a table of its own."""
    most = settings.max_connections
    of_user = max(LEAST_OF_OWNER, most // 4)
    # Behind proxies all connections have their few owners before a token is known.
    table = ConnectionTable(most, most if settings.proxies else of_user, of_user)
    return type("BoundedProtocol", (BoundedProtocol,), {"table": table})


class HeldAnswers:
    """Answers that wait for the end of a task or job, by user. Used in the event loop alone."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    @contextmanager
    def hold(self, user: str) -> Iterator[None]:
        """Count one of a user's. Raises QueueFullError above MAX_HELD."""
        if self._count[user] >= MAX_HELD:
            text = f"{MAX_HELD} answers to {user or 'the own user'} wait for tasks, the limit"
            raise QueueFullError(text, hint="ask without waiting", retry_after_s=1.0)
        self._count[user] += 1
        try:
            yield
        finally:
            self._count[user] -= 1
            if not self._count[user]:
                del self._count[user]


class CallerRates:
    """Requests of each user. Used from the event loop's thread."""

    def __init__(self, requests_per_s: float) -> None:
        self._buckets = TokenBuckets()
        self._rate = Rate(requests_per_s, max(1.0, BURST_S * requests_per_s))

    def check(self, user: str) -> None:
        """Count one request. Raises QueueFullError above the rate; 0: there is none."""
        rate = self._rate
        wait_s = self._buckets.take(user, rate, time.monotonic()) if rate.per_s else 0.0
        if wait_s:
            raise QueueFullError(
                f"more than {rate.per_s:g} requests a second of {user or 'the own user'}",
                hint="requests_per_s of the table [gateway] is the limit",
                retry_after_s=wait_s,
            )


class BoundedApplication:
    """The application with bounds for bodies, answers and failed logins, headers of security,
    compression, and the audit log."""

    def __init__(self, app: ASGIApp, settings: GatewaySettings) -> None:
        self._app = app
        self._max_bytes = settings.max_request_bytes
        self._logs_all = settings.access_log
        most = settings.max_request_bytes
        self._bodies = ByteBudget("bodies of requests", BODIES * most, most)
        self._answers = ByteBudget("answers", ANSWERS_BYTES, ANSWERS_BYTES_OF_OWNER)
        self._failures = TokenBuckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        exchange = HttpExchange(scope, receive, send, self._max_bytes, self._bodies, self._answers)
        source = source_of(scope)
        locked_s.set(self._failures.wait_s(source, FAILURES, time.monotonic()))
        length = exchange.header(b"content-length")
        try:
            if scope["query_string"].count(b"&") >= MAX_QUERY_NAMES:
                hint = "/api/v1/openapi.json describes all requests"
                text = f"the query has more than {MAX_QUERY_NAMES} names"
                await exchange.refuse(OptionError(text, hint=hint))
            elif length.isdecimal() and (len(length) > 18 or int(length) > exchange.max_bytes):
                await exchange.refuse(_too_large(exchange.max_bytes))
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:  # by uvicorn, when the gateway ends
            if exchange.status:
                raise
            hint = "send it again, with the same Idempotency-Key if it has one"
            await exchange.refuse(NoServiceError("the gateway ended before the answer", hint=hint))
        finally:
            exchange.close()
        if exchange.status == HTTPStatus.UNAUTHORIZED:
            self._failures.take(source, FAILURES, time.monotonic())
        if self._logs_all or exchange.status in AUDITED:
            exchange.audit()


class ByteBudget:
    """Bytes that requests hold at once, in all and of each owner. Thread-safe."""

    def __init__(self, what: str, most: int, most_of_owner: int) -> None:
        """`what`: holds the bytes, for messages."""
        self._what, self._most, self._most_of_owner = what, most, most_of_owner
        self._lock = threading.Lock()
        self._held: Counter[Owner] = Counter()
        self._all = 0

    def take(self, owner: Owner, size: int) -> None:
        """Count bytes. Raises QueueFullError above a bound."""
        with self._lock:
            mine = self._held[owner]
            for held, most, whose in (
                (mine, self._most_of_owner, "of this user "), (self._all, self._most, ""),
            ):  # fmt: skip
                if held + size > most:
                    text = f"{self._what} {whose}hold {held} bytes, this one {size}"
                    text += f"; the limit is {most}"
                    raise QueueFullError(text, hint="wait for other requests", retry_after_s=1.0)
            self._held[owner] += size
            self._all += size

    def release(self, owner: Owner, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._held[owner] -= size
            self._all -= size
            if not self._held[owner]:
                del self._held[owner]


class HttpExchange:
    """One request and its answer, and what they hold: bytes of the budgets, and `resources`, which
    are closed when the answer was sent or the client has left."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, max_bytes: int,
        bodies: ByteBudget, answers: ByteBudget,
    ) -> None:  # fmt: skip
        self.status = 0
        self.resources = ExitStack()
        client = scope.get("client")
        self.address = client[0] if client else ""
        self._scope: Any = scope
        self._receive = receive
        self._send = send
        self._state: dict[str, Any] = self._scope.setdefault("state", {})
        self._state["exchange"] = self
        is_known = self.header(b"authorization") or self.header(b"cookie")
        self.max_bytes = max_bytes if is_known else min(max_bytes, UNKNOWN_BYTES)
        self._bodies, self._answers = bodies, answers
        self._read_bytes = 0
        self._complete = False  # the body was read
        self._begun_s = time.monotonic()
        self._start: Any = None  # of the answer, until its first part is there
        self._held_bytes = 0  # of the answer
        self._gzip: Any = None
        self._is_refused = False

    @property
    def owner(self) -> Owner:
        """The user, once the token is known; else the owner of the connection."""
        if (caller := self._state.get("caller")) is not None:
            return "user", caller.user
        connection = self._state.get("connection")
        return ("address", self.address) if connection is None else connection.host_owner

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
        if size:
            self._take(self._bodies, size)
        return message

    def hold(self, size: int) -> None:
        """Count the bytes of an answer before they are made or read; fewer than were counted
        before count once. Thread-safe. Raises QueueFullError."""
        if (more := size - self._held_bytes) > 0:
            self._take(self._answers, more)
            self._held_bytes += more

    def _take(self, budget: ByteBudget, size: int) -> None:
        owner = self.owner
        budget.take(owner, size)
        self.resources.callback(budget.release, owner, size)

    def close(self) -> None:
        """Give back what the request and its answer held."""
        self.resources.close()

    async def send(self, message: Message) -> None:
        """Send a part of the answer, in pieces of PART_BYTES at most, each when the client has read
        those before; to its headers those of security are added."""
        if message["type"] == "http.response.start":
            self.status, self._start = message["status"], message
            return
        connection = self._state.get("connection")
        if connection is not None and connection.transport.is_closing():
            return
        if self._is_refused or message["type"] != "http.response.body":
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        is_large = more or len(body) > PART_BYTES
        if self._start is not None:
            try:
                if len(body) > PART_BYTES:
                    self.hold(len(body))
            except QueueFullError as error:
                self._is_refused = True
                await self.refuse(error)
                return
            body = await self._begin(body, is_large)
        view = memoryview(body)
        while True:
            part, view = view[:PART_BYTES], view[PART_BYTES:]
            goes_on = more or len(view) > 0
            await self._part(part, goes_on)
            if not len(view) or (connection is not None and connection.transport.is_closing()):
                return

    async def _begin(self, body: bytes, is_large: bool) -> bytes:
        """Send the headers; return the body, compressed if it is small and is to be."""
        start, self._start = self._start, None
        headers = list(start.get("headers", ()))
        names = {name.lower(): value for name, value in headers}
        kind = names.get(b"content-type", b"").partition(b";")[0].strip()
        if (
            "gzip" in self.header(b"accept-encoding")
            and kind in COMPRESSED
            and b"content-encoding" not in names
            and (is_large or len(body) >= GZIP_BYTES)
            and self._scope["method"] != "HEAD"
        ):
            headers = [each for each in headers if each[0].lower() != b"content-length"]
            headers += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
            if is_large:
                self._gzip = zlib.compressobj(1, wbits=_GZIP)
            else:
                body = gzip.compress(body, 1, mtime=0)
                headers.append((b"content-length", str(len(body)).encode()))
        present = {name.lower() for name, _ in headers}
        start["headers"] = [*headers, *self._headers(present)]
        self.status = start["status"]
        await self._send(start)
        return body

    async def _part(self, part: Any, more: bool) -> None:
        if self._gzip is not None:
            part = await asyncio.to_thread(self._compressed, part, more)
            if more and not part:
                return
        message: Any = {"type": "http.response.body", "body": part, "more_body": more}
        await self._send(message)

    def _compressed(self, part: Any, more: bool) -> bytes:
        packed: bytes = self._gzip.compress(part)
        return packed if more else packed + self._gzip.flush()

    def _headers(self, present: set[bytes]) -> Iterator[tuple[bytes, bytes]]:
        yield from (each for each in HEADERS if each[0] not in present)
        if self._scope["scheme"] == "https":
            yield HSTS
        if not self._complete and self._scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            yield b"connection", b"close"  # what is left of the body is not read

    async def refuse(self, error: SimenvError) -> None:
        """Answer with a problem document."""
        problem = problem_of(error)
        body = msgspec.json.encode(problem)
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        self._start = {
            "type": "http.response.start", "status": problem.status, "headers": headers
        }  # fmt: skip
        await self._begin(body, is_large=False)
        message: Any = {"type": "http.response.body", "body": body}
        await self._send(message)

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


def source_of(scope: Any) -> str:
    """Return what counts as one source of unknown credentials: the owner of the connection, or the
    address that a proxy names."""
    client = scope.get("client")
    connection = scope.get("state", {}).get("connection")
    if connection is None or client != connection.client:
        return network_of(client[0] if client else "")
    return ":".join(connection.host_owner)


def packed_response(
    request: Request[Any, Any, Any], body: bytes, packed: bytes, media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response[bytes]:  # fmt: skip
    """Return a response with a body that was compressed before. `packed`: by gzip; b"": it is not
    compressed."""
    sent = {**(headers or {}), "Vary": "Accept-Encoding"}
    if packed and "gzip" in request.headers.get("accept-encoding", ""):
        sent["Content-Encoding"] = "gzip"
        body = packed
    return Response(body, media_type=media_type, headers=sent)


def exchange_of(request: Request[Any, Any, Any]) -> HttpExchange:
    """Return the exchange of a request."""
    exchange: HttpExchange = request.scope["state"]["exchange"]
    return exchange


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
