"""Base class of Task that makes it a `concurrent.futures.Future`.

`concurrent.futures.wait` and `as_completed` use private attributes of futures: they hold
`_condition`, read `_state`, and append an object of their own to `_waiters`. A Task has these as
properties, and creates the objects behind them only when they are first used. Callbacks are called
from a thread of the client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from simenv.errors import OptionError

if TYPE_CHECKING:
    from simenv.client.connection.task_handle import TaskHandle, TaskSource
    from simenv.client.results.result import Result

    ResultFuture = Future[Result]
else:
    ResultFuture = Future


class FutureWaiters:
    """The waiters of `concurrent.futures` for one task."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.waiters: list[Any] = []  # objects of concurrent.futures
        self.notified = False  # guarded by `condition`: later waiters read the state instead


class TaskFuture(ResultFuture):
    """Base class of Task with the attributes of `concurrent.futures.Future`."""

    __slots__ = ()

    if TYPE_CHECKING:
        _waiters_state: FutureWaiters | None

        @property
        def session(self) -> TaskSource: ...
        @property
        def handle(self) -> TaskHandle: ...
        def settled(self) -> TaskHandle | None: ...

    def add_done_callback(self, fn: Callable[[Any], object]) -> None:
        """Call `fn(task)` when the task has ended in any state: at once if it has ended, else from
        a thread of the client. It is also called when the service is lost; then `task.done()` is
        False. Exceptions of `fn` are logged."""
        callback = partial(fn, self)
        if self.settled() is None or self.handle.over:
            callback()
        else:
            self.session.call(self.handle, callback)

    def set_running_or_notify_cancel(self) -> NoReturn:
        """Raise OptionError: only the service sets the state of a task."""
        raise _read_only_error()

    def set_result(self, result: object) -> NoReturn:  # noqa: ARG002
        """Raise OptionError: only the service sets the result of a task."""
        raise _read_only_error()

    def set_exception(self, exception: BaseException | None) -> NoReturn:  # noqa: ARG002
        """Raise OptionError: only the service ends a task."""
        raise _read_only_error()

    # --- read by concurrent.futures ---------------------------------------------------------------

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        return self._future_waiters().condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        return self._future_waiters().waiters

    @property
    def _state(self) -> str:  # type: ignore[override]
        # A waiter that holds the condition must not see the state change, nor be notified of a
        # state that it has read.
        if not self._future_waiters().notified:
            return PENDING
        return CANCELLED_AND_NOTIFIED if self.cancelled() else FINISHED

    def _future_waiters(self) -> FutureWaiters:
        waiters_state = self._waiters_state
        if waiters_state is not None:
            return waiters_state
        self.done()  # handles messages that have arrived, so that an ended task is seen as ended
        with _CREATING:
            if self._waiters_state is None:
                self._waiters_state = FutureWaiters()
                created = True
            else:
                created = False
            waiters_state = self._waiters_state
        if created:
            self.add_done_callback(_notify)
        return waiters_state


_CREATING = threading.Lock()


def _notify(task: TaskFuture) -> None:
    """Notify the waiters that the task has ended, or that its service is lost."""
    waiters_state = task._waiters_state
    assert waiters_state is not None
    with waiters_state.condition:
        waiters_state.notified = True
        for waiter in waiters_state.waiters:
            if task.cancelled():
                waiter.add_cancelled(task)
            elif task.done() and task.exception() is None:
                waiter.add_result(task)
            else:
                waiter.add_exception(task)
        waiters_state.condition.notify_all()


def _read_only_error() -> OptionError:
    return OptionError("the end of a task comes from the service", hint="task.cancel() asks for it")
