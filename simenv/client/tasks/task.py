"""Tasks as futures and awaitables, `as_completed`, executors, and the ids of tasks.

Invariant: a Task holds only its handle and, for a binding of a task with several, its row, because
a sweep creates thousands of them. Ids look like `t-8k2f`, and `t-8k2f.17` for one binding of a
task.

`concurrent.futures.wait` and `as_completed` use private attributes of futures: they hold
`_condition`, read `_state`, and append an object of their own to `_waiters`. The base class of Task
has these as properties, and creates the objects behind them only when they are first used.
Callbacks are called from a thread of the client.
"""

from __future__ import annotations

import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NoReturn

from simenv.client import result_display
from simenv.client.connection.task_handle import TaskHandle
from simenv.client.result import Result
from simenv.client.tasks.progress import (
    GroupRate,
    ProgressLine,
    TaskProgress,
    describe,
    progress_line,
    progress_of,
)
from simenv.errors import NotFoundError, OptionError, SimenvError, SimenvWarning, TimedOutError
from simenv.model import MAX_TASK_NUMBER, TaskInfo, TaskState, task_number
from simenv.model.task_rules import checked_timeout
from simenv.wire.messages.history import GetSpec

if TYPE_CHECKING:
    from simenv.client.connection.session import ServiceSession
    from simenv.client.connection.task_handle import TaskSource


