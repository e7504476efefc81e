"""Requests of a client and their answers.

Invariant: every request may be repeated, so a lost answer, a restarted service and a forked child
are all handled by repeating requests. Memory is bounded by the unanswered ones.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec

from simenv.client.connection import task_handle
from simenv.client.connection.channel import ServiceChannel
from simenv.client.connection.task_handle import PendingRequest
from simenv.errors import NoServiceError, ProtocolError, ShuttingDownError, TimedOutError
from simenv.model.task_rules import checked_timeout
from simenv.wire import codec
from simenv.wire.messages import base, client as m
from simenv.wire.messages.base import A, ClientRequest, answer_of


class OpenRequests:
    """Requests whose answers nobody has taken. Guarded by the lock of the channel, which calls
    `answered` and `refused` with its lock held."""

    def __init__(self, channel: ServiceChannel) -> None:
        self.channel = channel
        self.reset()

    def reset(self) -> None:
        """Initialize the state; also called in a forked child."""
        self._numbers = 0
        self._open: dict[int, PendingRequest] = {}
        self.refused_late: set[int] = set()  # numbers of requests that nobody waits for

    def request(self, message: ClientRequest[A], timeout_s: float | None = None) -> A:
        """Send a message, whose number is set here, and return the answer. Raises the error of a
        refusal, OptionError."""
        timeout_s = checked_timeout(timeout_s)
        self.channel.enter()
        with self.channel.lock:
            request = self.begin(message)
        return self.finish(answer_of(type(message)), request, timeout_s)

    def begin(
        self, message: ClientRequest[A], answered: Callable[[], None] | None = None
    ) -> PendingRequest:
        """Send a message, for `finish`. The caller holds the lock. `answered` is called by the
        thread that receives the answer."""
        request = self.add(PendingRequest(self.next_number()))
        request.answered = answered
        try:
            numbered = msgspec.structs.replace(message, request=request.number)
            request.body = self.channel.send(numbered)
        except BaseException:
            self.forget(request)
            raise
        return request

    def finish(self, kind: type[A], request: PendingRequest, timeout_s: float | None = None) -> A:
        """Wait for the answer to a request and return it."""
        try:
            if request.answer is None:
                self.wait(request, timeout_s)
        finally:
            self.forget(request)
        answer = request.answer
        if isinstance(answer, kind):
            return answer
        if isinstance(answer, m.Refused):
            raise codec.error_of(answer.refusals)
        raise ProtocolError(f"the service answered {type(answer).__name__}, not {kind.__name__}")

    def forget(self, request: PendingRequest) -> None:
        """Wait no more for the answer to a request. Idempotent."""
        self.remove(request)
        if request.answer is None:
            self.channel.unsend(request.body)

    def next_number(self) -> int:
        """Return the number of a new request. The caller holds the lock."""
        self._numbers += 1
        return self._numbers

    def add(self, request: PendingRequest) -> PendingRequest:
        """Expect the answer to a request. The caller holds the lock."""
        self._open[request.number] = request
        return request

    def remove(self, request: PendingRequest) -> bool:
        """Expect the answer no more; return whether it was expected."""
        return self._open.pop(request.number, None) is not None

    def get(self, number: int) -> PendingRequest | None:
        """Return an open request."""
        return self._open.get(number)

    def wait(self, request: PendingRequest, timeout_s: float | None) -> None:
        """Wait for the answer to a request, and repeat it meanwhile. Raises TimedOutError, and the
        refusal of a service that ends if none came after it."""

        def repeat(now: float) -> None:
            # One that a service that ends has refused is for the next service: `renew` sends it.
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

    def answered(self, message: base.Reply) -> None:
        """Record an answer."""
        request = self._open.get(message.request)
        if request is not None and request.answer is None:
            request.answer = message
            if request.answered is not None:
                request.answered()

    def refused(self, message: m.Refused) -> None:
        """Record a refusal. Raises one that belongs to no request."""
        error = codec.error_of(message.refusals)
        if not message.request:
            self.channel.refused(error)
        request = self._open.get(message.request)
        if request is None:
            self.refused_late.add(message.request)
        if (
            request is not None
            and isinstance(error, ShuttingDownError)
            and self.channel.liveness.awaits_restart
        ):
            request.put_off = error  # the service ends: `renew` asks the next one
        else:
            self.answered(message)

    def renew(self) -> None:
        """Repeat all open requests after a restart of the service or a reconnect."""
        for request in self._open.values():
            if request.answer is None:
                request.put_off = None
                self.channel.resend(request.body)
