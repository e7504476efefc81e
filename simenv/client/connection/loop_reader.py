"""Requests of an event loop that take no thread: while no thread reads the connection, the loop
does.

This is for the ordinary case alone. A request that has no answer after QUIET_S is handed over to a
thread, which waits as any other does: it looks for the service, pings it and repeats the request.
Invariant: the loop never waits for the service, and for the lock of the channel LOCK_S at most.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from simenv.client.connection.channel import QUIET_S
from simenv.client.connection.requests import OpenRequests
from simenv.errors import SimenvError
from simenv.wire.messages.base import A, ClientRequest, answer_of

if TYPE_CHECKING:
    import asyncio

    from simenv.wire.transport.zmq_transport import Connection

LOCK_S = 0.005  # a thread that reconnects holds the lock for longer
RETRY_S = 0.05  # until the loop tries the lock again


class LoopReader:
    """Reads the connection of a session in one event loop. Used in that loop, except where said
    otherwise."""

    def __init__(self, requests: OpenRequests) -> None:
        self._requests, self._channel = requests, requests.channel
        self.reset()

    def reset(self) -> None:
        """Initialize the state; also called in a forked child, where the loop does not run."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._connection: Connection | None = None  # whose descriptor is watched
        self._descriptor = -1  # a duplicate: libzmq closes its own with the socket
        self._reads_soon = False

    async def request(
        self,
        message: ClientRequest[A],
        in_thread: Callable[[Callable[[], A]], Awaitable[A]],
    ) -> A:
        """Send a request and return the answer, as `OpenRequests.request` does. `in_thread`: runs
        a function in a thread. All calls are of one event loop."""
        channel = self._channel
        if channel.is_forked or not channel.lock.acquire(timeout=LOCK_S):
            return await in_thread(partial(self._requests.request, message))
        try:
            loop = self._start()
            answered = loop.create_future()
            self._waiting.add(answered)
            pending = self._requests.begin(message, partial(self._answered, answered))
        except BaseException:
            self._waiting.discard(answered)
            raise
        finally:
            channel.lock.release()
        # Sending may have taken the signal that another answer is there.
        self._read_soon()
        quiet = loop.call_later(QUIET_S, _resolve, answered)
        try:
            await answered
        except BaseException:  # it was cancelled
            self._requests.forget(pending)
            raise
        finally:
            quiet.cancel()
            self._waiting.discard(answered)
        kind = answer_of(type(message))
        if pending.is_answered() or channel.closed:
            return self._requests.finish(kind, pending)
        return await in_thread(partial(self._requests.finish, kind, pending))

    def no_thread_reads(self) -> None:
        """Let the loop read, if it waits for something. Called with the channel's lock held by any
        thread that has stopped reading, or has closed the channel."""
        if self._waiting and self._thread != threading.get_ident():
            self._call(self._read)

    def close(self) -> None:
        """End all requests. Precondition: the channel was closed. Called by any thread."""
        self._call(self._end)

    def _start(self) -> asyncio.AbstractEventLoop:
        import asyncio

        if self._loop is None:
            self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        return self._loop

    def _call(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop, from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop was closed: nothing waits in it any more
                self._loop.call_soon_threadsafe(function, *args)

    def _answered(self, answered: asyncio.Future[None]) -> None:
        """Wake the coroutine of a request; called by the thread that reads."""
        if self._thread == threading.get_ident():
            _resolve(answered)
        else:
            self._call(_resolve, answered)

    def _read_soon(self) -> None:
        if not self._reads_soon and self._loop is not None:
            self._reads_soon = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        """Handle messages that have arrived, and watch for others, unless a thread does."""
        self._reads_soon = False
        channel = self._channel
        if not channel.lock.acquire(timeout=LOCK_S):
            self._unwatch()
            if self._loop is not None:
                self._loop.call_later(RETRY_S, self._read)
            return
        try:
            connection = channel.lead()
        except SimenvError:  # the threads of the requests raise it
            self._end()
            return
        finally:
            channel.lock.release()
        if connection is None:
            self._unwatch()  # `no_thread_reads` comes
            return
        if connection is not self._connection:
            self._watch(connection)
        try:
            channel.read_all(connection)
        except SimenvError:
            self._end()

    def _watch(self, connection: Connection) -> None:
        assert self._loop is not None
        self._unwatch()
        self._connection = connection
        self._descriptor = os.dup(connection.fileno())
        self._loop.add_reader(self._descriptor, self._read)

    def _unwatch(self) -> None:
        if self._connection is not None and self._loop is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._connection = None

    def _end(self) -> None:
        """Read no more; threads wait for what is still open."""
        self._unwatch()
        for answered in list(self._waiting):
            _resolve(answered)


def _resolve(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)