class FutureWaiters:
    """The waiters of `concurrent.futures` for one task."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.waiters: list[Any] = []  # objects of concurrent.futures
        self.notified = False  # guarded by `condition`: later waiters read the state instead


class TaskFuture(Future[Result]):
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
            self.session.bridge.call(self.handle, callback)

    def set_running_or_notify_cancel(self) -> NoReturn:
        """Raise OptionError: only the service sets the state of a task."""
        raise _read_only_error()

    def set_result(self, result: object) -> NoReturn:  # noqa: ARG002
        """Raise OptionError: only the service sets the result of a task."""
        raise _read_only_error()

    def set_exception(self, exception: BaseException | None) -> NoReturn:  # noqa: ARG002
        """Raise OptionError: only the service ends a task."""
        raise _read_only_error()

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


SHOW_EVERY_S = 0.5
MAX_LOOKED_AT = 64  # tasks of many whose own progress is shown in that of all
DRAW_S = 0.5  # timeout of the request for the circuit that a notebook draws


class Task(TaskFuture):
    """One accepted task, or one binding of it. Thread-safe.

    A `concurrent.futures.Future`: `concurrent.futures.wait`, `asyncio.wrap_future` and libraries
    that take futures accept tasks. `await task` gives its result inside any running loop. `row`:
    the index of a binding in a task with several, which start, end and are cancelled together;
    None: the whole task.
    """

    __slots__ = ("_cached_result", "_handle", "_waiters_state", "row")

    def __init__(self, handle: TaskHandle | None, row: int | None = None) -> None:
        # Future.__init__ is not called: its lock is created only when concurrent.futures needs it.
        self._handle = handle
        self.row = row
        self._cached_result: Result | None = None
        self._waiters_state: FutureWaiters | None = None

    @property
    def handle(self) -> TaskHandle:
        """Handle of the service's task."""
        assert self._handle is not None
        return self._handle

    def settled(self, timeout_s: float | None = None) -> TaskHandle | None:  # noqa: ARG002
        """Return the handle once the service has answered the submission; None: the task was
        refused. Raises TimedOutError."""
        return self._handle

    @property
    def session(self) -> TaskSource:
        """The connection to the task's service."""
        return self.handle.session

    @property
    def id(self) -> str:
        """Id of the task, as `simenv result` and `Client.task` accept it: `t-8k2f`, `t-8k2f.17`."""
        return self.handle.id if self.row is None else f"{self.handle.id}.{self.row}"

    @property
    def name(self) -> str:
        """The name given at submission, or ""."""
        return self.handle.submission.name

    @property
    def state(self) -> TaskState:
        """The present state. Asks the service unless the task is known to have ended."""
        if self.done():
            return self.handle.final_state
        infos = self.session.task_infos([self.handle.number])
        return infos[0].state if infos else TaskState.QUEUED

    @property
    def expected_start(self) -> float | None:
        """Expected start of a waiting task, in seconds since 1970; None: it has started, or the
        start is not known. Asks the service unless the task is known to have ended."""
        infos = [] if self.done() else self.session.task_infos([self.handle.number])
        waits_us = [info.wait_us for info in infos if info.wait_us >= 0]
        return time.time() + waits_us[0] / 1e6 if waits_us else None

    def progress(self) -> TaskProgress:
        """Return what the task has done of what it has to do, and the forecast of the rest. Asks
        the service unless the task is known to have ended."""
        if self.done():
            done = int(self.handle.final_state is TaskState.DONE)
            return TaskProgress(float(done), done, 1, "tasks", 0.0)
        infos = self.session.task_infos([self.handle.number])
        return progress_of(infos[0]) if infos else TaskProgress()

    def done(self) -> bool:
        """Return whether the task is known to have ended; never waits."""
        if not self.handle.over:
            self.session.tasks.poll(self.handle)
        return self.handle.over

    def result(self, timeout: float | None = None, *, timeout_s: float | None = None) -> Result:
        """Wait for the result. `timeout`, of `concurrent.futures`, and `timeout_s` are the same.

        Raises TaskFailedError, TaskCancelledError or TaskExpiredError as the task ended,
        TimedOutError after `timeout_s` seconds (the task goes on), ServiceLostError when the
        service does not answer; OptionError if the task has several bindings and this Task names
        none, NotFoundError if it has no binding of that number.
        """
        result = self._cached_result
        if result is None:
            handle = self._handle
            if handle is None or handle.decoded is None:
                handle = self._ended(timeout if timeout_s is None else timeout_s)
            decoded, row = handle.decoded or handle.decode(), self.row
            if row is None:
                count, row = decoded.data.count, 0
                if count > 1:
                    hint = f"results() gives them all; one is a task of its own: {self.id}.0"
                    raise OptionError(f"task {self.id} carries {count} bindings", hint=hint)
            elif row >= decoded.data.count:
                raise NotFoundError(
                    f"task {handle.id} carries {decoded.data.count} bindings; there is no number"
                    f" {row}",
                    hint=f"the first is {handle.id}.0",
                )
            result = self._cached_result = Result(decoded, handle, row)
            _emit_warnings(handle, result)
        return result

    def results(self, timeout_s: float | None = None) -> list[Result]:
        """Wait like `result`; return one Result for each binding of the task, in order."""
        handle = self._ended(timeout_s)
        decoded = handle.decode()
        count = decoded.data.count
        if self.row is not None or count == 1:
            return [self.result()]
        results = [Result(decoded, handle, row) for row in range(count)]
        _emit_warnings(handle, results[0])
        return results

    def exception(
        self, timeout: float | None = None, *, timeout_s: float | None = None
    ) -> SimenvError | None:
        """Wait like `result`; return the error with which the task ended, or None."""
        return self._ended(timeout if timeout_s is None else timeout_s).error()

    def circuit(self) -> Any:
        """Ask the service for the `QuantumCircuit` of this task, as it was sent: for a device, the
        compiled one. Parameters of a task with several bindings are p0, p1 ... Raises ProgramError,
        and NotFoundError if the service has removed the task."""
        return result_display.circuit_of(self.session.request(GetSpec(0, self.handle.number)).spec)

    def wait(self, progress: bool | str = False, timeout_s: float | None = None) -> TaskState:
        """Wait for the end of the task in any state.

        `progress`: show a bar, state, progress and time left in one line on stderr, if that is a
        terminal or a notebook's stream; "rich": a bar of rich; "log": in another stream, a line
        every ten seconds.
        """
        if not progress:
            self.exception(timeout_s)
            return self.handle.final_state
        deadline = deadline_of(timeout_s)
        self.settled(timeout_s)
        handle = self.handle
        with progress_line(progress, sys.stderr) as line:
            while not self.session.tasks.wait(handle, step_s(deadline)):
                if deadline is not None and time.monotonic() >= deadline:
                    raise self._timeout_error(timeout_s)
                infos = self.session.task_infos([handle.number])
                line.show(describe(infos, self.id), *map(progress_of, infos[:1]))
        return handle.final_state

    def running(self) -> bool:
        """Return whether it runs now. Asks the service unless the task is known to have ended."""
        return not self.done() and self.state is TaskState.RUNNING

    def cancelled(self) -> bool:
        """Return whether the task is known to have been cancelled; never waits."""
        handle = self.settled() if self.done() else None  # None: refused, or not ended
        return handle is not None and handle.final_state is TaskState.CANCELLED

    def cancel(self) -> bool:
        """Cancel the task; return False if it had ended before. The bindings of one task are
        cancelled together."""
        return self.session.cancel([self.handle.number])[0] in ("cancelled", "cancelling")

    def withdraw(self) -> None:
        """Cancel the task for a caller that waits no more; never waits."""
        if not self.handle.over:
            with suppress(SimenvError):
                self.session.cancel_unwanted([self.handle.number])

    def __await__(self) -> Generator[Any, None, Result]:
        if not self.done():
            yield from self.session.bridge.future(self.handle).__await__()
        return self.result(0.0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Task):
            return NotImplemented
        handle, other_handle = self.handle, other.handle
        is_same_task = (
            handle.number == other_handle.number and handle.session is other_handle.session
        )
        return is_same_task and self.row == other.row

    def __hash__(self) -> int:
        return hash((self.handle.number, self.row))

    def __copy__(self) -> Task:
        """Return the task itself: a copy would wait for the same end."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Task:
        return self

    def __reduce__(self) -> NoReturn:
        """Raise OptionError: a task waits with the connection of its client."""
        message = f"task {self.id} cannot be pickled: it belongs to the connection of its client"
        hint = "pickle task.result(), or task.id, which Client.task takes in another process"
        raise OptionError(message, hint=hint)

    def __repr__(self) -> str:
        # No request is sent: asyncio and debuggers call this where waiting is not allowed.
        return f"<Task {self.id} {self.handle.final_state if self.handle.over else 'not ended'}>"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """Text for IPython: `<Task t-8k2g RUNNING try 2 on sv-1, 0:03>`."""
        if self.done():
            printer.text(repr(self))
        else:
            printer.text(
                f"<Task {describe(self.session.try_task_infos(self.handle.number), self.id)}>"
            )

    def _repr_html_(self) -> str:
        """HTML for notebooks: the state and the pending reason, or the result; and a small
        circuit."""
        return self._state_html() + self._circuit_html()

    def _state_html(self) -> str:
        if self.done():
            ended = self.handle.final_state
            if ended is TaskState.DONE and (
                self.row is not None or self.handle.decode().data.count == 1
            ):
                return self.result()._repr_html_()
            return result_display.task_html(self.id, self.name, ended, None)
        infos = self.session.try_task_infos(self.handle.number)
        state = infos[0].state if infos else "no answer"
        return result_display.task_html(self.id, self.name, state, infos[0] if infos else None)

    def _circuit_html(self) -> str:
        try:
            submitted = self.session.request(GetSpec(0, self.handle.number), DRAW_S)
            return result_display.circuit_html(submitted.spec)
        except SimenvError:  # the service has removed the task, or does not answer
            return ""

    def _ended(self, timeout_s: float | None) -> TaskHandle:
        """Wait for the end. Raises TimedOutError, OptionError."""
        timeout_s = checked_timeout(timeout_s)
        handle = self.handle
        if not handle.over and not handle.session.tasks.wait(handle, timeout_s):
            raise self._timeout_error(timeout_s)
        return handle

    def _timeout_error(self, timeout_s: float | None) -> TimedOutError:
        return TimedOutError(
            f"task {self.id} has no result after {timeout_s or 0.0:.3g} s",
            hint="the task goes on: wait again, or cancel it",
            task=self.id,
        )


def step_s(deadline: float | None) -> float:
    """Return the seconds until the progress text is updated, at most until the deadline."""
    left = left_s(deadline)
    return SHOW_EVERY_S if left is None else min(SHOW_EVERY_S, left)


def left_s(deadline: float | None) -> float | None:
    """Return the seconds until a deadline, at least 0; None: no deadline."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


