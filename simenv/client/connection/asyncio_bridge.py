"""Awaits and callbacks of a client's tasks.

One thread serves all awaits and callbacks of a client; it starts at the first one. While coroutines
or callbacks wait, it waits on the channel like any other thread, wakes the event loops and calls
the callbacks. Otherwise it sleeps.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from simenv.client.connection import task_handle
from simenv.client.connection.subscriptions import TaskSubscriptions
from simenv.client.connection.task_handle import TaskHandle
from simenv.errors import SimenvError

if TYPE_CHECKING:
    import asyncio

    Waiter = asyncio.Future[None] | Callable[[], object]


class AsyncioBridge:
    """Futures and callbacks of tasks, guarded by the lock of the channel."""

    def __init__(self, tasks: TaskSubscriptions) -> None:
        self._tasks = tasks
        self.reset()

    def reset(self) -> None:
        """Initialize the state; also called in a forked child, where the thread does not exist."""
        self._thread: threading.Thread | None = None
        self._waiting: dict[Waiter, TaskHandle] = {}
        self._callbacks: deque[Callable[[], object]] = deque()  # of tasks that have ended
        self._requested_s = 0.0  # monotonic time of the last request or end of an awaited task

    def future(self, handle: TaskHandle) -> asyncio.Future[None]:
        """Return a future of the running loop for the end; it fails if the service is lost."""
        import asyncio

        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._drop)  # also when the awaiting coroutine is cancelled
        self._add(future, handle)
        return future

    def call(self, handle: TaskHandle, callback: Callable[[], object]) -> None:
        """Call `callback` once, from this thread, when the task ends or its service is lost."""
        self._add(partial(callback), handle)  # `partial` makes a unique key

    def _add(self, waiter: Waiter, handle: TaskHandle) -> None:
        self._tasks.subscribe([handle])
        with self._tasks.channel.lock:
            self._requested_s = monotonic()
            self._waiting[waiter] = handle
            handle.on_end(partial(self._wake, waiter, None))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simenv-await", daemon=True)
                self._thread.start()
            self._tasks.channel.notify()

    def join(self) -> None:
        """Wait for the end of the thread. Precondition: the channel was closed."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        channel = self._tasks.channel
        while True:
            with channel.lock:
                channel.changed.wait_for(lambda: self._waiting or self._callbacks or channel.closed)
            try:
                channel.wait(
                    lambda: bool(self._callbacks) or not self._waiting, repeat=self._repeat
                )
            except SimenvError as error:
                with channel.lock:
                    for waiter in list(self._waiting):
                        self._wake(waiter, error)
            while self._callbacks:
                _call(self._callbacks.popleft())
            if channel.closed:
                return

    def _repeat(self, now: float) -> None:
        if now - self._requested_s >= task_handle.REPEAT_S:
            self._requested_s = now
            self._tasks.watch([handle.number for handle in self._waiting.values()])

    def _wake(self, waiter: Waiter, error: SimenvError | None) -> None:
        if self._waiting.pop(waiter, None) is None:
            return
        self._requested_s = monotonic()
        if callable(waiter):
            self._callbacks.append(waiter)
            self._tasks.channel.notify()
            return
        try:
            waiter.get_loop().call_soon_threadsafe(_resolve, waiter, error)
        except RuntimeError:
            return  # the loop was closed: no coroutine awaits the task any more

    def _drop(self, future: asyncio.Future[None]) -> None:
        with self._tasks.channel.lock:
            self._waiting.pop(future, None)


def _resolve(future: asyncio.Future[None], error: SimenvError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _call(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:  # a callback of the user: the thread must go on for the others
        logging.getLogger("concurrent.futures").exception("exception calling callback %r", callback)
