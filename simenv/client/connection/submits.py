"""Submits of a client. Invariant: a repeated Submit has the same idempotency key, so that the
service accepts it once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from time import perf_counter

import msgspec

from simenv.client.connection import tracing
from simenv.client.connection.requests import OpenRequests
from simenv.client.connection.subscriptions import TaskSubscriptions
from simenv.client.connection.task_handle import PendingRequest, Submission, TaskHandle, TaskSource
from simenv.errors import ProtocolError, SimenvError, TimedOutError, unanswered
from simenv.model import TaskOptions, TaskSpec
from simenv.wire import codec
from simenv.wire.messages import client as m
from simenv.wire.messages.history import Spent


class Submits:
    """Submits of one session and their answers. Thread-safe. The channel calls `accepted` with its
    lock held."""

    def __init__(
        self, session: TaskSource, requests: OpenRequests, tasks: TaskSubscriptions
    ) -> None:
        self._session, self._requests, self._tasks = session, requests, tasks
        self._channel = requests.channel
        self.reset()

    def reset(self) -> None:
        """Initialize the state; also called in a forked child."""
        self._withdrawn: set[int] = set()  # numbers of Submits whose tasks nobody wants any more
        self._cancelled: list[int] = []  # tasks of such Submits that were accepted all the same
        self._next_offset = 0

    def send(
        self,
        key: str | None,
        offset: int,
        terms: TaskOptions,
        specs: list[TaskSpec],
        submission: Submission,
        *,
        awaits_result: bool = False,
    ) -> PendingRequest:
        """Send one Submit; `await_acceptance` waits for its answer. Without a `key`: the random
        name of this client, with its next offsets. `awaits_result`: the answer may come with the
        result of the task."""
        channel, requests = self._channel, self._requests
        channel.enter()
        if terms.trace or tracing.API in sys.modules:
            terms, submission.span = tracing.begin(terms, len(specs))
        with channel.lock:
            request = requests.add(PendingRequest(requests.next_number()))
            request.submission, request.key, request.count = submission, key, len(specs)
            if key is None:
                key, offset = channel.client, self._next_offset
                self._next_offset += len(specs)
            self._tasks.pending.unanswered += 1
            try:
                spent = self._session.timings.take()
                submit = m.Submit(
                    request.number, key, offset, terms, specs, spent, awaits_result, True
                )
                request.body = channel.send(submit)
            except SimenvError:
                self.abandon(request)
                raise
        return request

    def await_acceptance(
        self, request: PendingRequest, timeout_s: float | None = None
    ) -> Sequence[TaskHandle] | list[m.Refusal]:
        """Wait for the answer to a Submit; return its handles, or its refusals. Raises
        TimedOutError after `timeout_s`; the Submit stays pending then. A Submit from before a fork,
        or given up when the service was lost, is sent again. Raises the error of a lost or refused
        connection with `maybe_accepted`."""
        begun = perf_counter()
        try:
            if request.answer is None:
                self._resume(request)
                self._requests.wait(request, timeout_s)
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
            self._session.timings.accepted_s += perf_counter() - begun
        self.abandon(request)
        answer = request.answer
        if type(answer) is m.Accepted and answer.count == request.count:
            return request.handles
        if isinstance(answer, m.Refused):
            return answer.refusals
        raise ProtocolError(f"the service answered {type(answer).__name__} to a submit")

    def poll(self, request: PendingRequest) -> None:
        """Handle messages that have arrived, perhaps the answer to a Submit; never waits."""
        self._resume(request)
        self._channel.poll()

    def _resume(self, request: PendingRequest) -> None:
        """Send a Submit again if its request is no longer pending."""
        requests = self._requests
        if request.answer is not None or requests.get(request.number) is request:
            return
        self._channel.enter()
        with self._channel.lock:
            submit = codec.from_client(request.body)
            assert isinstance(submit, m.Submit)
            number = requests.next_number()
            submit = msgspec.structs.replace(submit, request=number, spent=Spent())
            # Before it is sent: `wait` sends this body again, if sending fails here.
            request.number, request.body = number, codec.encode(submit)
            requests.add(request)
            self._tasks.pending.unanswered += 1
            try:
                self._channel.resend(request.body)
            except BaseException:
                self.abandon(request)  # the next call resumes it
                raise

    def abandon(self, request: PendingRequest) -> None:
        """Stop waiting for the answer to a Submit. Idempotent."""
        if self._requests.get(request.number) is not request:
            return
        with self._channel.lock:
            if self._requests.remove(request):
                self._tasks.pending.refused()
            if request.answer is None:
                self._channel.unsend(request.body)
        if request.submission is not None and request.submission.span is not None:
            refusals = request.answer.refusals if isinstance(request.answer, m.Refused) else []
            tracing.refused(request.submission, refusals[0].code if refusals else "unanswered")

    def withdraw(self, requests: Iterable[PendingRequest]) -> None:
        """Stop waiting for the answers to Submits, and cancel their tasks should they be accepted
        later; never waits."""
        for request in requests:
            was_sent = request.answer is None and not self._channel.unsend(request.body)
            self.abandon(request)
            if was_sent:
                with self._channel.lock:
                    self._withdrawn.add(request.number)
            if request.handles:
                numbers = [handle.number for handle in request.handles]
                self._cancelled += numbers
                with suppress(SimenvError):
                    self._session.cancel_unwanted(numbers)

    def await_withdrawn(self, timeout_s: float) -> tuple[list[int], bool]:
        """Wait, before this process ends, until the service has answered Submits that were
        withdrawn; those that it accepts are cancelled. Returns the tasks that were, and whether all
        are answered; False also after `timeout_s` and for a service that is lost."""
        is_over = False
        with suppress(SimenvError):
            is_over = self._channel.wait(
                lambda: self._withdrawn <= self._requests.refused_late, timeout_s
            )
        return list(self._cancelled), is_over

    def accepted(self, message: m.Accepted) -> None:
        """Record the acceptance of a Submit, perhaps with the result of its task."""
        self._submitted(message)
        if message.completed is not None:
            self._tasks.completed(message.completed)

    def _submitted(self, message: m.Accepted) -> None:
        request = self._requests.get(message.request)
        if request is None or request.submission is None:  # a second answer, or it was abandoned
            if message.request in self._withdrawn:
                numbers = range(message.first, message.first + message.count)
                self._withdrawn.discard(message.request)
                self._cancelled += numbers
                self._session.cancel_unwanted(numbers)
            return
        request.answer = message
        if message.count != request.count:
            return
        self._requests.remove(request)
        submission = request.submission
        submission.accepted_s = perf_counter() - submission.sent_s
        request.handles = self._tasks.pending.accepted(self._session, message, submission)
        if submission.span is not None:
            tracing.accepted(request.handles, submission)
        if message.repeated:
            request.repeated = True
            self._tasks.watch([e.number for e in request.handles if not e.over], missed=False)


def unanswered_submit(error: SimenvError, key: str | None) -> SimenvError:
    """Return the error of a submission without an answer; `key`: its idempotency key."""
    remedy = (
        "see `simenv history` before you repeat it; one with an idempotency_key= can be repeated"
    )
    if key is not None:
        remedy = f"repeat it with the same idempotency_key={key!r}, which gives the same tasks"
    return unanswered(error, "the submission may have been accepted", remedy)