BindingTasks = dict[TaskHandle, list[Task]]  # the bindings of one task end together


def as_completed(
    tasks: Iterable[Task], timeout_s: float | None = None, progress: bool | str = False
) -> Iterator[Task]:
    """Iterate over tasks as they end, in any state. Raises TimedOutError after `timeout_s` seconds.

    Posted tasks that were refused come first. The tasks must belong to one client. `progress`: one
    line on stderr, if that is a terminal or a notebook's stream; it is removed whenever a task is
    yielded, and a last line stays at the end. "rich": a bar of rich.
    """
    deadline = deadline_of(timeout_s)
    waiting: BindingTasks = {}
    refused: list[Task] = []
    links: set[int] = set()
    for task in tasks:
        links.add(id(task.session))
        handle = task.settled(left_s(deadline))
        if handle is None:
            refused.append(task)
        else:
            waiting.setdefault(handle, []).append(task)
    if len(links) > 1:
        hint = "call it once for each client"
        raise OptionError(f"as_completed got tasks of {len(links)} clients", hint=hint)
    line = progress_line(progress, sys.stderr if progress else None)
    return chain(refused, _in_completion_order(waiting, timeout_s, deadline, line))


def _in_completion_order(
    waiting: BindingTasks, timeout_s: float | None, deadline: float | None, line: ProgressLine
) -> Iterator[Task]:
    if not waiting:
        return
    begun = time.monotonic()
    total = sum(map(len, waiting.values()))
    ended = 0
    session = next(iter(waiting)).session
    ended_tasks = session.tasks.gather(waiting)
    progress = line.visible

    infos: list[TaskInfo] | None = None  # of some tasks that have not ended; None: not asked yet
    rate = GroupRate(total)

    def show() -> None:
        common = rate.progress(infos, ended + len(ended_tasks.ended))
        own = describe(infos[:1], infos[0].id) if infos else ""
        line.show(f"{common} | {own}" if own else str(common), common)

    with line:
        while waiting:
            if ended_tasks.ended:
                line.clear()  # the caller may print
                handle = ended_tasks.ended.popleft()
                ended_now = waiting.pop(handle)
                infos = infos and [info for info in infos if info.id != handle.id]
                resubmitted = [task for task in ended_now if not task.done()]  # submitted again
                if resubmitted:
                    ended_now = [task for task in ended_now if task not in resubmitted]
                    waiting.update((task.handle, [task]) for task in resubmitted)
                    session.tasks.gather([task.handle for task in resubmitted], ended_tasks)
                ended += len(ended_now)
                yield from ended_now
                continue
            if progress:
                show()
            step = step_s(deadline) if progress or deadline is not None else None
            if session.tasks.wait_any(waiting, ended_tasks, step):
                continue
            if deadline is not None and time.monotonic() >= deadline:
                message = f"{total - ended} of {total} tasks have no result after {timeout_s:g} s"
                raise TimedOutError(message, hint="the tasks go on: wait again, or cancel them")
            if progress:
                watched = [each.number for each in islice(waiting, MAX_LOOKED_AT)]
                infos = session.task_infos(watched)
        if progress:
            line.finish(f"{total} of {total} tasks ended in {time.monotonic() - begun:.1f} s")


