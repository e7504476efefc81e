"""Routes of events: pages, and a stream of server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html. The id of each event is its number
in the environment, so that a reader who names the last one (`Last-Event-ID`) misses none.

Invariant: the service is asked once for all streams of a user, and memory does not grow with their
number or slowness: a stream holds a number, the events are in one bounded buffer of the user, and
what has left it is read from the service again.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import Annotated, Any, Generic, TypeVar
from weakref import WeakValueDictionary

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter, SkipValidation
from litestar.response import Stream

from simenv.client.client import Client
from simenv.errors import LimitExceededError, NoServiceError, OptionError, QueueFullError
from simenv.gateway.context import Caller, Gateway
from simenv.gateway.native import schemas
from simenv.gateway.native.schemas import MAX_LIST
from simenv.gateway.native.tasks import TheCaller, TheGateway
from simenv.model import Event
from simenv.wire.messages import client as m

MAX_STREAMS = 16  # of one user
POLL_S = 0.5  # between two questions to the service
STATUS_S = 1.0
HEARTBEAT_S = 15.0
BUFFER = 2_000  # events of one user that are in memory
PAGE = 500  # events of one question
MAX_SEQ = 2**63 - 1


def events_above(client: Client, since: int, limit: int) -> m.Events:
    """Return a page of events above number `since`."""
    return client.session.request(m.GetEvents(0, since=since, limit=limit))


async def ask_events(gateway: Gateway, caller: Caller, since: int, limit: int) -> m.Events:
    """Return the same page, without a thread."""
    return await gateway.ask(caller, m.GetEvents(0, since=since, limit=limit))


class Feed(ABC):
    """What all streams of one token are sent. It is read while a stream is open, and they end with
    it. A user has `limit` streams of this `kind` at most. Used in the event loop alone."""

    limit: int
    kind: str

    def __init__(self, gateway: Gateway, caller: Caller) -> None:
        self._gateway, self._caller = gateway, caller
        self._changed = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self.streams = 0

    @contextmanager
    def read(self) -> Iterator[asyncio.Task[None]]:
        """Count a stream; yield the task that reads, which may end before it."""
        self.streams += 1
        if self._reader is None or self._reader.done():
            self._forget()
            self._reader = asyncio.create_task(self._run())
        try:
            yield self._reader
        finally:
            self.streams -= 1
            if not self.streams and self._reader is not None:
                self._reader.cancel()
                self._reader = None
                self._forget()

    @abstractmethod
    async def _run(self) -> None:
        """Ask the service, until the caller may not ask any more."""

    @abstractmethod
    def _forget(self) -> None:
        """Forget what was read."""

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


F = TypeVar("F", bound=Feed)


class Feeds(Generic[F]):
    """The feeds of callers who have a stream open: one a token, so that a stream ends with it."""

    def __init__(self, make: type[F], gateway: Gateway) -> None:
        self._make, self._gateway = make, gateway
        # Streams hold theirs from the request on; they count from their first frame.
        self._feeds: WeakValueDictionary[tuple[str, str, str], F] = WeakValueDictionary()

    def of(self, caller: Caller) -> F:
        """Return the feed for one more stream. Raises QueueFullError."""
        streams = sum(feed.streams for key, feed in self._feeds.items() if key[0] == caller.user)
        if streams >= self._make.limit:
            message = f"{streams} {self._make.kind} are open; the limit is {self._make.limit}"
            raise QueueFullError(message, hint="close one", retry_after_s=HEARTBEAT_S)
        key = (caller.user, caller.role, caller.token)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = self._make(self._gateway, caller)
        return feed


class EventFeed(Feed):
    """Events, and the state of the service."""

    limit, kind = MAX_STREAMS, "streams of events"

    def __init__(self, gateway: Gateway, caller: Caller) -> None:
        super().__init__(gateway, caller)
        self._buffer: deque[tuple[Event, bytes]] = deque(maxlen=BUFFER)  # events and their frames
        self._from = -1  # all events above this number are in the buffer, -1: not known yet
        self._newest = -1
        self._status = b""
        self._statuses = 0  # number of changes of the status
        self._watchers = 0  # streams that want the status

    async def frames(
        self, since: int | None, kinds: list[str], *, status: bool
    ) -> AsyncIterator[bytes]:
        """Yield frames: events above number `since` (None: from now on), heartbeats and, with
        `status`, each change of the service's state."""
        with self.read() as reader, self._watched(status):
            yield b"retry: 2000\n\n"  # also the sign that the stream is open
            shown = 0
            while not reader.done():
                changed = self._changed
                if status and shown != self._statuses:
                    shown = self._statuses
                    yield b"event: status\ndata: " + self._status + b"\n\n"
                if self._newest >= 0:
                    since = self._newest if since is None else since
                    events = await self._above(since)
                    for event, frame in events:
                        since = event.seq
                        if not kinds or event.is_of(kinds):
                            yield frame
                    if events:
                        continue
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await changed.wait()
                except TimeoutError:
                    yield b": heartbeat\n\n"

    @contextmanager
    def _watched(self, status: bool) -> Iterator[None]:
        self._watchers += status
        try:
            yield
        finally:
            self._watchers -= status

    def _forget(self) -> None:
        self._buffer.clear()
        self._from = self._newest = -1

    async def _above(self, since: int) -> list[tuple[Event, bytes]]:
        """Return some events above a number and their frames, from the buffer or the service; [] if
        there are none yet."""
        if since >= self._newest:
            return []
        if since < self._from:
            page = await ask_events(self._gateway, self._caller, since, PAGE)
            return [(event, _frame(event)) for event in page.events]
        # From the end: most streams have all but the last few.
        above = list(takewhile(lambda entry: entry[0].seq > since, reversed(self._buffer)))
        return above[: -PAGE - 1 : -1]

    async def _run(self) -> None:
        loop, gateway, caller = asyncio.get_running_loop(), self._gateway, self._caller
        asked_s = -STATUS_S
        while True:
            with suppress(NoServiceError, QueueFullError):  # the next question may succeed
                if self._newest < 0:
                    self._newest = (await ask_events(gateway, caller, 0, 0)).newest
                    self._from = self._newest
                    self._wake()
                page = await ask_events(gateway, caller, self._newest, PAGE)
                if page.events:
                    self._add(page.events)
                if self._watchers and loop.time() - asked_s >= STATUS_S:
                    asked_s = loop.time()
                    answer = await gateway.ask(caller, m.GetStatus(0))
                    status = msgspec.json.encode(answer.info)
                    if status != self._status:
                        self._status = status
                        self._statuses += 1
                        self._wake()
                if len(page.events) == PAGE:
                    continue
            await asyncio.sleep(POLL_S)

    def _add(self, events: list[Event]) -> None:
        self._buffer.extend((event, _frame(event)) for event in events)
        if len(self._buffer) == BUFFER:
            self._from = max(self._from, self._buffer[0][0].seq - 1)
        self._newest = events[-1].seq
        self._wake()


