"""Session of a client: requests, answers, awaits and callbacks.

One thread serves all awaits and callbacks of a client; it starts at the first one. While coroutines
or callbacks wait, it waits on the channel like any other thread, wakes the event loops and calls
the callbacks. Otherwise it sleeps.

Requests and their answers, tasks and their ends share one channel. Invariant: every request may be
repeated (a repeated Submit has the same idempotency key), so a lost answer, a restarted service and
a forked child are all handled by repeating requests. Memory is bounded by the unanswered requests
and the tasks that have not ended.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, NoReturn

import msgspec

from simenv.client.connection import task_handle, tracing
from simenv.client.connection.address import Address
from simenv.client.connection.channel import LOST_S, Handler, ServiceChannel
from simenv.client.connection.loop_reader import LoopReader
from simenv.errors import (
    NoServiceError,
    OptionError,
    ProtocolError,
    ShuttingDownError,
    SimenvError,
    TimedOutError,
    unanswered,
)
from simenv.model import TaskInfo, TaskOptions, TaskSpec
from simenv.model.task_rules import checked_timeout
from simenv.wire import codec
from simenv.wire.messages import client as m, queries
from simenv.wire.messages.queries import A, ClientRequest, answer_of

if TYPE_CHECKING:
    import asyncio

if TYPE_CHECKING:
    Waiter = asyncio.Future[None] | Callable[[], object]


class AsyncioBridge:
    """Futures and callbacks of tasks, guarded by the session's lock."""

    def __init__(self, session: ServiceSession) -> None:
        self._session = session
        self.reset()

    def reset(self) -> None:
        """Initialize the state; also called in a forked child, where the thread does not exist."""
        self._thread: threading.Thread | None = None
        self._waiting: dict[Waiter, task_handle.TaskHandle] = {}
        self._callbacks: deque[Callable[[], object]] = deque()  # of tasks that have ended
        self._requested_s = 0.0  # monotonic time of the last request or end of an awaited task

    def future(self, handle: task_handle.TaskHandle) -> asyncio.Future[None]:
        """Return a future of the running loop for the end; it fails if the service is lost."""
        import asyncio

        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(self._drop)  # also when the awaiting coroutine is cancelled
        self._add(future, handle)
        return future

    def call(self, handle: task_handle.TaskHandle, callback: Callable[[], object]) -> None:
        """Call `callback` once, from this thread, when the task ends or its service is lost."""
        self._add(partial(callback), handle)  # `partial` makes a unique key

    def _add(self, waiter: Waiter, handle: task_handle.TaskHandle) -> None:
        self._session.subscribe([handle])
        with self._session.channel.lock:
            self._requested_s = monotonic()
            self._waiting[waiter] = handle
            handle.on_end(partial(self._wake, waiter, None))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="simenv-await", daemon=True)
                self._thread.start()
            self._session.channel.notify()

    def join(self) -> None:
        """Wait for the end of the thread. Precondition: the channel was closed."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        channel = self._session.channel
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
            self._session.watch([handle.number for handle in self._waiting.values()])

    def _wake(self, waiter: Waiter, error: SimenvError | None) -> None:
        if self._waiting.pop(waiter, None) is None:
            return
        self._requested_s = monotonic()
        if callable(waiter):
            self._callbacks.append(waiter)
            self._session.channel.notify()
            return
        try:
            waiter.get_loop().call_soon_threadsafe(_resolve, waiter, error)
        except RuntimeError:
            return  # the loop was closed: no coroutine awaits the task any more

    def _drop(self, future: asyncio.Future[None]) -> None:
        with self._session.channel.lock:
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


PEEK_S = 0.5


class ServiceSession:
    """Session of one Client with its service. Thread-safe. The channel calls the handlers of
    messages with its lock held."""

    def __init__(
        self, address: Address, timeout_s: float = LOST_S, *, as_client: bool = False
    ) -> None:
        self.results_of_gateway: Path | None = None  # see `readable_results`
        self.as_client = as_client
        self.bridge = AsyncioBridge(self)
        self.loop_reader = LoopReader(self)
        self._reset()
        handlers: dict[type, Handler] = dict.fromkeys(queries.kinds(queries.Reply), self._answer)
        handlers |= {
            m.Completed: self._completed,
            m.Accepted: self._accepted,
            m.Refused: self._refused,
            m.UnknownTasks: self._unknown,
        }
        self.channel = ServiceChannel(
            address,
            handlers,
            self._renew,
            self._reset,
            self.loop_reader.no_thread_reads,
            as_client=as_client,
        )
        self.channel.start(timeout_s)

    def _reset(self) -> None:
        """Initialize the state, at the start and in a forked child."""
        self._requests: dict[int, task_handle.PendingRequest] = {}
        self._withdrawn: set[int] = set()  # numbers of Submits whose tasks nobody wants any more
        self._numbers = 0
        self.timings = task_handle.ClientTimings()
        self._next_offset = 0
        self._pending = task_handle.PendingTasks()
        self._watches = task_handle.WatchQueue(self._pending, self._send_watch)
        self.bridge.reset()
        self.loop_reader.reset()

    def close(self) -> None:
        self.channel.close()
        self.loop_reader.close()
        self.bridge.join()

    def __reduce__(self) -> NoReturn:
        """Raise OptionError: a connection belongs to its process, and so does a client."""
        hint = "simenv.connect() in the other process; results and ids of tasks can be pickled"
        raise OptionError("the connection of a client cannot be pickled", hint=hint)

    def request(self, message: ClientRequest[A], timeout_s: float | None = None) -> A:
        """Send a message, whose number is set here, and return the answer. Raises the error of a
        refusal, OptionError."""
        timeout_s = checked_timeout(timeout_s)
        self.channel.enter()
        with self.channel.lock:
            request = self.begin(message)
        return self.finish(answer_of(type(message)), request, timeout_s)

    def begin(
        self,
        message: ClientRequest[A],
        answered: Callable[[], None] | None = None,
    ) -> task_handle.PendingRequest:
        """Send a message, for `finish`. The caller holds the lock. `answered` is called by the
        thread that receives the answer."""
        request = self._new()
        request.answered = answered
        try:
            numbered = msgspec.structs.replace(message, request=request.number)
            request.body = self.channel.send(numbered)
        except BaseException:
            self.forget(request)
            raise
        return request

    def finish(
        self, kind: type[A], request: task_handle.PendingRequest, timeout_s: float | None = None
    ) -> A:
        """Wait for the answer to a request and return it."""
        try:
            if request.answer is None:
                self._wait(request, timeout_s)
        finally:
            self.forget(request)
        answer = request.answer
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, m.Refused):
            raise codec.error_of(answer.refusals)
        raise ProtocolError(f"the service answered {type(answer).__name__}, not {kind.__name__}")

    def forget(self, request: task_handle.PendingRequest) -> None:
        """Wait no more for the answer to a request. Idempotent."""
        self._requests.pop(request.number, None)
        if request.answer is None:
            self.channel.unsend(request.body)

    def task_infos(
        self, task_numbers: Sequence[int], timeout_s: float | None = None
    ) -> list[TaskInfo]:
        """Return the service's information on these tasks; unknown tasks are left out."""
        results: list[TaskInfo] = []
        for part in _parts(task_numbers):
            results += self.request(m.GetTasks(0, tasks=part), timeout_s).tasks
        return results

    def try_task_infos(self, number: int) -> list[TaskInfo]:
        """Like `task_infos` for displays: short timeout, and [] if the service does not answer."""
        try:
            return self.task_infos([number], PEEK_S)
        except SimenvError:
            return []

    @property
    def results_folder(self) -> Path | None:
        """The service's results folder; None: not visible from this process."""
        return self.channel.results

    @property
    def readable_results(self) -> Path | None:
        """The results folder, also for a gateway that acts for a user of another host."""
        return self.channel.results or self.results_of_gateway

    def count_result(self, late_s: float) -> None:
        """Record that a result was read `late_s` seconds after it was ready."""
        self.timings.late_s += late_s
        self.timings.results += 1

    def cancel(self, task_numbers: Sequence[int]) -> list[str]:
        """Cancel tasks; return one word for each, see `Cancelled`."""
        outcomes: list[str] = []
        for part in _parts(task_numbers):
            outcomes += self.request(m.Cancel(0, tasks=part)).words
        return outcomes

    def _new(self) -> task_handle.PendingRequest:
        self._numbers += 1
        request = task_handle.PendingRequest(self._numbers)
        self._requests[request.number] = request
        return request

    def _wait(self, request: task_handle.PendingRequest, timeout_s: float | None) -> None:
        def repeat(now: float) -> None:
            # One that a service that ends has refused is for the next service: `_renew` sends it.
            if request.put_off is None and now - request.requested_s >= task_handle.REPEAT_S:
                request.requested_s = now
                self.channel.resend(request.body)

        request.requested_s = monotonic()
        try:
            is_answered = self.channel.wait(request.is_answered, timeout_s, repeat)
        except NoServiceError as error:
            if request.put_off is None:
                raise
            raise request.put_off from error
        if not is_answered:
            raise TimedOutError(f"no answer from the service within {timeout_s:g} s")

    def send_submit(
        self,
        key: str | None,
        offset: int,
        terms: TaskOptions,
        specs: list[TaskSpec],
        submission: task_handle.Submission,
        *,
        awaits_result: bool = False,
    ) -> task_handle.PendingRequest:
        """Send one Submit; `await_acceptance` waits for its answer. Without a `key`: the random
        name of this client, with its next offsets. `awaits_result`: the answer may come with the
        result of the task."""
        channel = self.channel
        channel.enter()
        if terms.trace or tracing.API in sys.modules:
            terms, submission.span = tracing.begin(terms, len(specs))
        with channel.lock:
            request = self._new()
            request.submission, request.key, request.count = submission, key, len(specs)
            if key is None:
                key, offset = channel.client, self._next_offset
                self._next_offset += len(specs)
            self._pending.unanswered += 1
            try:
                spent = self.timings.take()
                submit = m.Submit(
                    request.number, key, offset, terms, specs, spent, awaits_result, True
                )
                request.body = channel.send(submit)
            except SimenvError:
                self.abandon(request)
                raise
        return request

    def await_acceptance(
        self, request: task_handle.PendingRequest, timeout_s: float | None = None
    ) -> Sequence[task_handle.TaskHandle] | list[m.Refusal]:
        """Wait for the answer to a Submit; return its handles, or its refusals. Raises
        TimedOutError after `timeout_s`; the Submit stays pending then. A Submit from before a fork,
        or given up when the service was lost, is sent again. Raises the error of a lost or refused
        connection with `maybe_accepted`."""
        begun = perf_counter()
        try:
            if request.answer is None:
                self._resume(request)
                self._wait(request, timeout_s)
        except TimedOutError:
            raise  # the request stays pending
        except SimenvError as error:
            self.abandon(request)
            if error is request.put_off:  # certainly not accepted
                raise
            raise unanswered_submit(error, request.key) from error
        except BaseException:  # also an interrupt: nobody will read the answer
            self.abandon(request)
            raise
        finally:
            self.timings.accepted_s += perf_counter() - begun
        if request.number in self._requests:
            self.abandon(request)
        answer = request.answer
        if type(answer) is m.Accepted and answer.count == request.count:
            return request.handles
        if isinstance(answer, m.Refused):
            return answer.refusals
        raise ProtocolError(f"the service answered {type(answer).__name__} to a submit")

    def poll_submit(self, request: task_handle.PendingRequest) -> None:
        """Handle messages that have arrived, perhaps the answer to a Submit; never waits."""
        self._resume(request)
        self.channel.poll()

    def _resume(self, request: task_handle.PendingRequest) -> None:
        """Send a Submit again if its request is no longer pending. Its idempotency key is the same,
        so that the service does not accept it twice."""
        if request.answer is not None or self._requests.get(request.number) is request:
            return
        self.channel.enter()
        with self.channel.lock:
            submit = codec.from_client(request.body)
            assert isinstance(submit, m.Submit)
            self._numbers += 1
            submit = msgspec.structs.replace(submit, request=self._numbers, spent=queries.Spent())
            # Before it is sent: `_wait` sends this body again, if sending fails here.
            request.number, request.body = submit.request, codec.encode(submit)
            self._requests[request.number] = request
            self._pending.unanswered += 1
            try:
                self.channel.resend(request.body)
            except BaseException:
                self.abandon(request)  # the next call resumes it
                raise

    def abandon(self, request: task_handle.PendingRequest) -> None:
        """Stop waiting for the answer to a Submit. Idempotent."""
        if self._requests.get(request.number) is not request:
            return
        with self.channel.lock:
            if self._requests.pop(request.number, None) is not None:
                self._pending.refused()
            if request.answer is None:
                self.channel.unsend(request.body)
        if request.submission is not None and request.submission.span is not None:
            refusals = request.answer.refusals if isinstance(request.answer, m.Refused) else []
            tracing.refused(request.submission, refusals[0].code if refusals else "unanswered")

    def withdraw(self, requests: Iterable[task_handle.PendingRequest]) -> None:
        """Stop waiting for the answers to Submits, and cancel their tasks should they be accepted
        later; never waits."""
        for request in requests:
            self.abandon(request)
            with self.channel.lock:
                self._withdrawn.add(request.number)
            if request.handles:
                with suppress(SimenvError):
                    self.cancel_unwanted([handle.number for handle in request.handles])

    def cancel_unwanted(self, task_numbers: Sequence[int]) -> None:
        """Cancel tasks that nobody waits for; never waits."""
        with self.channel.lock:
            for part in _parts(task_numbers):
                self.channel.send(m.Cancel(0, part))

    def wait_ended(self, handle: task_handle.TaskHandle, timeout_s: float | None) -> bool:
        """Wait for the end of one task; False after `timeout_s`."""
        if self.channel.is_forked or self._pending.tasks.get(handle.number) is not handle:
            self.subscribe([handle])
        return self.channel.wait(handle.has_ended, timeout_s, partial(self._repeat_request, handle))

    def future(self, handle: task_handle.TaskHandle) -> asyncio.Future[None]:
        """Return a future of the running loop that is done when the task has ended."""
        return self.bridge.future(handle)

    def call(self, handle: task_handle.TaskHandle, callback: Callable[[], object]) -> None:
        """Call `callback` once, from a client's thread, at the end or if the service is lost."""
        self.bridge.call(handle, callback)

    def poll(self, handle: task_handle.TaskHandle) -> None:
        """Handle messages that have arrived; never waits."""
        self.subscribe([handle])
        self.channel.poll()

    def gather(
        self,
        handles: Collection[task_handle.TaskHandle],
        ended_tasks: task_handle.EndedTasks | None = None,
    ) -> task_handle.EndedTasks:
        """Record each of these tasks when it ends. `ended_tasks`: an existing record to extend."""
        self.subscribe(handles)
        if ended_tasks is None:
            ended_tasks = task_handle.EndedTasks(deque(), monotonic())
        with self.channel.lock:
            for handle in handles:
                handle.on_end(partial(ended_tasks.ended.append, handle))
        return ended_tasks

    def wait_any(
        self,
        waiting: Iterable[task_handle.TaskHandle],
        ended_tasks: task_handle.EndedTasks,
        timeout_s: float | None,
    ) -> bool:
        """Wait until a task has ended; False after `timeout_s`. `waiting`: the unfinished tasks."""

        def repeat(now: float) -> None:
            if now - ended_tasks.requested_s >= task_handle.REPEAT_S:
                ended_tasks.requested_s = now
                self._watches.add([handle.number for handle in waiting], missed=True)

        self.channel.enter()
        result = self.channel.wait(lambda: bool(ended_tasks.ended), timeout_s, repeat)
        if result:
            ended_tasks.requested_s = monotonic()
        return result

    def subscribe(self, handles: Iterable[task_handle.TaskHandle]) -> None:
        """Register handles for the ends of their tasks, which any client may have submitted."""
        self.channel.enter()
        with self.channel.lock:
            unanswered = [e.number for e in handles if not e.over and self._pending.expect(e)]
            if unanswered:
                self._watches.add(unanswered)

    def handle_for(self, number: int, submission: task_handle.Submission) -> task_handle.TaskHandle:
        """Return the present handle of a task, or a new one."""
        self.channel.enter()
        with self.channel.lock:
            return self._pending.tasks.get(number) or task_handle.TaskHandle(
                self, number, submission
            )

    def watch(self, task_numbers: Sequence[int]) -> None:
        """Request the overdue results of these tasks. The caller holds the lock."""
        self._watches.add(task_numbers, missed=True)

    def _repeat_request(self, handle: task_handle.TaskHandle, now: float) -> None:
        if not handle.requested_s:
            handle.requested_s = now
        elif now - handle.requested_s >= task_handle.REPEAT_S:
            handle.requested_s = now
            self._watches.add([handle.number], missed=True)

    def _send_watch(self, task_numbers: list[int]) -> None:
        self.channel.send(m.WatchResults(0, task_numbers))

    def _completed(self, message: m.Completed) -> None:
        self._pending.completed(message, perf_counter())

    def _accepted(self, message: m.Accepted) -> None:
        self._submitted(message)
        if message.completed is not None:
            self._completed(message.completed)

    def _submitted(self, message: m.Accepted) -> None:
        request = self._requests.get(message.request)
        if request is None or request.submission is None:  # a second answer, or it was abandoned
            if message.request in self._withdrawn:
                self.cancel_unwanted(range(message.first, message.first + message.count))
            return
        request.answer = message
        if message.count != request.count:
            return
        del self._requests[message.request]
        submission = request.submission
        submission.accepted_s = perf_counter() - submission.sent_s
        request.handles = self._pending.accepted(self, message, submission)
        if submission.span is not None:
            tracing.accepted(request.handles, submission)
        if message.repeated:
            request.repeated = True
            self._watches.add([e.number for e in request.handles if not e.over])

    def _refused(self, message: m.Refused) -> None:
        if not message.request:
            self.channel.refused(codec.error_of(message.refusals))
        request, error = self._requests.get(message.request), codec.error_of(message.refusals)
        if (
            request is not None
            and isinstance(error, ShuttingDownError)
            and self.channel.awaits_restart
        ):
            request.put_off = error  # the service ends: `_renew` asks the next one
        else:
            self._answer(message)

    def _unknown(self, message: m.UnknownTasks) -> None:
        self._pending.unknown(message.tasks, message.gone)
        self._watches.answered()

    def _answer(self, message: queries.Reply) -> None:
        request = self._requests.get(message.request)
        if request is not None and request.answer is None:
            request.answer = message
            if request.answered is not None:
                request.answered()

    def _renew(self) -> None:
        """Repeat all open requests after a restart of the service or a reconnect."""
        for request in self._requests.values():
            if request.answer is None:
                request.put_off = None
                self.channel.resend(request.body)
        self._watches.restart()


def unanswered_submit(error: SimenvError, key: str | None) -> SimenvError:
    """Return the error of a submission without an answer; `key`: its idempotency key."""
    remedy = (
        "see `simenv history` before you repeat it; one with an idempotency_key= can be repeated"
    )
    if key is not None:
        remedy = f"repeat it with the same idempotency_key={key!r}, which gives the same tasks"
    return unanswered(error, "the submission may have been accepted", remedy)


def _parts(task_numbers: Sequence[int]) -> Iterable[list[int]]:
    for start in range(0, len(task_numbers), m.MAX_QUESTION_TASKS):
        yield list(task_numbers[start : start + m.MAX_QUESTION_TASKS])