ROW_DIGITS = 4  # digits of MAX_BINDINGS


def number_of(task: Task | str | int) -> int:
    """Return the number of a task. Raises NotFoundError for a text that is no task id."""
    if isinstance(task, Task):
        return task.handle.number
    number = task if isinstance(task, int) else task_number(task.partition(".")[0])
    if number is None or not 0 <= number <= MAX_TASK_NUMBER:
        raise NotFoundError(f"{str(task)[:80]!r} is not a task's id", hint="ids look like t-8k2f")
    return number


def numbers_of(tasks: Task | str | int | Iterable[Task | str | int]) -> list[int]:
    """Return the numbers of one task or several. Raises NotFoundError."""
    return [number_of(each) for each in ([tasks] if isinstance(tasks, Task | str | int) else tasks)]


def row_of(task: str | int) -> int | None:
    """Return the binding that an id such as `t-8k2f.17` names; None: the whole task. Raises
    NotFoundError."""
    row = str(task).partition(".")[2]
    if not row:
        return None
    if not row.isdecimal() or len(row) > ROW_DIGITS:
        hint = "ids look like t-8k2f.17"
        raise NotFoundError(f"{str(task)[:80]!r} is not a task's id", hint=hint)
    return int(row)


def distinct_warnings(tasks: Iterable[Task]) -> list[str]:
    """Return the warnings of DONE tasks about requested noise, each text once. Bindings of one
    submission have the same."""
    submissions = {task.handle.number: task for task in tasks}
    texts = (text for task in submissions.values() for text in task.result().warnings)
    return list(dict.fromkeys(texts))