def _frame(event: Event) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (event.seq, msgspec.json.encode(event))


TheFeeds = NamedDependency[SkipValidation[Feeds[EventFeed]]]
Since = Annotated[int | None, QueryParameter(ge=0, le=MAX_SEQ)]
Kinds = Annotated[list[str] | None, QueryParameter(description="patterns, such as worker.*")]


@get("/events")
async def list_events(
    gateway: TheGateway,
    caller: TheCaller,
    since: Annotated[int, QueryParameter(ge=0, le=MAX_SEQ)] = 0,
    kind: Kinds = None,
    limit: Annotated[int, QueryParameter(ge=0, le=MAX_LIST)] = 100,
) -> schemas.EventPage:
    """Return events numbered above `since`, oldest first. `limit=0`: only the newest number."""
    page = await ask_events(gateway, caller, since, limit)
    events = [event for event in page.events if not kind or event.is_of(kind)]
    return schemas.EventPage(events, page.events[-1].seq if page.events else since, page.newest)


@get("/events/stream", media_type="text/event-stream")
async def stream_events(
    request: Request[Any, Any, Any],
    feeds: TheFeeds,
    caller: TheCaller,
    since: Since = None,
    kind: Kinds = None,
    status: FromQuery[bool] = False,
) -> Stream:
    """Stream events as server-sent events, from now on, or above `since` or `Last-Event-ID`. The
    id of each is its number. `status`: also an event named `status` with the state of the service,
    each time that it has changed."""
    last = request.headers.get("last-event-id", "").strip()
    if last:
        if not last.isdecimal() or len(last) > 19 or int(last) > MAX_SEQ:
            hint = "the id of the last event that was read"
            raise OptionError(option="Last-Event-ID", value=last, expected=hint)
        since = int(last)
    if kind and (len(kind) > 64 or sum(map(len, kind)) > 4_096):
        raise LimitExceededError(f"{len(kind)} kinds of events", hint="64 patterns at most")
    frames = feeds.of(caller).frames(since, kind or [], status=status)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return Stream(frames, media_type="text/event-stream", headers=headers)


ROUTES = [list_events, stream_events]
