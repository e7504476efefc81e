"""An order to the service: in messages of a fair size, accepted or refused as a whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate
from time import perf_counter

import msgspec

from simenv.client import refusals
from simenv.client.entry import Entry, Submission
from simenv.client.link import Link
from simenv.client.posting import PostedTask, Window
from simenv.client.requests import Request
from simenv.client.task import Task
from simenv.errors import SimenvError
from simenv.model import TaskSpec, Terms
from simenv.wire.messages import CLIENT_MESSAGE_BYTES, CLIENT_MESSAGE_TASKS, Refusal

UNANSWERED = 8  # messages on their way at once
SPEC_BYTES = 32  # of a TaskSpec beside its program and bindings


class Order(msgspec.Struct, frozen=True):
    """What one call asks for."""

    terms: Terms
    specs: list[TaskSpec]
    single: bool = False  # an error is about the call, not about one of several items


def post(link: Link, order: Order, key: str | None, window: Window) -> PostedTask:
    """The one task of an order, on its way; see `PostedTask`."""
    submission = Submission(order.terms.name, perf_counter())
    task = PostedTask(link, link.offer(key, 0, order.terms, order.specs, submission))
    window.add(task)
    return task


def send(link: Link, order: Order, key: str | None) -> list[Task]:
    """The accepted tasks, in order. On a refusal nothing new stays: it is cancelled again."""
    if not order.specs:
        return []
    window: deque[tuple[int, Request]] = deque()
    received = Received([], [], [])
    start = 0
    try:
        for part in chunks(order.specs):
            submission = Submission(order.terms.name, perf_counter())
            request = link.offer(key, start, order.terms, part, submission)
            window.append((start, request))
            start += len(part)
            while len(window) >= UNANSWERED:
                received.add(link, *window.popleft())
            if received.errors:
                break
        while window:
            received.add(link, *window.popleft())
    finally:
        for _, request in window:  # interrupted: nobody will ask for these answers
            link.abandon(request)
    if received.errors:
        raise _refused(link, received, order, key)
    return _tasks(received.entries, order.specs)


class Received(msgspec.Struct, frozen=True):
    """Answers so far; `fresh` are the tasks that this very call brought about."""

    entries: list[Entry]
    fresh: list[Entry]
    errors: list[SimenvError]

    def add(self, link: Link, start: int, request: Request) -> None:
        answer = link.claim(request)
        for found in answer:
            if isinstance(found, Refusal):
                self.errors.append(refusals.one(found, start))
            else:
                self.entries.append(found)
                if not request.repeated:
                    self.fresh.append(found)


def _tasks(entries: Sequence[Entry], specs: Sequence[TaskSpec]) -> list[Task]:
    """One for each binding."""
    tasks: list[Task] = []
    for entry, spec in zip(entries, specs, strict=True):
        if spec.count == 1:
            tasks.append(Task(entry))
        else:
            tasks += [Task(entry, row) for row in range(spec.count)]
    return tasks


def chunks(specs: Sequence[TaskSpec]) -> Iterator[list[TaskSpec]]:
    """At most CLIENT_MESSAGE_TASKS and, but for a single one, CLIENT_MESSAGE_BYTES each."""
    part: list[TaskSpec] = []
    size = 0
    for spec in specs:
        more = len(spec.program) + len(spec.bindings) + SPEC_BYTES
        if part and (len(part) >= CLIENT_MESSAGE_TASKS or size + more > CLIENT_MESSAGE_BYTES):
            yield part
            part, size = [], 0
        part.append(spec)
        size += more
    if part:
        yield part


def _refused(link: Link, received: Received, order: Order, key: str | None) -> SimenvError:
    if order.single:
        received.errors[0].index = -1
    firsts = [0, *accumulate(spec.count for spec in order.specs)]  # a caller's items are bindings
    refused = sum(order.specs[e.index].count for e in received.errors if e.index >= 0)
    for each in received.errors:
        each.index = firsts[each.index] if each.index >= 0 else -1
    error = refusals.error_of_batch(received.errors, firsts[-1], refused)
    if received.fresh:
        link.cancel([entry.number for entry in received.fresh])
        if key is not None:
            words = f"the key {key!r} now stands for cancelled tasks: take another"
            error.hint = f"{error.hint}; {words}" if error.hint else words
    return error