_INNER = ("simenv", "qiskit", "pennylane")  # packages between this module and the caller's code


def _emit_warnings(handle: TaskHandle, result: Result) -> None:
    """Emit the warnings of a task's result as SimenvWarning, once for each task, at the line of the
    caller's code."""
    if handle.has_warned or not result.warnings:
        return
    handle.has_warned = True
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _INNER:
        level, frame = level + 1, frame.f_back
    for text in dict.fromkeys(result.warnings):
        warnings.warn(text, SimenvWarning, stacklevel=level)


class TaskExecutor(Executor):
    """Executor that holds weak references to its tasks. Thread-safe."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session
        self._closed = False
        self._tasks: weakref.WeakSet[Task] = weakref.WeakSet()
        self._lock = threading.Lock()  # guards `_tasks`

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more work. `wait`: wait until all tasks that are still referenced have ended;
        `cancel_futures`: cancel them first. Tasks go on in the environment otherwise."""
        self._closed = True
        tasks = self._unfinished()
        if cancel_futures and tasks:
            self._cancel(tasks)
        if wait:
            for task in tasks:
                task.wait()

    def _cancel(self, tasks: Sequence[Task]) -> None:
        """Cancel tasks, in one message."""
        self._session.cancel([task.handle.number for task in tasks])

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _remember(self, tasks: Iterable[Task]) -> None:
        with self._lock:
            self._tasks.update(tasks)

    def _unfinished(self) -> list[Task]:
        with self._lock:
            return [task for task in self._tasks if not task.done()]

    def _in_order(self, tasks: list[Any], deadline: float | None) -> Iterator[Any]:
        """Iterate over the results of the tasks; each task is dropped after its result. Tasks that
        are left when the iteration ends early are cancelled. Raises TimedOutError at the deadline,
        and the error of a task."""
        try:
            while tasks:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                yield tasks[0].result(left_s)
                del tasks[0]
        finally:
            if tasks:
                self._cancel(tasks)


def deadline_of(timeout_s: float | None) -> float | None:
    """Return the deadline in `time.monotonic`; None: no deadline. Raises OptionError."""
    timeout_s = checked_timeout(timeout_s)
    return None if timeout_s is None else time.monotonic() + timeout_s
